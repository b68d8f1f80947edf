"""How fast every path was seen to deliver and to answer: what paced connections are held to, and what a path holds.

The greatest rate that any connection had lately (bpf/transfer.h, note_rate), and the least RTT. A connection alone may
have had less than the path has, but none can have had more. Neither is forgotten for want of traffic: a rate that has
become too high only paces less. What is on its way at a time when the path is busy and its queue empty is their
product.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from agent.libbpf import Array
from agent.section import Section

__all__ = ["SEGMENT", "Rates"]

_SECTION = "rates"
_MOST = float((1 << 32) - 2)  # bytes a second; bpf/consts.h RATE_MAX
_MOST_TRIPS = 1e6  # round trips a second
SEGMENT = 1448.0  # bytes of data in a packet of 1,500 with timestamps
_RATE, _TRIPS = range(2)


class Rates:
    """Bytes and round trips a second by row of the evidence; 0 where nothing was seen.

    Both are the greatest of the present period and of the last one before that had any, so what was true once does not
    stay for ever.
    """

    def __init__(self, period: float) -> None:
        """A `period` takes so many seconds."""
        self.period = period
        self._now, self._before = np.zeros((2, 0), np.float32), np.zeros((2, 0), np.float32)
        self._began = -np.inf

    def of(self, rows: Array) -> Array:
        """Bytes a second of some rows, (rows,)."""
        return self._greatest(_RATE, rows)

    def pipe(self, rows: Array, rates: Array) -> Array:
        """Segments on their way when paths of these `rates` are just filled, (rows,); 0 where that is not known."""
        trips = self._greatest(_TRIPS, rows)
        held: Array = np.where(trips > 0, rates / np.maximum(trips, 1e-6) / SEGMENT, 0.0)
        return held

    def _greatest(self, which: int, rows: Array) -> Array:
        self._grow(int(rows.max(initial=-1)) + 1)
        greatest: Array = np.maximum(self._now[which, rows], self._before[which, rows])
        return greatest

    def absorb(self, rows: Array, rates: Array, trips: Array, now: float) -> None:
        """Takes in samples of `rows`, (samples,) each: bytes a second, and round trips a second of the least RTT."""
        self._grow(int(rows.max(initial=-1)) + 1)
        if now - self._began > self.period:
            self._began = now
            np.copyto(self._before, self._now, where=self._now > 0)
            self._now[:] = 0.0
        for number, samples in enumerate((rates, trips)):
            np.maximum.at(self._now[number], rows, samples.astype(np.float32))

    def forget(self, rows: Array) -> None:
        """For paths that became others."""
        self._grow(int(rows.max(initial=-1)) + 1)
        self._now[:, rows] = self._before[:, rows] = 0.0

    def keep(self, kept: Array) -> None:
        """Only these rows are left, in their new order."""
        self._grow(int(kept.max(initial=-1)) + 1)
        self._now, self._before = self._now[:, kept], self._before[:, kept]

    def dump(self, rows: Array) -> dict[str, Section]:
        """What outlives the process, for these rows."""
        return {_SECTION: Section({}, {"rate": self.of(rows), "trips": self._greatest(_TRIPS, rows)})}

    def load(self, sections: Mapping[str, Section], rows: Array) -> None:
        """Takes over what `dump` gave; `rows` tells where each row is now, or -1. What cannot be is ignored."""
        arrays = sections[_SECTION].arrays if _SECTION in sections else {}
        self._grow(int(rows.max(initial=-1)) + 1)
        for number, (name, most) in enumerate((("rate", _MOST), ("trips", _MOST_TRIPS))):
            found = arrays.get(name)
            if found is not None and found.shape == rows.shape and found.dtype == np.float32:
                sound = (rows >= 0) & (found >= 0) & (found <= most)
                self._before[number, rows[sound]] = found[sound]

    def _grow(self, length: int) -> None:
        known = self._now.shape[1]
        if length > known:
            old = self._now, self._before
            self._now, self._before = np.zeros((2, 2, max(length, known + known // 4)), np.float32)
            self._now[:, :known], self._before[:, :known] = old
