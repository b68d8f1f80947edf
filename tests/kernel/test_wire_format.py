"""The wire format against a reference: arbitrary option strings in real segments, one real connection an example.

What the server's socket becomes and what is counted must equal what the reference (wire_reference.py) says.
"""

from __future__ import annotations

import itertools
import os
import select
import socket
import struct
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path

import pytest
import wire_reference as reference
from hypothesis import HealthCheck, assume, given, note, settings
from hypothesis import strategies as st
from running import require_root
from test_hostile_options import NAMESPACE, Client, packet, wire

from agent import features
from agent.cgroups import mount_point
from agent.config import Ack, Config, Congestion, InitialWindow
from agent.config_extensions import Extensions, UserTimeout
from agent.journal import Journal
from agent.kernel import Kernel
from agent.lab.enter import in_namespace
from agent.loader import Loader, map_sizes
from agent.tuner import Tuner

HONOURED, STRANGE = 82, 83  # second bytes of the clients' addresses
# What the examples have to come across, or they would show little.
REACHED = {
    *itertools.product(
        ("user_timeout", "window_request", "ack_request", "ack_announcement"),
        ("received", "granted", "refused_network"),
    ),
    *(("congestion_request", outcome) for outcome in ("received", "granted", "refused_network", "refused_algorithm")),
    *((extension, "refused_malformed") for extension in ("user_timeout", "window_request", "ack_announcement")),
    ("ack_request", "refused_kernel"),
}
OUTCOMES = ("received", "granted", "refused_")
# TCP_RTO_MIN_US, TCP_DELACK_MAX_US (include/uapi/linux/tcp.h); kernels before 6.15 cannot be asked
RTO_MIN, DELACK_MAX = 45, 46
DEFAULT_US = 200_000

# A listener made in the namespace and the cgroup, handed over: what it accepts is accepted by the test.
LISTEN = """
import socket, sys
listener = socket.create_server(("10.81.0.1", 7000), backlog=64)
socket.send_fds(socket.socket(fileno=int(sys.argv[1])), [b"."], [listener.fileno()])
"""


@dataclass
class Bench:
    """A server that can be asked, and what it is expected to answer to whom."""

    kernel: Kernel
    descriptor: int
    listener: socket.socket
    congestion: str
    server: dict[bool, reference.Server]
    numbers: Iterator[int]

    def counts(self) -> Counter[tuple[str, str]]:
        """What happened so far to what was received."""
        found = self.kernel.extension_counts().items()
        return Counter({key: count for key, count in found if key[1].startswith(OUTCOMES) and count})


@contextmanager
def bench(config: Config, cgroup: Path) -> Iterator[Bench]:
    kernel = Kernel(Loader(map_sizes(config)).finish())
    ours, theirs = socket.socketpair()
    with wire() as descriptor, ours, theirs:
        try:
            # Nothing but what is asked for: all others are the control group.
            quiet = config.model_copy(update={"control": config.control.model_copy(update={"holdout": 1.0})})
            in_namespace(NAMESPACE, lambda: Tuner(quiet, kernel, Journal(None), dry_run=False))
            kernel.control(lease_until_ns=time.monotonic_ns() + 600 * 10**9)
            kernel.attach([cgroup])
            enter = [sys.executable, "-m", "agent.lab.enter", "--netns", NAMESPACE, "--cgroup", str(cgroup), "--"]
            command = [*enter, sys.executable, "-c", LISTEN, str(theirs.fileno())]
            subprocess.run(command, pass_fds=[theirs.fileno()], check=True, timeout=30)
            _, [number], _, _ = socket.recv_fds(ours, 1, 1)
            with socket.socket(fileno=number) as listener:
                listener.setblocking(False)
                congestion = in_namespace(NAMESPACE, features.host_congestion)
                server = {honours: server_of(config, honours=honours) for honours in (False, True)}
                yield Bench(kernel, descriptor, listener, congestion, server, itertools.count())
        finally:
            kernel.close()


def server_of(config: Config, *, honours: bool) -> reference.Server:
    algorithms = {1: "reno", 2: "cubic", 3: "bbr"}
    timeout = config.extensions.user_timeout
    return reference.Server(
        honours=honours,
        exid=config.extensions.exid,
        algorithms={number: name for number, name in algorithms.items() if name in config.congestion.allowed},
        user_timeout=(round(timeout.send or 0), round(timeout.min), round(timeout.max)),
        window_max=config.initial_window.max,
        thinning_max=config.ack.most_thinned,
    )


CONFIGS = {
    "all": Config(
        initial_window=InitialWindow(max=60),
        congestion=Congestion(allowed=("cubic", "bbr", "reno")),
        ack=Ack(thinning=True, thinning_max=20),
        extensions=Extensions(
            honour_from=(ip_network(f"10.{HONOURED}.0.0/16"),),
            user_timeout=UserTimeout(send=250.0, min=120.0, max=4000.0),
        ),
    ),
    "little": Config(
        congestion=Congestion(allowed=("reno",)),
        extensions=Extensions(exid=0x1234, honour_from=(ip_network(f"10.{HONOURED}.0.0/16"),)),
    ),
}


@pytest.fixture(scope="module", params=["all", pytest.param("little", marks=pytest.mark.long)])
def asked(request: pytest.FixtureRequest) -> Iterator[Bench]:
    require_root()
    cgroup = mount_point() / f"tcptuned-wire-{os.getpid()}"
    cgroup.mkdir()
    try:
        with bench(CONFIGS[request.param], cgroup) as opened:
            yield opened
    finally:
        cgroup.rmdir()


# --- option strings ---------------------------------------------------------------------------------------------------

VALUES = st.one_of(st.sampled_from([1, 2, 3, 4, 5, 12, 33, 200]), st.integers(0, 255))
# Most pieces are right; a list says how often it is chosen which.
MOSTLY = [True] * 5 + [False]


def option(kind: int, body: bytes) -> bytes:
    return bytes([kind, len(body) + 2]) + body


@st.composite
def experiments(draw: st.DrawFn, exid: bytes) -> bytes:
    """Kind 254: right in most things, and wrong in some."""
    others = st.one_of(st.sampled_from([b"\xe7\xc9", b"\x12\x34", b"\xf9\x89"]), st.binary(min_size=2, max_size=2))
    named = exid if draw(st.sampled_from(MOSTLY)) else draw(others)
    version = 1 if draw(st.sampled_from(MOSTLY)) else draw(VALUES)
    subtype = draw(st.sampled_from([1, 1, 1, 2, 2, 0, 3]))
    length = draw(st.sampled_from([4, 4, 2, 2, 0, 1, 3, 6, 10, 11]))
    whole = option(254, named + bytes([version, subtype]) + bytes(draw(VALUES) for _ in range(length)))
    return whole if draw(st.sampled_from(MOSTLY)) else whole[: draw(st.integers(1, len(whole)))]


@st.composite
def rates(draw: st.DrawFn) -> bytes:
    """The option of the ACK rate draft, mostly of its two lengths."""
    length = draw(st.sampled_from([0, 0, 1, 1, 1, 2, 6]))
    # Half of the requests are for no rate at all, which we refuse.
    asked = st.one_of(st.sampled_from([0, 1]), VALUES)
    return option(254, b"\x00\xac" + bytes(draw(asked) for _ in range(length)))


timeouts = st.one_of(
    st.sampled_from([0, 1, 100, 121, 260, 0x8000, 0x8001, 0x8005, 0x7FFF, 0xFFFF]).map(
        lambda value: option(28, value.to_bytes(2))
    ),
    st.integers(0, 0xFFFF).map(lambda value: option(28, value.to_bytes(2))),
    st.binary(max_size=5).map(lambda body: option(28, body)),
)
strangers = st.one_of(
    st.sampled_from([b"\x01", b"\x01\x01", b"\x00", option(2, b"\x05\xb4"), option(4, b""), option(3, b"\x07")]),
    st.builds(option, st.sampled_from([27, 30, 35, 69, 78, 253]), st.binary(max_size=6)),
    st.binary(max_size=4),
)


@st.composite
def wrong_lengths(draw: st.DrawFn, exid: bytes) -> bytes:
    whole = draw(st.one_of(experiments(exid), timeouts))
    return whole[:1] + bytes([draw(VALUES)]) + whole[2:]


@st.composite
def option_strings(draw: st.DrawFn, exid: bytes) -> bytes:
    """Up to 40 bytes of options; an option that does not fit is cut, so that it points beyond the header."""
    pieces = st.one_of(experiments(exid), experiments(exid), rates(), rates(), timeouts, strangers, wrong_lengths(exid))
    parts = [draw(pieces) for _ in range(draw(st.sampled_from([1, 1, 2, 2, 3, 4, 0])))]
    if parts and not draw(st.sampled_from(MOSTLY)):
        parts.append(parts[0])
    found = b"".join(parts)[:40]
    return found + bytes([draw(st.sampled_from([0, 1]))]) * (-len(found) % 4)


@st.composite
def sound_requests(draw: st.DrawFn, exid: bytes) -> bytes:
    """A SYN that is in order, with both ways of asking."""
    asked = bytes([draw(st.integers(0, 13)), draw(VALUES), *(draw(VALUES) for _ in range(draw(st.integers(0, 4))))])
    parts = [option(2, b"\x05\xb4"), option(254, exid + b"\x01\x01" + asked)]
    if draw(st.booleans()):
        parts.append(option(254, b"\x00\xac"))
    if draw(st.booleans()):
        parts.append(draw(timeouts))
    return padded(b"".join(parts))


def padded(options: bytes) -> bytes:
    return options + bytes(-len(options) % 4)


def may_be_dropped(options: bytes) -> bool:
    """Whether kernels with TCP-MD5 or TCP-AO may drop such a segment before anybody sees it: it has one of these
    options, or makes no sense (net/ipv4/tcp_input.c, tcp_do_parse_auth_options)."""
    return not reference.is_sound(options) or any(each[0] in (19, 29) for each in reference.chain(options))


# --- one connection an example ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Seen:
    """What the server's socket is like, times in microseconds.

    rto_min, ack_delay  None on kernels that do not tell; whether ACKs wait for less than the kernel's 200 ms
    """

    congestion: str
    window: int
    user_timeout: int
    rto_min: int | None
    ack_delay: bool | None
    rtt: int


def seen(connection: socket.socket) -> Seen:
    def told(number: int) -> int | None:
        try:
            return connection.getsockopt(socket.IPPROTO_TCP, number)
        except OSError:
            return None

    delay = told(DELACK_MAX)
    information = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return Seen(
        connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\0").decode(),
        struct.unpack_from("I", information, 80)[0],
        connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
        told(RTO_MIN),
        None if delay is None else delay < DEFAULT_US,
        struct.unpack_from("I", information, 68)[0],
    )


def expected(answer: reference.Answer, congestion: str, like: Seen) -> Seen:
    """The socket that the answer means, where this kernel tells as much as in `like`."""
    tick = features.jiffy_us()
    rto_min = DEFAULT_US
    fast = DEFAULT_US - tick
    if answer.rto_min is not None:
        # The peer's delay, two ticks and a microsecond (the least that the kernel takes), rounded up to ticks.
        wanted = min(max(answer.rto_min * 1000 + 2 * tick + 1, 20_000), DEFAULT_US)
        rto_min = -(-wanted // tick) * tick
    return Seen(
        answer.congestion or congestion,
        answer.window or 10,
        answer.user_timeout,
        None if like.rto_min is None else rto_min,
        None if like.ack_delay is None else bool(answer.ack_divisor and like.rtt < fast * answer.ack_divisor),
        like.rtt,
    )


def patience(options: bytes) -> float:
    """Seconds to wait for what comes of a segment. It has been worked on when writing it to the device returns, so no
    time is spent on those that may be dropped."""
    return 0.0 if may_be_dropped(options) else 5.0


def sent_back(asked: Bench, client: Client, seconds: float) -> tuple[int, int] | None:
    """Sequence and acknowledgement of the SYN-ACK to a client, if there is one."""
    while select.select([asked.descriptor], [], [], seconds)[0]:
        data = os.read(asked.descriptor, 2048)
        port, sequence, acknowledge = struct.unpack("!xxHII", data[20:32])
        if data[9] == 6 and data[33] == 0x12 and (data[16:20], port) == client:
            return sequence, acknowledge
    return None


def converse(asked: Bench, client: Client, syn: bytes, ack: bytes, data: bytes) -> Iterator[tuple[Seen, Counter]]:
    """A connection with these options in its first three segments: the socket, and the counts, after two of them.

    A string for which the kernel drops a segment is no example.
    """
    before = asked.counts()
    os.write(asked.descriptor, packet(*client, sequence=7, acknowledge=0, flags=2, options=syn))
    found = sent_back(asked, client, patience(syn))
    assert found or may_be_dropped(syn)
    assume(found)
    sequence, acknowledge = found
    assert acknowledge == 8
    rest = {"sequence": 8, "acknowledge": sequence + 1}
    os.write(asked.descriptor, packet(*client, **rest, flags=0x10, options=ack))
    arrived = select.select([asked.listener], [], [], patience(ack))[0]
    assert arrived or may_be_dropped(ack)
    assume(arrived)
    connection, peer = asked.listener.accept()
    with connection:
        assert peer[1] == client[1]
        yield seen(connection), asked.counts() - before
        os.write(asked.descriptor, packet(*client, **rest, flags=0x18, options=data, data=b"work"))
        arrived = select.select([connection], [], [], patience(data))[0]
        assert arrived or may_be_dropped(data)
        assume(arrived)
        assert connection.recv(5) == b"work"
        yield seen(connection), asked.counts() - before
    os.write(asked.descriptor, packet(*client, sequence=12, acknowledge=sequence + 1, flags=4))


def example(asked: Bench, honours: bool, syn: bytes, ack: bytes, data: bytes) -> None:
    """One connection, and what the reference says of it."""
    # Timestamps once agreed on have to be in every segment, and to grow.
    assume(not any(each[0] == 8 for options in (syn, ack, data) for each in reference.chain(options)))
    number = next(asked.numbers)
    client = bytes([10, HONOURED if honours else STRANGE, number >> 8 & 255, number & 255]), 20_000 + (number >> 16)
    server = asked.server[honours]
    note(f"SYN {syn.hex(' ')}, ACK {ack.hex(' ')}, data {data.hex(' ')}")
    conversation = converse(asked, client, syn, ack, data)
    answer = reference.established(syn, ack, server)
    socket_now, counts = next(conversation)
    assert counts == answer.counts
    assert socket_now == expected(answer, asked.congestion, socket_now)
    answer = reference.later(data, server, answer)
    socket_now, counts = next(conversation)
    assert counts == answer.counts
    assert socket_now == expected(answer, asked.congestion, socket_now)
    assert next(conversation, None) is None


def test_the_server_does_what_the_reference_says(asked: Bench) -> None:
    exid = asked.server[True].exid.to_bytes(2)
    strings = option_strings(exid)
    syns = st.one_of(strings, sound_requests(exid))
    acks = st.one_of(strings, rates().map(padded))
    examples = given(honours=st.sampled_from([True, True, False]), syn=syns, ack=acks, data=strings)
    patient = settings(max_examples=1500, deadline=None, derandomize=True, suppress_health_check=[*HealthCheck])
    patient(examples(lambda **drawn: example(asked, **drawn)))()
    reached = asked.counts()
    print(dict(reached))
    for outcome in REACHED | (set() if asked.server[True].thinning_max else {("ack_request", "refused_off")}):
        assert reached[outcome] >= 10, outcome


def test_the_reference_knows_the_documented_strings() -> None:
    """The README's own example, so that two mistakes in the same place would be noticed."""
    server = server_of(CONFIGS["all"], honours=True)
    syn = bytes.fromhex("1c04 0190 fe0a e7c9 01 01 01 21 0c 06 0000")
    answer = reference.established(syn, b"", server)
    assert (answer.congestion, answer.window, answer.user_timeout) == ("reno", 33, 400_000)
    assert answer.counts["ack_request", "granted"] == 1
