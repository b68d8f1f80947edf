/* SPDX-License-Identifier: GPL-2.0-only */
/* ACK thinning: the kernel acknowledges every second segment, and nothing makes it do so less often; so ACKs that say
 * little are dropped on their way out. TCP believes that they were sent, so whatever somebody waits for passes: the end
 * of a write or of the connection, a sign of loss, a window that opens, and at least one ACK every RTT / divisor. */

/* A TCP header as on the wire, and the words it is loaded by. */
union tcp_header {
    u64 words[3];
    struct {
        u32 ports;
        u32 sequence;
        u32 acknowledged;
        u8 length; /* in words, in the upper half */
        u8 flags;
        u16 window;
        u32 checksum;
    };
};

/* The storage of a thinned connection: to be checked at once (see extended()). */
static __always_inline struct connection *thinned(struct bpf_sock *sk)
{
    struct connection *connection = connections.sk_storage_get(sk, 0, 0);

    return connection && connection->thinning.segments ? connection : NULL;
}

/* Loads the TCP header of a packet that begins with its IP header. Returns the length of both headers; 0 for a packet
 * that we do not take apart: IP options or extension headers. */
static __always_inline u32 load_headers(struct __sk_buff *skb, union tcp_header *tcp)
{
    u32 v4 = skb->protocol == bpf_htons(IPV4_PROTOCOL);
    u32 ip_length = v4 ? IPV4_HEADER : IPV6_HEADER;
    union stack_int first = {};

    if (bpf_skb_load_bytes(skb, v4 ? 0 : IPV6_NEXT_HEADER, &first.value, 1))
        return 0;
    if ((first.word & 0xff) != (v4 ? IPV4_FIRST_BYTE : PROTOCOL_TCP))
        return 0;
    if (bpf_skb_load_bytes(skb, ip_length, tcp, TCP_HEADER))
        return 0;
    return ip_length + (tcp->length >> 4) * 4;
}

/* A write ends here: PSH and a segment that is not full. A sender whose buffer is full sets PSH again and again, in full
 * segments, and has more to say. */
static __always_inline int ends_write(struct thinning *thinning, u32 payload, u32 gso_size, u8 flags)
{
    u32 segment = gso_size ? gso_size : payload;

    if (segment > thinning->largest)
        thinning->largest = segment;
    return flags & TCP_FLAG_PUSH_BIT && payload % thinning->largest;
}

/* cgroup/skb ingress: somebody may wait for the ACK of this segment. Segments are parsed before their socket is locked,
 * so the flag alone would be taken off by the ACK of an earlier one. */
static __always_inline void thin_arrival(struct __sk_buff *skb)
{
    struct bpf_sock *sk = skb->sk;
    struct connection *connection;
    union tcp_header tcp = {};
    u32 headers, payload;

    if (!sk)
        return;
    sk = bpf_sk_fullsock(sk);
    if (!sk)
        return;
    connection = thinned(sk);
    if (!connection)
        return;
    headers = load_headers(skb, &tcp);
    if (!headers)
        return;
    payload = skb->len - headers;
    if (!ends_write(&connection->thinning, payload, skb->gso_size, tcp.flags) && !(tcp.flags & TCP_FLAG_FIN_BIT))
        return;
    connection->thinning.pushed_end = bpf_ntohl(tcp.sequence) + payload + (tcp.flags & TCP_FLAG_FIN_BIT);
    connection->thinning.pushed = 1;
}

/* A segment without data, and without options but timestamps: SACK says that something is missing. */
static __always_inline int is_plain_ack(struct __sk_buff *skb, const union tcp_header *tcp, u32 headers)
{
    union stack_int option = {};

    if (tcp->flags != TCP_FLAG_ACK_BIT || tcp->length & 0xf)
        return 0;
    if (tcp->length >> 4 == TCP_HEADER / 4)
        return 1;
    if (tcp->length >> 4 != TCP_HEADER_TIMESTAMPS / 4)
        return 0;
    if (bpf_skb_load_bytes(skb, headers - (TCP_HEADER_TIMESTAMPS - TCP_HEADER), &option.value, 4))
        return 0;
    return (u32)option.word == bpf_htonl(TCP_TIMESTAMPS_WORD);
}

/* Something is missing: the first sign of it after a while halves what an ACK may stand for. */
static __always_inline void note_loss(struct thinning *thinning)
{
    if (!thinning->spared)
        thinning->fewer += (u32)(thinning->segments - thinning->fewer) / 2;
    thinning->spared = THIN_LOSS_ACKS;
    thinning->calm = 0;
}

static __always_inline void note_passed(struct thinning *thinning)
{
    if (!thinning->fewer || ++thinning->calm < THIN_CALM_ACKS)
        return;
    thinning->calm = 0;
    thinning->fewer--;
}

/* How many segments an ACK may stand for now. */
static __always_inline u32 thin_every(struct thinning *thinning, u32 arrived, u64 now, u64 rtt_ns)
{
    u64 elapsed = now - thinning->round_ns;
    u32 share, most = thinning->segments - thinning->fewer;

    if (elapsed >= rtt_ns) {
        thinning->per_round = (arrived - thinning->round_segments) * rtt_ns / elapsed;
        thinning->round_segments = arrived;
        thinning->round_ns = now;
    }
    share = thinning->per_round / THIN_ACKS_PER_RTT;
    return share < most ? share : most;
}

/* Whether somebody may wait for what this segment says, of itself; of any segment, as data carries an ACK as well. The
 * same number again is a duplicate, which says that something is missing, or a window that opens. */
static __always_inline int says_more(struct thinning *thinning, u32 acknowledged, u16 window)
{
    int more = acknowledged == thinning->last_ack || !window || !thinning->last_window;

    thinning->last_ack = acknowledged;
    thinning->last_window = window;
    return more;
}

static __always_inline int may_drop(struct thinning *thinning, u32 acknowledged, u32 arrived, u64 now, u64 rtt_ns)
{
    u32 every = thin_every(thinning, arrived, now, rtt_ns);

    if (thinning->spared) {
        thinning->spared--;
        return 0;
    }
    if (arrived < THIN_FIRST_SEGMENTS || every < THIN_SEGMENTS_MIN)
        return 0;
    if (thinning->pushed && (s32)(acknowledged - thinning->pushed_end) >= 0)
        return 0;
    return arrived - thinning->passed_segments < every && (now - thinning->passed_ns) * thinning->divisor < rtt_ns;
}

/* cgroup/skb egress: 0 drops the packet. Dropped here, it does not shrink the socket's own congestion window. */
static __always_inline int thin(struct __sk_buff *skb)
{
    struct bpf_sock *sk = skb->sk;
    struct connection *connection;
    struct thinning *thinning;
    struct bpf_tcp_sock *tp;
    struct control *settings;
    union stack_int zero = {};
    union tcp_header tcp = {};
    u32 headers, acknowledged, arrived;
    int more;
    u64 now;

    if (!sk)
        return 1;
    sk = bpf_sk_fullsock(sk);
    if (!sk)
        return 1;
    connection = thinned(sk);
    if (!connection)
        return 1;
    tp = bpf_tcp_sock(sk);
    if (!tp)
        return 1;
    thinning = &connection->thinning;
    arrived = tp->data_segs_in;
    now = bpf_ktime_get_ns();
    headers = load_headers(skb, &tcp);
    acknowledged = bpf_ntohl(tcp.acknowledged);
    more = says_more(thinning, acknowledged, tcp.window);
    if (headers && skb->len == headers) {
        if (!is_plain_ack(skb, &tcp, headers))
            note_loss(thinning);
        else if (may_drop(thinning, acknowledged, arrived, now, (u64)(tp->srtt_us >> 3) * 1000) && !more) {
            settings = control.lookup(&zero.value);
            if (settings && settings->lease_until_ns >= now) {
                thinning->dropped++;
                return 0;
            }
        }
    }
    /* Data carries an ACK as well. */
    if ((s32)(acknowledged - thinning->pushed_end) >= 0)
        thinning->pushed = 0;
    note_passed(thinning);
    thinning->passed_segments = arrived;
    thinning->passed_ns = now;
    return 1;
}
