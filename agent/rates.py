"""How fast every path was seen to deliver: what paced connections are held to.

The greatest rate that any connection had lately (bpf/observe.h, note_rate). A connection alone may have had less than
the path has, but none can have had more. It is never forgotten for want of traffic: a rate that has become too high
only paces less.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from agent.libbpf import Array
from agent.section import Section

__all__ = ["Rates"]

_SECTION = "rates"
_MOST = float((1 << 32) - 2)  # bytes a second; bpf/consts.h RATE_MAX


class Rates:
    """Bytes a second by row of the evidence; 0 where nothing was seen.

    A rate is the greatest of the present period and of the last one before that had any, so what was true once does not
    stay for ever.
    """

    def __init__(self, period: float) -> None:
        """A `period` takes so many seconds."""
        self.period = period
        self._now, self._before = np.zeros(0, np.float32), np.zeros(0, np.float32)
        self._began = -np.inf

    def of(self, rows: Array) -> Array:
        """Of some rows, (rows,)."""
        self._grow(int(rows.max(initial=-1)) + 1)
        greatest: Array = np.maximum(self._now[rows], self._before[rows])
        return greatest

    def absorb(self, rows: Array, rates: Array, now: float) -> None:
        """Takes in samples, (samples,), of `rows`."""
        self._grow(int(rows.max(initial=-1)) + 1)
        if now - self._began > self.period:
            self._began = now
            np.copyto(self._before, self._now, where=self._now > 0)
            self._now[:] = 0.0
        np.maximum.at(self._now, rows, rates.astype(np.float32))

    def forget(self, rows: Array) -> None:
        """For paths that became others."""
        self._grow(int(rows.max(initial=-1)) + 1)
        self._now[rows] = self._before[rows] = 0.0

    def keep(self, kept: Array) -> None:
        """Only these rows are left, in their new order."""
        self._grow(int(kept.max(initial=-1)) + 1)
        self._now, self._before = self._now[kept], self._before[kept]

    def dump(self, rows: Array) -> dict[str, Section]:
        """What outlives the process, for these rows."""
        return {_SECTION: Section({}, {"rate": self.of(rows)})}

    def load(self, sections: Mapping[str, Section], rows: Array) -> None:
        """Takes over what `dump` gave; `rows` tells where each row is now, or -1. What cannot be is ignored."""
        rate = sections[_SECTION].arrays.get("rate") if _SECTION in sections else None
        if rate is None or rate.shape != rows.shape or rate.dtype != np.float32:
            return
        self._grow(int(rows.max(initial=-1)) + 1)
        sound = (rows >= 0) & (rate >= 0) & (rate <= _MOST)
        self._before[rows[sound]] = rate[sound]

    def _grow(self, length: int) -> None:
        known = len(self._now)
        if length > known:
            old = self._now, self._before
            self._now, self._before = np.zeros((2, max(length, known + known // 4)), np.float32)
            self._now[:known], self._before[:known] = old
