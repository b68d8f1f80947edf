"""The fleet's experience, read from Prometheus beside the loop: a thread of its own asks, the loop takes what is there.

Nobody waits for it. Whatever goes wrong is counted by its reason, and what was read last serves until it is too old.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from agent.dimensions import Dimension
from agent.errors import FleetError
from agent.fleet_answer import MOST_AGE, Key, Totals, arrays, expression, parse
from agent.fleet_http import query, shown
from controllers.fleet import of_fleet
from controllers.inheritance import Pooled

__all__ = ["INTERVAL", "REASONS", "FleetReader", "FleetState", "Knowledge", "lessons", "read"]

logger = logging.getLogger(__name__)

INTERVAL = 60.0  # seconds between questions, as between evaluations of the rules
_SPREAD = 0.1  # of it: hosts that start together do not ask together for ever
REASONS = ("unreachable", "timeout", "tls", "refused", "too_large", "malformed", "stale", "fault")


@dataclass(frozen=True)
class Knowledge:
    """What a fleet told, and when: monotonic seconds."""

    totals: Totals
    read: float


@dataclass(frozen=True)
class FleetState:
    """How reading goes, for people. `url` is None where nobody is asked, `problem` is empty while all is well.

    `read` is when it succeeded last, in seconds since 1970; 0 is never. `arms` are those that it told of.
    """

    url: str | None = None
    reads: int = 0
    read: float = 0.0
    arms: int = 0
    problem: str = ""
    failures: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))


def read(url: str, wanted: frozenset[Key]) -> Totals:
    """Asks once. Raises FleetError."""
    body = query(url, expression({key[0] for key in wanted}))
    return parse(body, wanted, now=time.time())


def lessons(
    knowledge: Knowledge | None, groups: Sequence[str], dimensions: Sequence[Dimension], host_congestion: str
) -> list[Pooled | None]:
    """What every dimension's groups inherit of it."""
    if knowledge is None:
        return [None] * len(dimensions)
    found = arrays(knowledge.totals, groups, dimensions, host_congestion)
    return [None if sums is None else of_fleet(sums) for sums in found]


class FleetReader:
    """Asks every INTERVAL while it has an address; `wanted` tells which arms this host has."""

    def __init__(self, wanted: Callable[[], frozenset[Key]]) -> None:
        self._wanted = wanted
        self._wake = threading.Event()
        self._lock = threading.Lock()
        self._failing = False
        self._ended = False
        self._url: str | None = None
        self._thread: threading.Thread | None = None
        self._knowledge: Knowledge | None = None
        self.state = FleetState()

    def use(self, url: str | None) -> None:
        """Asks this server from now on; None asks nobody. What another one told is forgotten."""
        if url == self._url:
            return
        with self._lock:
            self._url, self._knowledge = url, None
            self.state = replace(self.state, url=url and shown(url), read=0.0, arms=0, problem="")
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="fleet", daemon=True)
            self._thread.start()
        self._wake.set()

    def end(self) -> None:
        """Asks no more. A question under way is not waited for."""
        self._ended = True
        self._wake.set()

    def knowledge(self, now: float) -> Knowledge | None:
        """What is known and not too old at `now`, in monotonic seconds."""
        known = self._knowledge
        return known if known is not None and now - known.read <= MOST_AGE else None

    def _run(self) -> None:
        while not self._ended:
            self._wake.clear()
            if (url := self._url) is not None:
                self._read(url)
            self._wake.wait(INTERVAL * random.uniform(1 - _SPREAD, 1 + _SPREAD))

    def _read(self, url: str) -> None:
        begun = time.monotonic()
        totals: Totals = ()
        reason = problem = ""
        try:
            totals = read(url, self._wanted())
        except FleetError as error:
            reason, problem = error.reason, str(error)
        except Exception as error:  # a stranger's answer must not end the thread
            reason, problem = "fault", f"{error!r}"
            logger.exception("reading the fleet's experience failed")
        with self._lock:
            if url == self._url:  # no reload meanwhile
                self._note(reason, problem, Knowledge(totals, begun))

    def _note(self, reason: str, problem: str, found: Knowledge) -> None:
        state = replace(self.state, reads=self.state.reads + 1, problem=problem)
        if reason:
            if not self._failing:
                logger.warning("the fleet's experience cannot be read from %s: %s", state.url, problem)
            self.state = replace(state, failures={**state.failures, reason: state.failures[reason] + 1})
        else:
            self._knowledge = found
            self.state = replace(state, read=time.time(), arms=len(found.totals))
        self._failing = bool(reason)
