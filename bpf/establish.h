/* SPDX-License-Identifier: GPL-2.0-only */
/* A connection begins: find its path, apply, and start to observe. */

static __always_inline void establish(struct bpf_sock_ops *skops, u8 side)
{
    struct bpf_sock *sk = skops->sk;
    struct prefix_key lookup = {.bits = 128}, remote;
    struct connection *connection;
    struct control *settings;
    struct policy *policy;
    u64 now = bpf_ktime_get_ns();
    u32 local[4];
    int zero = 0;

    read_addresses(skops, lookup.address, local);
    if (is_local(lookup.address, local)) {
        count(COUNTER_LEFT_LOOPBACK);
        return;
    }
    settings = control.lookup(&zero);
    policy = policies.lookup(&lookup);
    if (!settings || !policy || policy->excluded || policy->group >= GROUPS) {
        count(COUNTER_LEFT_EXCLUDED);
        return;
    }
    if (!sk)
        return;
    connection = connections.sk_storage_get(sk, 0, 0);
    if (!connection) {
        connection = connections.sk_storage_get(sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
        if (!connection) {
            count(COUNTER_LOST_NO_STORAGE);
            return;
        }
        if (side == SIDE_PASSIVE)
            connection->chose_congestion = differs_from_host(skops, settings);
    }

    remote = lookup;
    mask_address(lookup.address, policy->path_bits);
    __builtin_memcpy(connection->key.address, lookup.address, sizeof(lookup.address));
    connection->key.path_bits = policy->path_bits;
    connection->key.group = policy->group;
    connection->key.generation = settings->generation;
    connection->key.side = side;
    connection->syn_acknowledged = side == SIDE_ACTIVE;
    connection->observed = 1;

    apply(skops, settings, policy, connection, now);
    if (settings->extends | settings->honours) {
        connection->handshake_retransmitted = skops->total_retrans;
        if (settings->lease_until_ns >= now && !settings->observe_only)
            extend(skops, settings, policy, connection, &remote, side, now);
    }
    observe_established(skops, connection, now);
}
