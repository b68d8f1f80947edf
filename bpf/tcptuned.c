/* SPDX-License-Identifier: GPL-2.0-only */
/* The programs. The loader puts the included files into one text, because BCC rewrites map calls only there. */

#include "consts.h"
#include "structs.h"
#include "maps.h"
#include "stack.h"
#include "count.h"
#include "logarithm.h"
#include "address.h"
#include "owner.h"
#include "delay.h"
#include "pace.h"
#include "apply.h"
#include "row.h"
#include "clock.h"
#include "transfer.h"
#include "observe.h"
#include "wire.h"
#include "timeout.h"
#include "send.h"
#include "grant.h"
#include "establish.h"
#include "thin.h"
#include "adopt.h"

/* A round trip is over, something was lost, or the state is another: what they tell the row is large and inlined once, as
 * a start waits for the compiler. It goes by way of memory, so that the verifier does not go through it for every value. */
static __always_inline void observe_progress(struct bpf_sock_ops *skops, struct connection *connection)
{
    u64 now = bpf_ktime_get_ns();
    u32 measured = measured_us(skops);

    switch (skops->op) {
    case BPF_SOCK_OPS_RTT_CB:
        connection->told = observe_round(skops, connection, now, measured);
        break;
    case BPF_SOCK_OPS_STATE_CB:
        connection->told = observe_state(skops, connection, now);
        break;
    case BPF_SOCK_OPS_RETRANS_CB:
        connection->told = observe_retransmission(skops, connection, now);
        break;
    default:
        connection->told = observe_timeout(skops, connection, now);
    }
    asm volatile("" ::: "memory");
    if (connection->told)
        tell(skops, connection, now);
    switch (skops->op) {
    case BPF_SOCK_OPS_RTT_CB:
        begin_next(skops, connection, now, measured);
        pace_after_first_window(skops, connection);
        keep_ack_delay(skops, connection);
        send_changed(skops, connection);
        break;
    case BPF_SOCK_OPS_STATE_CB:
        if (skops->args[1] == STATE_FIN_WAIT2)
            leave_remote_clock(skops, connection);
        else if (skops->args[1] == STATE_CLOSE)
            forget_connection(connection);
        break;
    case BPF_SOCK_OPS_RETRANS_CB:
        begin_lost(skops, connection, now);
        pace_after_loss(skops, connection);
        pace_after_lossy_probe(skops, connection);
        break;
    default:
        begin_lost(skops, connection, now);
    }
}

/* What happens to an open connection. */
static __always_inline void observe(struct bpf_sock_ops *skops)
{
    struct bpf_sock *sk = skops->sk;
    struct connection *connection = sk ? connections.sk_storage_get(sk, 0, 0) : NULL;

    if (!connection)
        return;
    if (!connection->observed) {
        if (!connection->adopted)
            return;
        begin_adopted(skops, connection);
        if (skops->op == BPF_SOCK_OPS_STATE_CB && skops->args[1] == STATE_CLOSE)
            forget_connection(connection);
        return;
    }
    switch (skops->op) {
    case BPF_SOCK_OPS_RTT_CB:
    case BPF_SOCK_OPS_STATE_CB:
    case BPF_SOCK_OPS_RETRANS_CB:
    case BPF_SOCK_OPS_RTO_CB:
        observe_progress(skops, connection);
        break;
    case BPF_SOCK_OPS_PARSE_HDR_OPT_CB:
        /* Once we have sent a FIN, what the peer asks for changes nothing any more. */
        if (connection->remote_clock >= CLOCK_ASKED)
            note_remote_clock(skops, connection);
        else if (connection->extends)
            grant_later(skops, connection);
        break;
    }
}

/* sock_ops: the switch. `reply` is never touched, so that other programs' answers stand. */
int tcptuned_ops(struct bpf_sock_ops *skops)
{
    switch (skops->op) {
    case BPF_SOCK_OPS_TCP_CONNECT_CB:
        send_connect(skops);
        break;
    case BPF_SOCK_OPS_HDR_OPT_LEN_CB:
        send_length(skops);
        break;
    case BPF_SOCK_OPS_WRITE_HDR_OPT_CB:
        send_write(skops);
        break;
    case BPF_SOCK_OPS_TCP_LISTEN_CB:
        remember_listener(skops);
        break;
    /* Twice, as which side it is is asked again and again; see extended(). */
    case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
        establish(skops, SIDE_ACTIVE);
        break;
    case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
        establish(skops, SIDE_PASSIVE);
        break;
    case BPF_SOCK_OPS_RTT_CB:
    case BPF_SOCK_OPS_RETRANS_CB:
    case BPF_SOCK_OPS_RTO_CB:
    case BPF_SOCK_OPS_STATE_CB:
    case BPF_SOCK_OPS_PARSE_HDR_OPT_CB:
        observe(skops);
        break;
    }
    return 1;
}

/* cgroup/setsockopt: only looks. optlen 0 makes the kernel use the application's own buffer, so that buffers beyond one
 * page, which it refuses otherwise, go on working (kernel/bpf/cgroup.c). Shorter ones are left as they are: another
 * program may have written a value into them, or -1, which says that it did itself what was asked for. */
int tcptuned_choice(struct bpf_sockopt *call)
{
    remember_choice(call);
    if (call->optlen > PAGE_LEAST)
        call->optlen = 0;
    return 1;
}

/* cgroup/skb, both ways; attached only where ACKs may be thinned, as they run for every packet. */
int tcptuned_arrival(struct __sk_buff *skb)
{
    thin_arrival(skb);
    return 1;
}

int tcptuned_thin(struct __sk_buff *skb)
{
    return thin(skb);
}
