/* SPDX-License-Identifier: GPL-2.0-only */
/* Observe: a connection's callbacks tell what it does, and go into the row of its path and arms. */

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
    connection->first_window_end = skops->bytes_acked + (skops->snd_nxt - skops->snd_una) + window * skops->mss_cache;
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

/* The round trip that is over; kernels before 6.10 tell only the smoothed one, as 0. Where another program left its answer
 * there, often -1 (`args` and `reply` share their place), it is no round trip either. */
static __always_inline u32 measured_us(struct bpf_sock_ops *skops)
{
    u32 measured = skops->args[0];

    return measured - 1 < RTT_BELIEVED_US ? measured : skops->srtt_us >> 3;
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
        connection->transfer_base_bytes = sent_bytes(skops, connection);
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
    if (skops->bytes_acked + (u32)(sequence - skops->snd_una) < connection->first_window_end)
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

/* args: old and new state; the old one is the socket's until we return, and another program's answer may be in its place.
 * The moments at which a direction's last byte has arrived. Returns what of it the row is told. */
static __always_inline u32 observe_state(struct bpf_sock_ops *skops, struct connection *connection, u64 now)
{
    u32 old = skops->state, new = skops->args[1];
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
