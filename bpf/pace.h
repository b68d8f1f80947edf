/* SPDX-License-Identifier: GPL-2.0-only */
/* Pacing: SO_MAX_PACING_RATE, which switches the kernel's own pacing on (net/core/sock.c). */

/* Whether the rate is another one; where the kernel does not tell it to BPF (before 6.1) it may be. */
static __always_inline int rate_differs(struct bpf_sock_ops *skops, u32 bytes_a_second)
{
    union stack_int rate = {};

    return bpf_getsockopt(skops, SOL_SOCKET_LEVEL, OPTION_MAX_PACING_RATE, &rate.value, sizeof(rate.value)) ||
           (u32)rate.value != bytes_a_second;
}

/* Whether the application set a rate. */
static __always_inline int has_own_rate(struct bpf_sock_ops *skops)
{
    return rate_differs(skops, RATE_UNLIMITED);
}

/* Returns an error as setsockopt(2) does. */
static __always_inline int set_rate(struct bpf_sock_ops *skops, u32 bytes_a_second)
{
    union stack_int rate = {.word = pair(bytes_a_second, 0)};

    return bpf_setsockopt(skops, SOL_SOCKET_LEVEL, OPTION_MAX_PACING_RATE, &rate.value, sizeof(rate.value));
}

static __always_inline u32 bounded_rate(u64 rate)
{
    if (rate < RATE_MIN)
        return RATE_MIN;
    return rate > RATE_MAX ? RATE_MAX : rate;
}

static __always_inline u32 rate_of_first_window(u32 full_rate)
{
    return bounded_rate(full_rate - full_rate / RATE_LEFT);
}

static __always_inline u32 rate_of_probe(u32 full_rate)
{
    return bounded_rate((u64)full_rate + full_rate / RATE_PROBE_MORE);
}

/* An application that has set a rate meanwhile keeps it. */
static __always_inline void pace_at_full_rate(struct bpf_sock_ops *skops, struct connection *connection, u32 present)
{
    u32 full_rate = connection->full_rate;

    connection->full_rate = 0;
    if (!rate_differs(skops, present))
        set_rate(skops, full_rate);
}

static __always_inline void pace_after_first_window(struct bpf_sock_ops *skops, struct connection *connection)
{
    if (!connection->full_rate || connection->probes_rate || skops->bytes_acked < connection->first_window_end)
        return;
    pace_at_full_rate(skops, connection, rate_of_first_window(connection->full_rate));
}

static __always_inline void pace_after_lossy_probe(struct bpf_sock_ops *skops, struct connection *connection)
{
    if (connection->full_rate && connection->probes_rate)
        pace_at_full_rate(skops, connection, rate_of_probe(connection->full_rate));
}

/* Who asks for fewer ACKs sends more segments for each; paced, they do not overflow a short queue. From the first loss
 * on: a path that loses nothing would only be slower. Any rate switches pacing on, after which the limit goes again. */
static __always_inline void pace_after_loss(struct bpf_sock_ops *skops, struct connection *connection)
{
    if (!connection->paces_after_loss)
        return;
    connection->paces_after_loss = 0;
    if (has_own_rate(skops) || set_rate(skops, RATE_MAX))
        return;
    set_rate(skops, RATE_UNLIMITED);
}
