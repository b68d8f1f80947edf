/* SPDX-License-Identifier: GPL-2.0-only */
/* Pacing: who asks for fewer ACKs sends more segments for each; paced, they do not overflow a short queue.
 *
 * From the first loss on: a path that loses nothing would only be slower. Any rate switches the kernel's own pacing on
 * (net/core/sock.c), after which the limit goes again. A rate of the application's stays, and where the kernel does not
 * tell it to BPF (before 6.1) nothing is touched. */

static __always_inline void pace_after_loss(struct bpf_sock_ops *skops, struct connection *connection)
{
    union stack_int rate = {};

    if (!connection->paces_after_loss)
        return;
    connection->paces_after_loss = 0;
    if (bpf_getsockopt(skops, SOL_SOCKET_LEVEL, OPTION_MAX_PACING_RATE, &rate.value, sizeof(rate.value)))
        return;
    if ((u32)rate.value != PACING_UNLIMITED)
        return;
    rate.word = pair(PACING_ENOUGH, 0);
    if (bpf_setsockopt(skops, SOL_SOCKET_LEVEL, OPTION_MAX_PACING_RATE, &rate.value, sizeof(rate.value)))
        return;
    rate.word = pair(PACING_UNLIMITED, 0);
    bpf_setsockopt(skops, SOL_SOCKET_LEVEL, OPTION_MAX_PACING_RATE, &rate.value, sizeof(rate.value));
}
