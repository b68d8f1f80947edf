/* SPDX-License-Identifier: GPL-2.0-only */
/* Transfers of a connection: how fast they were, the pauses between them, their pieces, and when they begin and end. */

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
    connection->transfer_base_bytes = sent_bytes(skops, connection); /* also where no row had room for the last one */
    connection->busy_us += ago_us;
    note_event(skops, connection, now);
}
