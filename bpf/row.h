/* SPDX-License-Identifier: GPL-2.0-only */
/* The row of a path and arms: what a connection did is added to it. */

static __always_inline struct row *row_of(const struct connection *connection)
{
    struct row_key key = connection->key; /* the verifier of 5.15 takes keys from the stack only */
    struct row *row, *empty;
    struct control *settings;
    union stack_int zero = {};
    int second;

    settings = control.lookup(&zero.value);
    if (!settings)
        return NULL;
    second = settings->active_rows;
    row = second ? rows_b.lookup(&key) : rows_a.lookup(&key);
    if (row)
        return row;
    empty = empty_row.lookup(&zero.value);
    if (!empty)
        return NULL;
    if (second) {
        rows_b.insert(&key, empty);
        row = rows_b.lookup(&key);
    } else {
        rows_a.insert(&key, empty);
        row = rows_a.lookup(&key);
    }
    if (!row)
        count(COUNTER_LOST_ROWS_FULL);
    return row;
}

/* `bytes` took `time_us`; arms are compared by what `whole` would have taken at that speed. */
static __always_inline void add_transfer(struct transfers *sums, u64 bytes, u64 time_us, u64 whole)
{
    u64 log_bytes, log_time;

    if (!time_us)
        time_us = 1;
    log_bytes = log2_fixed(whole);
    log_time = log2_fixed(time_us) + log_bytes - log2_fixed(bytes);
    add(&sums->count, 1);
    add(&sums->bytes, bytes);
    add(&sums->time_us, time_us);
    add(&sums->log_time, log_time);
    add(&sums->log_bytes, log_bytes);
    add(&sums->log_time_squared, log_time * log_time);
    add(&sums->log_bytes_squared, log_bytes * log_bytes);
    add(&sums->log_time_bytes, log_time * log_bytes);
}

/* What a total came to since it was `before`. */
static __always_inline u64 since(u64 total, u64 before)
{
    return (total - before) * less(before, total);
}

/* SYN and FIN take a sequence number each; they are not data. */
static __always_inline u64 sent_bytes(struct bpf_sock_ops *skops, const struct connection *connection)
{
    return skops->bytes_acked - connection->syn_acknowledged - connection->fin_acknowledged;
}

/* Whether our FIN has been sent, or is about to be, and its ACK has changed nothing yet. */
static __always_inline int sent_fin(struct bpf_sock_ops *skops)
{
    return skops->state == STATE_FIN_WAIT1 || skops->state == STATE_CLOSING || skops->state == STATE_LAST_ACK;
}

static __always_inline u64 received_bytes(struct bpf_sock_ops *skops, const struct connection *connection)
{
    return skops->bytes_received - connection->fin_received;
}

static __always_inline u32 retransmitted_segments(struct bpf_sock_ops *skops, const struct connection *connection)
{
    return skops->total_retrans - connection->controls_retransmitted;
}

/* Adds what is new since the last time to the row. */
static __always_inline void flush(struct bpf_sock_ops *skops, struct connection *connection, struct row *row, u64 now)
{
    u64 bytes = sent_bytes(skops, connection);
    u64 received = received_bytes(skops, connection);
    u32 segments = skops->data_segs_out;
    u32 received_segments = skops->data_segs_in;
    u32 retransmitted = retransmitted_segments(skops, connection);
    u32 pure_acks = skops->segs_out - segments;

    if (!connection->opened_counted) {
        connection->opened_counted = 1;
        add(&row->opened, 1);
    }
    add(&row->sent_bytes, since(bytes, connection->flushed_sent_bytes));
    add(&row->received_bytes, since(received, connection->flushed_received_bytes));
    add(&row->sent_segments, segments - connection->flushed_sent_segments);
    add(&row->received_segments, received_segments - connection->flushed_received_segments);
    add(&row->retransmitted_segments, retransmitted - connection->flushed_retransmitted);
    add(&row->pure_acks, pure_acks - connection->flushed_pure_acks);
    add(&row->thinned_acks, connection->thinning.dropped);
    add(&row->timeouts, connection->timeouts);
    add(&row->rounds, connection->rounds);
    add(&row->rtt_us, connection->rtt_us);
    add(&row->base_rtt_us, connection->base_rtt_us);
    add(&row->busy_us, connection->busy_us);
    add(&row->delivered_segments, connection->delivered_segments);
    add(&row->delivery_us, connection->delivery_us);
    /* Where two processors write at once the smaller may stay: it is a lower bound anyway. */
    if (connection->rate > row->rate)
        row->rate = connection->rate;

    connection->flushed_ns = now;
    connection->flushed_sent_bytes = bytes;
    connection->flushed_received_bytes = received;
    connection->flushed_sent_segments = segments;
    connection->flushed_received_segments = received_segments;
    connection->flushed_retransmitted = retransmitted;
    connection->flushed_pure_acks = pure_acks;
    connection->thinning.dropped = 0;
    connection->timeouts = 0;
    connection->rounds = 0;
    connection->rtt_us = 0;
    connection->base_rtt_us = 0;
    connection->busy_us = 0;
    connection->delivered_segments = 0;
    connection->delivery_us = 0;
    connection->rate = 0;
}
