"""What a laboratory is told to emulate: one direction (`LinkSpec`) and one path (`PathSpec`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from agent.errors import LabError

__all__ = ["FULL_PACKET", "AckBurst", "Direction", "LinkSpec", "PathSpec"]

Direction = Literal["down", "up"]  # down: server to client, where the data flows; up: client to server

FULL_PACKET = 1500  # bytes of a full-sized IP packet: the devices' MTU, and the unit of delivery opportunities


@dataclass(frozen=True)
class AckBurst:
    """`packets` delivery opportunities at once every `period_ms`, as links do that hold ACKs back.

    An opportunity carries up to 1500 bytes, as in mahimahi: about 28 pure ACKs fit into one.
    """

    packets: int
    period_ms: float


@dataclass(frozen=True, kw_only=True)
class LinkSpec:
    """One direction of a path.

    rate_mbps      Mb/s of IP packets (headers count); None: unlimited
    delay_ms       one-way propagation, added after the transmitter
    jitter_ms      up to this much more delay per packet, uniform; the order of packets is kept all the same
    loss           chance, 0 to 1, that a packet is lost at random before it reaches the queue
    queue_packets  longest queue in packets, tail drop; the packet being sent counts as one of them
    queue_bytes    the same in bytes; with both given, the stricter limit rules; None: no limit
    policer        drop what exceeds the rate (token bucket, burst of `queue_packets` full packets), queue nothing
    arrivals       "poisson": service times are exponential around the mean rate, as on cellular links
    ack_burst      release packets in bursts; takes the place of the rate
    trace          file in mahimahi's form: one line an opportunity of 1500 bytes, in ms; takes the place of the rate
    middlebox      "package.module:function", called with every packet (bytes) as it enters; it returns the packet to
                   carry instead, or None to swallow it
    """

    rate_mbps: float | None = None
    delay_ms: float = 0.0
    jitter_ms: float = 0.0
    loss: float = 0.0
    queue_packets: int | None = 1000
    queue_bytes: int | None = None
    policer: bool = False
    arrivals: Literal["constant", "poisson"] = "constant"
    ack_burst: AckBurst | None = None
    trace: str | None = None
    middlebox: str | None = None

    def __post_init__(self) -> None:
        if self.rate_mbps is not None and not self.rate_mbps > 0:
            raise LabError(f"rate_mbps must be above 0, or None for no limit: {self.rate_mbps}")
        if min(self.delay_ms, self.jitter_ms) < 0:
            raise LabError(f"delay_ms and jitter_ms cannot be negative: {self.delay_ms}, {self.jitter_ms}")
        if not 0 <= self.loss <= 1:
            raise LabError(f"loss is a ratio from 0 to 1: {self.loss}")
        if any(limit is not None and limit < 1 for limit in (self.queue_packets, self.queue_bytes)):
            raise LabError("a queue holds at least one packet or one byte")
        if self.arrivals not in ("constant", "poisson"):
            raise LabError(f"arrivals is constant or poisson: {self.arrivals}")
        if sum((self.rate_mbps is not None, self.ack_burst is not None, self.trace is not None)) > 1:
            raise LabError("rate_mbps, ack_burst and trace exclude each other: each says when packets may leave")
        if self.policer and (self.rate_mbps is None or self.queue_packets is None):
            raise LabError("a policer needs rate_mbps and, as its burst, queue_packets")
        if self.arrivals == "poisson" and self.rate_mbps is None:
            raise LabError("poisson arrivals need rate_mbps as their mean")
        if self.ack_burst and not (self.ack_burst.packets >= 1 and self.ack_burst.period_ms > 0):
            raise LabError(f"ack_burst needs at least 1 packet and a period above 0 ms: {self.ack_burst}")

    def to_json(self) -> dict[str, Any]:
        """As plain values, for the control channel."""
        return dataclasses.asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> LinkSpec:
        """The inverse of `to_json`."""
        burst = values.get("ack_burst")
        return cls(**{**values, "ack_burst": AckBurst(**burst) if burst else None})


@dataclass(frozen=True, kw_only=True)
class PathSpec:
    """A client network behind its own pair of links; the server's side is common to all paths.

    `addresses` clients (1 to 250) get an IPv4 and an IPv6 address each in the path's /24 and /48. `ipv4` and `ipv6`
    name those networks ("203.0.113.0/24", "2001:db8:7::/48"); left out, the laboratory numbers them.
    """

    name: str
    down: LinkSpec = field(default_factory=LinkSpec)
    up: LinkSpec = field(default_factory=LinkSpec)
    addresses: int = 1
    ipv4: str | None = None
    ipv6: str | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.addresses <= 250:
            raise LabError(f"a path has 1 to 250 client addresses: {self.addresses}")

    @classmethod
    def symmetric(
        cls,
        name: str,
        *,
        rate_mbps: float | None = None,
        delay_ms: float = 0.0,
        queue_packets: int | None = 1000,
        loss: float = 0.0,
        jitter_ms: float = 0.0,
        policer: bool = False,
        arrivals: Literal["constant", "poisson"] = "constant",
        ack_burst: AckBurst | None = None,
        trace: Mapping[Direction, str] | None = None,
        addresses: int = 1,
    ) -> PathSpec:
        """A path as the emulation scenarios of Pantheon describe one (Yan et al., USENIX ATC 2018).

        Everything rules the data's direction, server to client. The way back has the same delay and jitter, the same
        constant rate, a queue of 1,000 packets, and loses nothing: what is studied is the data's way. With `ack_burst`
        the way back releases packets in those bursts instead of at the rate; with `trace` both directions follow files,
        which must then be given for both.
        """
        trace = trace or {}
        down = LinkSpec(
            rate_mbps=rate_mbps, delay_ms=delay_ms, jitter_ms=jitter_ms, loss=loss, queue_packets=queue_packets,
            policer=policer, arrivals=arrivals, trace=trace.get("down"),
        )  # fmt: skip
        up = LinkSpec(
            rate_mbps=None if ack_burst else rate_mbps, delay_ms=delay_ms, jitter_ms=jitter_ms, ack_burst=ack_burst,
            trace=trace.get("up"),
        )  # fmt: skip
        return cls(name=name, down=down, up=up, addresses=addresses)
