"""What is known of every path: decayed sums by path, dimension and arm.

One array holds everything, shape (paths, slots, fields). A slot is an arm of a dimension, or one of the two sides of
the comparison that proves the effect: the holdout, and the treated. The first rows are the groups:
their sums over all paths, for people to read.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from agent.bpf_source import constants
from agent.dimensions import ACK, Dimension
from agent.libbpf import Array
from controllers import Evidence, Field
from controllers.base import LOG_CENTRE

__all__ = ["MOST_WEIGHT", "EvidenceStore", "chunks", "fade", "fields_of"]

# Connections that the arms of a path remember at most: where there are many, what was true ten minutes ago must not
# outvote the last hundred. The two sides of the comparison keep everything.
MOST_WEIGHT = 500.0
# Rows that are worked on at once: their temporaries stay in the processor's cache.
_CHUNK = 2048
# Below this many connections, transfers and segments nothing is left but rounding.
_NOTHING = 1e-3

_IDENTITY = np.dtype([("address", "u1", 16), ("bits", "u1"), ("group", "u1")])


class EvidenceStore:
    """Evidence of all paths. Rows 0 to `len(groups)` - 1 are the groups, the rest are paths in order of appearance."""

    def __init__(self, dimensions: tuple[Dimension, ...], *, groups: int, most_paths: int, half_life: float) -> None:
        self.dimensions = dimensions
        self.groups = groups
        self._most = most_paths + groups
        self.half_life = half_life
        self._offsets = np.cumsum([0, *(len(dimension.arms) for dimension in dimensions)])
        self.holdout_slot = int(self._offsets[-1])
        self.treated_slot = self.holdout_slot + 1
        self._index: dict[bytes, int] = {}
        self._length = groups
        self._aged: float | None = None
        start = max(1024, groups)
        self._sums = np.zeros((start, self.treated_slot + 1, len(Field)), np.float32)
        self._identity = np.zeros(start, _IDENTITY)
        self._seen = np.zeros(start, np.float64)

    def __len__(self) -> int:
        return self._length

    @property
    def identity(self) -> Array:
        """Address, bits and group of every row; meaningless for the group rows."""
        return self._identity[: self._length]

    @property
    def seen(self) -> Array:
        """When each path had traffic last, in seconds of the clock given to `absorb`."""
        return self._seen[: self._length]

    @property
    def sums(self) -> Array:
        """The whole array, (paths, slots, fields); for reading."""
        return self._sums[: self._length]

    def find(self, address: bytes, bits: int, group: int) -> int | None:
        """The row of a path, if it is known."""
        return self._index.get(_identity_bytes(address, bits, group))

    def of(self, dimension: int) -> Evidence:
        """The evidence of one dimension by number: a view, not a copy."""
        first, last = self._offsets[dimension], self._offsets[dimension + 1]
        return Evidence(self.dimensions[dimension].arms, self._sums[: self._length, first:last])

    def part(self, dimension: int, rows: Array) -> Array:
        """A copy of the sums of some rows in one dimension, (rows, arms, fields).

        Paths are contiguous in memory, so that what is computed for every path runs over contiguous memory.
        """
        first, last = self._offsets[dimension], self._offsets[dimension + 1]
        some = self._sums[rows, first:last]
        result: Array = np.ascontiguousarray(some.transpose(2, 1, 0)).transpose(2, 1, 0)
        return result

    def age(self, now: float) -> None:
        """Lets all sums fade to what they are worth at `now` (seconds, monotonic)."""
        if self._aged is not None:
            factor = 0.5 ** (max(0.0, now - self._aged) / self.half_life)
            sums = self._sums[: self._length]
            fade(sums[: self.groups], factor, most=np.inf)
            fade(sums[self.groups :, self.holdout_slot :], factor, most=np.inf)
            for first, last in pairwise(self._offsets):
                fade(sums[self.groups :, first:last], factor)
        self._aged = now

    def absorb(self, keys: Array, rows: Array, *, generation: int, now: float) -> None:
        """Adds drained rows (dtypes of `struct row_key` and `struct row`).

        Rows of another generation were drawn from other arms; observed ones were not drawn at all.
        """
        limits = constants()
        relevant = (keys["generation"] == generation) & (keys["treatment"] != limits["TREATMENT_OBSERVED"])
        keys, rows = keys[relevant], rows[relevant]
        if not len(keys):
            return
        paths = self._rows_of(keys, now)
        sent, received = fields_of(rows, "sent"), fields_of(rows, "received")
        treated = keys["treatment"] == limits["TREATMENT_APPLIED"]
        side = np.where(treated, self.treated_slot, self.holdout_slot)
        self._add(paths, keys, side, sent)
        for number, dimension in enumerate(self.dimensions):
            arm = keys["arms"][:, number].astype(np.intp)
            drawn = treated & (arm < len(dimension.arms))
            fields = received if dimension.name == ACK else sent
            self._add(paths[drawn], keys[drawn], self._offsets[number] + arm[drawn], fields[drawn])

    def forget(self, count: int) -> Array:
        """Drops the `count` paths without traffic for longest; returns their identities."""
        order = np.argsort(self._seen[self.groups : self._length], kind="stable") + self.groups
        gone, kept = order[:count], np.sort(order[count:])
        identities = self._identity[gone].copy()
        rows = np.concatenate([np.arange(self.groups), kept])
        for name in ("_sums", "_identity", "_seen"):
            array = getattr(self, name)
            array[: len(rows)] = array[rows]
            array[len(rows) : self._length] = 0
        self._length = len(rows)
        self._index = {self._identity[row].tobytes(): row for row in range(self.groups, self._length)}
        return identities

    def extend(self, address: Array, bits: Array, group: Array, seen: Array) -> Array:
        """Adds paths that are not there yet, without evidence; `seen` as in the property. Returns their rows."""
        rows = np.arange(self._length, self._length + len(bits))
        for _ in rows:
            self._grow()
        identity = self._identity[rows]
        identity["address"], identity["bits"], identity["group"] = address, bits, group
        self._identity[rows], self._seen[rows] = identity, seen
        self._index.update({one.tobytes(): int(row) for one, row in zip(identity, rows, strict=True)})
        return rows

    def fill(self, rows: Array, slots: Array, sums: Array) -> None:
        """Puts evidence in place of what is there; `sums` is (cells, fields), each for a row and a slot."""
        self._sums[rows, slots] = sums

    @property
    def room(self) -> int:
        """How many more paths there may be."""
        return max(0, self._most - self._length)

    @property
    def overflow(self) -> int:
        """How many paths there are beyond the limit."""
        return max(0, self._length - self._most)

    def _add(self, paths: Array, keys: Array, slots: Array, fields: Array) -> None:
        np.add.at(self._sums, (paths, slots), fields.astype(np.float32))
        # A group's sums are large: added one by one, small rows would be lost in the rounding of 32 bits.
        groups = np.zeros((self.groups, *self._sums.shape[1:]))
        np.add.at(groups, (keys["group"], slots), fields)
        self._sums[: self.groups] += groups.astype(np.float32)

    def _rows_of(self, keys: Array, now: float) -> Array:
        """The row of every key's path; new paths get one."""
        identity = np.zeros(len(keys), _IDENTITY)
        identity["address"] = np.ascontiguousarray(keys["address"]).view(np.uint8).reshape(-1, 16)
        identity["bits"] = keys["path_bits"]
        identity["group"] = keys["group"]
        # numpy sorts byte strings, not structs; group comes last so that no meaningful byte is a trailing zero
        unique, first, inverse = np.unique(identity.view("S18"), return_index=True, return_inverse=True)
        rows = np.zeros(len(unique), np.intp)
        for position, source in enumerate(first):
            name = identity[source].tobytes()
            row = self._index.get(name)
            if row is None:
                row = self._index[name] = self._length
                self._grow()
                self._identity[row] = identity[source]
            rows[position] = row
        self._seen[rows] = now
        result: Array = rows[inverse]
        return result

    def _grow(self) -> None:
        self._length += 1
        if self._length > len(self._sums):
            for name in ("_sums", "_identity", "_seen"):
                old: np.ndarray[Any, Any] = getattr(self, name)
                new = np.zeros((len(old) * 2, *old.shape[1:]), old.dtype)
                new[: len(old)] = old
                setattr(self, name, new)


def chunks(rows: Array) -> Iterator[Array]:
    """`rows` in handy pieces."""
    for first in range(0, len(rows), _CHUNK):
        yield rows[first : first + _CHUNK]


def fade(sums: Array, factor: float, *, most: float = MOST_WEIGHT) -> None:
    """Multiplies by `factor`, in place; shape (paths, slots, fields).

    A path whose slots hold more than `most` closed connections is brought down to these, all slots alike: a comparison
    between them stays as it is. What has faded away becomes exactly zero.
    """
    weight = factor * sums[:, :, Field.CLOSED].sum(axis=1, dtype=np.float64)
    factors = factor * np.minimum(1.0, most / np.maximum(weight, 1.0))
    sums *= factors[:, None, None].astype(np.float32)
    left = sums[:, :, Field.CLOSED] + sums[:, :, Field.TRANSFERS] + sums[:, :, Field.SEGMENTS]
    sums[left < _NOTHING] = 0.0


def fields_of(rows: Array, direction: str) -> Array:
    """The evidence fields of drained rows, shape (rows, fields), of the transfers `sent` or `received`."""
    transfers = rows[direction]
    scale = float(1 << constants()["LOG_SHIFT"])
    count = transfers["count"].astype(np.float64)
    time, size = transfers["log_time"] / scale, transfers["log_bytes"] / scale
    fields = np.zeros((len(rows), len(Field)))
    fields[:, Field.TRANSFERS] = count
    fields[:, Field.LOG_TIME] = time - LOG_CENTRE * count
    fields[:, Field.LOG_BYTES] = size - LOG_CENTRE * count
    square = scale * scale
    centre = LOG_CENTRE
    fields[:, Field.LOG_TIME_SQUARED] = transfers["log_time_squared"] / square - 2 * centre * time + centre**2 * count
    fields[:, Field.LOG_BYTES_SQUARED] = transfers["log_bytes_squared"] / square - 2 * centre * size + centre**2 * count
    fields[:, Field.LOG_TIME_BYTES] = transfers["log_time_bytes"] / square - centre * (time + size) + centre**2 * count
    fields[:, Field.CLOSED] = rows["closed"]
    fields[:, Field.SEGMENTS] = rows["sent_segments"]
    fields[:, Field.RETRANSMITTED] = rows["retransmitted_segments"]
    fields[:, Field.FIRST_WINDOWS] = rows["first_windows"]
    fields[:, Field.FIRST_WINDOW_SEGMENTS] = rows["first_window_segments"]
    fields[:, Field.FIRST_WINDOW_LOSSES] = rows["first_window_losses"]
    fields[:, Field.FIRST_WINDOW_LOSSY] = rows["first_window_lossy"]
    fields[:, Field.RTT] = rows["rtt_us"]
    fields[:, Field.BASE_RTT] = rows["base_rtt_us"]
    fields[:, Field.RECEIVED_SEGMENTS] = rows["received_segments"]
    fields[:, Field.ACKS] = rows["pure_acks"].astype(np.float64) - rows["thinned_acks"]
    return fields


def _identity_bytes(address: bytes, bits: int, group: int) -> bytes:
    return address + bytes([bits, group])
