/* SPDX-License-Identifier: GPL-2.0-only */
/* The side that asks: options in the SYN, and the User Timeout where RFC 5482 wants it. Off unless configured. */

static __always_inline struct sends *sends_of(u8 group)
{
    union stack_int index = {.word = pair(group, 0)};

    return sends.lookup(&index.value);
}

/* Whether our ExID has to be in the SYN: to ask for something now, or to announce something later. */
static __always_inline int uses_experiment(const struct sends *sent)
{
    return sent->congestion | sent->window | sent->ack_segments | sent->announces;
}

static __always_inline u32 requests_length(const struct sends *sent)
{
    return sent->ack_segments ? OPTION_REQUEST_ACK_LENGTH : OPTION_REQUEST_LENGTH;
}

static __always_inline int is_spared(struct bpf_sock_ops *skops, const struct policy *policy, const u32 address[4],
                                     u64 now)
{
    struct spared *spared;
    union stack_key key;
    u32 path[4];

    mask_address(path, address, policy->path_bits);
    make_key(&key, policy->path_bits, path);
    spared = spared_paths.lookup(&key.key);
    return spared && spared->failures >= SPARED_FAILURES && now < spared->until_ns;
}

/* What became of a SYN with options. Lost twice in a row, they are not sent on this path for an hour: some middlebox
 * drops what it does not know. Chance may do the same; sparing a path costs it little. */
static __always_inline void learn_options(const struct connection *connection, u64 now)
{
    struct spared *known, fresh = {};
    union stack_key key;

    make_key(&key, connection->key.path_bits, connection->key.address);
    known = spared_paths.lookup(&key.key);
    if (known)
        fresh = *known;
    if (!connection->controls_retransmitted) {
        if (!fresh.failures)
            return;
        fresh.failures = 0;
    } else {
        fresh.failures++;
        fresh.until_ns = now + SPARED_NS;
    }
    spared_paths.update(&key.key, &fresh);
}

/* A number that the socket has; `otherwise` where the kernel does not tell (before 6.1). */
static __always_inline int socket_number(struct bpf_sock_ops *skops, int level, int option, int otherwise)
{
    union stack_int found = {};

    return bpf_getsockopt(skops, level, option, &found.value, sizeof(found.value)) ? otherwise : found.value;
}

/* TCP_CONNECT_CB: before the SYN is built. */
static __always_inline void send_connect(struct bpf_sock_ops *skops)
{
    u64 now = bpf_ktime_get_ns();
    union stack_key lookup;
    struct bpf_sock *sk = skops->sk;
    struct connection *connection, *before;
    struct control *settings;
    struct policy *policy;
    struct sends *sent;
    union stack_int zero = {}, bytes;
    u32 remote[4], local[4];
    int low_water;

    settings = control.lookup(&zero.value);
    if (!settings || !settings->extends || !sk)
        return;
    /* Of a connection that the socket had before. */
    before = connections.sk_storage_get(sk, 0, 0);
    if (before)
        before->options_sent = before->extends = 0;
    if (!may_apply(settings, now))
        return;
    read_addresses(skops, remote, local);
    if (is_local(remote, local))
        return;
    make_key(&lookup, 128, remote);
    policy = policies.lookup(&lookup.key);
    if (!policy || policy->excluded || policy->group >= GROUPS)
        return;
    sent = sends_of(policy->group);
    if (!sent || !(sent->user_timeout || uses_experiment(sent)))
        return;
    if (is_spared(skops, policy, remote, now))
        return;
    connection = connections.sk_storage_get(sk, 0, 0);
    if (!connection) {
        connection = connections.sk_storage_get(sk, 0, BPF_SK_STORAGE_GET_F_CREATE);
        if (!connection)
            return;
        /* Set where we do not see it: before the agent began, or by the kernel itself. */
        connection->chose_user_timeout = socket_number(skops, SOL_TCP, OPTION_USER_TIMEOUT, 0) > 0;
    }
    connection->group = policy->group;
    connection->extends = 1;
    ask_for_options(skops, connection);
    if (!sent->window)
        return;
    /* Room to receive what is asked for. A low-water mark makes the kernel enlarge the receive buffer without locking
     * it (net/ipv4/tcp.c, tcp_set_rcvlowat), so that its autotuning goes on; SO_RCVBUF would end that. Then the
     * application's own is there again. */
    low_water = socket_number(skops, SOL_SOCKET_LEVEL, OPTION_RECEIVE_LOW_WATER, 1);
    bytes.word = pair(sent->window * OPTION_INITIAL_WINDOW_BYTES, 0);
    bpf_setsockopt(skops, SOL_SOCKET_LEVEL, OPTION_RECEIVE_LOW_WATER, &bytes.value, sizeof(bytes.value));
    bytes.word = pair(low_water, 0);
    bpf_setsockopt(skops, SOL_SOCKET_LEVEL, OPTION_RECEIVE_LOW_WATER, &bytes.value, sizeof(bytes.value));
}

/* What the connections to the other end of this SYN-ACK's request send; it has no storage yet. */
static __always_inline struct sends *sends_to_requester(struct bpf_sock_ops *skops)
{
    union stack_key lookup;
    struct policy *policy;
    u32 remote[4], local[4];
    struct control *settings;
    union stack_int zero = {};

    settings = control.lookup(&zero.value);
    if (!settings || !may_apply(settings, bpf_ktime_get_ns()))
        return NULL;
    read_addresses(skops, remote, local);
    if (is_local(remote, local))
        return NULL;
    make_key(&lookup, 128, remote);
    policy = policies.lookup(&lookup.key);
    if (!policy || policy->excluded || policy->group >= GROUPS)
        return NULL;
    return sends_of(policy->group);
}

/* Whether this SYN-ACK says that the ACK rate draft's requests are understood: the SYN said so, and we have a request to
 * make, or would grant theirs. */
static __always_inline int answers_rate(struct bpf_sock_ops *skops, const struct control *settings,
                                        const struct sends *sent)
{
    union rate_option option;

    if (!sent->ack_segments && !(settings->honours && settings->thinning_max))
        return 0;
    return load_rate(skops, &option, BPF_LOAD_HDR_OPT_TCP_SYN) > 0;
}

static __always_inline int is_syn(struct bpf_sock_ops *skops)
{
    return skops->skb_tcp_flags & TCP_FLAG_SYN_BIT;
}

/* To be checked at once: the same question asked again later is one that processors may guess wrong, so that verifiers
 * before 6.16 look beyond it, with nothing, where there is no CAP_PERFMON. */
static __always_inline struct connection *extended(struct bpf_sock_ops *skops)
{
    struct bpf_sock *sk = skops->sk;
    struct connection *connection = sk ? connections.sk_storage_get(sk, 0, 0) : NULL;

    return connection && connection->extends ? connection : NULL;
}

/* HDR_OPT_LEN_CB: how much room; also asked without a packet, for the MSS. */
static __always_inline void send_length(struct bpf_sock_ops *skops)
{
    struct connection *connection;
    struct control *settings;
    struct sends *sent;
    union stack_int zero = {};

    if (!skops->is_fullsock) {
        sent = sends_to_requester(skops);
        if (!sent)
            return;
        settings = control.lookup(&zero.value);
        if (!settings)
            return;
        if (sent->ack_segments)
            bpf_reserve_hdr_opt(skops, OPTION_REQUEST_ACK_LENGTH, 0);
        if (answers_rate(skops, settings, sent))
            bpf_reserve_hdr_opt(skops, OPTION_RATE_LENGTH, 0);
        if (sent->user_timeout)
            bpf_reserve_hdr_opt(skops, OPTION_USER_TIMEOUT_LENGTH, 0);
        return;
    }
    connection = extended(skops);
    if (!connection)
        return;
    if (skops->args[0] != BPF_WRITE_HDR_TCP_CURRENT_MSS && is_syn(skops)) {
        /* A SYN sent again goes without options, in case they are what was not let through. */
        if (connection->options_sent)
            return;
        sent = sends_of(connection->group);
        if (!sent)
            return;
        if (uses_experiment(sent))
            bpf_reserve_hdr_opt(skops, requests_length(sent), 0);
        if (sent->ack_segments)
            bpf_reserve_hdr_opt(skops, OPTION_RATE_LENGTH, 0);
        /* Where there is not room for all, the timeout goes first: it is sent again after the handshake. */
        if (sent->user_timeout)
            bpf_reserve_hdr_opt(skops, OPTION_USER_TIMEOUT_LENGTH, 0);
        return;
    }
    if (connection->due & DUE_USER_TIMEOUT)
        bpf_reserve_hdr_opt(skops, OPTION_USER_TIMEOUT_LENGTH, 0);
    if (connection->due & DUE_ACK_DELAY)
        bpf_reserve_hdr_opt(skops, OPTION_ACK_DELAY_LENGTH, 0);
    if (connection->due & DUE_ACK_RATE)
        bpf_reserve_hdr_opt(skops, OPTION_RATE_REQUEST_LENGTH, 0);
}

/* Once a round: the ACK delay followed the RTT, or the configured timeout changed while the connection lives (RFC 5482,
 * section 3). */
static __always_inline void send_changed(struct bpf_sock_ops *skops, struct connection *connection)
{
    struct sends *sent;

    if (!connection->extends)
        return;
    sent = sends_of(connection->group);
    if (sent && sent->user_timeout && sent->user_timeout != connection->user_timeout_sent)
        connection->due |= DUE_USER_TIMEOUT;
    if (connection->due)
        ask_for_options(skops, connection);
}

/* A server asks for nothing but ACKs: the data flows its way. */
static __always_inline void send_syn_ack(struct bpf_sock_ops *skops, const struct control *settings,
                                         const struct sends *sent)
{
    if (sent->ack_segments)
        store_requests(skops, settings, 0, 0, sent->ack_segments, sent->ack_divisor);
    if (answers_rate(skops, settings, sent))
        store_rate(skops, 0);
    if (sent->user_timeout)
        store_user_timeout(skops, sent->user_timeout);
}

static __always_inline void send_syn(struct bpf_sock_ops *skops, const struct control *settings,
                                     const struct sends *sent)
{
    if (uses_experiment(sent))
        store_requests(skops, settings, sent->congestion, sent->window, sent->ack_segments, sent->ack_divisor);
    if (sent->ack_segments)
        store_rate(skops, 0);
    if (sent->user_timeout)
        store_user_timeout(skops, sent->user_timeout);
}

/* WRITE_HDR_OPT_CB: into the room that was reserved. */
static __always_inline void send_write(struct bpf_sock_ops *skops)
{
    struct connection *connection;
    struct control *settings;
    struct sends *sent;
    union stack_int zero = {};
    u8 due;

    settings = control.lookup(&zero.value);
    if (!settings)
        return;
    if (!skops->is_fullsock) {
        sent = sends_to_requester(skops);
        if (sent)
            send_syn_ack(skops, settings, sent);
        return;
    }
    connection = extended(skops);
    if (!connection)
        return;
    sent = sends_of(connection->group);
    if (!sent)
        return;
    if (is_syn(skops)) {
        if (connection->options_sent)
            return;
        connection->options_sent = 1;
        send_syn(skops, settings, sent);
        return;
    }
    due = connection->due;
    connection->due = 0;
    if (due & DUE_USER_TIMEOUT && sent->user_timeout) {
        connection->user_timeout_sent = sent->user_timeout;
        store_user_timeout(skops, sent->user_timeout);
    }
    if (due & DUE_ACK_DELAY)
        store_ack_delay(skops, settings, connection->ack_delay_us);
    if (due & DUE_ACK_RATE && sent->ack_segments)
        count_extension(EXTENSION_ACK, store_rate(skops, sent->ack_segments) ? OUTCOME_SENT : OUTCOME_NO_ROOM);
    /* Nothing more to write: spare every later segment the question. */
    bpf_sock_ops_cb_flags_set(skops, flags_without_ours(skops, connection));
}
