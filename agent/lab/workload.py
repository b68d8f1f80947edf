"""What a laboratory's client is asked to do (`Transfer`) and what it reports (`Completion`); the server's options."""

from __future__ import annotations

import dataclasses
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.errors import LabError

__all__ = ["PORT", "Completion", "ServerOptions", "Transfer", "goodput_mbps", "set_option"]

PORT = 8080  # the server listens here, in IPv4 and IPv6

_TCP = socket.IPPROTO_TCP
_OPTIONS = {  # by name: level and number, include/uapi/linux/tcp.h and asm-generic/socket.h
    "congestion": (_TCP, socket.TCP_CONGESTION),
    "user_timeout": (_TCP, socket.TCP_USER_TIMEOUT),  # milliseconds
    "max_pacing_rate": (socket.SOL_SOCKET, 47),  # SO_MAX_PACING_RATE, bytes a second
}

OptionValue = int | str


def set_option(sock: socket.socket, name: str, value: OptionValue) -> None:
    """Sets a socket option by the name used here; OSError as setsockopt(2), LabError for an unknown name."""
    if name not in _OPTIONS:
        raise LabError(f"unknown socket option {name}; known: {', '.join(_OPTIONS)}")
    level, number = _OPTIONS[name]
    if name == "congestion":
        sock.setsockopt(level, number, str(value).encode())
    else:
        sock.setsockopt(level, number, int(value))


@dataclass(frozen=True, kw_only=True)
class ServerOptions:
    """How the server listens.

    dual_stack  one IPv6 listener that takes IPv4 too (as ::ffff:a.b.c.d), instead of one listener for each
    backlog     longest queue of connections not yet accepted
    listener    socket options the application sets on its listener, such as {"congestion": "reno"}
    accepted    socket options it sets on every accepted connection
    """

    dual_stack: bool = False
    backlog: int = 4096
    listener: Mapping[str, OptionValue] = field(default_factory=dict)
    accepted: Mapping[str, OptionValue] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Transfer:
    """Objects to move over one path, each on a connection of its own unless `keep`.

    path         name of the path
    size         bytes of an object
    sizes        instead: object i has sizes[i modulo their number] bytes
    count        objects in all; None: as many as `seconds` allow
    concurrency  connections at the same time
    seconds      start no object later than this after the first one
    cut          with `seconds`: also end the objects under way at that time (the connection is reset)
    upload       client to server instead of server to client
    family       4 or 6
    mapped       reach IPv4 through an IPv6 socket (::ffff:a.b.c.d)
    keep         every worker moves all its objects over one connection
    gap_ms       pause of a worker between two objects
    think_ms     the server waits so long before it answers
    state        ask the server for its socket's state after each object (downloads; keeps the connection until then)
    watch_ms     with `state`: the server also samples its socket so often meanwhile
    timeout      seconds an object may take
    client       socket options the client sets before it connects, such as {"congestion": "reno"}
    server       socket options the server sets on this connection when it has read the request
    """

    path: str
    size: int
    count: int | None = 1
    concurrency: int = 1
    seconds: float | None = None
    cut: bool = False
    upload: bool = False
    family: int = 4
    mapped: bool = False
    keep: bool = False
    gap_ms: float = 0.0
    think_ms: float = 0.0
    state: bool = False
    watch_ms: float = 0.0
    sizes: Sequence[int] = ()
    timeout: float = 60.0
    client: Mapping[str, OptionValue] = field(default_factory=dict)
    server: Mapping[str, OptionValue] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.size < 0 or self.concurrency < 1:
            raise LabError("a transfer needs a size of at least 0 bytes and a concurrency of at least 1")
        if self.count is None and self.seconds is None:
            raise LabError("a transfer without a count needs seconds")
        if self.cut and self.seconds is None:
            raise LabError("a transfer can only be cut after given seconds")
        if self.family not in {4, 6} or (self.mapped and self.family != 4):
            raise LabError("the family is 4 or 6, and only IPv4 addresses can be mapped")
        if self.watch_ms and not self.state:
            raise LabError("what was watched comes with the state: set it too")
        if self.upload and (self.state or self.keep):
            raise LabError("an upload ends its connection: neither keep nor state")
        for name in (*self.client, *self.server):
            if name not in _OPTIONS:
                raise LabError(f"unknown socket option {name}; known: {', '.join(_OPTIONS)}")

    def to_json(self) -> dict[str, Any]:
        """As plain values, for the control channel."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class Completion:
    """One object as the client saw it; all times in seconds.

    start    when connect() was called (or, on a kept connection, the request sent), on CLOCK_MONOTONIC
    connect  how long connect() took: one RTT; None on a kept connection
    seconds  from `start` to the last byte (uploads: to the server's answer); until the failure, if there is an error
    bytes    moved; less than asked for only after an error or a cut
    address, port  the client's end
    error    None, or what went wrong
    state    with Transfer.state: {"congestion": NAME, "tcp_info": {FIELD: int}} of the server's socket; with `watch_ms`
             also "samples": [[seconds since the request, {"rtt": int, "snd_cwnd": int}], ...]
    """

    path: str
    family: int
    start: float
    connect: float | None
    seconds: float
    bytes: int
    address: str
    port: int
    error: str | None = None
    state: dict[str, Any] | None = None

    @property
    def mbps(self) -> float:
        """Goodput in Mb/s, the connection's set-up not counted."""
        return self.bytes * 8e-6 / max(self.seconds - (self.connect or 0.0), 1e-9)

    def to_json(self) -> list[Any]:
        """As plain values, for the control channel."""
        return [getattr(self, each.name) for each in dataclasses.fields(self)]


def goodput_mbps(completions: Sequence[Completion]) -> float:
    """Mb/s all objects made together, from the first start to the last end; 0 for none."""
    if not completions:
        return 0.0
    first = min(each.start for each in completions)
    last = max(each.start + each.seconds for each in completions)
    return sum(each.bytes for each in completions) * 8e-6 / max(last - first, 1e-9)
