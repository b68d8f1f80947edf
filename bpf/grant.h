/* SPDX-License-Identifier: GPL-2.0-only */
/* The side that is asked. A request is a hint from a stranger: only from networks that the configuration names, within
 * bounds, never against the application, and not more often than a client would. */

static __always_inline int is_honoured(const u32 remote[4])
{
    union stack_key key;
    u32 *found;

    make_key(&key, 128, remote);
    found = honoured.lookup(&key.key);
    return found && *found;
}

static __always_inline int take_grant(u64 now)
{
    union stack_int zero = {};
    struct bucket *bucket = grants.lookup(&zero.value);
    u64 earned;

    if (!bucket)
        return 0;
    earned = (now - bucket->filled_ns) * GRANTS_PER_SECOND / 1000000000;
    if (earned) {
        bucket->filled_ns = now;
        bucket->tokens += earned;
        if (bucket->tokens > GRANTS_PER_SECOND)
            bucket->tokens = GRANTS_PER_SECOND;
    }
    if (!bucket->tokens)
        return 0;
    bucket->tokens--;
    return 1;
}

static __always_inline int grant_congestion(struct bpf_sock_ops *skops, const struct connection *connection, u8 number)
{
    char name[CONGESTION_NAME];
    struct arm *algorithm;
    union stack_int index = {.word = pair(number, 0)};

    if (connection->chose_congestion)
        return OUTCOME_REFUSED_OWN_CHOICE;
    algorithm = algorithms.lookup(&index.value);
    if (!algorithm || !algorithm->value)
        return OUTCOME_REFUSED_ALGORITHM;
    if (number == ALGORITHM_DCTCP && !(skops->ecn_flags & ECN_NEGOTIATED))
        return OUTCOME_REFUSED_ALGORITHM;
    __builtin_memcpy(name, algorithm->congestion, sizeof(name));
    return bpf_setsockopt(skops, SOL_TCP, OPTION_CONGESTION, name, sizeof(name)) ? OUTCOME_REFUSED_KERNEL
                                                                                 : OUTCOME_GRANTED;
}

/* `window` is what the connection began with, before our arms. */
static __always_inline int grant_window(struct bpf_sock_ops *skops, const struct control *settings,
                                        const struct policy *policy, u8 asked, u32 window)
{
    int segments = asked;

    /* A route's initcwnd, or a SYN was lost. */
    if (window != INITIAL_WINDOW_KERNEL)
        return OUTCOME_REFUSED_OWN_CHOICE;
    if (policy->safe_window && segments > policy->safe_window)
        segments = policy->safe_window;
    return set_window(skops, bounded_window(settings, segments)) ? OUTCOME_REFUSED_KERNEL : OUTCOME_GRANTED;
}

/* The sender of the data asks for an ACK every so many segments or RTT / divisor. Fewer than the kernel's own are made by
 * thinning, where that is on; more by a shorter delay, as the kernel's every second segment cannot be changed. */
static __always_inline int grant_ack(struct bpf_sock_ops *skops, const struct control *settings,
                                     struct connection *connection, u8 segments, u8 divisor)
{
    if (!divisor)
        divisor = THIN_ACKS_PER_RTT;
    if (segments >= THIN_SEGMENTS_MIN) {
        if (!settings->thinning_max)
            return OUTCOME_REFUSED_OFF;
        set_thinning(settings, connection, segments, divisor);
    } else {
        if (!set_ack_delay(skops, connection, divisor, ack_delay_us(skops, settings, divisor)))
            return OUTCOME_REFUSED_KERNEL;
        connection->thinning.segments = 0;
    }
    connection->key.arms[DIMENSION_ACK] = ARM_GRANTED;
    return OUTCOME_GRANTED;
}

/* A connection begins, the controllers' arms are set: what the peer's SYN asks for takes precedence, and leaves the
 * connection out of the comparison in that dimension. */
static __always_inline void grant(struct bpf_sock_ops *skops, const struct control *settings,
                                  const struct policy *policy, struct connection *connection,
                                  const union request_option *option, const u32 remote[4], u8 side, u32 window,
                                  u64 now)
{
    union request_option asked = *option;
    int outcome, refused = 0, granted = 0;

    /* A server asks for nothing but ACKs. */
    if (side == SIDE_ACTIVE)
        asked.window = asked.congestion = 0;
    if (!asked.window && !asked.congestion && !asked.ack_segments)
        return;
    if (!is_honoured(remote))
        refused = OUTCOME_REFUSED_NETWORK;
    else if (!take_grant(now))
        refused = OUTCOME_REFUSED_RATE;

    if (asked.ack_segments) {
        outcome = refused ? refused
                          : grant_ack(skops, settings, connection, asked.ack_segments, asked.ack_divisor);
        count_extension(EXTENSION_ACK, outcome);
        granted |= outcome == OUTCOME_GRANTED;
    }
    if (asked.window) {
        outcome = refused ? refused : grant_window(skops, settings, policy, asked.window, window);
        count_extension(EXTENSION_WINDOW, outcome);
        if (outcome == OUTCOME_GRANTED) {
            granted = 1;
            connection->key.arms[DIMENSION_INITIAL_WINDOW] = ARM_GRANTED;
        }
    }
    if (asked.congestion) {
        outcome = refused ? refused : grant_congestion(skops, connection, asked.congestion);
        count_extension(EXTENSION_CONGESTION, outcome);
        if (outcome == OUTCOME_GRANTED) {
            granted = 1;
            connection->key.arms[DIMENSION_CONGESTION] = ARM_GRANTED;
        }
    }
    /* The control group has the kernel's defaults and nothing else. Of the treated nobody is compared with it who was
     * granted anything, or it would be with who asks and who does not (agent/evidence.py). */
    if (granted && connection->key.treatment == TREATMENT_HOLDOUT)
        connection->key.treatment = TREATMENT_OBSERVED;
}

static __always_inline void grant_user_timeout(struct bpf_sock_ops *skops, const struct control *settings,
                                               struct connection *connection, int honoured_network)
{
    u16 value = load_user_timeout(skops, 0);
    struct sends *sent;

    if (!value)
        return;
    if (!honoured_network) {
        count_extension(EXTENSION_USER_TIMEOUT, OUTCOME_REFUSED_NETWORK);
        return;
    }
    sent = sends_of(connection->group);
    connection->remote_user_timeout = value;
    set_user_timeout(skops, settings, connection, sent ? sent->user_timeout_ms : 0);
}

static __always_inline void grant_ack_delay(struct bpf_sock_ops *skops, const struct control *settings,
                                            int honoured_network)
{
    u32 delay_ms = load_ack_delay(skops, settings);

    if (delay_ms)
        count_extension(EXTENSION_ACK_DELAY, honoured_network ? believe_ack_delay(skops, settings, delay_ms)
                                                              : OUTCOME_REFUSED_NETWORK);
}

static __always_inline void grant_rate(struct bpf_sock_ops *skops, const struct control *settings,
                                       struct connection *connection, int honoured_network)
{
    union rate_option option;
    int outcome;

    if (!connection->ack_rate_capable || load_rate(skops, &option, 0) != OPTION_RATE_REQUEST_LENGTH)
        return;
    count_extension(EXTENSION_ACK, OUTCOME_RECEIVED);
    if (!honoured_network)
        outcome = OUTCOME_REFUSED_NETWORK;
    else if (!(option.twice >> 1)) /* an ACK for this very segment: nothing makes the kernel send it */
        outcome = OUTCOME_REFUSED_KERNEL;
    else
        outcome = grant_ack(skops, settings, connection, option.twice >> 1, 0);
    count_extension(EXTENSION_ACK, outcome);
}

/* PARSE_HDR_OPT_CB: options on an open connection, in the first segment or when the peer changed its mind. */
static __always_inline void grant_later(struct bpf_sock_ops *skops, struct connection *connection)
{
    struct control *settings;
    union stack_int zero = {};
    u32 remote[4], local[4];
    int honoured_network;

    settings = control.lookup(&zero.value);
    if (!settings)
        return;
    read_addresses(skops, remote, local);
    honoured_network = is_honoured(remote);
    grant_user_timeout(skops, settings, connection, honoured_network);
    grant_ack_delay(skops, settings, honoured_network);
    grant_rate(skops, settings, connection, honoured_network);
}

/* A connection begins with options in play: the requests of its SYN, the User Timeout of both ends, and what to write
 * and to read from now on. */
static __always_inline void extend(struct bpf_sock_ops *skops, const struct control *settings,
                                   const struct policy *policy, struct connection *connection,
                                   const u32 remote[4], u8 side, u32 window, u64 now)
{
    u32 flags = flags_without_ours(skops, connection);
    u64 where = side == SIDE_PASSIVE ? BPF_LOAD_HDR_OPT_TCP_SYN : 0; /* the peer's SYN, or its SYN-ACK */
    struct sends *sent = sends_of(policy->group);
    union request_option asked;
    union rate_option rate;
    u32 advertised_ms = 0;
    u16 theirs = 0;
    int same_exid, honoured_network;

    connection->group = policy->group;
    connection->extends = 1;
    if (connection->options_sent)
        learn_options(connection, now);
    same_exid = load_requests(skops, settings, &asked, where) > 0;
    if (side == SIDE_ACTIVE)
        same_exid = connection->options_sent;
    connection->ack_rate_capable = load_rate(skops, &rate, where) > 0;
    if (settings->honours) {
        grant(skops, settings, policy, connection, &asked, remote, side, window, now);
        theirs = load_user_timeout(skops, where);
        /* A SYN may have no room for it, or not have been kept: then the next segment has it. */
        if (!theirs && side == SIDE_PASSIVE)
            theirs = load_user_timeout(skops, 0);
        if (theirs && !is_honoured(remote)) {
            count_extension(EXTENSION_USER_TIMEOUT, OUTCOME_REFUSED_NETWORK);
            theirs = 0;
        }
        connection->remote_user_timeout = theirs;
        /* The ACK that ends the handshake is the client's first segment after its SYN, and nobody parses it but us here. */
        if (side == SIDE_PASSIVE) {
            honoured_network = is_honoured(remote);
            grant_ack_delay(skops, settings, honoured_network);
            grant_rate(skops, settings, connection, honoured_network);
        }
        flags |= BPF_SOCK_OPS_PARSE_UNKNOWN_HDR_OPT_CB_FLAG;
    }
    if (sent && sent->user_timeout) {
        advertised_ms = sent->user_timeout_ms;
        connection->due |= DUE_USER_TIMEOUT; /* the first segment after the handshake (RFC 5482, section 3) */
    }
    /* Experiments go on only where the SYN named them (RFC 6994, section 3). */
    if (sent && sent->announces && same_exid) {
        connection->announces = DUE_ACK_DELAY;
        if (connection->ack_divisor)
            connection->due |= DUE_ACK_DELAY;
    }
    if (sent && sent->ack_segments && connection->ack_rate_capable)
        connection->due |= DUE_ACK_RATE;
    connection->paces_after_loss = sent && sent->ack_segments >= THIN_SEGMENTS_MIN;
    if (advertised_ms || theirs)
        set_user_timeout(skops, settings, connection, advertised_ms);
    bpf_sock_ops_cb_flags_set(skops, flags);
    if (connection->due)
        ask_for_options(skops, connection);
}
