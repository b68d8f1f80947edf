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

static __always_inline int grant_window(struct bpf_sock_ops *skops, const struct control *settings,
                                        const struct policy *policy, u8 asked)
{
    int segments = asked, limit = settings->initial_window_max;
    union stack_int window;

    if (limit > INITIAL_WINDOW_MAX)
        limit = INITIAL_WINDOW_MAX;
    if (policy->safe_window && limit > policy->safe_window)
        limit = policy->safe_window;
    if (segments > limit)
        segments = limit;
    if (segments < INITIAL_WINDOW_MIN)
        segments = INITIAL_WINDOW_MIN;
    window.word = pair(segments, 0);
    return bpf_setsockopt(skops, SOL_TCP, TCP_BPF_IW, &window.value, sizeof(window.value)) ? OUTCOME_REFUSED_KERNEL
                                                                                           : OUTCOME_GRANTED;
}

/* PASSIVE_ESTABLISHED_CB, after the controllers' arms: what the client's SYN asks for takes precedence, and leaves the
 * connection out of the comparison in that dimension. */
static __always_inline void grant(struct bpf_sock_ops *skops, const struct control *settings,
                                  const struct policy *policy, struct connection *connection,
                                  const u32 remote[4], u64 now)
{
    union request_option asked;
    int outcome, refused = 0;

    load_requests(skops, settings, &asked);
    if (!asked.window && !asked.congestion)
        return;
    if (!is_honoured(remote))
        refused = OUTCOME_REFUSED_NETWORK;
    else if (!take_grant(now))
        refused = OUTCOME_REFUSED_RATE;

    if (asked.window) {
        outcome = refused ? refused : grant_window(skops, settings, policy, asked.window);
        count_extension(EXTENSION_WINDOW, outcome);
        if (outcome == OUTCOME_GRANTED)
            connection->key.arms[DIMENSION_INITIAL_WINDOW] = ARM_NONE;
    }
    if (asked.congestion) {
        outcome = refused ? refused : grant_congestion(skops, connection, asked.congestion);
        count_extension(EXTENSION_CONGESTION, outcome);
        if (outcome == OUTCOME_GRANTED)
            connection->key.arms[DIMENSION_CONGESTION] = ARM_NONE;
    }
    /* The control group has the kernel's defaults and nothing else. */
    if (!refused && connection->key.treatment == TREATMENT_HOLDOUT)
        connection->key.treatment = TREATMENT_OBSERVED;
}

/* A User Timeout Option arrived on an open connection: the first segment, or the peer changed its mind. */
static __always_inline void grant_user_timeout(struct bpf_sock_ops *skops)
{
    struct connection *connection = extended(skops);
    struct control *settings;
    struct sends *sent;
    union stack_int zero = {};
    u32 remote[4], local[4];
    u16 value;

    if (!connection)
        return;
    settings = control.lookup(&zero.value);
    if (!settings)
        return;
    value = load_user_timeout(skops, 0);
    if (!value)
        return;
    read_addresses(skops, remote, local);
    if (!is_honoured(remote)) {
        count_extension(EXTENSION_USER_TIMEOUT, OUTCOME_REFUSED_NETWORK);
        return;
    }
    sent = sends_of(connection->group);
    connection->remote_user_timeout = value;
    set_user_timeout(skops, settings, connection, sent ? sent->user_timeout_ms : 0);
}

/* A connection begins with options in play: the requests of its SYN, the User Timeout of both ends, and what to write
 * and to read from now on. */
static __always_inline void extend(struct bpf_sock_ops *skops, const struct control *settings,
                                   const struct policy *policy, struct connection *connection,
                                   const u32 remote[4], u8 side, u64 now)
{
    u32 flags = skops->bpf_sock_ops_cb_flags & ~BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG;
    struct sends *sent = sends_of(policy->group);
    u32 advertised_ms = 0;
    u16 theirs = 0;

    connection->group = policy->group;
    connection->extends = 1;
    if (connection->options_sent)
        learn_options(connection, now);
    if (settings->honours) {
        if (side == SIDE_PASSIVE)
            grant(skops, settings, policy, connection, remote, now);
        theirs = load_user_timeout(skops, side == SIDE_PASSIVE ? BPF_LOAD_HDR_OPT_TCP_SYN : 0);
        if (theirs && !is_honoured(remote)) {
            count_extension(EXTENSION_USER_TIMEOUT, OUTCOME_REFUSED_NETWORK);
            theirs = 0;
        }
        connection->remote_user_timeout = theirs;
        flags |= BPF_SOCK_OPS_PARSE_UNKNOWN_HDR_OPT_CB_FLAG;
    }
    if (sent && sent->user_timeout) {
        advertised_ms = sent->user_timeout_ms;
        connection->user_timeout_due = 1; /* the first segment after the handshake (RFC 5482, section 3) */
        flags |= BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG;
    }
    if (advertised_ms || theirs)
        set_user_timeout(skops, settings, connection, advertised_ms);
    bpf_sock_ops_cb_flags_set(skops, flags);
}
