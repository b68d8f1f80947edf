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
#define ARM_GRANTED 254 /* what the peer asked for instead */

#define SIDE_ACTIVE 0
#define SIDE_PASSIVE 1

/* In `adoptable`: what a socket older than the agent is. */
#define ADOPT_LISTENER 1
#define ADOPT_CONNECTION 2
#define ADOPT_ENTRIES 65536 /* sockets of one walk; the agent walks again for more */

/* How a connection was treated. */
#define TREATMENT_OBSERVED 0 /* nothing may be applied: dry run, a lapsed lease, older than the agent */
#define TREATMENT_HOLDOUT 1  /* drawn for the control group */
#define TREATMENT_APPLIED 2

#define GROUPS 64

/* The initial window is never set outside this range, whatever a policy says. */
#define INITIAL_WINDOW_MIN 2
#define INITIAL_WINDOW_MAX 250 /* about 360 KB at 1,448 bytes a segment */
/* The value of a congestion control's arm: whether it is paced, at the rate that the path was seen to deliver. That is never
 * set outside this range, whatever a policy says: 256 kb/s to 34 Gb/s, which is what SO_MAX_PACING_RATE can say. */
#define ARM_PACED 1
#define RATE_MIN 32000
#define RATE_MAX 4294967294
/* One paced connection in so many may send by a quarter faster until it loses something: the path may have become faster,
 * or was never asked for all it has. */
#define RATE_PROBES 8
#define RATE_PROBE_MORE 4
/* While its first window is under way any other leaves this part of the rate to others, who have had no time to make room
 * for it. */
#define RATE_LEFT 4
/* net/ipv4/tcp.h TCP_INIT_CWND: another value at establishment means a route or a lost SYN set it. */
#define INITIAL_WINDOW_KERNEL 10

/* TCP_BPF_DELACK_MAX takes 2 jiffies to TCP_DELACK_MAX (include/net/tcp.h): 200 ms. */
#define ACK_DELAY_MAX_US 200000
/* The delay follows the RTT once it is off by more than an eighth. */
#define ACK_DELAY_DRIFT 8
/* The value of an ACK arm: divisor of the RTT for the delay, then segments and divisor for thinning, a byte each. */
#define ACK_THIN_SEGMENTS_SHIFT 8
#define ACK_THIN_DIVISOR_SHIFT 16

/* ACK thinning. Not in a connection's first segments: slow start lives on ACKs. */
#define THIN_FIRST_SEGMENTS 32
/* After a sign of loss so many ACKs pass. */
#define THIN_LOSS_ACKS 16
/* And an ACK stands for half as many segments as before, as the bursts that it lets loose may be what was lost; one more
 * after so many ACKs without a loss. */
#define THIN_CALM_ACKS 512
/* At least so many ACKs a round trip (TACK, SIGCOMM 2020: 4 are enough), whatever is configured or asked for. */
#define THIN_ACKS_PER_RTT 4
/* The kernel acknowledges every second segment; below twice that nothing is worth dropping. */
#define THIN_SEGMENTS_MIN 4
#define THIN_DIVISOR_MIN 2

/* A gap between two signs of life longer than two round trips and this is a pause, not a slow network:
 * 50 ms is above the usual delayed ACK of 40 ms. */
#define PAUSE_SLACK_US 50000
#define MISSED_US 1000000 /* and some round trips: a segment is missed after less, unless the RTT varies widely */
#define RTO_MIN_US 200000 /* include/net/tcp.h, TCP_RTO_MIN */
/* Shorter transfers end within the default's first window and say nothing about any window; about algorithms neither,
 * unless even these get lost: where most are that short a policy may ask for them. */
#define TRANSFER_MIN_SEGMENTS INITIAL_WINDOW_KERNEL
/* A long transfer is told in pieces, the first so long and each four times as long as the one before: what goes on for
 * minutes is known after seconds, and one connection does not outvote many. Up to 1 GiB a piece. */
#define PIECE_BYTES 262144
#define PIECES_MAX 7

/* What a row is told after a callback: */
#define TELL 1 /* all that is counted and new, */
#define TELL_TRANSFER 2 /* that a transfer is over, */
#define TELL_PIECE 4 /* or only a piece of it, */
#define TELL_CUT 8 /* and was cut, */
#define TELL_RECEIVED 16 /* all that came in, as one transfer, */
#define TELL_CLOSED 32 /* that the connection is over */

/* What was applied to a socket, for this connection or one before it: */
#define USED 1 /* arms, */
#define USED_PACED 2 /* a rate among them */

/* Whether the peer's clock is asked for; see clock.h. */
#ifndef REMOTE_CLOCK
#define REMOTE_CLOCK 1
#endif
/* What is known of the peer's clock. */
#define CLOCK_BEGAN 1 /* when the handshake ended, */
#define CLOCK_ASKED 2 /* every ACK is asked for it, */
#define CLOCK_TOLD 3 /* and one told */
#define CLOCK_STEP_US 2000 /* two clocks that count milliseconds are within */

/* A connection adds to the row maps at most this often while it lives: 4 times a second. */
#define FLUSH_INTERVAL_NS 250000000ULL

/* log2 is kept in 1/256: a step of 0.3 %. */
#define LOG_SHIFT 8

/* RTT histogram: slot i counts samples of at most 64 us << i. 18 slots end at 8.4 s; the agent adds up the rest. */
#define RTT_FIRST_US 64
#define RTT_BELIEVED_US (1U << 30) /* no round trip takes longer: 18 minutes */
#define RTT_SLOTS 19
#define RTT_ROOM 32 /* a power of two above log2(2^32 / RTT_FIRST_US) + 1 */

/* Socket options that BPF may set (include/uapi/linux/bpf.h, include/uapi/linux/tcp.h). */
#define SOL_TCP 6
#define OPTION_CONGESTION 13
#define OPTION_USER_TIMEOUT 18
#define CONGESTION_NAME 16

/* include/net/tcp_states.h */
#define STATE_FIN_WAIT1 4
#define STATE_FIN_WAIT2 5
#define STATE_CLOSE 7
#define STATE_CLOSE_WAIT 8
#define STATE_LAST_ACK 9
#define STATE_CLOSING 11

#define FAMILY_INET 2
#define PROTOCOL_MPTCP 262 /* include/uapi/linux/in.h */
/* The third word of an IPv4-mapped IPv6 address (RFC 4291, section 2.5.5.2). */
#define MAPPED_WORD bpf_htonl(0x0000ffff)
#define MAPPED_BITS 96

/* TCP options. RFC 5482: kind 28. RFC 6994: kind 254 with the project's ExID (configured), then our version and a
 * subtype, so that the kernel's search by a magic of four bytes finds exactly what we understand. The kernel stores one
 * option an ExID and segment only, so all that a SYN asks for is one option. */
#define OPTION_TIMESTAMPS_KIND 8 /* RFC 7323 */
#define OPTION_TIMESTAMPS_LENGTH 10
#define OPTION_USER_TIMEOUT_KIND 28
#define OPTION_USER_TIMEOUT_LENGTH 4
#define OPTION_EXPERIMENT_KIND 254
#define OPTION_SEARCH_LENGTH 6 /* kind, length, magic of four bytes (bpf_load_hdr_opt) */
#define OPTION_REQUEST_LENGTH 8
#define OPTION_REQUEST_ACK_LENGTH 10 /* with an ACK rate */
#define OPTION_REQUEST_ROOM 16 /* later versions may append; what is longer is not ours */
#define OPTION_VERSION 1
#define OPTION_SUBTYPE_REQUEST 1
#define OPTION_SUBTYPE_ACK_DELAY 2
#define OPTION_ACK_DELAY_LENGTH 8
/* draft-ietf-tcpm-ack-rate-request: kind 254, its ExID; in a SYN alone, later with a byte of R and a reserved bit. */
#define OPTION_RATE_EXID 0x00ac
#define OPTION_RATE_LENGTH 4
#define OPTION_RATE_REQUEST_LENGTH 5
#define OPTION_RATE_MAX 127
#define EXTENSION_USER_TIMEOUT 0
#define EXTENSION_CONGESTION 1
#define EXTENSION_WINDOW 2
#define EXTENSION_ACK 3
#define EXTENSION_ACK_DELAY 4
#define EXTENSIONS 5

/* What the next segment after the handshake carries. */
#define DUE_USER_TIMEOUT 1
#define DUE_ACK_DELAY 2
#define DUE_ACK_RATE 4

/* What happened to an extension; agent/bpf_source.py reads these names. */
enum outcome {
    OUTCOME_SENT,
    OUTCOME_NO_ROOM,
    OUTCOME_RECEIVED,
    OUTCOME_GRANTED,
    OUTCOME_REFUSED_NETWORK,
    OUTCOME_REFUSED_MALFORMED,
    OUTCOME_REFUSED_OWN_CHOICE,
    OUTCOME_REFUSED_ALGORITHM,
    OUTCOME_REFUSED_RATE,
    OUTCOME_REFUSED_KERNEL,
    OUTCOME_REFUSED_OFF,
    OUTCOMES,
};
#define OUTCOME_ROOM 16

/* RFC 5482: the highest bit says minutes; 15 bits of value. */
#define USER_TIMEOUT_MINUTES 0x8000
/* No timeout below what retransmission needs: srtt + 4 rttvar and 200 ms are at most 5 srtt + 200 ms (RFC 6298). */
#define USER_TIMEOUT_RTTS 5
#define USER_TIMEOUT_SLACK_MS 200

/* Algorithms have numbers on the wire, 1 to 15 (agent/extensions.py). */
#define ALGORITHMS 16
/* dctcp without ECN on the whole path does not work (RFC 8257). */
#define ALGORITHM_DCTCP 4
#define ECN_NEGOTIATED 1 /* include/net/tcp.h TCP_ECN_OK */

/* A retransmission timeout is never asked to be shorter than this on a peer's word; the kernel's own least is 200 ms. */
#define RTO_MIN_LEAST_US 20000
#define RTO_MIN_MOST_US 200000

/* Grants a second and processor: more is a flood, not a client. */
#define GRANTS_PER_SECOND 1000

/* A path on which the options got lost twice in a row is spared them for an hour. */
#define SPARED_FAILURES 2
#define SPARED_NS 3600000000000ULL
#define SPARED_PATHS 4096

#define SOL_SOCKET_LEVEL 1
#define OPTION_RECEIVE_LOW_WATER 18 /* SO_RCVLOWAT (include/uapi/asm-generic/socket.h) */
#define OPTION_MAX_PACING_RATE 47   /* SO_MAX_PACING_RATE (include/uapi/asm-generic/socket.h) */
#define RATE_UNLIMITED 0xffffffffU /* the kernel's default */
#define OPTION_SAVE_SYN 27
#define PAGE_LEAST 4096 /* bytes of a page, on any processor at least */
#define OPTION_CALLBACKS 1008 /* TCP_BPF_SOCK_OPS_CB_FLAGS, 6.12; BCC 0.26 does not know the name */
#define OPTION_INITIAL_WINDOW_BYTES 1500 /* a segment's share of the receive window */

/* include/uapi/asm-generic/errno.h: what bpf_load_hdr_opt answers where there is nothing to find */
#define ERROR_NO_SUCH_OPTION 42 /* ENOMSG */
#define ERROR_NO_SAVED_SYN 2    /* ENOENT */

#define TCP_FLAG_FIN_BIT 0x01
#define TCP_FLAG_SYN_BIT 0x02
#define TCP_FLAG_PUSH_BIT 0x08
#define TCP_FLAG_ACK_BIT 0x10

/* Packets as cgroup programs see them: from the IP header on. */
#define IPV4_PROTOCOL 0x0800
#define IPV4_FIRST_BYTE 0x45 /* version 4, no IP options */
#define IPV4_HEADER 20
#define IPV6_HEADER 40
#define IPV6_NEXT_HEADER 6 /* where its number is */
#define PROTOCOL_TCP 6
#define TCP_HEADER 20
#define TCP_HEADER_TIMESTAMPS 32
#define TCP_TIMESTAMPS_WORD 0x0101080a /* two no-operations, timestamps of 10 bytes */

/* One counter for each thing worth knowing; agent/bpf_source.py reads these names. */
enum counter {
    COUNTER_SET_INITIAL_WINDOW,
    COUNTER_SET_CONGESTION,
    COUNTER_SET_ACK,
    COUNTER_SET_RATE,
    COUNTER_FAILED_INITIAL_WINDOW,
    COUNTER_FAILED_CONGESTION,
    COUNTER_FAILED_ACK,
    COUNTER_FAILED_RATE,
    COUNTER_LEFT_LEASE_LAPSED,
    COUNTER_LEFT_LOOPBACK,
    COUNTER_LEFT_EXCLUDED,
    COUNTER_LEFT_OWN_CONGESTION,
    COUNTER_LEFT_OWN_WINDOW,
    COUNTER_LEFT_OWN_RATE,
    COUNTER_LEFT_USED_SOCKET,
    COUNTER_LOST_ROWS_FULL,
    COUNTER_LOST_NO_STORAGE,
    COUNTER_SYN_NOT_KEPT,
    COUNTER_ADOPTED_LISTENER,
    COUNTER_ADOPTED_CONNECTION,
    COUNTER_UNADOPTED_OLD_KERNEL,
    COUNTER_UNADOPTED_REFUSED,
    COUNTER_UNADOPTED_NO_STORAGE,
    COUNTERS,
};
