/* SPDX-License-Identifier: GPL-2.0-only */
/* Who chose? An application's own choice always wins. */

/* cgroup/setsockopt: remember what the application sets on its socket. */
static __always_inline void remember_choice(struct bpf_sockopt *call)
{
    struct bpf_sock *sk = call->sk;
    struct mark *mark;

    if (call->level != SOL_TCP || !sk)
        return;
    if (call->optname != OPTION_CONGESTION && call->optname != OPTION_USER_TIMEOUT)
        return;
    mark = marks.sk_storage_get(sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
    if (!mark)
        return;
    if (call->optname == OPTION_CONGESTION)
        mark->chose_congestion = 1;
    else
        mark->chose_user_timeout = 1;
}

/* A listener that began under our eyes carries a mark; what it did not choose was not chosen. */
static __always_inline void remember_listener(struct bpf_sock_ops *skops)
{
    struct bpf_sock *sk = skops->sk;

    if (sk)
        marks.sk_storage_get(sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
}

/* Whether the application chose this socket's congestion control. A socket without a mark comes from a listener
 * older than the agent: there, anything but the host's default counts as chosen. */
static __always_inline int chose_own_congestion(struct bpf_sock_ops *skops, const struct control *settings)
{
    struct bpf_sock *sk = skops->sk;
    char name[CONGESTION_NAME] = {};
    struct mark *mark;

    if (!sk)
        return 1;
    mark = marks.sk_storage_get(sk, 0, 0);
    if (mark)
        return mark->chose_congestion;
    if (skops->op == BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB)
        return 0;
    if (bpf_getsockopt(skops, SOL_TCP, OPTION_CONGESTION, name, sizeof(name)))
        return 1;
#pragma unroll
    for (int i = 0; i < CONGESTION_NAME; i++) {
        if (name[i] != settings->host_congestion[i])
            return 1;
        if (!name[i])
            break;
    }
    return 0;
}
