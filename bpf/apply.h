/* SPDX-License-Identifier: GPL-2.0-only */
/* Apply: draw one arm per dimension from the path's policy and set it on the socket. */

static __always_inline u8 draw(const struct policy *policy, int dimension)
{
    u64 point = bpf_get_prandom_u32() & 0xffff;
    u64 arm = 0;

    /* Counts the arms that end at or before the point; past them all it wraps to arm 0. */
#pragma unroll
    for (int i = 0; i < ARMS; i++)
        arm += less(policy->upto[dimension * ARMS + i], point + 1);
    return arm & (ARMS - 1);
}

static __always_inline const struct arm *meaning(int dimension, u8 arm)
{
    union stack_int index = {.word = pair(dimension * ARMS + (arm & (ARMS - 1)), 0)};

    return arms.lookup(&index.value);
}

static __always_inline int bounded_window(const struct control *settings, int segments)
{
    int limit = settings->initial_window_max;

    if (limit > INITIAL_WINDOW_MAX)
        limit = INITIAL_WINDOW_MAX;
    if (segments > limit)
        segments = limit;
    return segments < INITIAL_WINDOW_MIN ? INITIAL_WINDOW_MIN : segments;
}

/* Returns an error as setsockopt(2) does. */
static __always_inline int set_window(struct bpf_sock_ops *skops, int segments)
{
    union stack_int window = {.word = pair(segments, 0)};

    return bpf_setsockopt(skops, SOL_TCP, TCP_BPF_IW, &window.value, sizeof(window.value));
}

/* `paced` segments, if there are any, take the place of an arm: such a connection says nothing of those. */
static __always_inline u8 apply_initial_window(struct bpf_sock_ops *skops, const struct control *settings,
                                               const struct policy *policy, u8 paced)
{
    const struct arm *chosen;
    u8 arm = ARM_NONE;
    int segments = paced;

    /* Another window than the kernel's: a route's initcwnd, or a SYN was lost. Not ours to change. */
    if (skops->snd_cwnd != INITIAL_WINDOW_KERNEL) {
        count(COUNTER_LEFT_OWN_WINDOW);
        return ARM_NONE;
    }
    if (!paced) {
        arm = draw(policy, DIMENSION_INITIAL_WINDOW);
        chosen = meaning(DIMENSION_INITIAL_WINDOW, arm);
        if (!chosen || !chosen->value)
            return chosen ? arm : ARM_NONE;
        segments = chosen->value;
    }
    if (set_window(skops, bounded_window(settings, segments))) {
        count(COUNTER_FAILED_INITIAL_WINDOW);
        return ARM_NONE;
    }
    count(COUNTER_SET_INITIAL_WINDOW);
    return arm;
}

/* Sends no faster than the path was seen to deliver. Returns whether that worked. */
static __always_inline int apply_rate(struct bpf_sock_ops *skops, const struct policy *policy,
                                      struct connection *connection)
{
    u32 full_rate = bounded_rate(policy->rate);
    u32 rate = rate_of_first_window(full_rate);

    if (!policy->rate)
        return 0;
    connection->probes_rate = bpf_get_prandom_u32() % RATE_PROBES == 0;
    if (connection->probes_rate)
        rate = rate_of_probe(full_rate);
    if (set_rate(skops, rate)) {
        count(COUNTER_FAILED_RATE);
        return 0;
    }
    connection->full_rate = full_rate;
    connection->used = USED_PACED;
    count(COUNTER_SET_RATE);
    return 1;
}

/* Sets the algorithm of an arm; returns whether that worked. */
static __always_inline int set_congestion(struct bpf_sock_ops *skops, u8 arm)
{
    const struct arm *chosen = meaning(DIMENSION_CONGESTION, arm);
    char name[CONGESTION_NAME];

    if (!chosen)
        return 0;
    if (!chosen->congestion[0])
        return 1;
    __builtin_memcpy(name, chosen->congestion, sizeof(name));
    if (bpf_setsockopt(skops, SOL_TCP, OPTION_CONGESTION, name, sizeof(name))) {
        count(COUNTER_FAILED_CONGESTION);
        return 0;
    }
    count(COUNTER_SET_CONGESTION);
    return 1;
}

static __always_inline int is_paced(u8 arm)
{
    const struct arm *chosen = meaning(DIMENSION_CONGESTION, arm);

    return chosen && chosen->value == ARM_PACED;
}

/* The window comes before the algorithm: bbr reads it when it starts. */
static __always_inline void apply_window_and_congestion(struct bpf_sock_ops *skops, const struct control *settings,
                                                        const struct policy *policy, struct connection *connection)
{
    u8 *arms = connection->key.arms;
    u32 window = skops->snd_cwnd;
    u8 arm = connection->chose_congestion ? ARM_NONE : draw(policy, DIMENSION_CONGESTION);
    int paced;

    /* A rate that the application set would speak for those arms that it leaves alone: it counts for none. */
    if (policy->rate && has_own_rate(skops)) {
        count(COUNTER_LEFT_OWN_RATE);
        arm = ARM_NONE;
    }
    paced = arm != ARM_NONE && is_paced(arm);
    if (paced && !apply_rate(skops, policy, connection)) {
        arm = ARM_NONE;
        paced = 0;
    }
    arms[DIMENSION_INITIAL_WINDOW] = apply_initial_window(skops, settings, policy, paced ? policy->paced_window : 0);
    arms[DIMENSION_CONGESTION] = arm;
    if (arm == ARM_NONE || set_congestion(skops, arm))
        return;

    arms[DIMENSION_CONGESTION] = ARM_NONE;
    if (!paced)
        return;
    connection->full_rate = 0;
    set_rate(skops, RATE_UNLIMITED);
    if (skops->snd_cwnd != window)
        set_window(skops, window);
}

static __always_inline u8 apply_ack(struct bpf_sock_ops *skops, const struct control *settings,
                                    const struct policy *policy, struct connection *connection)
{
    const struct arm *chosen;
    u8 arm, divisor;

    arm = draw(policy, DIMENSION_ACK);
    chosen = meaning(DIMENSION_ACK, arm);
    if (!chosen || !chosen->value)
        return chosen ? arm : ARM_NONE;

    divisor = chosen->value;
    if (divisor && !set_ack_delay(skops, connection, divisor, ack_delay_us(skops, settings, divisor))) {
        count(COUNTER_FAILED_ACK);
        return ARM_NONE;
    }
    set_thinning(settings, connection, chosen->value >> ACK_THIN_SEGMENTS_SHIFT,
                 chosen->value >> ACK_THIN_DIVISOR_SHIFT);
    count(COUNTER_SET_ACK);
    return arm;
}

/* Whether anything may be applied now. */
static __always_inline int may_apply(const struct control *settings, u64 now)
{
    return settings->lease_until_ns >= now && !settings->observe_only;
}

/* A socket that had a connection before (connect(2) with AF_UNSPEC) still has the algorithm that was set for it, so it is
 * not compared; the other path's rate goes. */
static __always_inline void leave_used(struct bpf_sock_ops *skops, const struct connection *connection)
{
    count(COUNTER_LEFT_USED_SOCKET);
    if (connection->used == USED_PACED)
        set_rate(skops, RATE_UNLIMITED);
}

/* Fills treatment and arms of the connection's row key. */
static __always_inline void apply(struct bpf_sock_ops *skops, const struct control *settings,
                                  const struct policy *policy, struct connection *connection, u64 now)
{
    struct row_key *key = &connection->key;

    if (!may_apply(settings, now)) {
        count(COUNTER_LEFT_LEASE_LAPSED);
        key->treatment = TREATMENT_OBSERVED;
    } else if (connection->used) {
        leave_used(skops, connection);
        key->treatment = TREATMENT_OBSERVED;
    } else if ((bpf_get_prandom_u32() & 0xffff) < policy->holdout) {
        key->treatment = TREATMENT_HOLDOUT;
    } else {
        key->treatment = TREATMENT_APPLIED;
        connection->used = USED;
        apply_window_and_congestion(skops, settings, policy, connection);
        key->arms[DIMENSION_ACK] = apply_ack(skops, settings, policy, connection);
    }
    if (connection->chose_congestion) {
        count(COUNTER_LEFT_OWN_CONGESTION);
        key->arms[DIMENSION_CONGESTION] = ARM_NONE;
    }
}
