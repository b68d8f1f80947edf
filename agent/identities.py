"""Which row of the evidence is which path: identities by row, and the way back."""

from __future__ import annotations

import numpy as np

from agent.libbpf import Array
from agent.sums import enlarged

__all__ = ["Identities", "identities"]

_IDENTITY = np.dtype([("address", "u1", 16), ("bits", "u1"), ("group", "u1")])
# As one string; of equal lengths, so that zeros at the end, which numpy does not tell apart, mean nothing.
_NAME = np.dtype("S18")


def identities(address: Array, bits: Array, group: Array) -> Array:
    """Identities of paths: 16 bytes of address each, in the order of the network; shape (paths,)."""
    found = np.zeros(len(bits), _IDENTITY)
    found["address"] = np.ascontiguousarray(address).view(np.uint8).reshape(-1, 16)
    found["bits"], found["group"] = bits, group
    return found


class Identities:
    """Address, bits and group by row. The first `groups` rows are no paths; theirs mean nothing."""

    def __init__(self, groups: int) -> None:
        self.groups = groups
        self._identity = np.zeros(max(1024, groups), _IDENTITY)
        # The paths in the order of their names: much smaller than a dictionary.
        self._sorted = np.zeros(0, np.int32)

    def __len__(self) -> int:
        return self.groups + len(self._sorted)

    @property
    def all(self) -> Array:
        """Every row's identity; a view."""
        return self._identity[: len(self)]

    def find(self, address: bytes, bits: int, group: int) -> int | None:
        """The row of a path, if it is known."""
        row = int(self._located(np.array([address + bytes([bits, group])], _NAME))[0])
        return row if row >= 0 else None

    def rows_known(self, identity: Array) -> Array:
        """The row of each identity; -1 where it is not known."""
        return self._located(identity.view(_NAME))

    def rows_of(self, identity: Array) -> tuple[Array, Array, Array]:
        """The row of each identity, these rows once, and those of them that are new here."""
        # numpy sorts byte strings, not structs
        names, first, inverse = np.unique(identity.view(_NAME), return_index=True, return_inverse=True)
        rows = self._located(names)
        new = rows < 0
        rows[new] = self.append(identity[first[new]])
        return rows[inverse], rows, rows[new]

    def append(self, identity: Array) -> Array:
        """Makes rows of new paths, each there once; returns them."""
        known = len(self._sorted)
        rows = self.groups + known + np.arange(len(identity))
        if len(self) + len(identity) > len(self._identity):
            self._identity = enlarged(self._identity, len(self) + len(identity))
        self._identity[rows] = identity
        names = identity.view(_NAME)
        order = np.argsort(names)
        place = np.searchsorted(self._names(), names[order], sorter=self._sorted)
        self._sorted = np.insert(self._sorted, place, (known + order).astype(np.int32))
        return rows

    def keep(self, rows: Array) -> None:
        """Forgets all but `rows`, which are in ascending order and have the groups first; they move together."""
        self._identity[: len(rows)] = self._identity[rows]
        self._identity[len(rows) : len(self)] = 0
        self._sorted = np.argsort(self._identity[self.groups : len(rows)].view(_NAME)).astype(np.int32)

    def _located(self, names: Array) -> Array:
        """The rows of identities; -1 where there is none."""
        known = self._names()
        if not len(known):
            return np.full(len(names), -1)
        place = np.searchsorted(known, names, sorter=self._sorted)
        path = self._sorted[np.minimum(place, len(known) - 1)].astype(np.intp)
        return np.where(known[path] == names, self.groups + path, -1)

    def _names(self) -> Array:
        """The identities of all paths as strings, (paths,): a view."""
        return self._identity[self.groups : len(self)].view(_NAME)
