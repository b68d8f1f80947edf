/* SPDX-License-Identifier: GPL-2.0-only */
/* How long an ACK may wait: a fraction of the RTT, which moves; and what the peer says of its own ACKs. */

static __always_inline u32 within(u32 value, u32 least, u32 most)
{
    if (value < least)
        return least;
    return value > most ? most : value;
}

static __always_inline u32 ack_delay_us(struct bpf_sock_ops *skops, const struct control *settings, u8 divisor)
{
    return within((skops->srtt_us >> 3) / divisor, settings->ack_delay_min_us, ACK_DELAY_MAX_US);
}

static __always_inline int set_ack_delay(struct bpf_sock_ops *skops, struct connection *connection, u8 divisor,
                                         u32 delay_us)
{
    union stack_int delay = {.word = pair(delay_us, 0)};

    if (bpf_setsockopt(skops, SOL_TCP, TCP_BPF_DELACK_MAX, &delay.value, sizeof(delay.value)))
        return 0;
    connection->ack_divisor = divisor;
    connection->ack_delay_us = delay_us;
    return 1;
}

/* At most as many segments an ACK as the configuration allows; thin.h has the other limits. */
static __always_inline void set_thinning(const struct control *settings, struct connection *connection, u8 segments,
                                         u8 divisor)
{
    if (segments > settings->thinning_max)
        segments = settings->thinning_max;
    connection->thinning.segments = segments;
    connection->thinning.fewer = 0; /* it is less than `segments`, and these may have become fewer */
    connection->thinning.divisor = divisor < THIN_DIVISOR_MIN ? THIN_DIVISOR_MIN : divisor;
}

/* Once a round: the RTT may have moved. The RTT of a side that only receives is that of its requests. */
static __always_inline void keep_ack_delay(struct bpf_sock_ops *skops, struct connection *connection)
{
    struct control *settings;
    union stack_int zero = {};
    u32 delay_us, was = connection->ack_delay_us;
    u8 divisor = connection->ack_divisor;

    if (!divisor)
        return;
    settings = control.lookup(&zero.value);
    if (!settings)
        return;
    delay_us = ack_delay_us(skops, settings, divisor);
    if (within(delay_us, was - was / ACK_DELAY_DRIFT, was + was / ACK_DELAY_DRIFT) == delay_us)
        return;
    if (set_ack_delay(skops, connection, divisor, delay_us))
        connection->due |= connection->announces;
}

/* The peer says that its ACKs wait no longer than this: no need to give them the kernel's 200 ms. */
static __always_inline int believe_ack_delay(struct bpf_sock_ops *skops, const struct control *settings, u32 delay_ms)
{
    union stack_int least;
    u32 delay_us = delay_ms > RTO_MIN_MOST_US / 1000 ? RTO_MIN_MOST_US : delay_ms * 1000;
    u32 tick = settings->ack_delay_min_us; /* what the kernel takes at least, and the timer's grain */

    least.word = pair(within(delay_us + tick, RTO_MIN_LEAST_US, RTO_MIN_MOST_US), 0);
    return bpf_setsockopt(skops, SOL_TCP, TCP_BPF_RTO_MIN, &least.value, sizeof(least.value)) ? OUTCOME_REFUSED_KERNEL
                                                                                             : OUTCOME_GRANTED;
}
