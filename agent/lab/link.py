"""One direction of an emulated path, without I/O or a clock: packets in, packets out, `now` passed in.

    offer -> middlebox -> random loss -> policer | queue -> transmitter -> propagation -> due

All times are seconds of one monotonic clock. The transmitter is not simulated step by step: as the queue is first in,
first out, a packet's departure is known when it arrives, so a link is two queues of times and needs no timer per hop.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from dataclasses import asdict, dataclass

from agent.lab.service import Service, service_for
from agent.lab.spec import FULL_PACKET, LinkSpec

__all__ = ["Counters", "Link", "Middlebox"]

Middlebox = Callable[[bytes], bytes | None]


@dataclass
class Counters:
    """Packets and bytes of one direction since it was made; offered = delivered + every kind of drop + in flight."""

    packets_offered: int = 0
    bytes_offered: int = 0
    packets_delivered: int = 0
    bytes_delivered: int = 0
    packets_dropped_queue: int = 0  # tail drop, or by the policer
    bytes_dropped_queue: int = 0
    packets_dropped_loss: int = 0
    bytes_dropped_loss: int = 0
    packets_dropped_middlebox: int = 0

    def to_json(self) -> dict[str, int]:
        """As plain values, for the control channel."""
        return asdict(self)


class Link:
    """One direction: takes packets with `offer`, gives back with `due` those that have arrived at the other end.

    Packets keep their order, under jitter too: one that would overtake arrives together with its predecessor, so a
    dense stream sees nearly the whole jitter as delay.

    The queue counts every packet whose last bit has not left yet, so the one being sent counts; a packet that finds
    `queue_packets` of them, or that would exceed `queue_bytes`, is dropped.
    """

    def __init__(self, spec: LinkSpec, *, seed: int | str = 0, middlebox: Middlebox | None = None) -> None:
        self.spec = spec
        self.counters = Counters()
        self.middlebox = middlebox
        self._rng = random.Random(seed)
        # Parallel queues instead of a queue of tuples: one allocation fewer for every packet.
        self._packets: deque[bytes] = deque()  # all on their way, waiting ones included
        self._arrivals: deque[float] = deque()  # when each of _packets reaches the other end
        self._departures: deque[float] = deque()  # when the last bit of each waiting packet leaves
        self._sizes: deque[int] = deque()  # bytes of each waiting packet
        self._waiting_bytes = 0
        self._free_at = 0.0  # when the transmitter has sent all it took
        self._last_arrival = 0.0
        self._tokens = 0.0  # bytes in the policer's bucket
        self._tokens_at = 0.0
        self._configure(spec, service_for(spec, self._rng))

    def _configure(self, spec: LinkSpec, service: Service | None) -> None:
        self.spec = spec
        self._service = service
        self._delay = spec.delay_ms / 1000
        self._jitter = spec.jitter_ms / 1000
        self._loss = spec.loss
        self._max_packets = spec.queue_packets if spec.queue_packets is not None else 1 << 60
        self._max_bytes = spec.queue_bytes if spec.queue_bytes is not None else 1 << 60
        self._policer_rate = spec.rate_mbps * 125_000 if spec.policer and spec.rate_mbps else 0.0  # bytes a second
        self._bucket = (spec.queue_packets or 1) * FULL_PACKET
        self._tokens = float(self._bucket)

    def offer(self, now: float, packet: bytes) -> None:
        """Takes a packet that enters the link at `now`; `now` never goes back."""
        counters = self.counters
        size = len(packet)
        counters.packets_offered += 1
        counters.bytes_offered += size
        if self.middlebox is not None:
            changed = self.middlebox(packet)
            if changed is None:
                counters.packets_dropped_middlebox += 1
                return
            packet = changed
            size = len(packet)
        if self._loss and self._rng.random() < self._loss:
            counters.packets_dropped_loss += 1
            counters.bytes_dropped_loss += size
            return
        departure = now
        if self._policer_rate:
            if not self._police(now, size):
                counters.packets_dropped_queue += 1
                counters.bytes_dropped_queue += size
                return
        elif self._service is not None:
            departures = self._departures
            self._retire(now)
            if len(departures) >= self._max_packets or self._waiting_bytes + size > self._max_bytes:
                counters.packets_dropped_queue += 1
                counters.bytes_dropped_queue += size
                return
            departure = self._service(self._free_at if self._free_at > now else now, size)
            self._free_at = departure
            departures.append(departure)
            self._sizes.append(size)
            self._waiting_bytes += size
        self._packets.append(packet)
        self._arrivals.append(self._arrival(departure))

    def due(self, now: float) -> list[bytes]:
        """The packets that have reached the other end by `now`, in order."""
        arrivals = self._arrivals
        if not arrivals or arrivals[0] > now:
            return []
        packets = self._packets
        out = []
        while arrivals and arrivals[0] <= now:
            arrivals.popleft()
            out.append(packets.popleft())
        self.counters.packets_delivered += len(out)
        self.counters.bytes_delivered += sum(map(len, out))
        return out

    def next_due(self) -> float | None:
        """When the next packet reaches the other end; None: the link is empty."""
        return self._arrivals[0] if self._arrivals else None

    def waiting(self, now: float) -> int:
        """Packets in the queue at `now`, the one being sent included."""
        self._retire(now)
        return len(self._departures)

    def change(self, now: float, spec: LinkSpec) -> None:
        """Follows another spec from `now` on.

        The packet being sent is finished at the old speed and those behind it at the new one; packets that already
        propagate arrive as planned. A shorter queue lets stand what it holds. Raises LabError for a trace that cannot
        be read; nothing has changed then.
        """
        service = service_for(spec, self._rng)
        self._retire(now)
        waiting = len(self._departures)
        behind = [self._packets.pop() for _ in range(waiting - 1)][::-1]  # the first one is being sent
        for _ in behind:
            self._arrivals.pop()
            self._departures.pop()
            self._waiting_bytes -= self._sizes.pop()
        self._configure(spec, service)
        self._free_at = self._departures[-1] if self._departures else now
        self._tokens_at = now
        self._last_arrival = self._arrivals[-1] if self._arrivals else now
        for packet in behind:
            departure = self._free_at
            if self._service is not None:
                departure = self._service(departure, len(packet))
                self._free_at = departure
                self._departures.append(departure)
                self._sizes.append(len(packet))
                self._waiting_bytes += len(packet)
            self._packets.append(packet)
            self._arrivals.append(self._arrival(departure))

    def _arrival(self, departure: float) -> float:
        arrival = departure + self._delay
        if self._jitter:
            arrival += self._rng.random() * self._jitter
        self._last_arrival = max(arrival, self._last_arrival)
        return self._last_arrival

    def _police(self, now: float, size: int) -> bool:
        """Whether the token bucket lets a packet of `size` bytes pass at `now`."""
        tokens = self._tokens + (now - self._tokens_at) * self._policer_rate
        self._tokens = min(tokens, self._bucket)
        self._tokens_at = now
        if self._tokens < size - 1e-6:  # a packet exactly at the rate passes in spite of rounding
            return False
        self._tokens -= size
        return True

    def _retire(self, now: float) -> None:
        """Takes the packets whose last bit has left out of the queue's account."""
        departures = self._departures
        while departures and departures[0] <= now:
            departures.popleft()
            self._waiting_bytes -= self._sizes.popleft()
