"""What changes in the decisions: counted, written to the journal, and remembered since when it has held."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from agent.dimensions import Dimension
from agent.journal import Entry, Journal
from agent.libbpf import Array
from agent.section import Section
from controllers import Decision

__all__ = ["Changes"]

_SECTION = "since"
_MOST_ENTRIES = 1000  # in the journal, a step
_UNDECIDED = 255


class Changes:
    """Remembers the last arm of every row of the evidence, by dimension, and the second (since 1970) it became that.

    `counts` goes by dimension, and up (away from the kernel's default) or down, since the start.
    """

    def __init__(self, journal: Journal, name: Callable[[int], tuple[str, str]]) -> None:
        """`name` gives the path and the group of a row."""
        self.counts: dict[tuple[str, str], int] = {}
        self._journal = journal
        self._name = name
        self.begin(())

    def begin(self, dimensions: Sequence[Dimension]) -> None:
        """Forgets the rows: they are others, and so are the arms."""
        self._dimensions = tuple(dimensions)
        self._arm = np.full((0, len(dimensions)), _UNDECIDED, np.uint8)
        self._time = np.zeros((0, len(dimensions)), np.uint32)

    def since(self, row: int, dimension: int) -> float | None:
        """Since when (seconds since 1970) a row's arm is held to be the best; None if nothing is decided."""
        if row >= len(self._arm) or self._arm[row, dimension] == _UNDECIDED:
            return None
        return float(self._time[row, dimension])

    def note(self, rows: Array, decisions: Sequence[Decision], *, first: bool = False) -> None:
        """Takes in the decisions for `rows`, one a dimension; a `first` one after a start is no change.

        All changes are counted; the journal gets a bounded number a step, as its lines take longer than all the rest.
        """
        now, left = time.time(), _MOST_ENTRIES
        for number, (dimension, decision) in enumerate(zip(self._dimensions, decisions, strict=True)):
            self._grow(len(decision.chosen))
            before, after = self._arm[rows, number], decision.chosen[rows]
            self._time[rows[before != after], number] = int(now)
            self._arm[rows, number] = after
            if first:
                continue
            # What nobody decided had the kernel's defaults.
            before = np.where(before == _UNDECIDED, 0, before)
            changed = before != after
            ups = int((after[changed] > before[changed]).sum())
            for action, count in (("up", ups), ("down", int(changed.sum()) - ups)):
                if count:
                    self.counts[dimension.name, action] = self.counts.get((dimension.name, action), 0) + count
            for position in np.flatnonzero(changed)[:left]:
                row = int(rows[position])
                was, became = dimension.arms[before[position]].name, dimension.arms[after[position]].name
                reason = decision.reasons[decision.reason[row]]
                self._journal.write(Entry(now, *self._name(row), dimension.name, was, became, reason))
            left -= min(left, int(changed.sum()))

    def keep(self, kept: Array) -> None:
        """Only these rows are left, in their new order."""
        self._grow(int(kept.max(initial=-1)) + 1)
        self._arm, self._time = self._arm[kept], self._time[kept]

    def dump(self, rows: Array) -> dict[str, Section]:
        """What outlives the process, for these rows."""
        self._grow(int(rows.max(initial=-1)) + 1)
        names = [[arm.name for arm in dimension.arms] for dimension in self._dimensions]
        return {_SECTION: Section({"arms": names}, {"arm": self._arm[rows], "time": self._time[rows]})}

    def load(self, sections: Mapping[str, Section], rows: Array) -> None:
        """Takes over what `dump` gave, where arms have the same name; `rows` tells where each row is now, or -1.

        What cannot be is ignored.
        """
        section = sections.get(_SECTION)
        if section is None:
            return
        names, arm, when = section.facts.get("arms"), section.arrays.get("arm"), section.arrays.get("time")
        shape = (len(rows), len(self._dimensions))
        if not isinstance(names, list) or len(names) != shape[1]:
            return
        if arm is None or arm.shape != shape or arm.dtype != np.uint8:
            return
        if when is None or when.shape != shape or when.dtype != np.uint32:
            return
        self._grow(int(rows.max(initial=-1)) + 1)
        here = rows >= 0
        for number, (dimension, known) in enumerate(zip(self._dimensions, names, strict=True)):
            numbers = {each.name: position for position, each in enumerate(dimension.arms)}
            table = np.full(_UNDECIDED + 1, _UNDECIDED, np.uint8)
            if isinstance(known, list):
                for position, name in enumerate(known[:_UNDECIDED]):
                    table[position] = numbers.get(name, _UNDECIDED) if isinstance(name, str) else _UNDECIDED
            self._arm[rows[here], number] = table[arm[here, number]]
            self._time[rows[here], number] = np.minimum(when[here, number], int(time.time()))

    def _grow(self, length: int) -> None:
        more = length - len(self._arm)
        if more > 0:
            more = max(more, len(self._arm) // 4)
            columns = self._arm.shape[1]
            self._arm = np.concatenate([self._arm, np.full((more, columns), _UNDECIDED, np.uint8)])
            self._time = np.concatenate([self._time, np.zeros((more, columns), np.uint32)])
