/* SPDX-License-Identifier: GPL-2.0-only */
/* A connection begins: find its path, apply, and start to observe. */

static __always_inline void establish(struct bpf_sock_ops *skops, u8 side)
{
    struct bpf_sock *sk = skops->sk;
    struct connection *connection;
    struct control *settings;
    struct policy *policy;
    u64 now = bpf_ktime_get_ns();
    u32 window = skops->snd_cwnd;
    u32 remote[4], local[4];
    union stack_key lookup;
    union stack_int zero = {};

    read_addresses(skops, remote, local);
    if (is_local(remote, local)) {
        count(COUNTER_LEFT_LOOPBACK);
        return;
    }
    make_key(&lookup, 128, remote);
    settings = control.lookup(&zero.value);
    policy = policies.lookup(&lookup.key);
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
        /* Its listener is older than the agent; options it was asked for as it was adopted. */
        if (side == SIDE_PASSIVE) {
            connection->chose_congestion = differs_from_host(skops, settings);
            connection->writes = !!writes_synacks(settings);
        }
        if (settings->extends | settings->honours)
            connection->chose_user_timeout = has_user_timeout(skops);
    }
    connection->controls_retransmitted = skops->total_retrans;
    begin_remote_clock(skops, connection);
    if (!connection->chose_congestion && chosen_on_mptcp())
        connection->chose_congestion = differs_from_host(skops, settings);

    mask_address(connection->key.address, remote, policy->path_bits);
    connection->key.path_bits = policy->path_bits;
    connection->key.group = policy->group;
    connection->key.generation = settings->generation;
    /* Where both ends connected, the kernel calls both passive; but their SYNs were acknowledged. */
    connection->syn_acknowledged = side == SIDE_ACTIVE || skops->bytes_acked;
    connection->key.side = connection->syn_acknowledged ? SIDE_ACTIVE : SIDE_PASSIVE;
    connection->transfer_min = policy->transfer_min;
    connection->observed = 1;

    apply(skops, settings, policy, connection, now);
    if ((settings->extends | settings->honours) && may_apply(settings, now))
        extend(skops, settings, policy, connection, remote, side, window, now);
    observe_established(skops, connection, now);
}
