/* SPDX-License-Identifier: GPL-2.0-only */
/* The peer's clock, as the timestamps on its segments tell it (RFC 7323). It says when the last byte arrived there, and
 * ours only when the ACK got back: late behind an upload, or in a bunch with those before it. Kernels count milliseconds
 * (include/net/tcp.h, TCP_TS_HZ). RFC 7323 lets others count from microseconds to seconds, and a peer may lie: what is
 * not about the same by both clocks is not believed.
 * Old verifiers find the programs too large with it, without CAP_PERFMON; then it is left out (agent/bcc_child.py). */

union timestamps_option {
    u64 words[2];
    struct {
        u8 kind;
        u8 length;
        u8 value[8]; /* the sender's clock, and ours as it saw it last; not aligned */
    };
};

/* What this segment says; returns whether it says anything. */
static __always_inline int read_remote_clock(struct bpf_sock_ops *skops, u32 *clock_ms)
{
    union timestamps_option option;

    option.words[0] = bpf_htonll((u64)OPTION_TIMESTAMPS_KIND << 56);
    option.words[1] = 0;
    if (bpf_load_hdr_opt(skops, &option, sizeof(option), 0) != OPTION_TIMESTAMPS_LENGTH)
        return 0;
    *clock_ms = bpf_ntohll(option.words[0]) >> 16;
    return 1;
}

/* The segment that ends the handshake. */
static __always_inline void begin_remote_clock(struct bpf_sock_ops *skops, struct connection *connection)
{
    u32 clock_ms;

    if (REMOTE_CLOCK && read_remote_clock(skops, &clock_ms)) {
        connection->remote_began_ms = connection->remote_ended_ms = clock_ms;
        connection->remote_clock = CLOCK_BEGAN;
    }
}

/* Whether the present transfer is all there was since the connection began: what began after a pause, or is a piece,
 * began at an unknown time of the peer's. */
static __always_inline int is_first_transfer(const struct connection *connection)
{
    return !connection->pieces && connection->transfer_began_ns == connection->established_ns;
}

/* Our FIN has been written, so the next ACKs may be the last ones. Where another program has all packets shown already,
 * the flag is that one's, to keep or to clear. */
static __always_inline void ask_remote_clock(struct bpf_sock_ops *skops, struct connection *connection)
{
    u32 flags = skops->bpf_sock_ops_cb_flags;

    if (!REMOTE_CLOCK || connection->remote_clock != CLOCK_BEGAN || !is_first_transfer(connection) ||
        (flags & BPF_SOCK_OPS_PARSE_ALL_HDR_OPT_CB_FLAG))
        return;
    connection->remote_clock = CLOCK_ASKED;
    bpf_sock_ops_cb_flags_set(skops, flags | BPF_SOCK_OPS_PARSE_ALL_HDR_OPT_CB_FLAG);
}

/* What the last ACK acknowledged is known once it was processed: by the next one, or at the end. One byte is the FIN, which
 * the congestion window may have held back. */
static __always_inline void believe_last_ack(struct bpf_sock_ops *skops, struct connection *connection)
{
    if ((s32)(skops->snd_una - connection->remote_una) > 1)
        connection->remote_ended_ms = connection->remote_ack_ms;
}

/* PARSE_HDR_OPT_CB, once asked: every ACK before it is processed, as none says that it is the last. */
static __always_inline void note_remote_clock(struct bpf_sock_ops *skops, struct connection *connection)
{
    u32 clock_ms;

    if (!REMOTE_CLOCK || !read_remote_clock(skops, &clock_ms))
        return;
    if (connection->remote_clock == CLOCK_TOLD)
        believe_last_ack(skops, connection);
    connection->remote_clock = CLOCK_TOLD;
    connection->remote_ack_ms = clock_ms;
    connection->remote_una = skops->snd_una;
}

/* A half-closed connection may go on receiving for long. */
static __always_inline void leave_remote_clock(struct bpf_sock_ops *skops, struct connection *connection)
{
    if (!REMOTE_CLOCK || connection->remote_clock < CLOCK_ASKED)
        return;
    connection->remote_clock = 0;
    bpf_sock_ops_cb_flags_set(skops, skops->bpf_sock_ops_cb_flags & ~BPF_SOCK_OPS_PARSE_ALL_HDR_OPT_CB_FLAG);
}

/* How long a transfer of `ours_us` took by the peer's clock, if that tells, is to be believed and says something else. */
static __always_inline void compare_clocks(struct bpf_sock_ops *skops, struct connection *connection, u64 ours_us)
{
    u64 theirs_us;

    if (!REMOTE_CLOCK || connection->remote_clock != CLOCK_TOLD || !is_first_transfer(connection))
        return;
    believe_last_ack(skops, connection);
    theirs_us = (u64)(u32)(connection->remote_ended_ms - connection->remote_began_ms) * 1000;
    if (theirs_us > 2 * ours_us || theirs_us < ours_us / 2)
        return;
    /* Where both agree to its resolution, ours has the finer one. */
    if (theirs_us + CLOCK_STEP_US <= ours_us || theirs_us >= ours_us + CLOCK_STEP_US)
        connection->remote_us = theirs_us;
}
