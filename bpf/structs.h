/* SPDX-License-Identifier: GPL-2.0-only */
/* What the kernel and the agent share. Plain structs without holes; the agent derives its numpy types from them. */

/* Addresses are always 128 bits in network order; IPv4 stands as ::ffff:a.b.c.d. */
struct prefix_key {
    u32 bits; /* of the 128; the name and place that the LPM trie expects */
    u32 address[4];
};

/* The arms of one remote network and how likely each is. */
struct policy {
    u16 upto[DIMENSIONS * ARMS]; /* flat, for BCC; cumulative probability in 1/65536; what is left goes to arm 0 */
    u8 path_bits;               /* the paths below this entry are networks of so many of the 128 bits */
    u8 group;
    u8 excluded;
    u8 safe_window; /* segments; what a request may be granted where larger windows lose; 0: the cap */
    u16 holdout; /* share of the connections in 1/65536 */
    u8 transfer_min; /* segments; longer transfers tell arms apart; 0: TRANSFER_MIN_SEGMENTS */
    u8 paced_window; /* segments that a paced connection begins with; 0: as any other */
    u32 rate; /* bytes a second that the path was seen to deliver: no paced connection sends faster; 0: not known */
};

/* What an arm of a dimension means. */
struct arm {
    u32 value; /* initial window: segments; congestion: ARM_PACED; ACK: see ACK_THIN_*_SHIFT; 0: the kernel's default */
    char congestion[CONGESTION_NAME];
};

/* The agent's word to the kernel side. */
struct control {
    u64 lease_until_ns; /* of the monotonic clock; policies are not applied after it */
    u32 initial_window_max;
    u32 ack_delay_min_us;
    u8 generation; /* goes up when the meaning of arms changes */
    u8 active_rows; /* which of the two row maps is being written */
    u8 observe_only;
    u8 reserved;
    char host_congestion[CONGESTION_NAME]; /* the default of the agent's own namespace */
    u32 user_timeout_min_ms; /* RFC 5482: L_LIMIT and U_LIMIT */
    u32 user_timeout_max_ms;
    u16 exid;
    u8 extends; /* some group sends options */
    u8 honours; /* some network's requests are granted */
    u8 thinning_max; /* segments; 0: no ACK is dropped */
    u8 reserved_bytes[7];
};

/* What the connections of a group send; 0 sends nothing. */
struct sends {
    u32 user_timeout_ms;
    u16 user_timeout; /* as on the wire, in host order */
    u8 congestion;    /* the algorithm's number */
    u8 window;        /* segments */
    u8 ack_segments;  /* an ACK every so many segments */
    u8 ack_divisor;   /* or every RTT / ack_divisor */
    u8 announces;     /* how long our ACKs are delayed at most */
    u8 reserved;
};

/* Networks on which our options got lost. */
struct spared {
    u64 until_ns;
    u32 failures;
    u32 reserved;
};

struct bucket {
    u64 filled_ns;
    u64 tokens;
};

/* One row is what connections of one path, treated alike, did since the row was last drained. */
struct row_key {
    u32 address[4];
    u8 path_bits;
    u8 group;
    u8 generation;
    u8 treatment;
    u8 arms[DIMENSIONS];
    u8 side;
};

/* Sums over transfers: enough for means, variances and a regression of time on size. Logs are log2 in 1/256. */
struct transfers {
    u64 count;
    u64 bytes;
    u64 time_us;
    u64 log_time;
    u64 log_bytes;
    u64 log_time_squared;
    u64 log_bytes_squared;
    u64 log_time_bytes;
};

struct row {
    u64 opened;
    u64 closed;
    u64 sent_bytes;
    u64 received_bytes;
    u64 sent_segments; /* with data */
    u64 received_segments;
    u64 retransmitted_segments;
    u64 pure_acks; /* segments without data: ACKs, and a SYN and a FIN a connection */
    u64 thinned_acks; /* those of them that were dropped */
    u64 timeouts;
    u64 first_windows; /* closed connections that filled their first window */
    u64 first_window_segments;
    u64 first_window_losses;        /* retransmissions below ISN + initial window (RFC 9040, appendix C) */
    u64 first_window_lossy;         /* closed connections with at least one */
    u64 rounds;                     /* RTT callbacks */
    u64 rtt_us;                     /* sum over the rounds */
    u64 base_rtt_us;                /* sum over the rounds of the path's least RTT then */
    u64 busy_us;                    /* pauses not counted */
    u64 delivered_segments;         /* delivery rate: segments over the time they took, */
    u64 delivery_us;                /* both summed over the rounds */
    u64 rate;                       /* the greatest delivery rate of a round, bytes a second */
    struct transfers sent;
    struct transfers received;
};

/* ACK thinning: what packets touch. Segments are counted as the kernel counts arrived data segments. */
struct thinning {
    u8 segments; /* an ACK every so many; 0: all ACKs pass */
    u8 divisor;  /* and every RTT / divisor */
    u8 spared;   /* so many ACKs pass because something was lost */
    u8 pushed;   /* the end of a write arrived, up to: */
    u32 pushed_end;
    u32 last_ack;
    u32 passed_segments; /* when an ACK passed last */
    u64 passed_ns;
    u64 round_ns; /* when the present round trip began */
    u32 round_segments;
    u32 per_round; /* segments that arrived in the last one */
    u16 last_window;
    u16 largest; /* payload of a segment that arrived */
    u16 calm;    /* ACKs that passed since the last loss, or since it counted */
    u8 fewer;    /* than `segments`, after losses */
    u8 reserved;
    u32 dropped; /* since the last flush */
    u32 reserved_word;
};

/* What is remembered of a socket while it lives. A listener has one too; the sockets it accepts inherit what its
 * application chose, and the memory with it. */
struct connection {
    struct row_key key;
    /* what every round touches, together */
    u64 event_ns; /* the last sign of life */
    u64 flushed_ns;
    u32 rounds;
    u32 rtt_us;
    u32 base_rtt_us;
    u32 delivered_segments;
    u32 delivery_us;
    u32 busy_us;
    u8 observed; /* all but the choices is in use */
    u8 lost_since_event;
    u8 opened_counted;
    u8 sent_ended;
    u8 received_ended;
    u8 syn_acknowledged; /* the SYN is among the acknowledged bytes: active opens */
    u8 fin_acknowledged;
    u8 fin_received;
    u8 adopted; /* older than the agent; observed from the next callback on */
    u8 paces_after_loss; /* until it did */
    u32 timeouts;
    u32 event_next;  /* sequence numbers at the last round or so: what had been sent, */
    u32 event_una;   /* and acknowledged */
    u32 patience_us; /* what no pause is beyond two round trips */
    u64 established_ns;
    u64 transfer_began_ns;
    u64 transfer_base_bytes;
    u64 flushed_sent_bytes;
    u64 flushed_received_bytes;
    u32 flushed_sent_segments;
    u32 flushed_received_segments;
    u32 flushed_retransmitted;
    u32 flushed_pure_acks;
    u32 first_window_end; /* of the bytes acknowledged; sequence numbers come round again after 4 GiB */
    u16 first_window;     /* segments */
    u16 transfer_min;     /* of the policy */
    u32 first_window_losses;
    u32 controls_retransmitted;  /* SYNs and FINs, which the kernel counts with the data */
    u32 received_in_fin_wait2;   /* low half of the bytes received when it began */
    u32 user_timeout_ms;         /* what RFC 5482 made of both ends' values; 0: untouched */
    u16 user_timeout_sent;       /* as on the wire; 0: not sent */
    u16 remote_user_timeout;
    u8 due;              /* DUE_*: in the next segment */
    u8 ack_rate_capable; /* both ends sent the option of draft-ietf-tcpm-ack-rate-request with their SYN */
    u8 ack_divisor;      /* the ACK delay is RTT / ack_divisor; 0: not set */
    u8 announces;        /* DUE_ACK_DELAY where a changed delay is told to the peer */
    u8 pieces;           /* of the present transfer that have been told */
    u32 ack_delay_us; /* as set last */
    u32 rate;         /* the greatest delivery rate since the last flush, bytes a second */
    u32 full_rate;    /* that it will be paced at after the first window, or a probe's loss; 0: no change is due */
    u8 probes_rate;
    u8 remote_clock;     /* CLOCK_* */
    u8 told;             /* TELL_*: to the row, in this callback */
    u32 remote_began_ms; /* when it was established, by the peer's clock, */
    u32 remote_ended_ms; /* when the latest ACK of data left, */
    u32 remote_ack_ms;   /* the latest one at all, */
    u32 remote_una;      /* and what was acknowledged before that one */
    u32 remote_us;       /* what the transfer took by that clock; 0: not known, or about the same as by ours */
    struct thinning thinning;
    /* From here on the socket's, whatever connection it is: what its application chose, before or after it began, */
    u8 chose_congestion;
    u8 chose_user_timeout;
    /* and what is known before there is one. */
    u8 group; /* whose sends apply */
    u8 extends;
    u8 options_sent; /* the SYN carried options */
    u8 writes; /* that options are asked for is by us; another program may have wanted it before */
    u8 used;   /* something was applied to it, USED_* */
    u8 reserved;
};

struct rtt_histogram {
    u64 slots[RTT_ROOM];
    u64 sum_us;
};
