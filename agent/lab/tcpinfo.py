"""struct tcp_info of include/uapi/linux/tcp.h as a dict: what getsockopt(TCP_INFO) tells about a connection."""

from __future__ import annotations

import socket
import struct

__all__ = ["read_tcp_info"]

# (offset, format, names), native byte order. Older kernels return a shorter struct: fields beyond its end are left out.
_BYTES = "state ca_state retransmits probes backoff options"
_WORDS = (
    "rto ato snd_mss rcv_mss unacked sacked lost retrans fackets last_data_sent last_ack_sent last_data_recv "
    "last_ack_recv pmtu rcv_ssthresh rtt rttvar snd_ssthresh snd_cwnd advmss reordering rcv_rtt rcv_space total_retrans"
)
_LAYOUT: tuple[tuple[int, str, str], ...] = (
    (0, "B", _BYTES),
    (8, "I", _WORDS),
    (104, "Q", "pacing_rate max_pacing_rate bytes_acked bytes_received"),
    (136, "I", "segs_out segs_in notsent_bytes min_rtt data_segs_in data_segs_out"),
    (160, "Q", "delivery_rate busy_time rwnd_limited sndbuf_limited"),
    (192, "I", "delivered delivered_ce"),
    (200, "Q", "bytes_sent bytes_retrans"),
    (216, "I", "dsack_dups reord_seen rcv_ooopack snd_wnd rcv_wnd rehash"),
    (240, "H", "total_rto total_rto_recoveries"),
    (244, "I", "total_rto_time"),
)
_SIZE = 248


def read_tcp_info(sock: socket.socket) -> dict[str, int]:
    """The fields the kernel knows, without their tcpi_ prefix: times in microseconds (rtt, rttvar, min_rtt, rto, ...),
    last_* in milliseconds, rates in bytes a second, windows in segments or bytes as in the kernel. OSError as usual.
    """
    data = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, _SIZE)
    found = {}
    for start, kind, names in _LAYOUT:
        width = struct.calcsize(kind)
        for index, name in enumerate(names.split()):
            offset = start + index * width
            if offset + width <= len(data):
                (found[name],) = struct.unpack_from(kind, data, offset)
    return found
