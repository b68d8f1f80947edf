/* SPDX-License-Identifier: GPL-2.0-only */
/* All memory of the kernel side. POLICY_ENTRIES and ROW_ENTRIES come from the configuration. */

BPF_F_TABLE("lpm_trie", struct prefix_key, struct policy, policies, POLICY_ENTRIES, BPF_F_NO_PREALLOC);
BPF_ARRAY(arms, struct arm, DIMENSIONS *ARMS);
BPF_ARRAY(control, struct control, 1);

/* Two maps in turn: connections write one while the agent drains the other, so that no count is lost between reading
 * and deleting, memory does not grow with the number of processors, and the agent reads only what changed.
 * A full map refuses new rows, which is counted; an LRU map would drop old ones in silence. */
BPF_HASH(rows_a, struct row_key, struct row, ROW_ENTRIES);
BPF_HASH(rows_b, struct row_key, struct row, ROW_ENTRIES);
BPF_ARRAY(empty_row, struct row, 1); /* too big for the stack */

/* The options: what is sent, whose requests are granted, what is known of paths that lose them. */
BPF_ARRAY(sends, struct sends, GROUPS);
BPF_F_TABLE("lpm_trie", struct prefix_key, u32, honoured, HONOURED_ENTRIES, BPF_F_NO_PREALLOC);
BPF_ARRAY(algorithms, struct arm, ALGORITHMS); /* value: granted */
BPF_TABLE("lru_hash", struct prefix_key, struct spared, spared_paths, SPARED_PATHS);
BPF_PERCPU_ARRAY(grants, struct bucket, 1);
BPF_PERCPU_ARRAY(extensions, u64, EXTENSIONS *OUTCOME_ROOM);

BPF_PERCPU_ARRAY(rtt, struct rtt_histogram, GROUPS);
BPF_PERCPU_ARRAY(counters, u64, COUNTERS);

/* CLONE: an accepted socket starts with a copy of its listener's. One storage for everything, because creating it is the
 * dearest part of a short connection. */
BPF_F_TABLE("sk_storage", int, struct connection, connections, 0, BPF_F_NO_PREALLOC | BPF_F_CLONE);

/* Whether an application chose something on an MPTCP socket. */
BPF_ARRAY(mptcp_choices, u32, 1);

/* Sockets older than the agent that may be adopted, by cookie; filled for a walk over them and emptied after it. */
BPF_F_TABLE("hash", u64, u32, adoptable, ADOPT_ENTRIES, BPF_F_NO_PREALLOC);
