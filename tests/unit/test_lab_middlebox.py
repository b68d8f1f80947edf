"""Middleboxes on packets made by hand."""

from __future__ import annotations

import struct
from ipaddress import ip_address

import pytest

from agent.lab.middlebox import FirstSynBox, OptionBox, drop_experimental, strip_experimental

MSS = bytes([2, 4, 5, 180])
EXPERIMENT = bytes([254, 6, 0xE7, 0xC9, 1, 2])
TIMEOUT = bytes([28, 4, 0x80, 5])


def checksum(data: bytes) -> int:
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return 0xFFFF & ~total


def addressed(segment: bytes, version: int) -> tuple[bytes, bytes]:
    """The pseudo header and the IP header of a TCP segment."""
    if version == 4:
        ends = ip_address("10.77.1.1").packed + ip_address("10.78.0.1").packed
        header = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(segment), 0, 0, 64, 6, 0) + ends
        return ends + struct.pack(">HH", 6, len(segment)), header
    ends = ip_address("fd77:1::1").packed + ip_address("fd78::1").packed
    return ends + struct.pack(">II", len(segment), 6), struct.pack(">IHBB", 6 << 28, len(segment), 6, 64) + ends


def packet(options: bytes, version: int, payload: bytes = b"data") -> bytes:
    """A right TCP packet; `options` are padded with ends of list."""
    options += bytes(-len(options) % 4)
    header = struct.pack(">HHIIBBHHH", 1234, 8080, 7, 9, (20 + len(options)) // 4 << 4, 0x18, 500, 0, 0)
    segment = bytearray(header + options + payload)
    pseudo, ip = addressed(bytes(segment), version)
    struct.pack_into(">H", segment, 16, checksum(pseudo + segment))
    return ip + segment


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(
    "options", [EXPERIMENT, MSS + EXPERIMENT + TIMEOUT, b"\1" + EXPERIMENT, TIMEOUT + EXPERIMENT * 2]
)
def test_an_option_is_overwritten_and_the_checksum_stays_right(version: int, options: bytes) -> None:
    before = packet(options, version)
    after = strip_experimental(before)
    assert after == packet(options.replace(EXPERIMENT, b"\1" * 6), version)


def test_every_value_of_an_option_keeps_the_checksum_right() -> None:
    expected = packet(b"\1" * 4, 4)
    for value in range(0x10000):
        option = struct.pack(">BBH", 253, 4, value)
        assert strip_experimental(packet(option, 4)) == expected


@pytest.mark.parametrize("version", [4, 6])
def test_packets_without_the_option_pass_untouched(version: int) -> None:
    plain = packet(MSS + TIMEOUT, version)
    assert strip_experimental(plain) is plain
    assert drop_experimental(plain) is plain
    assert drop_experimental(packet(MSS + EXPERIMENT, version)) is None


def test_what_is_not_a_sound_tcp_header_passes() -> None:
    udp = bytearray(packet(EXPERIMENT, 4))
    udp[9] = 17
    assert strip_experimental(bytes(udp)) == udp
    for broken in (bytes([254]), bytes([254, 0, 0, 0]), bytes([254, 41, 0, 0]), bytes([1, 1, 1, 254])):
        whole = packet(broken, 4)
        assert OptionBox({254})(whole) == whole
    assert strip_experimental(packet(EXPERIMENT, 4)[:30]) == packet(EXPERIMENT, 4)[:30]


@pytest.mark.parametrize("version", [4, 6])
def test_a_first_syn_is_lost_once(version: int) -> None:
    box = FirstSynBox()
    data = packet(MSS, version)
    syn = bytearray(data)
    syn[(20 if version == 4 else 40) + 13] = 0x02
    assert [box(bytes(syn)), box(data), box(bytes(syn)), box(bytes(syn))] == [None, data, syn, syn]
    syn[(20 if version == 4 else 40) + 1] += 1  # another connection: its source port
    assert box(bytes(syn)) is None
