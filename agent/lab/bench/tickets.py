"""Whose turn it is: the bench's connections in their order, as many at a time as the emulator carries."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from agent.errors import LabError
from agent.lab.bench.contenders import Contender

__all__ = ["Ticket", "TicketQueue"]

_CAPACITY_MBPS = 90.0  # what the emulator carries without being late
_MORE = 1.3  # times what a connection carried, its contender's next one may carry
_LOOK_AHEAD = 4000  # tickets
_LATE = 2.0  # times as long as planned
_PATIENCE = 3.0  # seconds after which those who wait look for what takes longer than planned


@dataclass(frozen=True)
class Ticket:
    """A connection to be made by a contender, in a round of learning or of comparing, after a `pause` (seconds)."""

    path: str
    contender: Contender
    turn: int
    compared: bool
    again: bool = False  # one more by the same contender in this turn
    pause: float = 0.0


class TicketQueue:
    """Tickets in order, but never two of one contender on one path at a time, nor more than the emulator carries.

    `loads` is what a connection asks of the emulator, Mb/s, and for how many seconds it is thought to: one that takes
    longer is held up by its path, and asks for little. Where it is told what a contender's connections carried, that
    takes the place of a larger load. After `seconds` a path's tickets are handed to `left_out`,
    except those of its first turns, `least` by path: a contender that takes ten times as long as planned makes fewer
    connections, and the others need not wait for it.
    """

    def __init__(
        self, tickets: Iterator[Ticket], loads: Mapping[str, tuple[float, float]], *, seconds: float,
        least: Mapping[str, int], left_out: Callable[[Ticket], None],
    ) -> None:  # fmt: skip
        self._tickets = tickets
        self._loads = loads
        self._end = time.monotonic() + seconds
        self._least = least
        self._left_out = left_out
        self._passed: list[Ticket] = []
        self._busy: dict[tuple[str, str], float] = {}  # since when
        self._carried: dict[tuple[str, str], float] = {}  # Mb/s
        self._free = threading.Condition()
        self.error: LabError | None = None

    def take(self) -> Ticket | None:
        """The next ticket that can be used now; waits for one; None at the end."""
        with self._free:
            while self.error is None:
                ticket = self._next()
                if ticket is not None:
                    self._busy[ticket.path, ticket.contender.name] = time.monotonic()
                    # One at a time is woken, who wakes the next: hundreds that look at once are a processor's work.
                    self._free.notify()
                    return ticket
                if not self._passed:
                    self._free.notify_all()
                    return None
                self._free.wait(_PATIENCE)
            return None

    def _next(self) -> Ticket | None:
        room = _CAPACITY_MBPS - self._load()
        waiting, self._passed = self._passed, []
        for ticket in waiting:
            if self._too_late(ticket):
                self._left_out(ticket)
            else:
                self._passed.append(ticket)
        for position, ticket in enumerate(self._passed):
            if self._fits(ticket, room):
                return self._passed.pop(position)
        while len(self._passed) < _LOOK_AHEAD and (fresh := next(self._tickets, None)) is not None:
            if self._too_late(fresh):
                self._left_out(fresh)
            elif self._fits(fresh, room):
                return fresh
            else:
                self._passed.append(fresh)
        return None

    def _too_late(self, ticket: Ticket) -> bool:
        early = ticket.turn < self._least[ticket.path] and not ticket.again
        return not early and time.monotonic() > self._end

    def _fits(self, ticket: Ticket, room: float) -> bool:
        who = ticket.path, ticket.contender.name
        return who not in self._busy and (not self._busy or self._asks(who) <= room)

    def _asks(self, who: tuple[str, str]) -> float:
        planned = self._loads[who[0]][0]
        return min(planned, _MORE * self._carried.get(who, planned))

    def _load(self) -> float:
        now = time.monotonic()
        return sum(
            self._asks(who) for who, since in self._busy.items() if now - since <= _LATE * self._loads[who[0]][1]
        )

    def give_back(self, ticket: Ticket, carried: float | None = None) -> None:
        """The contender is idle again; its connection carried so many Mb/s, if that is told."""
        who = ticket.path, ticket.contender.name
        with self._free:
            del self._busy[who]
            if carried is not None:
                # One that was slow by chance must not let the next ones fill the emulator.
                self._carried[who] = max(carried, self._carried.get(who, 0.0) / _MORE)
            self._free.notify()

    def fail(self, error: LabError) -> None:
        """Nobody takes another ticket."""
        with self._free:
            self.error = self.error or error
            self._free.notify_all()
