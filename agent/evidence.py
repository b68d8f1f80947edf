"""What is known of every path: decayed sums by path, dimension and arm.

One array holds everything, shape (paths, slots, fields). A slot is an arm of a dimension, or one of the two sides of
the comparison that proves the effect: the holdout, and the treated. The first rows are the groups:
their sums over all paths, for people to read.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from agent.bpf_source import constants
from agent.dimensions import CONGESTION, INITIAL_WINDOW, Dimension
from agent.identities import Identities, identities
from agent.libbpf import Array
from agent.rates import Rates
from agent.sums import MOST_WEIGHT, chunks, enlarged, fade, fields_of
from agent.totals import granted
from controllers import Evidence, Field
from controllers.change import KEPT, Recent, changed, faded, surprise

__all__ = ["ANY", "EvidenceStore", "Samples"]

# Of the least RTT: what the RTTs of a path are on average where a queue stands, so that its rate is the path's and not
# what losses or short transfers left of it.
_QUEUED = 1.5
# Half-lives without a look after which a path's sums are aged before something is added to them.
_STALE = 0.01

_ARRAYS = ("_sums", "_seen", "_aged", "_news", "_urgent", "_algorithm", "_recent")
# Which congestion control the windows of a path are judged under: an arm, any, or the one before the agent's restart.
ANY, RESTORED = 255, 254


@dataclass(frozen=True)
class Samples:
    """What drained rows say: whose they are and whether treated, (samples,), and the fields of `sent` transfers."""

    rows: Array
    treated: Array
    sent: Array


class EvidenceStore:
    """Evidence of all paths. Rows 0 to `len(groups)` - 1 are the groups, the rest are paths in order of appearance.

    In a `dry_run` nothing is drawn, and what was only observed shows what the kernel's defaults do.
    """

    def __init__(
        self, dimensions: tuple[Dimension, ...], *, groups: int, most_paths: int, half_life: float,
        dry_run: bool = False,
    ) -> None:  # fmt: skip
        self.dimensions = dimensions
        self.groups = groups
        self._most = most_paths + groups
        self._dry_run = dry_run
        self.half_life = half_life
        names = [dimension.name for dimension in dimensions]
        self._windows, self._congestion = names.index(INITIAL_WINDOW), names.index(CONGESTION)
        congestion = dimensions[self._congestion].arms
        self._variants = [number for number, arm in enumerate(congestion) if arm.variant_of is not None]
        self._offsets = np.cumsum([0, *(len(dimension.arms) for dimension in dimensions)])
        # Where the arms of each dimension are on the array's second axis.
        self._slots = [slice(first, last) for first, last in pairwise(self._offsets.tolist())]
        self.holdout_slot = int(self._offsets[-1])
        self.treated_slot = self.holdout_slot + 1
        self._identities = Identities(groups)
        start = max(1024, groups)
        self._sums = np.zeros((start, self.treated_slot + 1, len(Field)), np.float32)
        self._seen = np.zeros(start, np.float64)
        self._aged = np.full(start, np.nan)
        self._news = np.zeros(start, np.bool_)
        self._urgent = np.zeros(start, np.bool_)
        self._algorithm = np.full(start, ANY, np.uint8)
        self._recent = np.zeros((start, len(Recent)), np.float32)
        self.rates = Rates(half_life)
        self.changes = 0
        """How often a path was found to have changed."""

    def __len__(self) -> int:
        return len(self._identities)

    @property
    def identity(self) -> Array:
        """Address, bits and group of every row; meaningless for the group rows."""
        return self._identities.all

    @property
    def seen(self) -> Array:
        """When each path had traffic last, in seconds of the clock given to `absorb`."""
        return self._seen[: len(self)]

    @property
    def news(self) -> Array:
        """Which rows changed since somebody took note of it by setting theirs to False."""
        return self._news[: len(self)]

    @property
    def urgent(self) -> Array:
        """Which rows are other than they were thought to be: their decisions cannot wait. To be set to False."""
        return self._urgent[: len(self)]

    @property
    def sums(self) -> Array:
        """The whole array, (paths, slots, fields); for reading."""
        return self._sums[: len(self)]

    def find(self, address: bytes, bits: int, group: int) -> int | None:
        """The row of a path, if it is known."""
        return self._identities.find(address, bits, group)

    def rows_known(self, identity: Array) -> Array:
        """The row of each identity (agent/identities.py); -1 where it is not known."""
        return self._identities.rows_known(identity)

    def of(self, dimension: int) -> Evidence:
        """The evidence of one dimension by number: a view, not a copy."""
        return Evidence(self.dimensions[dimension].arms, self._sums[: len(self), self._slots[dimension]])

    def part(self, dimension: int, rows: Array) -> Array:
        """A copy of the sums of some rows in one dimension, (rows, arms, fields).

        Paths are contiguous in memory, so that what is computed for every path runs over contiguous memory.
        """
        some = self._sums[rows, self._slots[dimension]]
        result: Array = np.ascontiguousarray(some.transpose(2, 1, 0)).transpose(2, 1, 0)
        return result

    def holdout(self, rows: Array) -> Array:
        """A copy of the sums of the holdout of some rows, (rows, fields)."""
        result: Array = self._sums[rows, self.holdout_slot]
        return result

    def untuned(self, rows: Array) -> Array:
        """The sums of connections of some rows with the kernel's own algorithm, the holdout's too, (rows, fields)."""
        result: Array = self._sums[rows, self._offsets[self._congestion]] + self._sums[rows, self.holdout_slot]
        return result

    def segments(self, rows: Array) -> Array:
        """How many segments treated connections sent on some rows, as far as they have not faded, (rows,)."""
        result: Array = self._sums[rows, self.treated_slot, Field.SEGMENTS]
        return result

    def pipe(self, rows: Array) -> Array:
        """Segments that fill each path, (rows,); 0 where none was seen to be filled."""
        slots = self._slots[self._congestion]
        rtt, least = (self._sums[rows, slots, field].sum(axis=1) for field in (Field.RTT, Field.BASE_RTT))
        queued = rtt >= _QUEUED * np.maximum(least, 1.0)
        filled: Array = np.where(queued, self.rates.pipe(rows, self.rates.of(rows)), 0.0)
        return filled

    def age(self, now: float, rows: Array | None = None) -> None:
        """Lets the sums of `rows`, or all, fade to what they are worth at `now` (seconds, monotonic)."""
        for some in chunks(np.arange(len(self)) if rows is None else np.sort(rows)):
            passed = np.maximum(now - self._aged[some], 0.0)
            # A row ages from the first look at it on.
            factor = np.where(np.isnan(passed), 1.0, 0.5 ** (passed / self.half_life))
            self._aged[some] = np.fmax(self._aged[some], now)
            most = np.where(some >= self.groups, MOST_WEIGHT, np.inf)
            together = some[-1] - some[0] == len(some) - 1
            sums = self._sums[some[0] : some[-1] + 1] if together else self._sums[some]
            fade(sums, factor, self._offsets, most=most)
            if not together:
                self._sums[some] = sums

    def absorb(self, keys: Array, rows: Array, *, generation: int, now: float) -> Samples | None:
        """Adds drained rows (dtypes of `struct row_key` and `struct row`); returns what they say of either side.

        Rows of another generation were drawn from other arms; observed ones were not drawn at all.
        """
        limits = constants()
        observed = keys["treatment"] == limits["TREATMENT_OBSERVED"]
        relevant = (keys["generation"] == generation) & (observed == self._dry_run)
        keys, rows = keys[relevant], rows[relevant]
        if not len(keys):
            return None
        paths, changed = self._rows_of(keys, now)
        self.age(now, changed[now - self._aged[changed] > _STALE * self.half_life])
        self._news[changed] = True
        sent = fields_of(rows)
        treated = keys["treatment"] == limits["TREATMENT_APPLIED"]
        self._notice_changes(paths[treated], keys["arms"][treated], sent[treated])
        # What a peer asked for is granted to either side, and so belongs to neither.
        compared = ~granted(keys)
        side = np.where(treated, self.treated_slot, self.holdout_slot)
        self._add(paths[compared], keys[compared], side[compared], sent[compared])
        trips = 1e6 * rows["rounds"] / np.maximum(rows["base_rtt_us"].astype(np.float64), 1.0)
        self.rates.absorb(paths, rows["rate"].astype(np.float64), trips, now)
        for number, dimension in enumerate(self.dimensions):
            arm = keys["arms"][:, number].astype(np.intp)
            drawn = (treated | self._dry_run) & (arm < len(dimension.arms))
            if dimension.name == INITIAL_WINDOW:
                drawn &= self._judged(paths, keys["arms"])
            fields = fields_of(rows[drawn], dimension.name)
            self._add(paths[drawn], keys[drawn], self._offsets[number] + arm[drawn], fields)
        return Samples(paths[compared], treated[compared], sent[compared])

    def _judged(self, paths: Array, arms: Array) -> Array:
        """Which connections had the congestion control that the initial windows of their paths are judged under."""
        algorithm = self._algorithm[paths]
        judged: Array = (algorithm >= RESTORED) | (arms[:, self._congestion] == algorithm)
        return judged

    def _notice_changes(self, paths: Array, arms: Array, fields: Array) -> None:
        """Cuts down what is known of paths that do something else than their arms did before."""
        algorithm, _ = self._of_arms(self._congestion, paths, arms)
        window, drawn = self._of_arms(self._windows, paths, arms)
        rows, inverse = np.unique(paths, return_inverse=True)
        windows = self._sums[rows, self._slots[self._windows]].sum(axis=1)[inverse]
        # A window that is no arm is the algorithm's own, or is the same for all: what it does is part of the other.
        window, windows = (np.where(drawn[:, None], each, algorithm) for each in (window, windows))
        # What a window is expected to lose is known under the algorithm that windows are judged under.
        other = ~self._judged(paths, arms) | ~drawn
        fields = fields.copy()
        fields[other, Field.FIRST_WINDOW_SEGMENTS] = fields[other, Field.FIRST_WINDOW_LOSSES] = 0.0
        paced = np.isin(arms[:, self._congestion], self._variants)
        surprises = surprise(algorithm, window, windows, fields, paced)
        recent = faded(self._recent[rows], np.bincount(inverse, fields[:, Field.CLOSED], len(rows)).astype(np.float64))
        np.add.at(recent, inverse, surprises)
        new = changed(recent)
        recent[new] = 0.0
        self._recent[rows] = recent
        self.changes += int(new.sum())
        self._urgent[rows[new]] = True
        self.rates.forget(rows[new])
        for number in range(len(self.dimensions)):
            self._cut(rows[new], number)

    def _of_arms(self, number: int, paths: Array, arms: Array) -> tuple[Array, Array]:
        """What is known of the arms that connections had in a dimension, (samples, fields), and where one was drawn."""
        arm, count = arms[:, number].astype(np.intp), len(self.dimensions[number].arms)
        drawn = arm < count
        return self._sums[paths, self._offsets[number] + np.minimum(arm, count - 1)] * drawn[:, None], drawn

    def _cut(self, rows: Array, dimension: int) -> None:
        slots = self._slots[dimension]
        closed = self._sums[rows, slots, Field.CLOSED].sum(axis=1)
        left = np.minimum(1.0, KEPT / np.maximum(closed, 1.0))
        self._sums[rows, slots] *= left[:, None, None]

    def windows_fell(self, rows: Array) -> None:
        """Cuts down what is known of the congestion controls of `rows`, whose window turned out to lose.

        Some of them had more than their share of the connections that lost by it. Where one is settled on
        that does not matter.
        """
        rows = rows[self._algorithm[rows] >= RESTORED]
        self._cut(rows, self._congestion)
        self._news[rows] = self._urgent[rows] = True

    def judge_windows_under(self, algorithm: Array, rows: Array) -> None:
        """From now on only connections with this congestion control count for the initial windows of `rows`.

        `algorithm` is an arm, or ANY. Algorithms differ in time and in losses, and the luck of which connections had
        which would decide between the windows. What was learnt mostly under others is dropped; what was restored
        counts as learnt under the one that is settled on first.
        """
        before = self._algorithm[rows]
        new = (before != algorithm) & (before != RESTORED) & (algorithm != ANY)
        self._algorithm[rows] = np.where((before == RESTORED) & (algorithm == ANY), RESTORED, algorithm)
        rows, algorithm = rows[new], algorithm[new]
        closed = self.of(self._congestion)[Field.CLOSED][rows]
        closed[:, self._variants] = 0.0  # their windows are their own
        mostly = closed[np.arange(len(rows)), algorithm] >= 0.5 * closed.sum(axis=1)
        self._sums[rows[~mostly], self._slots[self._windows]] = 0.0
        self._news[rows] = self._urgent[rows] = True

    def unjudged(self, rows: Array) -> Array:
        """Where no window is known yet under the algorithm that is settled on, (rows,)."""
        known = self._sums[rows, self._slots[self._windows], Field.CLOSED].any(axis=1)
        found: Array = (self._algorithm[rows] < RESTORED) & ~known
        return found

    def forget(self, count: int) -> tuple[Array, Array]:
        """Drops the `count` paths without traffic for longest.

        Returns their identities, and the rows that are left, in their new order.
        """
        length = len(self)
        order = np.argsort(self._seen[self.groups : length], kind="stable") + self.groups
        gone, kept = order[:count], np.sort(order[count:])
        identity = self.identity[gone].copy()
        rows = np.concatenate([np.arange(self.groups), kept])
        for name in _ARRAYS:
            array = getattr(self, name)
            array[: len(rows)] = array[rows]
            array[len(rows) : length] = np.nan if name == "_aged" else 0
        self._identities.keep(rows)
        self.rates.keep(rows)
        return identity, rows

    def extend(self, address: Array, bits: Array, group: Array, seen: Array) -> Array:
        """Adds paths that are not there yet, without evidence; `seen` as in the property. Returns their rows."""
        rows = self._identities.append(identities(address, bits, group))
        self._prepare(rows)
        self._seen[rows], self._algorithm[rows] = seen, RESTORED
        return rows

    def fill(self, rows: Array, slots: Array, sums: Array) -> None:
        """Puts evidence in place of what is there; `sums` is (cells, fields), each for a row and a slot."""
        self._sums[rows, slots] = sums

    @property
    def room(self) -> int:
        """How many more paths there may be."""
        return max(0, self._most - len(self))

    @property
    def overflow(self) -> int:
        """How many paths there are beyond the limit."""
        return max(0, len(self) - self._most)

    def _add(self, paths: Array, keys: Array, slots: Array, fields: Array) -> None:
        np.add.at(self._sums, (paths, slots), fields.astype(np.float32))
        # A group's sums are large: added one by one, small rows would be lost in the rounding of 32 bits.
        groups = np.zeros((self.groups, *self._sums.shape[1:]))
        np.add.at(groups, (keys["group"], slots), fields)
        self._sums[: self.groups] += groups.astype(np.float32)

    def _rows_of(self, keys: Array, now: float) -> tuple[Array, Array]:
        """The row of every key's path, and each of these rows once; new paths get one."""
        each, once, new = self._identities.rows_of(identities(keys["address"], keys["path_bits"], keys["group"]))
        self._prepare(new)
        self._seen[once] = now
        return each, once

    def _prepare(self, rows: Array) -> None:
        """Makes room for new rows, of which nothing is known yet."""
        if len(self) > len(self._sums):
            for name in _ARRAYS:
                setattr(self, name, enlarged(getattr(self, name), len(self)))
        self._aged[rows], self._news[rows], self._algorithm[rows] = np.nan, True, ANY
