"""What the bench's connections carry, and how many of them a path gets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from agent.lab.bench.contenders import ALL, BULK, FEW, Contender
from agent.lab.service import read_trace
from agent.lab.spec import FULL_PACKET, LinkSpec, PathSpec

__all__ = ["WORKLOADS", "Change", "Plan", "Workload", "changed", "estimated_seconds", "plan_for"]

# Flow sizes of a web search cluster (Alizadeh et al., DCTCP, SIGCOMM 2010, figure 4), at the middle of each tenth of
# the flows, in packets of 1,460 bytes.
_WEB_SEARCH_PACKETS = (4, 6, 13, 19, 33, 53, 133, 667, 1333, 3333)
_PACKET = 1460
# One object takes at most so long, or a path of half a megabit would be asked for an hour by the largest.
_LONGEST = 8.0  # seconds
_ROUND_TRIPS = 4.0  # of an object, until its rate is what the path has


Change = Literal["rate", "queue"]


@dataclass(frozen=True)
class Workload:
    """What connections carry: `sizes` of objects in bytes, taken in turn, or one transfer without end of `seconds`.

    First come `rounds` of learning, in each of which tcptuned makes `learning` connections and everybody else one. Then
    come `compared` rounds in which all make one. While learning, objects have `learning_sizes` and transfers without
    end last `learning_seconds`, if given: many teach more than long ones. Learning may take `patience` times as long as
    comparing. With `change` the path becomes another between the two, and tcptuned goes on making `learning`.
    """

    name: str
    contenders: tuple[Contender, ...]
    sizes: tuple[int, ...] = ()
    learning_sizes: tuple[int, ...] = ()
    seconds: float | None = None
    learning_seconds: float | None = None
    rounds: int = 12
    learning: int = 16
    compared: int = 12
    patience: float = 1.0
    change: Change | None = None


WORKLOADS = {
    each.name: each
    for each in (
        Workload("100KB", ALL, (100_000,)),
        Workload("10KB", FEW, (10_000,), learning=8),
        Workload("30KB", FEW, (30_000,), learning=8),
        Workload("1MB", FEW, (1_000_000,), (250_000,), rounds=10, learning=8, compared=8),
        Workload("websearch", FEW, tuple(_PACKET * each for each in _WEB_SEARCH_PACKETS), learning=8, compared=20),
        Workload("mixed", FEW, (10_000, 30_000, 100_000, 1_000_000), learning=8, compared=16),
        Workload("rate-changes", ALL, (100_000,), compared=18, change="rate"),
        Workload("queue-changes", ALL, (100_000,), compared=18, change="queue"),
        # On fast paths one at a time fills the emulator, so they wait for each other.
        Workload("bulk", BULK, seconds=5.0, learning_seconds=1.5, rounds=8, learning=4, compared=4, patience=2.0),
    )
}


def changed(link: LinkSpec, change: Change) -> LinkSpec:
    """A fifth of the rate (constant, where it followed a trace), or a tenth of the queue.

    A policer of one packet stays as it is.
    """
    if change == "rate":
        return replace(link, rate_mbps=_rate(link) / 5, trace=None)
    return replace(link, queue_packets=max(1, (link.queue_packets or 1000) // 10))


@dataclass(frozen=True)
class Plan:
    """A workload on one path: how many connections, and of which sizes."""

    sizes: tuple[int, ...]
    learning_sizes: tuple[int, ...]
    seconds: float | None
    learning_seconds: float | None
    rounds: int
    learning: int
    compared: int
    load_mbps: float  # what one connection asks of the emulator on average,
    load_seconds: float  # and for how long


def plan_for(workload: Workload, path: PathSpec, *, budget: float) -> Plan:
    """The workload cut down to what one contender can do on this path in about `budget` seconds."""
    rate = _rate(path.down) / (5 if workload.change == "rate" else 1)
    sizes, learning_sizes = (
        tuple(min(size, round(_LONGEST * rate * 1e6 / 8)) for size in some)
        for some in (workload.sizes, workload.learning_sizes or workload.sizes)
    )
    seconds = workload.seconds or _mean_seconds(path, sizes)
    learning_seconds = workload.learning_seconds or workload.seconds or _mean_seconds(path, learning_sizes)
    wanted = workload.rounds * workload.learning * learning_seconds + workload.compared * seconds
    share = min(1.0, budget / wanted)
    mean = sum(sizes) / len(sizes) if sizes else 0.0
    return Plan(
        sizes=sizes,
        learning_sizes=learning_sizes,
        seconds=workload.seconds,
        learning_seconds=learning_seconds if workload.seconds else None,
        rounds=max(2, round(workload.rounds * share)),
        learning=workload.learning,
        compared=max(2, len(sizes), round(workload.compared * share)),
        load_mbps=rate if workload.seconds else min(rate, mean * 8e-6 / seconds),
        load_seconds=seconds,
    )


def _mean_seconds(path: PathSpec, sizes: Sequence[int]) -> float:
    return sum(estimated_seconds(path, size) for size in sizes) / len(sizes)


def estimated_seconds(path: PathSpec, size: int) -> float:
    """About how long an object takes."""
    round_trip = (path.down.delay_ms + path.up.delay_ms) / 1000
    return _ROUND_TRIPS * round_trip + size * 8e-6 / _rate(path.down)


def _rate(link: LinkSpec) -> float:
    """Mb/s, also where a trace says it, or nothing."""
    if link.trace:
        times = read_trace(Path(link.trace))
        return len(times) * FULL_PACKET * 8e-6 / max(times[-1], 1e-3)
    return link.rate_mbps or 10.0
