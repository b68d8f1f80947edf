"""Connections on many paths whose truth is known, as the guard sees them; no network and no clock."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from controllers import Field
from controllers.base import Floats
from controllers.guard import ALL, Event, Guard

__all__ = ["NOISES", "Paths", "Truth"]

HOLDOUT = 0.05
WINDOWS = np.array([10, 40])  # segments, of the holdout and the treated
SEGMENTS = 70

# Deviations of log2 of the time, with a mean of 0.
NOISES = {
    "normal": lambda random, shape: random.normal(0, 0.3, shape),
    # A Pareto distribution of the time itself: no variance (its exponent is 2.06).
    "pareto": lambda random, shape: 0.7 * (random.exponential(1, shape) - 1),
    # One in twenty waits for a retransmission timeout: four times as long.
    "timeouts": lambda random, shape: random.normal(0, 0.1, shape) + 2.0 * ((random.random(shape) < 0.05) - 0.05),
    # One in twenty is four times as fast: a host that is nearer than the others.
    "near": lambda random, shape: random.normal(0, 0.1, shape) - 2.0 * ((random.random(shape) < 0.05) - 0.05),
    "student": lambda random, shape: 0.3 * random.standard_t(3, shape),
}


@dataclass(frozen=True)
class Truth:
    """What treatment does: `slower` (log2 of the time), and the shares of first windows that are lost and of segments
    that are sent again, by (holdout, treated). With a `burst`, a window loses that share of itself at once, or nothing.
    """

    noise: str = "normal"
    slower: float = 0.0
    first_window: tuple[float, float] = (0.03, 0.03)
    burst: float = 0.5
    again: tuple[float, float] = (0.01, 0.01)
    calm: float = 1.0  # the noise of the treated by that of the holdout
    daily: float = 0.0  # log2 of how much slower the worst hour of the day is than its mean

    def but(self, **changes: Any) -> Truth:
        """The same with changes."""
        return replace(self, **changes)


class Paths:
    """`paths` alike under one guard, which is asked after every `look` seconds."""

    def __init__(
        self, paths: int, *, look: float = 5.0, seed: int = 1, holdout: float = HOLDOUT, together: bool = False
    ) -> None:
        """`together`: a look's connections of a path and side are one sample, as on busy paths."""
        self.guard = Guard()
        self.guard.resize(paths)
        self.events: list[Event] = []
        self.connections = np.zeros(paths)
        """How many connections every path had."""
        self.caught = np.full(paths, np.inf)
        """How many it had when its first quarantine began."""
        self.now = 0.0
        self._look = look
        self._holdout = holdout
        self._together = together
        self._random = np.random.default_rng(seed)

    def run(self, truth: Truth, *, looks: int, connections: int) -> list[Event]:
        """Lets so many `connections` of every path pass before each look; returns what began or ended."""
        begun: list[Event] = []
        for _ in range(looks):
            self._connect(truth, connections)
            self.now += self._look
            self.connections += connections
            events = self.guard.step(self.now)
            for event in events:
                if event.until is not None:
                    where = slice(None) if event.row == ALL else event.row
                    self.caught[where] = np.minimum(self.caught[where], self.connections[where])
            begun += events
        self.events += begun
        return begun

    def shares(self) -> Floats:
        """The holdout's share of every path."""
        return self.guard.holdout(self._holdout, np.arange(len(self.connections)), np.zeros(len(self.connections)))

    def _connect(self, truth: Truth, connections: int) -> None:
        random, paths = self._random, len(self.connections)
        shape = (paths, connections)
        share = self.shares()
        treated = random.random(shape) >= share[:, None]
        harmed = treated & ~(self.guard.quarantined | self.guard.off)[:, None]
        size = random.normal(1, 1, shape)
        noise = NOISES[truth.noise](random, shape) * np.where(harmed, truth.calm, 1.0)
        log_time = noise + 0.6 * size + truth.slower * harmed
        log_time += truth.daily * np.sin(2 * np.pi * self.now / 86_400)
        window = WINDOWS[harmed.astype(int)]
        loss = np.array(truth.first_window)[harmed.astype(int)]
        if truth.burst:
            lost = (random.random(shape) < loss / truth.burst) * random.binomial(window, truth.burst)
        else:
            lost = random.binomial(window, loss)
        again = random.binomial(SEGMENTS, np.array(truth.again)[harmed.astype(int)])
        one = np.zeros((*shape, len(Field)))
        for field, value in (
            (Field.TRANSFERS, 1), (Field.CLOSED, 1), (Field.LOG_TIME, log_time), (Field.LOG_BYTES, size),
            (Field.LOG_TIME_SQUARED, log_time**2), (Field.LOG_BYTES_SQUARED, size**2),
            (Field.LOG_TIME_BYTES, log_time * size), (Field.FIRST_WINDOW_SEGMENTS, window),
            (Field.FIRST_WINDOW_LOSSES, lost), (Field.SEGMENTS, SEGMENTS + again), (Field.RETRANSMITTED, again),
        ):  # fmt: skip
            one[..., field] = value
        rows = np.arange(paths)
        if self._together:
            for name, side in ((True, treated), (False, ~treated)):
                seen = np.flatnonzero(side.any(axis=1))
                sums = (one * side[..., None]).sum(axis=1)
                self.guard.absorb(rows[seen], np.full(len(seen), name), sums[seen])
            return
        self.guard.absorb(np.repeat(rows, connections), treated.ravel(), one.reshape(-1, len(Field)))
