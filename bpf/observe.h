/* SPDX-License-Identifier: GPL-2.0-only */
/* Observe: a connection's callbacks tell what it does; its transfers and its end go into the row of its path and arms. */

/* The path delivers at least so fast. */
static __always_inline void note_rate(struct connection *connection, u64 bytes, u64 interval_us)
{
    u64 rate;

    if (!interval_us)
        return;
    rate = bytes * 1000000 / interval_us;
    if (rate > RATE_MAX)
        rate = RATE_MAX;
    if (rate > connection->rate)
        connection->rate = rate;
}

/* The kernel's own estimate (net/ipv4/tcp_rate.c): what was acknowledged in a round trip, which is never taken to be
 * shorter than it took to send, so that ACKs in a bunch do not make it more. */
static __always_inline void note_round_rate(struct bpf_sock_ops *skops, struct connection *connection)
{
    note_rate(connection, (u64)skops->rate_delivered * skops->mss_cache, skops->rate_interval_us);
}

/* A short transfer ends before a round trip could tell: there it is what was acknowledged once the first byte was. Where
 * all of it left as one burst that says nothing. Nor does a later piece of a long one: what was lost before it began is
 * acknowledged in it. */
static __always_inline void note_transfer_rate(struct bpf_sock_ops *skops, struct connection *connection, u64 bytes)
{
    u64 took_us = (connection->event_ns - connection->transfer_began_ns) / 1000;
    u64 first_us = skops->rtt_min;

    if (!connection->pieces && took_us > first_us && bytes > (u64)TRANSFER_MIN_SEGMENTS * skops->mss_cache)
        note_rate(connection, bytes, took_us - first_us);
}

static __always_inline u64 transfer_us(const struct connection *connection)
{
    return (connection->event_ns - connection->transfer_began_ns) / 1000;
}

/* A transfer, or a piece of it, is over: from its begin to the last sign of life, if it was long enough to tell arms
 * apart. What is left after pieces may be too little for that.
 * One that was cut, by the peer as a rule, lasted as long as somebody's patience under any arm, and its size is what the
 * arm made of that: it counts as what the whole piece would have taken. */
static __always_inline void end_transfer(struct bpf_sock_ops *skops, struct connection *connection, struct row *row,
                                         int cut)
{
    u64 took_us = transfer_us(connection);
    u64 total = sent_bytes(skops, connection);
    u64 bytes = since(total, connection->transfer_base_bytes);
    u64 segments = connection->transfer_min ? connection->transfer_min : TRANSFER_MIN_SEGMENTS;
    u64 least = connection->pieces ? PIECE_BYTES / 4 : segments * skops->mss_cache;

    connection->transfer_base_bytes = total;
    if (bytes <= least)
        return;
    /* What was acknowledged by then; later ACKs had no callback. */
    note_transfer_rate(skops, connection, since(bytes, skops->snd_una - connection->event_una));
    if (!cut && connection->remote_us)
        took_us = connection->remote_us;
    add_transfer(&row->sent, bytes, took_us, cut ? (u64)PIECE_BYTES << (2 * connection->pieces) : bytes);
}

static __always_inline void note_event(struct bpf_sock_ops *skops, struct connection *connection, u64 now)
{
    connection->event_ns = now;
    connection->event_next = skops->snd_nxt;
    connection->event_una = skops->snd_una;
    connection->patience_us = PAUSE_SLACK_US;
    connection->lost_since_event = 0;
}

/* A loss is a sign of life too, after which it takes longer until the next one. Without branches, each of which would
 * double what verifiers look at. */
static __always_inline void note_lost_data(struct connection *connection, u64 now)
{
    connection->busy_us += (now - connection->event_ns) / 1000;
    connection->event_ns = now;
    connection->patience_us = MISSED_US;
    connection->lost_since_event = 1;
}

/* A sign of life at `now`. Returns whether a pause, and so the end of a transfer, lay before it. No callback comes with
 * the last ACK of a transfer, only with the first one of its last flight. */
static __always_inline int pause_before(struct bpf_sock_ops *skops, struct connection *connection, u64 now, u32 rtt_us)
{
    u64 gap_us = (now - connection->event_ns) / 1000;

    if (gap_us > 2 * (u64)rtt_us + connection->patience_us)
        return 1;
    connection->busy_us += gap_us;
    note_event(skops, connection, now);
    return 0;
}

/* The first loss since the last sign of life: whether a pause lay before what was lost. Then all that was sent until that
 * sign has been acknowledged, and it is longer ago than a segment takes to be missed. */
static __always_inline int pause_before_loss(struct bpf_sock_ops *skops, const struct connection *connection, u64 now)
{
    u64 gap_us = (now - connection->event_ns) / 1000;

    return !connection->lost_since_event && (s32)(skops->snd_una - connection->event_next) >= 0 &&
           gap_us > 4 * (u64)(skops->srtt_us >> 3) + MISSED_US;
}

static __always_inline int ends_piece(struct bpf_sock_ops *skops, const struct connection *connection)
{
    u64 bytes = since(sent_bytes(skops, connection), connection->transfer_base_bytes);

    return connection->pieces < PIECES_MAX && bytes >> (2 * connection->pieces) >= PIECE_BYTES;
}

/* It began `ago_us` before now. */
static __always_inline void begin_transfer(struct bpf_sock_ops *skops, struct connection *connection, u64 now, u32 ago_us)
{
    connection->pieces = 0;
    connection->transfer_began_ns = now - (u64)ago_us * 1000;
    connection->busy_us += ago_us;
    note_event(skops, connection, now);
}

/* What is watched of a connection. */
#define OBSERVED_CALLBACKS                                                                                             \
    (BPF_SOCK_OPS_RTT_CB_FLAG | BPF_SOCK_OPS_RETRANS_CB_FLAG | BPF_SOCK_OPS_RTO_CB_FLAG | BPF_SOCK_OPS_STATE_CB_FLAG)

static __always_inline void observe_established(struct bpf_sock_ops *skops, struct connection *connection, u64 now)
{
    u32 window = skops->snd_cwnd;

    connection->established_ns = now;
    connection->transfer_began_ns = now;
    note_event(skops, connection, now);
    connection->first_window = window;
    connection->first_window_end = skops->snd_nxt + window * skops->mss_cache;
    bpf_sock_ops_cb_flags_set(skops, skops->bpf_sock_ops_cb_flags | OBSERVED_CALLBACKS);
}

static __always_inline void count_rtt(const struct row_key *key, u32 rtt_us)
{
    union stack_int group = {.word = pair(key->group, 0)};
    struct rtt_histogram *histogram = rtt.lookup(&group.value);
    u64 slot;

    if (!histogram)
        return;
    /* ceil(log2(rtt / RTT_FIRST_US)): a bucket's upper bound belongs to the bucket. Without branches, because without
     * CAP_PERFMON the verifier wants one and the same bound of an index on every path to it. */
    slot = log2_floor(2 * ((rtt_us - less(0, rtt_us)) / RTT_FIRST_US) + 1);
    /* Verifiers before 6.10 know nothing of shifts by a variable; the barrier keeps the mask, needless to clang. */
    asm volatile("" : "+r"(slot));
    histogram->slots[slot & (RTT_ROOM - 1)]++;
    histogram->sum_us += rtt_us;
}

/* The round trip that is over; kernels before 6.10 tell only the smoothed one. */
static __always_inline u32 measured_us(struct bpf_sock_ops *skops)
{
    u32 measured = skops->args[0];

    return measured ? measured : skops->srtt_us >> 3;
}

/* Returns what of it the row is told, TELL_*. */
static __always_inline u32 observe_round(struct bpf_sock_ops *skops, struct connection *connection, u64 now,
                                         u32 measured)
{
    u32 smoothed = skops->srtt_us >> 3;
    u32 base = skops->rtt_min;

    connection->rounds++;
    connection->rtt_us += measured;
    connection->base_rtt_us += base < measured ? base : measured;
    if (skops->rate_interval_us) {
        connection->delivered_segments += skops->rate_delivered;
        connection->delivery_us += skops->rate_interval_us;
    }
    count_rtt(&connection->key, measured);
    note_round_rate(skops, connection);

    /* The FIN is acknowledged before the state says so, if that ends a round. */
    if (sent_fin(skops) && skops->snd_una == skops->snd_nxt)
        connection->fin_acknowledged = 1;
    if (pause_before(skops, connection, now, measured > smoothed ? measured : smoothed))
        return TELL | TELL_TRANSFER;
    if (ends_piece(skops, connection))
        return TELL | TELL_TRANSFER | TELL_PIECE;
    return now - connection->flushed_ns > FLUSH_INTERVAL_NS ? TELL : 0;
}

/* What was told of a round is over. */
static __always_inline void begin_next(struct bpf_sock_ops *skops, struct connection *connection, u64 now, u32 measured)
{
    u8 told = connection->told;

    if (told & TELL_PIECE) {
        connection->transfer_began_ns = now;
        connection->pieces++;
    } else if (told & TELL_TRANSFER) {
        begin_transfer(skops, connection, now, measured);
    }
}

/* args: first sequence number, segments, result of sending (net/ipv4/tcp_output.c, __tcp_retransmit_skb). Returns what
 * the row is told. A FIN by itself is no data: clients that vanish leave it unanswered, whatever the arms. */
static __always_inline u32 observe_retransmission(struct bpf_sock_ops *skops, struct connection *connection, u64 now)
{
    u32 sequence = skops->args[0];

    if (sent_fin(skops) && sequence + 1 == skops->snd_nxt) {
        connection->controls_retransmitted += skops->args[1];
        return 0;
    }
    if ((s32)(sequence - connection->first_window_end) < 0)
        connection->first_window_losses += skops->args[1];
    if (pause_before_loss(skops, connection, now))
        return TELL | TELL_TRANSFER;
    note_lost_data(connection, now);
    return 0;
}

static __always_inline u32 observe_timeout(struct bpf_sock_ops *skops, struct connection *connection, u64 now)
{
    if (sent_fin(skops) && skops->snd_nxt - skops->snd_una <= 1)
        return 0;
    connection->timeouts++;
    if (pause_before_loss(skops, connection, now))
        return TELL | TELL_TRANSFER;
    note_lost_data(connection, now);
    return 0;
}

/* The transfer whose first segments were lost began when these were sent: about a round trip before the retransmission,
 * and longer before a timeout. */
static __always_inline void begin_lost(struct bpf_sock_ops *skops, struct connection *connection, u64 now)
{
    if (!(connection->told & TELL_TRANSFER))
        return;
    begin_transfer(skops, connection, now, (skops->srtt_us >> 3) + (skops->op == BPF_SOCK_OPS_RTO_CB ? RTO_MIN_US : 0));
    note_lost_data(connection, now);
}

static __always_inline void add_first_window(struct bpf_sock_ops *skops, const struct connection *connection,
                                             struct row *row)
{
    u32 sent = since(skops->data_segs_out, retransmitted_segments(skops, connection));
    u32 losses = connection->first_window_losses;

    if (sent >= connection->first_window) {
        sent = connection->first_window;
        add(&row->first_windows, 1);
    }
    add(&row->first_window_segments, sent);
    /* One segment may be sent again several times; it was lost once. */
    add(&row->first_window_losses, losses < sent ? losses : sent);
    add(&row->first_window_lossy, losses > 0);
}

/* Which FINs are among the bytes counted by the kernel: tcp_sock counts sequence numbers, and a FIN has one. */
static __always_inline void note_fins(struct bpf_sock_ops *skops, struct connection *connection, u32 old, u32 new)
{
    u32 received = skops->bytes_received;

    if (new == STATE_FIN_WAIT2) {
        connection->fin_acknowledged = 1;
        connection->received_in_fin_wait2 = received;
    }
    if (new == STATE_CLOSE_WAIT || new == STATE_CLOSING)
        connection->fin_received = 1;
    if (new != STATE_CLOSE)
        return;
    if ((old == STATE_CLOSING || old == STATE_LAST_ACK) && skops->snd_una == skops->snd_nxt)
        connection->fin_acknowledged = 1;
    /* A socket that nobody holds any more leaves FIN_WAIT2 at once, before the FIN arrives (net/ipv4/tcp_input.c). */
    if (old == STATE_FIN_WAIT2 && received != connection->received_in_fin_wait2)
        connection->fin_received = 1;
}

/* args: old and new state. The moments at which a direction's last byte has arrived. Returns what of it the row is told. */
static __always_inline u32 observe_state(struct bpf_sock_ops *skops, struct connection *connection, u64 now)
{
    u32 old = skops->args[0], new = skops->args[1];
    u32 told = new == STATE_CLOSE ? TELL | TELL_CLOSED : 0;

    note_fins(skops, connection, old, new);
    if (new == STATE_FIN_WAIT1)
        ask_remote_clock(skops, connection);
    if (!connection->sent_ended && (new == STATE_FIN_WAIT2 || new == STATE_CLOSE_WAIT || new == STATE_CLOSE)) {
        /* In CLOSE_WAIT we may still send. */
        connection->sent_ended = new != STATE_CLOSE_WAIT;
        pause_before(skops, connection, now, skops->srtt_us >> 3);
        note_round_rate(skops, connection);
        compare_clocks(skops, connection, transfer_us(connection));
        told |= TELL_TRANSFER;
        /* A FIN that is not acknowledged is one sequence number; more of them are data that never arrived. */
        if (skops->snd_nxt - skops->snd_una > 1)
            told |= TELL_CUT;
    }
    if (!connection->received_ended && (new == STATE_CLOSE_WAIT || new == STATE_FIN_WAIT1 || new == STATE_CLOSE)) {
        connection->received_ended = 1;
        told |= TELL_RECEIVED;
    }
    return told;
}

/* It is over. Its socket may connect again (after connect(2) with AF_UNSPEC), and the kernel's counts begin anew. */
static __always_inline void forget_connection(struct connection *connection)
{
    __builtin_memset(connection, 0, __builtin_offsetof(struct connection, chose_congestion));
}

/* Adds to the row what a callback says. */
static __always_inline void tell(struct bpf_sock_ops *skops, struct connection *connection, u64 now)
{
    struct row *row = row_of(connection);
    u8 told = connection->told;
    u64 bytes;

    if (!row)
        return;
    if (told & TELL_TRANSFER)
        end_transfer(skops, connection, row, told & TELL_CUT);
    if (told & TELL_RECEIVED) {
        bytes = received_bytes(skops, connection);
        if (bytes > (u64)TRANSFER_MIN_SEGMENTS * skops->mss_cache)
            add_transfer(&row->received, bytes, (now - connection->established_ns) / 1000, bytes);
    }
    if ((told & TELL_CLOSED) && !connection->adopted) {
        add_first_window(skops, connection, row);
        add(&row->closed, 1);
    }
    if (told & TELL)
        flush(skops, connection, row, now);
}
