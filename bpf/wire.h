/* SPDX-License-Identifier: GPL-2.0-only */
/* The options as bytes.
 *
 *   User Timeout (RFC 5482)      28  4  G + 15 bits of value
 *   our requests, in a SYN      254  8  ExID (2)  version 1  subtype 1  algorithm  segments
 *     with an ACK rate          254 10  ...                                                  segments  RTT divisor
 *   our ACK delay               254  8  ExID (2)  version 1  subtype 2  milliseconds (2)
 *   ACK rate (IETF draft), SYN  254  4  00AC
 *     later                     254  5  00AC  segments << 1
 *
 * 0 asks for nothing. The kernel searches and checks lengths; here are only fixed layouts, so nothing a peer sends
 * moves an index. */

/* Written as a whole, in network order, and read by parts (see union stack_key). */
union user_timeout_option {
    u32 word;
    struct {
        u8 kind;
        u8 length;
        u16 value; /* network order */
    };
};

union request_option {
    u64 words[OPTION_REQUEST_ROOM / 8]; /* after the first: what a later version appends; not read */
    struct {
        u8 kind;
        u8 length;
        u16 exid; /* network order */
        u8 version;
        u8 subtype;
        union {
            struct {
                u8 congestion;
                u8 window;
            };
            u16 delay_ms; /* network order */
        };
        u8 ack_segments;
        u8 ack_divisor;
    };
};

union rate_option {
    u64 word;
    struct {
        u8 kind;
        u8 length;
        u16 exid;     /* network order */
        u8 twice;     /* segments << 1; the lowest bit is reserved */
        u8 unused[3];
    };
};

static __always_inline u32 user_timeout_word(u32 length, u16 value)
{
    return bpf_htonl(OPTION_USER_TIMEOUT_KIND << 24 | length << 16 | value);
}

static __always_inline u64 experiment_word(u32 length, u16 exid, u8 subtype, u16 value)
{
    u64 first = (u32)OPTION_EXPERIMENT_KIND << 24 | length << 16 | exid;

    return bpf_htonll(first << 32 | OPTION_VERSION << 24 | subtype << 16 | value);
}

static __always_inline u64 rate_word(u32 length, u8 segments)
{
    u64 first = (u32)OPTION_EXPERIMENT_KIND << 24 | length << 16 | OPTION_RATE_EXID;

    return bpf_htonll(first << 32 | (u32)segments << 25);
}

/* Finds our option of a SYN: `where` is the one that a listener saved, or 0 for this packet. Returns its length; 0, and
 * all requests 0, where there is nothing that we understand. */
static __always_inline long load_requests(struct bpf_sock_ops *skops, const struct control *settings,
                                          union request_option *option, u64 where)
{
    long length;

    option->words[0] = experiment_word(OPTION_SEARCH_LENGTH, settings->exid, OPTION_SUBTYPE_REQUEST, 0);
    option->words[1] = 0;
    length = bpf_load_hdr_opt(skops, option, sizeof(*option), where);
    if (length == -ERROR_NO_SAVED_SYN)
        count(COUNTER_SYN_NOT_KEPT);
    if (length < OPTION_REQUEST_LENGTH) {
        if (length != -ERROR_NO_SUCH_OPTION && length != -ERROR_NO_SAVED_SYN)
            count_extension(EXTENSION_WINDOW, OUTCOME_REFUSED_MALFORMED);
        option->words[0] = option->words[1] = 0; /* one that is too long was copied as far as there was room */
        return 0;
    }
    if (option->congestion)
        count_extension(EXTENSION_CONGESTION, OUTCOME_RECEIVED);
    if (option->window)
        count_extension(EXTENSION_WINDOW, OUTCOME_RECEIVED);
    if (option->ack_segments)
        count_extension(EXTENSION_ACK, OUTCOME_RECEIVED);
    return length;
}

/* Finds what the peer says of its ACK delay in this packet; in milliseconds, 0 is nothing. */
static __always_inline u32 load_ack_delay(struct bpf_sock_ops *skops, const struct control *settings)
{
    union request_option option;
    long length;

    option.words[0] = experiment_word(OPTION_SEARCH_LENGTH, settings->exid, OPTION_SUBTYPE_ACK_DELAY, 0);
    option.words[1] = 0;
    length = bpf_load_hdr_opt(skops, &option, sizeof(option), 0);
    if (length == -ERROR_NO_SUCH_OPTION)
        return 0;
    count_extension(EXTENSION_ACK_DELAY, OUTCOME_RECEIVED);
    if (length < OPTION_ACK_DELAY_LENGTH || !option.delay_ms) {
        count_extension(EXTENSION_ACK_DELAY, OUTCOME_REFUSED_MALFORMED);
        return 0;
    }
    return bpf_ntohs(option.delay_ms);
}

/* Finds the option of draft-ietf-tcpm-ack-rate-request. Returns its length, 0 if there is none. */
static __always_inline long load_rate(struct bpf_sock_ops *skops, union rate_option *option, u64 where)
{
    long length;

    option->word = rate_word(OPTION_RATE_LENGTH, 0);
    length = bpf_load_hdr_opt(skops, option, sizeof(*option), where);
    return length < OPTION_RATE_LENGTH ? 0 : length;
}

/* Finds a User Timeout Option in this packet, or in the saved SYN. Returns its value in host order; 0 means nothing. */
static __always_inline u16 load_user_timeout(struct bpf_sock_ops *skops, u64 where)
{
    union user_timeout_option option = {.word = user_timeout_word(0, 0)};
    long length = bpf_load_hdr_opt(skops, &option, sizeof(option), where);

    if (length == -ERROR_NO_SUCH_OPTION || length == -ERROR_NO_SAVED_SYN)
        return 0;
    count_extension(EXTENSION_USER_TIMEOUT, OUTCOME_RECEIVED);
    if (length != OPTION_USER_TIMEOUT_LENGTH || !(bpf_ntohs(option.value) & ~USER_TIMEOUT_MINUTES)) {
        count_extension(EXTENSION_USER_TIMEOUT, OUTCOME_REFUSED_MALFORMED);
        return 0;
    }
    return bpf_ntohs(option.value);
}

static __always_inline void store_user_timeout(struct bpf_sock_ops *skops, u16 value)
{
    u32 option = user_timeout_word(OPTION_USER_TIMEOUT_LENGTH, value);
    int failed = bpf_store_hdr_opt(skops, &option, sizeof(option), 0) != 0;

    count_extension(EXTENSION_USER_TIMEOUT, failed ? OUTCOME_NO_ROOM : OUTCOME_SENT);
}

static __always_inline void store_requests(struct bpf_sock_ops *skops, const struct control *settings,
                                           u8 congestion, u8 window, u8 ack_segments, u8 ack_divisor)
{
    u32 length = ack_segments ? OPTION_REQUEST_ACK_LENGTH : OPTION_REQUEST_LENGTH;
    u64 option[2];
    int outcome;

    option[0] = experiment_word(length, settings->exid, OPTION_SUBTYPE_REQUEST, (u16)congestion << 8 | window);
    option[1] = bpf_htonll((u64)ack_segments << 56 | (u64)ack_divisor << 48);
    outcome = bpf_store_hdr_opt(skops, option, length, 0) ? OUTCOME_NO_ROOM : OUTCOME_SENT;
    if (ack_segments)
        count_extension(EXTENSION_ACK, outcome);
    if (congestion)
        count_extension(EXTENSION_CONGESTION, outcome);
    if (window)
        count_extension(EXTENSION_WINDOW, outcome);
}

static __always_inline void store_ack_delay(struct bpf_sock_ops *skops, const struct control *settings, u32 delay_us)
{
    u64 option = experiment_word(OPTION_ACK_DELAY_LENGTH, settings->exid, OPTION_SUBTYPE_ACK_DELAY,
                                 (delay_us + 999) / 1000);
    int failed = bpf_store_hdr_opt(skops, &option, OPTION_ACK_DELAY_LENGTH, 0) != 0;

    count_extension(EXTENSION_ACK_DELAY, failed ? OUTCOME_NO_ROOM : OUTCOME_SENT);
}

/* Without segments it says that requests are understood. */
static __always_inline int store_rate(struct bpf_sock_ops *skops, u8 segments)
{
    u64 option = rate_word(segments ? OPTION_RATE_REQUEST_LENGTH : OPTION_RATE_LENGTH,
                           segments < OPTION_RATE_MAX ? segments : OPTION_RATE_MAX);

    return bpf_store_hdr_opt(skops, &option, segments ? OPTION_RATE_REQUEST_LENGTH : OPTION_RATE_LENGTH, 0) == 0;
}
