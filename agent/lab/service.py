"""When a link's transmitter is done with a packet: a constant rate, a random one, or fixed delivery opportunities.

A service is a function of (start, size): the moment in seconds at which the transmitter is free, and the packet's
bytes; it returns the moment at which the packet's last bit has left. Calls come in the order of departure.
"""

from __future__ import annotations

import random
from bisect import bisect_left
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

from agent.errors import LabError
from agent.lab.spec import FULL_PACKET, LinkSpec

__all__ = ["Opportunities", "Service", "read_trace", "service_for"]

Service = Callable[[float, int], float]


class Opportunities:
    """Delivery opportunities of 1,500 bytes at given times, repeated for ever, as mahimahi's mm-link gives them.

    `times` are seconds from the start of a period, ascending, none above `period` (both in seconds). The first period
    starts with the first packet. An opportunity nobody waits for is lost; what a packet leaves of one serves the next
    packet waiting at that moment; a packet may need several.
    """

    def __init__(self, times: Sequence[float], period: float) -> None:
        if not times or period <= 0 or times[-1] > period or any(b < a for a, b in pairwise(times)):
            raise LabError("delivery opportunities need ascending times within a period above 0")
        self._times = times
        self._period = period
        self._base: float | None = None  # when the current period began
        self._index = 0
        self._budget = FULL_PACKET  # bytes left of the current opportunity

    def __call__(self, start: float, size: int) -> float:
        if self._base is None:
            self._base = start
        at = self._base + self._times[self._index]
        if at < start:
            at = self._skip_to(start)
        while size > self._budget:
            size -= self._budget
            at = self._advance()
        self._budget -= size
        return at

    def _skip_to(self, start: float) -> float:
        assert self._base is not None
        self._base += (start - self._base) // self._period * self._period
        self._index = bisect_left(self._times, start - self._base)
        self._budget = FULL_PACKET
        if self._index == len(self._times):
            self._base += self._period
            self._index = 0
        return self._base + self._times[self._index]

    def _advance(self) -> float:
        assert self._base is not None
        self._budget = FULL_PACKET
        self._index += 1
        if self._index == len(self._times):
            self._base += self._period
            self._index = 0
        return self._base + self._times[self._index]


def read_trace(file: Path) -> list[float]:
    """The opportunities of a mahimahi trace, in seconds.

    The file holds one whole number of milliseconds a line, ascending; the last one is also the period. Raises LabError.
    """
    try:
        times = [int(line) / 1000 for line in file.read_text(encoding="ascii").split()]
    except (OSError, ValueError) as error:
        raise LabError(f"{file}: not a trace: {error}") from error
    if not times:
        raise LabError(f"{file}: the trace is empty")
    return times


def service_for(spec: LinkSpec, rng: random.Random) -> Service | None:
    """The service a spec asks for, or None where nothing waits: no rate at all, or a policer."""
    if spec.ack_burst:
        return Opportunities([0.0] * spec.ack_burst.packets, spec.ack_burst.period_ms / 1000)
    if spec.trace:
        times = read_trace(Path(spec.trace))
        return Opportunities(times, times[-1])
    if spec.rate_mbps is None or spec.policer:
        return None
    seconds_per_byte = 8e-6 / spec.rate_mbps
    if spec.arrivals == "poisson":
        draw = rng.expovariate
        return lambda start, size: start + size * seconds_per_byte * draw(1.0)
    return lambda start, size: start + size * seconds_per_byte
