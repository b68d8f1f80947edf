/* SPDX-License-Identifier: GPL-2.0-only */
/* Sockets older than the agent. An iterator walks the sockets of the agent's network namespace, once, after attaching;
 * which of them are ours to touch, the agent read through sock_diag and put into `adoptable` by cookie. So nothing of
 * the kernel's own structures is looked into. Loading an iterator needs CAP_PERFMON; without it there is none. */

/* The iterator's context (net/ipv4/tcp_ipv4.c, struct bpf_iter__tcp): each member takes 8 bytes. */
struct tcp_iteration {
    u64 meta;
    void *socket;
    u64 uid;
};

/* What TCP_LISTEN_CB does for younger ones: keep SYNs, and have the SYN-ACK's options asked for (6.12). */
static __always_inline void adopt_listener(void *socket)
{
    union stack_int zero = {}, number = {};
    struct control *settings = control.lookup(&zero.value);

    if (!settings)
        return;
    if (keeps_syns(settings)) {
        number.word = pair(1, 0);
        if (!has_saved_syns(socket) &&
            bpf_setsockopt(socket, SOL_TCP, OPTION_SAVE_SYN, &number.value, sizeof(number.value))) {
            count(COUNTER_UNADOPTED_REFUSED);
            return;
        }
    }
    number.word = 0;
    if (writes_synacks(settings) &&
        !bpf_getsockopt(socket, SOL_TCP, OPTION_CALLBACKS, &number.value, sizeof(number.value))) {
        number.word = pair(number.value | BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG, 0);
        bpf_setsockopt(socket, SOL_TCP, OPTION_CALLBACKS, &number.value, sizeof(number.value));
    }
    count(COUNTER_ADOPTED_LISTENER);
}

/* An open connection is observed from its next sign of life on; see begin_adopted(). */
static __always_inline void adopt_connection(void *socket)
{
    struct connection *connection;
    union stack_int flags = {};

    if (bpf_getsockopt(socket, SOL_TCP, OPTION_CALLBACKS, &flags.value, sizeof(flags.value))) {
        count(COUNTER_UNADOPTED_OLD_KERNEL);
        return;
    }
    connection = connections.sk_storage_get(socket, 0, BPF_SK_STORAGE_GET_F_CREATE);
    if (!connection) {
        count(COUNTER_UNADOPTED_NO_STORAGE);
        return;
    }
    if (connection->observed | connection->adopted)
        return;
    flags.word = pair(flags.value | OBSERVED_CALLBACKS, 0);
    if (bpf_setsockopt(socket, SOL_TCP, OPTION_CALLBACKS, &flags.value, sizeof(flags.value))) {
        count(COUNTER_UNADOPTED_REFUSED);
        return;
    }
    connection->adopted = 1;
    count(COUNTER_ADOPTED_CONNECTION);
}

/* BCC takes the kind of iterator from the name. */
int bpf_iter__tcp(struct tcp_iteration *step)
{
    void *socket = step->socket;
    u64 cookie;
    u32 *kind;

    if (!socket)
        return 0;
    cookie = bpf_get_socket_cookie(socket);
    kind = adoptable.lookup(&cookie);
    if (!kind)
        return 0;
    if (*kind == ADOPT_LISTENER)
        adopt_listener(socket);
    else
        adopt_connection(socket);
    return 0;
}

/* The first sign of life of an adopted connection: counts begin here. It is never compared and nothing is applied to
 * it, so it is neither opened nor closed in the sums, has no first window, and its last transfer has no known begin. */
static __always_inline void begin_adopted(struct bpf_sock_ops *skops, struct connection *connection)
{
    u64 now = bpf_ktime_get_ns();
    u32 remote[4], local[4];
    struct control *settings;
    struct policy *policy;
    union stack_key lookup;
    union stack_int zero = {};

    read_addresses(skops, remote, local);
    make_key(&lookup, 128, remote);
    settings = control.lookup(&zero.value);
    policy = policies.lookup(&lookup.key);
    if (!settings || !policy || policy->excluded || policy->group >= GROUPS) {
        connection->adopted = 0;
        count(COUNTER_LEFT_EXCLUDED);
        return;
    }
    mask_address(connection->key.address, remote, policy->path_bits);
    connection->key.path_bits = policy->path_bits;
    connection->key.group = policy->group;
    connection->key.generation = settings->generation;
    connection->key.treatment = TREATMENT_OBSERVED;
    connection->opened_counted = 1;
    connection->sent_ended = 1;
    connection->received_ended = 1;
    connection->received_in_fin_wait2 = skops->bytes_received;
    connection->established_ns = now;
    connection->transfer_began_ns = now;
    note_event(skops, connection, now);
    connection->transfer_base_bytes = sent_bytes(skops, connection);
    connection->flushed_ns = now;
    connection->flushed_sent_bytes = connection->transfer_base_bytes;
    connection->flushed_received_bytes = received_bytes(skops, connection);
    connection->flushed_sent_segments = skops->data_segs_out;
    connection->flushed_received_segments = skops->data_segs_in;
    connection->flushed_retransmitted = retransmitted_segments(skops, connection);
    connection->flushed_pure_acks = skops->segs_out - connection->flushed_sent_segments;
    connection->observed = 1;
}
