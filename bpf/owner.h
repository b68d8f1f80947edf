/* SPDX-License-Identifier: GPL-2.0-only */
/* Who chose? An application's own choice always wins. */

/* cgroup/setsockopt: remember what the application sets on its socket. */
static __always_inline void remember_choice(struct bpf_sockopt *call)
{
    struct bpf_sock *sk = call->sk;
    struct connection *connection;
    union stack_int zero = {}, yes = {.word = pair(1, 0)};

    if (call->level != SOL_TCP || !sk)
        return;
    if (call->optname != OPTION_CONGESTION && call->optname != OPTION_USER_TIMEOUT)
        return;
    if (sk->protocol == PROTOCOL_MPTCP)
        mptcp_choices.update(&zero.value, &yes.value);
    connection = connections.sk_storage_get(sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
    if (!connection)
        return;
    /* Each field by an address of its own: a chosen address is pointer arithmetic, forbidden without CAP_PERFMON. */
    connection->chose_user_timeout |= call->optname == OPTION_USER_TIMEOUT;
    connection->chose_congestion |= call->optname == OPTION_CONGESTION;
    /* Chosen in the middle of a connection, it ends our part in the comparison. */
    if (connection->chose_congestion && connection->key.arms[DIMENSION_CONGESTION] != ARM_GRANTED)
        connection->key.arms[DIMENSION_CONGESTION] = ARM_NONE;
}

/* What accepted sockets need of their listener before they are ours: the SYN's options kept, */
static __always_inline int keeps_syns(const struct control *settings)
{
    return settings->honours | settings->extends;
}

/* and a word in the SYN-ACK. */
static __always_inline int writes_synacks(const struct control *settings)
{
    return settings->extends | (settings->honours && settings->thinning_max);
}

/* Whether the application has SYNs kept, in a way of its own: with TCP_SAVE_SYN 2 the link layer's header too. Kernels
 * before 6.1 cannot tell. */
static __always_inline int has_saved_syns(void *context)
{
    union stack_int found = {};

    return !bpf_getsockopt(context, SOL_TCP, OPTION_SAVE_SYN, &found.value, sizeof(found.value)) && found.value;
}

/* The kernel asks for options to write from now on, as it may for another program. Without branches: the bit is told
 * apart by a shift. */
static __always_inline void ask_for_options(struct bpf_sock_ops *skops, struct connection *connection)
{
    u32 flags = skops->bpf_sock_ops_cb_flags;

    connection->writes |= !(flags & BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG);
    bpf_sock_ops_cb_flags_set(skops, flags | BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG);
}

/* The callbacks' flags, without what ask_for_options() added. */
static __always_inline u32 flags_without_ours(struct bpf_sock_ops *skops, struct connection *connection)
{
    u32 ours = connection->writes * BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG;

    connection->writes = 0;
    return skops->bpf_sock_ops_cb_flags & ~ours;
}

/* A listener that began under our eyes has a storage; what it did not choose was not chosen. */
static __always_inline void remember_listener(struct bpf_sock_ops *skops)
{
    struct bpf_sock *sk = skops->sk;
    struct connection *connection;
    struct control *settings;
    union stack_int zero = {}, yes = {.word = pair(1, 0)};

    if (!sk)
        return;
    connection = connections.sk_storage_get(sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
    if (!connection)
        return;
    settings = control.lookup(&zero.value);
    if (!settings)
        return;
    if (keeps_syns(settings) && !has_saved_syns(skops))
        bpf_setsockopt(skops, SOL_TCP, OPTION_SAVE_SYN, &yes.value, sizeof(yes.value));
    if (writes_synacks(settings))
        ask_for_options(skops, connection);
}

/* Whether a socket has another congestion control than the host's default: then somebody chose it where we could not see,
 * such as on a listener older than the agent. */
static __always_inline int differs_from_host(struct bpf_sock_ops *skops, const struct control *settings)
{
    u64 name[CONGESTION_NAME / 8] = {}, host[CONGESTION_NAME / 8];

    if (bpf_getsockopt(skops, SOL_TCP, OPTION_CONGESTION, name, sizeof(name)))
        return 1;
    __builtin_memcpy(host, settings->host_congestion, sizeof(host));
    return name[0] != host[0] || name[1] != host[1];
}

/* Whether the socket has a user timeout already, from a listener older than the agent. Kernels before 6.1 cannot tell;
 * then it counts as chosen. */
static __always_inline int has_user_timeout(struct bpf_sock_ops *skops)
{
    union stack_int found = {};

    return bpf_getsockopt(skops, SOL_TCP, OPTION_USER_TIMEOUT, &found.value, sizeof(found.value)) || found.value;
}

/* An application that chooses on an MPTCP socket does not name the TCP sockets below it, and nothing leads from one to
 * the other. Once that has happened, every connection is asked. */
static __always_inline int chosen_on_mptcp(void)
{
    union stack_int zero = {};
    u32 *happened = mptcp_choices.lookup(&zero.value);

    return happened && *happened;
}
