"""The effect over time: a row for every minute and group, for a day. Small enough for memory and the state file.

Counts are those of the minute. The uplift is what was known at its end, from evidence that fades with the half-life.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from agent.effect import COMPARED
from agent.libbpf import Array
from agent.section import Section
from agent.snapshot import Snapshot
from agent.totals import TREATMENTS

__all__ = ["COLUMNS", "MINUTE", "MOST_ROWS", "History"]

MINUTE = 60.0  # seconds
_DAY = 86_400.0
MOST_ROWS = 20_000  # with many groups the oldest go earlier; 2 MB
_LONGEST = 64  # letters of a group's or column's name

_SUMS = ("sent_segments", "retransmitted_segments", "first_window_segments", "first_window_losses", "rounds", "rtt_us")
_COUNTS = (*TREATMENTS, *_SUMS)
_BOUNDS = ("ratio", "lower", "upper")
COLUMNS = (*_COUNTS, *(f"{name}_{bound}" for name in COMPARED for bound in _BOUNDS))


@dataclass(frozen=True)
class _Rows:
    """In order of time: `end` (rows,) in seconds since 1970, `group` (rows,) of names, `values` (rows, COLUMNS)."""

    end: Array
    group: Array
    values: Array

    def of(self, chosen: Any) -> _Rows:
        return _Rows(self.end[chosen], self.group[chosen], self.values[chosen])

    def and_(self, more: _Rows) -> _Rows:
        return _Rows(
            np.concatenate([self.end, more.end]),
            np.concatenate([self.group, more.group]),
            np.concatenate([self.values, more.values]),
        )


_NONE = _Rows(np.zeros(0), np.zeros(0, np.str_), np.zeros((0, len(COLUMNS)), np.float32))


class History:
    """Read by other threads: rows are replaced as a whole, never changed."""

    def __init__(self) -> None:
        self._rows = _NONE
        self._before: tuple[float, dict[str, Array]] | None = None

    def __len__(self) -> int:
        return len(self._rows.end)

    def note(self, snapshot: Snapshot, now: float) -> None:
        """Adds a row for each group if a minute has passed; `now` is in seconds since 1970, and may jump."""
        if self._before is not None and 0.0 <= now - self._before[0] < MINUTE:
            return
        counts = dict(zip(snapshot.groups, _counts(snapshot), strict=True))
        last, self._before = self._before, (now, counts)
        if last is None:
            return
        # Counts begin anew when a reload changes what is counted.
        passed = [
            count - last[1][group] if group in last[1] and (count >= last[1][group]).all() else count
            for group, count in counts.items()
        ]
        values = np.concatenate([np.array(passed), _uplifts(snapshot)], axis=1).astype(np.float32)
        self._add(_Rows(np.full(len(values), now), np.array(snapshot.groups), values))

    def _add(self, new: _Rows) -> None:
        """After a step back of the clock, what was told about the time to come is dropped."""
        now, old = new.end[0], self._rows
        self._keep(old.of(old.end < now).and_(new), now)

    def _keep(self, rows: _Rows, now: float) -> None:
        self._rows = rows.of(rows.end > now - _DAY).of(slice(-MOST_ROWS, None))

    def dump(self) -> Section:
        """For the state file."""
        rows = self._rows
        names, group = np.unique(rows.group, return_inverse=True)
        arrays = {"end": rows.end, "group": group.astype(np.uint16), "values": rows.values}
        return Section({"groups": names.tolist(), "columns": list(COLUMNS)}, arrays)

    def load(self, section: Section, now: float) -> None:
        """Takes over what another process dumped, but for what lies ahead of `now`; nothing if it is not sound."""
        if (rows := _sound(section)) is not None:
            self._keep(rows.of(rows.end <= now), now)

    def facts(self) -> dict[str, Any]:
        """Ready for JSON: by group, a list for every column; None where nothing is known."""
        rows = self._rows
        return {
            "interval_seconds": MINUTE,
            "groups": {
                str(name): {
                    "end": mine.end.tolist(),
                    **{column: _plain(mine.values[:, number]) for number, column in enumerate(COLUMNS)},
                }
                for name in dict.fromkeys(rows.group.tolist())
                for mine in (rows.of(rows.group == name),)
            },
        }


def _counts(snapshot: Snapshot) -> Array:
    """What is counted since the start, (groups, _COUNTS)."""
    sums = [snapshot.total(name).sum(axis=1) for name in _SUMS]
    result: Array = np.concatenate([snapshot.connections, np.stack(sums, axis=1)], axis=1)
    return result


def _uplifts(snapshot: Snapshot) -> Array:
    """(groups, 3 for each thing compared)."""
    unknown = np.full(len(snapshot.groups), np.nan)
    columns = [getattr(snapshot.uplifts.get(name), bound, unknown) for name in COMPARED for bound in _BOUNDS]
    return np.stack(columns, axis=1)


def _sound(section: Section) -> _Rows | None:
    """The rows of a section, columns by name; None if it does not fit together."""
    names, columns = _texts(section.facts.get("groups")), _texts(section.facts.get("columns"))
    if names is None or columns is None or {*section.arrays} != {"end", "group", "values"}:
        return None
    end, group, values = (section.arrays[name] for name in ("end", "group", "values"))
    whole = end.dtype.str == "<f8" and group.dtype.str == "<u2" and values.dtype.str == "<f4"
    if not whole or end.ndim != 1 or group.shape != end.shape or values.shape != (len(end), len(columns)):
        return None
    end, group, values = (array[-MOST_ROWS:] for array in (end, group, values))
    if not np.isfinite(end).all() or (np.diff(end) < 0).any() or (group >= len(names)).any():
        return None
    found = np.full((len(end), len(COLUMNS)), np.nan, np.float32)
    for number, name in enumerate(COLUMNS):
        if name in columns:
            found[:, number] = values[:, columns.index(name)]
    return _Rows(end, np.array(names, np.str_)[group] if len(end) else _NONE.group, found)


def _texts(value: Any) -> list[str] | None:
    """A list of short texts; numpy gives every row the room of the longest."""
    if isinstance(value, list) and all(isinstance(text, str) and len(text) <= _LONGEST for text in value):
        return value
    return None


def _plain(column: Array) -> list[float | None]:
    # Seven digits are all there are in 32 bits.
    return [float(f"{value:.7g}") if np.isfinite(value) else None for value in column.tolist()]
