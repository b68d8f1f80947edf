/* SPDX-License-Identifier: GPL-2.0-only */
/* Limits of the kernel side. Each comes with the range that follows from it. */

#define DIMENSION_INITIAL_WINDOW 0
#define DIMENSION_CONGESTION 1
#define DIMENSION_ACK 2
#define DIMENSIONS 3

/* Arms of a dimension; arm 0 is always the kernel's default. */
#define ARMS 8
/* In a row's key: this connection is not compared in the dimension (the application chose, or setting it failed). */
#define ARM_NONE 255

#define SIDE_ACTIVE 0
#define SIDE_PASSIVE 1

/* How a connection was treated. */
#define TREATMENT_OBSERVED 0 /* nothing may be applied: dry run or a lapsed lease */
#define TREATMENT_HOLDOUT 1  /* drawn for the control group */
#define TREATMENT_APPLIED 2

#define GROUPS 64
#define GROUP_NONE 255 /* in a policy: excluded */

/* The initial window is never set outside this range, whatever a policy says. */
#define INITIAL_WINDOW_MIN 2
#define INITIAL_WINDOW_MAX 250 /* about 360 KB at 1,448 bytes a segment */
/* net/ipv4/tcp.h TCP_INIT_CWND: another value at establishment means a route or a lost SYN set it. */
#define INITIAL_WINDOW_KERNEL 10

/* TCP_BPF_DELACK_MAX takes 2 jiffies to TCP_DELACK_MAX (include/net/tcp.h): 200 ms. */
#define ACK_DELAY_MAX_US 200000

/* A gap between two signs of life longer than two round trips and this is a pause, not a slow network:
 * 50 ms is above the usual delayed ACK of 40 ms. */
#define PAUSE_SLACK_US 50000
/* Shorter transfers end within the default's first window and say nothing about any arm. */
#define TRANSFER_MIN_SEGMENTS INITIAL_WINDOW_KERNEL

/* A connection adds to the row maps at most this often while it lives: 4 times a second. */
#define FLUSH_INTERVAL_NS 250000000ULL

/* log2 is kept in 1/256: a step of 0.3 %. */
#define LOG_SHIFT 8

/* RTT histogram: slot i counts samples of at most 64 us << i. 18 slots end at 8.4 s; the agent adds up the rest. */
#define RTT_FIRST_US 64
#define RTT_SLOTS 19
#define RTT_ROOM 32 /* a power of two above log2(2^32 / RTT_FIRST_US) + 1 */

/* Socket options that BPF may set (include/uapi/linux/bpf.h, include/uapi/linux/tcp.h). */
#define SOL_TCP 6
#define OPTION_CONGESTION 13
#define OPTION_USER_TIMEOUT 18
#define CONGESTION_NAME 16

/* include/net/tcp_states.h */
#define STATE_ESTABLISHED 1
#define STATE_FIN_WAIT1 4
#define STATE_FIN_WAIT2 5
#define STATE_TIME_WAIT 6
#define STATE_CLOSE 7
#define STATE_CLOSE_WAIT 8
#define STATE_LAST_ACK 9
#define STATE_CLOSING 11

#define FAMILY_INET 2
#define FAMILY_INET6 10
/* The third word of an IPv4-mapped IPv6 address (RFC 4291, section 2.5.5.2). */
#define MAPPED_WORD bpf_htonl(0x0000ffff)
#define MAPPED_BITS 96

/* One counter for each thing worth knowing; agent/bpf_source.py reads these names. */
enum counter {
    COUNTER_SET_INITIAL_WINDOW,
    COUNTER_SET_CONGESTION,
    COUNTER_SET_ACK,
    COUNTER_FAILED_INITIAL_WINDOW,
    COUNTER_FAILED_CONGESTION,
    COUNTER_FAILED_ACK,
    COUNTER_LEFT_LEASE_LAPSED,
    COUNTER_LEFT_LOOPBACK,
    COUNTER_LEFT_EXCLUDED,
    COUNTER_LEFT_OWN_CONGESTION,
    COUNTER_LEFT_OWN_WINDOW,
    COUNTER_LOST_ROWS_FULL,
    COUNTER_LOST_NO_STORAGE,
    COUNTERS,
};
