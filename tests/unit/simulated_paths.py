"""Paths whose truth is known: connections are drawn as the kernel draws them, their sums kept as the agent keeps them.

No network and no clock. Every simulation runs many copies of one path at once, so that a test can speak of averages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from agent.sums import fade
from controllers import Arm, Controller, Decision, Evidence, Field
from controllers.base import Floats

__all__ = ["LADDER", "Copies", "Truth", "windows"]

LADDER = (10, 14, 20, 28, 40, 56, 80)


@dataclass(frozen=True)
class Truth:
    """What a path really is, by arm.

    `times` are medians in ms, `spread` the standard deviation of their log2. `losses` is the share of segments lost: of
    the first window where `windows` are given, of all `segments` of an object otherwise.
    """

    times: Sequence[float]
    losses: Sequence[float]
    spread: float = 0.2
    segments: int = 70
    windows: Sequence[int] = ()

    def slower(self, factor: float) -> Truth:
        """The same path when everything takes longer."""
        return replace(self, times=[factor * time for time in self.times])


def windows(times: Sequence[float], losses: Sequence[float] = (0.0,) * 7, **more: float) -> Truth:
    """A path for the windows of LADDER."""
    return Truth(times, losses, windows=LADDER, **more)  # type: ignore[arg-type]


class Copies:
    """`copies` of one path under the rule of one controller."""

    def __init__(self, law: Callable[[], Controller], truth: Truth, *, copies: int = 200, seed: int = 1) -> None:
        self.truth = truth
        self.law = law()
        self.arms = tuple(Arm(f"arm{number}", number) for number in range(len(truth.times)))
        self.sums = np.zeros((copies, len(self.arms), len(Field)), np.float32)
        self._random = np.random.default_rng(seed)
        self.decision = self._decide()

    def _decide(self) -> Decision:
        return self.law.step(0.0, Evidence(self.arms, self.sums))

    def run(self, steps: int, *, connections: int = 10, half_life: float = 120.0) -> Floats:
        """Lets `steps` pass with so many connections each; a `half_life` is in steps.

        Returns the share of all connections that every arm got, shape (copies, arms).
        """
        got = np.zeros(self.decision.probabilities.shape)
        for _ in range(steps):
            got += self._connect(connections)
            fade(self.sums, 0.5 ** (1 / half_life))
            self.decision = self._decide()
        return got / (steps * connections)

    def steps_until(self, good: Sequence[int], *, share: float = 0.9, most: int = 200, connections: int = 10) -> int:
        """How many steps until `share` of the copies hold one of the `good` arms to be best."""
        for step in range(most):
            if np.isin(self.decision.chosen, good).mean() >= share:
                return step
            self.run(1, connections=connections)
        raise AssertionError(f"after {most} steps only {np.isin(self.decision.chosen, good).mean():.0%} are there")

    def _connect(self, connections: int) -> Floats:
        """One step's connections; returns how many every arm got."""
        truth, random = self.truth, self._random
        copies = len(self.sums)
        ends = np.cumsum(self.decision.probabilities, axis=1)
        point = random.random((copies, connections))
        # As in bpf/apply.h: past the end of all arms it is the default.
        arm = (point[:, :, None] >= ends[:, None, :]).sum(axis=2) % len(self.arms)
        shape = arm.shape
        time = np.log2(np.asarray(truth.times)[arm] * 1000) - 16 + random.normal(0, truth.spread, shape)
        size = np.full(shape, np.log2(truth.segments * 1448) - 16)
        loss = np.asarray(truth.losses)[arm]
        one = np.zeros((*shape, len(Field)))
        one[..., Field.TRANSFERS] = one[..., Field.CLOSED] = 1
        one[..., Field.LOG_TIME], one[..., Field.LOG_TIME_SQUARED] = time, time**2
        one[..., Field.LOG_BYTES], one[..., Field.LOG_BYTES_SQUARED] = size, size**2
        one[..., Field.LOG_TIME_BYTES] = time * size
        if truth.windows:
            window = np.asarray(truth.windows)[arm]
            sent = np.minimum(window, truth.segments)
            lost = random.binomial(sent, loss)
            one[..., Field.FIRST_WINDOWS] = window <= truth.segments
            one[..., Field.FIRST_WINDOW_SEGMENTS] = sent
            one[..., Field.FIRST_WINDOW_LOSSES] = lost
            one[..., Field.FIRST_WINDOW_LOSSY] = lost > 0
        else:
            lost = random.binomial(truth.segments, loss)
            one[..., Field.RTT] = one[..., Field.BASE_RTT] = 1e5
        one[..., Field.SEGMENTS], one[..., Field.RETRANSMITTED] = truth.segments + lost, lost
        rows = np.broadcast_to(np.arange(copies)[:, None], shape)
        added = np.zeros(self.sums.shape)
        np.add.at(added, (rows, arm), one)
        self.sums += added.astype(np.float32)
        counts: Floats = added[:, :, Field.CLOSED]
        return counts
