"""The TCP sockets of this network namespace, as the kernel lists them over netlink (man 7 sock_diag)."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["TcpSocket", "tcp_sockets"]

# include/net/tcp_states.h
_LISTEN = 10
_OPEN = [1, 4, 5, 8]  # established, FIN_WAIT1 and 2, CLOSE_WAIT: data may still come or go

# include/uapi/linux/netlink.h, sock_diag.h, inet_diag.h; Python has no names for most
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_REQUEST_DUMP = 0x1 | 0x300  # NLM_F_REQUEST, NLM_F_ROOT | NLM_F_MATCH
_ERROR, _DONE = 2, 3
_CGROUP_ID = 21  # INET_DIAG_CGROUP_ID, since 5.8
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_REQUEST = struct.Struct("=BBBBI48s")  # family, protocol, extensions, padding, states; struct inet_diag_sockid
_SOCKET = struct.Struct("=BBBB HH 16s16s I Q 20x")  # struct inet_diag_msg: family, state; ports, addresses, cookie
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_BUFFER = 1 << 16
_LOOPBACK = {socket.AF_INET: (b"\x7f",), socket.AF_INET6: (bytes(15) + b"\x01", bytes(10) + b"\xff\xff\x7f")}


@dataclass(frozen=True, slots=True)
class TcpSocket:
    """A listener, or one end of an open connection.

    cookie    what bpf_get_socket_cookie calls it; never given twice
    cgroup    id of the cgroup v2 it was made in
    loopback  only this host can be its other end
    """

    cookie: int
    listening: bool
    cgroup: int
    loopback: bool


def tcp_sockets(*, listening: bool, connected: bool) -> Iterator[TcpSocket]:
    """Every listener, or every open connection, or both.

    Sockets that come or go meanwhile may be there or not. Raises OSError where the kernel has no such list, or netlink
    is forbidden to this process.
    """
    states = [_LISTEN] * listening + _OPEN * connected
    for family in (socket.AF_INET, socket.AF_INET6):
        yield from _dump(family, states)


def _dump(family: int, states: list[int]) -> Iterator[TcpSocket]:
    wanted = sum(1 << state for state in states)
    body = _REQUEST.pack(family, socket.IPPROTO_TCP, 0, 0, wanted, bytes(48))
    header = _HEADER.pack(_HEADER.size + len(body), _SOCK_DIAG_BY_FAMILY, _REQUEST_DUMP, 1, 0)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as channel:
        channel.settimeout(10.0)
        channel.send(header + body)
        while True:
            data = channel.recv(_BUFFER)
            at = 0
            while at < len(data):
                length, kind, *_ = _HEADER.unpack_from(data, at)
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    (error,) = struct.unpack_from("=i", data, at + _HEADER.size)
                    raise OSError(-error, f"sock_diag: {os.strerror(-error)}")
                yield _read(data, at + _HEADER.size, at + length)
                at += (length + 3) & ~3


def _read(data: bytes, at: int, end: int) -> TcpSocket:
    family, state, _, _, _, _, source, destination, _, cookie = _SOCKET.unpack_from(data, at)
    at += _SOCKET.size
    cgroup = 0
    while at < end:
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if kind == _CGROUP_ID:
            (cgroup,) = struct.unpack_from("=Q", data, at + _ATTRIBUTE.size)
            break
        at += (length + 3) & ~3
    listening = state == _LISTEN
    loopback = (source if listening else destination).startswith(_LOOPBACK[family])
    return TcpSocket(cookie, listening, cgroup, loopback or (source == destination and not listening))
