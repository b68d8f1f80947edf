"""Trials and quarantines: what the guard remembers of every path."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controllers.base import Floats, Integers
from controllers.harm import PARTS, WIDESPREAD, Harm, Seen
from controllers.holdout import LATELY

__all__ = ["POOLED", "Trials"]

POOLED = 2  # a weight, and what it weighs

# Seconds: the first quarantine, the longest, and the time outside of it after which half of the past is forgiven.
QUARANTINE = 600.0
QUARANTINE_MOST = 86_400.0
FORGIVEN = 43_200.0
MOST_LEVEL = 16.0
FORGOTTEN = 0.1  # of a quarantine: so little is nothing
_LONG_AGO = -1e9  # seconds
# What outlives the process, and its bounds.
_KEPT: dict[str, tuple[float, float]] = {
    "probation": (0, 1),
    "quarantined": (0, 1),
    "until": (_LONG_AGO, QUARANTINE_MOST),
    "level": (0, MOST_LEVEL),
    "kind": (0, WIDESPREAD),
    "worse": (-64, 64),
}


@dataclass
class Trials:
    """An entry for every row. `until` is when its last quarantine ends; `level` tells how many there were lately."""

    seen: Floats
    parts: Floats  # what it told of all paths, in this trial
    pooled: Floats  # the first POOLED of these, of all trials, as far as they have not faded
    lately: Floats  # what the last connections of either side did; outlives a trial (controllers/holdout.py)
    began: Floats  # the trial, or the quarantine
    probation: NDArray[np.bool_]
    quarantined: NDArray[np.bool_]
    until: Floats
    level: Floats
    kind: Integers
    worse: Floats
    traffic: Floats  # connections, fading
    changed: NDArray[np.bool_]  # since the last step

    @classmethod
    def new(cls, length: int) -> Trials:
        return cls(
            seen=np.zeros((length, 2, len(Seen)), np.float32),
            parts=np.zeros((length, PARTS, len(Harm)), np.float32),
            pooled=np.zeros((length, POOLED, len(Harm)), np.float32),
            lately=np.zeros((length, 2, LATELY), np.float32),
            began=np.full(length, np.nan, np.float32),
            probation=np.ones(length, np.bool_),
            quarantined=np.zeros(length, np.bool_),
            until=np.full(length, _LONG_AGO, np.float32),
            level=np.zeros(length, np.float32),
            kind=np.zeros(length, np.int8),
            worse=np.zeros(length, np.float32),
            traffic=np.zeros(length, np.float32),
            changed=np.zeros(length, np.bool_),
        )

    def __len__(self) -> int:
        return len(self.until)

    def taken(self, rows: Integers, more: int = 0) -> Trials:
        """These rows, and `more` new ones."""
        # What is not used yet takes no memory: the kernel gives pages when they are written.
        result = Trials.new(len(rows) + more)
        for one in fields(self):
            getattr(result, one.name)[: len(rows)] = getattr(self, one.name)[rows]
        return result

    def restart(self, rows: Integers, now: float, *, probation: bool) -> None:
        """Begins a trial."""
        self.seen[rows], self.parts[rows] = 0.0, 0.0
        if probation:  # after a quarantine: what was gained before is no reason for a smaller holdout
            self.lately[rows] = 0.0
        self.began[rows], self.probation[rows] = now, probation

    def quarantine(self, rows: Integers, now: float, kind: Integers, worse: Floats) -> None:
        """Begins a quarantine."""
        level = np.minimum(self._left(rows, now), MOST_LEVEL)
        self.until[rows] = now + np.minimum(QUARANTINE * np.exp2(level), QUARANTINE_MOST)
        self.level[rows] = level + 1.0
        self.quarantined[rows], self.kind[rows], self.worse[rows] = True, kind, worse
        self.began[rows] = now

    def marked(self, rows: Integers, now: float) -> NDArray[np.bool_]:
        """Which of `rows` had a quarantine that is not forgiven yet at `now` (seconds), (rows,)."""
        marked: NDArray[np.bool_] = self._left(rows, now) > FORGOTTEN
        return marked

    def _left(self, rows: Integers, now: float) -> Floats:
        """The level that the time outside of quarantines left."""
        outside = np.maximum(now - self.until[rows], 0.0)
        left: Floats = self.level[rows] * np.exp2(-outside / FORGIVEN)
        return left

    def dump(self, now: float) -> dict[str, Floats]:
        """What outlives the process, with times that count from `now`. Of a trial nothing does: the next one begins."""
        values = {name: getattr(self, name).astype(np.float64) for name in _KEPT}
        return values | {"until": values["until"] - now}

    def load(self, state: Mapping[str, NDArray[Any]], rows: Integers) -> None:
        """Takes over what `dump` gave, `rows` telling where each of its rows is here; what cannot be is ignored."""
        if any(name not in state or state[name].shape != rows.shape for name in _KEPT):
            return
        values = np.stack([np.asarray(state[name], np.float64) for name in _KEPT])
        good = (rows >= 0) & np.isfinite(values).all(axis=0)
        for value, (name, (low, high)) in zip(values[:, good], _KEPT.items(), strict=True):
            getattr(self, name)[rows[good]] = np.clip(value, low, high)
