"""How fast every path was seen to deliver: what paced connections are held to.

The greatest rate that any connection had lately, as the kernel measures it (net/ipv4/tcp_rate.c). A connection alone
may have had less than the path has, but none can have had more. It is never forgotten for want of traffic: a rate that
has become too high only paces less.
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

    A rate is the greatest of this period and of the one before, so what was true once does not stay for ever.
    """

    def __init__(self, period: float) -> None:
        """A `period` takes so many seconds, and at least one sample."""
        self.period = period
        self._rates = np.zeros((0, 2), np.float32)  # this period's, and the one's before
        self._began = np.zeros(0)

    def of(self, rows: Array) -> Array:
        """Of some rows, (rows,)."""
        self._grow(int(rows.max(initial=-1)) + 1)
        greatest: Array = self._rates[rows].max(axis=1)
        return greatest

    def absorb(self, rows: Array, rates: Array, now: float) -> None:
        """Takes in samples, (samples,), of `rows`."""
        self._grow(int(rows.max(initial=-1)) + 1)
        some = rates > 0
        rows, rates = rows[some], rates[some]
        over = np.unique(rows[now - self._began[rows] > self.period])
        self._rates[over, 1], self._rates[over, 0] = self._rates[over, 0], 0.0
        self._began[over] = now
        np.maximum.at(self._rates[:, 0], rows, rates.astype(np.float32))

    def forget(self, rows: Array) -> None:
        """For paths that became others."""
        self._grow(int(rows.max(initial=-1)) + 1)
        self._rates[rows] = 0.0

    def keep(self, kept: Array) -> None:
        """Only these rows are left, in their new order."""
        self._grow(int(kept.max(initial=-1)) + 1)
        self._rates, self._began = self._rates[kept], self._began[kept]

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
        self._rates[rows[sound], 1] = rate[sound]

    def _grow(self, length: int) -> None:
        more = length - len(self._began)
        if more > 0:
            more = max(more, len(self._began) // 4)
            self._rates = np.concatenate([self._rates, np.zeros((more, 2), np.float32)])
            # The first sample of a row begins its first period.
            self._began = np.concatenate([self._began, np.full(more, -np.inf)])
