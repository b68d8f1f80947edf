"""Middleboxes for `LinkSpec.middlebox`: boxes on the way that dislike TCP options.

What they do was found on the Internet (Honda et al., "Is it still possible to extend TCP?", IMC 2011): most paths let
an unknown option pass, some remove it, a few swallow the packet.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable

__all__ = [
    "FirstSynBox", "OptionBox", "drop_experimental", "lose_first_syns", "strip_experimental", "strip_timestamps",
]  # fmt: skip

_TCP = 6
_SYN = 0x02
_NOP = 1
_END = 0


class OptionBox:
    """Overwrites TCP options of some kinds with NOPs, or swallows packets that carry them (`drop`).

    Takes whole IPv4 or IPv6 packets without extension headers or fragments; whatever is not TCP passes as it is. The
    checksum stays right (RFC 1624).
    """

    def __init__(self, kinds: Iterable[int], *, drop: bool = False) -> None:
        self._kinds = frozenset(kinds)
        self._drop = drop

    def __call__(self, packet: bytes) -> bytes | None:
        start = _tcp(packet)
        if start is None:
            return packet
        end = min(start + (packet[start + 12] >> 4) * 4, len(packet))
        found = [span for kind, *span in _options(packet, start + 20, end) if kind in self._kinds]
        if not found:
            return packet
        if self._drop:
            return None
        changed = bytearray(packet)
        for at, after in found:
            changed[at:after] = bytes([_NOP]) * (after - at)
        words = struct.Struct(f">{(end - start - 20) // 2}H")
        (checksum,) = struct.unpack_from(">H", packet, start + 16)
        total = 0xFFFF & ~checksum
        total += sum(words.unpack_from(changed, start + 20)) - sum(words.unpack_from(packet, start + 20))
        # The difference may be negative: ones' complement arithmetic is arithmetic modulo 0xFFFF, with 0 written 0xFFFF
        struct.pack_into(">H", changed, start + 16, 0xFFFF - (total % 0xFFFF or 0xFFFF))
        return bytes(changed)


class FirstSynBox:
    """Swallows the first SYN, or SYN-ACK, of every connection; when it is sent again it passes."""

    def __init__(self) -> None:
        self._seen: set[bytes] = set()

    def __call__(self, packet: bytes) -> bytes | None:
        start = _tcp(packet)
        if start is None or not packet[start + 13] & _SYN:
            return packet
        # Addresses, ports and sequence number.
        name = packet[12 if packet[0] >> 4 == 4 else 8 : start] + packet[start : start + 8]
        if name in self._seen:
            return packet
        self._seen.add(name)
        return None


def _tcp(packet: bytes) -> int | None:
    """Where the TCP header begins, if there is a whole one."""
    if packet[0] >> 4 == 4:
        start, protocol = (packet[0] & 15) * 4, packet[9]
    else:
        start, protocol = 40, packet[6]
    return start if protocol == _TCP and len(packet) >= start + 20 else None


def _options(packet: bytes, at: int, end: int) -> Iterable[tuple[int, int, int]]:
    """(kind, start, end) of each option of a TCP header; stops at the first malformed one."""
    while at < end and (kind := packet[at]) != _END:
        if kind == _NOP:
            at += 1
            continue
        if at + 1 >= end or (length := packet[at + 1]) < 2 or at + length > end:
            return
        yield kind, at, at + length
        at += length


lose_first_syns = FirstSynBox()
strip_experimental = OptionBox({253, 254})  # RFC 4727, RFC 6994
drop_experimental = OptionBox({253, 254}, drop=True)
strip_timestamps = OptionBox({8})  # RFC 7323
