/* SPDX-License-Identifier: GPL-2.0-only */
/* The options as bytes.
 *
 *   User Timeout (RFC 5482)      28  4  G + 15 bits of value
 *   our requests, in a SYN      254  8  ExID (2)  version 1  subtype 1  algorithm  segments
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
        u8 congestion;
        u8 window;
    };
};

static __always_inline u32 user_timeout_word(u32 length, u16 value)
{
    return bpf_htonl(OPTION_USER_TIMEOUT_KIND << 24 | length << 16 | value);
}

static __always_inline u64 request_word(u32 length, u16 exid, u8 congestion, u8 window)
{
    u64 first = (u32)OPTION_EXPERIMENT_KIND << 24 | length << 16 | exid;

    return bpf_htonll(first << 32 | OPTION_VERSION << 24 | OPTION_SUBTYPE_REQUEST << 16 | congestion << 8 | window);
}

/* Finds our requests in the SYN that a listener saved; both are 0 where there is nothing that we understand. */
static __always_inline void load_requests(struct bpf_sock_ops *skops, const struct control *settings,
                                          union request_option *option)
{
    long length;

    __builtin_memset(option, 0, sizeof(*option));
    option->words[0] = request_word(OPTION_SEARCH_LENGTH, settings->exid, 0, 0);
    length = bpf_load_hdr_opt(skops, option, sizeof(*option), BPF_LOAD_HDR_OPT_TCP_SYN);
    if (length == -ERROR_NO_SUCH_OPTION || length == -ERROR_NO_SAVED_SYN) {
        option->congestion = 0;
        option->window = 0;
        return;
    }
    if (length < OPTION_REQUEST_LENGTH) {
        count_extension(EXTENSION_WINDOW, OUTCOME_REFUSED_MALFORMED);
        option->congestion = 0;
        option->window = 0;
        return;
    }
    if (option->congestion)
        count_extension(EXTENSION_CONGESTION, OUTCOME_RECEIVED);
    if (option->window)
        count_extension(EXTENSION_WINDOW, OUTCOME_RECEIVED);
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
                                           const struct sends *sent)
{
    u64 option = request_word(OPTION_REQUEST_LENGTH, settings->exid, sent->congestion, sent->window);
    int outcome = bpf_store_hdr_opt(skops, &option, OPTION_REQUEST_LENGTH, 0) ? OUTCOME_NO_ROOM : OUTCOME_SENT;

    if (sent->congestion)
        count_extension(EXTENSION_CONGESTION, outcome);
    if (sent->window)
        count_extension(EXTENSION_WINDOW, outcome);
}
