/* SPDX-License-Identifier: GPL-2.0-only */
/* What TCP options cost: the programs of `tcptuned bench paper` (agent/lab/paper_overhead.py). The agent never loads them.
 *
 * The option is RFC 5482's, with one fixed value: the kernel does not know it, so all the work is the programs'. */

#include "consts.h"
#include "structs.h"
#include "stack.h"

#define INSERT 1 /* the client writes it */
#define PARSE 2  /* the other end looks for it, */
#define SET 4    /* and sets the socket option it stands for */
#define EVERY 8  /* both ends, on every segment but the SYN-ACK; else in the client's SYN only */

#define TIMEOUT_SECONDS 600

#define DONE_INSERT 0
#define DONE_PARSE 1
#define DONE_SET 2

/* So that a measurement can show that what it measures was done. */
BPF_PERCPU_ARRAY(done, u64, 3);

static __always_inline void count_done(int index)
{
    union stack_int key = {.word = pair(index, 0)};
    u64 *value = done.lookup(&key.value);

    if (value)
        (*value)++;
}

static __always_inline void look_for_option(struct bpf_sock_ops *skops, const int what, u64 where)
{
    union stack_int option = {.word = pair(bpf_htonl(OPTION_USER_TIMEOUT_KIND << 24), 0)};
    union stack_int timeout;

    if (bpf_load_hdr_opt(skops, &option.value, sizeof(option.value), where) != OPTION_USER_TIMEOUT_LENGTH)
        return;
    count_done(DONE_PARSE);
    if (!(what & SET))
        return;
    timeout.word = pair((bpf_ntohl(option.value) & 0x7fff) * 1000, 0);
    if (!bpf_setsockopt(skops, SOL_TCP, OPTION_USER_TIMEOUT, &timeout.value, sizeof(timeout.value)))
        count_done(DONE_SET);
}

static __always_inline int bench(struct bpf_sock_ops *skops, const int what)
{
    u32 bytes = bpf_htonl(OPTION_USER_TIMEOUT_KIND << 24 | OPTION_USER_TIMEOUT_LENGTH << 16 | TIMEOUT_SECONDS);
    union stack_int option = {.word = pair(bytes, 0)};
    union stack_int one = {.word = pair(1, 0)};
    u32 flags = 0;

    switch (skops->op) {
    case BPF_SOCK_OPS_TCP_CONNECT_CB:
        bpf_sock_ops_cb_flags_set(skops, BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG);
        break;
    case BPF_SOCK_OPS_TCP_LISTEN_CB:
        if (what & PARSE)
            bpf_setsockopt(skops, SOL_TCP, OPTION_SAVE_SYN, &one.value, sizeof(one.value));
        break;
    case BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB:
        if (what & PARSE)
            look_for_option(skops, what, BPF_LOAD_HDR_OPT_TCP_SYN);
        /* fall through */
    case BPF_SOCK_OPS_ACTIVE_ESTABLISHED_CB:
        if (what & EVERY)
            flags |= BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG;
        if ((what & EVERY) && (what & PARSE))
            flags |= BPF_SOCK_OPS_PARSE_UNKNOWN_HDR_OPT_CB_FLAG;
        bpf_sock_ops_cb_flags_set(skops, flags);
        break;
    case BPF_SOCK_OPS_HDR_OPT_LEN_CB:
        bpf_reserve_hdr_opt(skops, OPTION_USER_TIMEOUT_LENGTH, 0);
        break;
    case BPF_SOCK_OPS_WRITE_HDR_OPT_CB:
        if (!bpf_store_hdr_opt(skops, &option.value, sizeof(option.value), 0))
            count_done(DONE_INSERT);
        break;
    case BPF_SOCK_OPS_PARSE_HDR_OPT_CB:
        look_for_option(skops, what, 0);
        break;
    }
    return 1;
}

int syn_insert(struct bpf_sock_ops *skops)
{
    return bench(skops, INSERT);
}

int syn_parse(struct bpf_sock_ops *skops)
{
    return bench(skops, INSERT | PARSE);
}

int syn_set(struct bpf_sock_ops *skops)
{
    return bench(skops, INSERT | PARSE | SET);
}

int every_insert(struct bpf_sock_ops *skops)
{
    return bench(skops, EVERY | INSERT);
}

int every_parse(struct bpf_sock_ops *skops)
{
    return bench(skops, EVERY | INSERT | PARSE);
}

int every_set(struct bpf_sock_ops *skops)
{
    return bench(skops, EVERY | INSERT | PARSE | SET);
}
