"""What was learnt, by names instead of numbers, so that it outlives the process and a change of the configuration.

Groups, arms and fields are numbered by the configuration and the program in force. Here they have names: another
configuration, or another version, finds what still means the same and leaves the rest. Paths are networks already.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from agent.dimensions import CONGESTION, Dimension
from agent.evidence import EvidenceStore
from agent.libbpf import Array
from agent.rules import Rule
from controllers import Field

__all__ = ["MOST_CELLS", "Learnt", "Section", "gather", "restore"]

# Arms of paths that have evidence: 60 bytes each, so 120 MB at most; 100,000 busy paths have 1.3 million.
MOST_CELLS = 2_000_000


@dataclass(frozen=True)
class Section:
    """What another part remembers: facts ready for JSON, and arrays. Where arrays go by path, by `Learnt`'s rows."""

    facts: Mapping[str, Any]
    arrays: Mapping[str, Array]


@dataclass(frozen=True)
class Learnt:
    """Evidence by name. Row numbers here are their own: first the groups, then the paths.

    `address` (paths, 16), `bits` and `idle` (paths,) tell what a path is and for how many seconds it had no traffic.
    Only arms with evidence are kept: `row`, `slot` (cells,) say whose they are, `sums` (cells, fields) what is known.
    """

    groups: tuple[str, ...]
    slots: tuple[str, ...]
    fields: tuple[str, ...]
    address: Array
    bits: Array
    idle: Array
    row: Array
    slot: Array
    sums: Array
    sections: Mapping[str, Section] = field(default_factory=dict)

    @property
    def paths(self) -> int:
        """How many there are."""
        return len(self.bits)


def gather(store: EvidenceStore, groups: Sequence[str], host_congestion: str, *, now: float) -> Learnt:
    """Copies out of `store` what there is evidence for; beyond MOST_CELLS, the paths idle for longest are left out.

    `groups` are the names of its group rows; `now` is of the clock that `store` was told of.
    """
    some = store.sums[:, :, Field.CLOSED] + store.sums[:, :, Field.TRANSFERS] + store.sums[:, :, Field.SEGMENTS] > 0
    cells = some.sum(axis=1)
    first = store.groups
    order = first + np.argsort(-store.seen[first:], kind="stable")
    room = MOST_CELLS - cells[:first].sum()
    order = order[(cells[order] > 0) & (np.cumsum(cells[order]) <= room)]
    rows = np.concatenate([np.arange(first), np.sort(order)])
    row, slot = np.nonzero(some[rows])
    paths = rows[first:]
    return Learnt(
        groups=tuple(groups),
        slots=_slot_names(store.dimensions, host_congestion),
        fields=tuple(one.name for one in Field),
        address=store.identity["address"][paths],
        bits=store.identity["bits"][paths],
        idle=np.maximum(0.0, now - store.seen[paths]),
        row=row.astype(np.uint32),
        slot=slot.astype(np.uint16),
        sums=store.sums[rows[row], slot],
    )


def restore(
    learnt: Learnt, store: EvidenceStore, groups: Sequence[str], rules: Sequence[Rule], host_congestion: str,
    *, now: float, factor: float = 1.0,
) -> Array:  # fmt: skip
    """Fills an empty `store` with what still means the same; every sum counts `factor`.

    A path is the same while `rules` make its network a path: it may have come into another group meanwhile. Returns
    the row of `store` for every row of `learnt`, -1 for those that were left.
    """
    found = np.full(len(learnt.groups) + learnt.paths, -1, np.intp)
    names = [one.name for one in Field]
    if not set(names) <= set(learnt.fields):
        return found  # without one of the fields the others mislead: no losses known is not no losses
    number = {name: position for position, name in enumerate(groups)}
    found[: len(learnt.groups)] = [number.get(name, -1) for name in learnt.groups]

    rule = _governing(learnt.address, rules)
    path_bits = np.array([one.path_bits for one in rules])[rule]
    excluded = np.array([one.excluded for one in rules])[rule]
    group = np.array([one.group for one in rules])[rule]
    paths = np.flatnonzero((path_bits == learnt.bits) & ~excluded & _is_network(learnt.address, learnt.bits))
    # The busiest first; each network once.
    paths = paths[np.argsort(learnt.idle[paths], kind="stable")]
    # As byte strings, which lose zeros at the end: there is none.
    network = np.concatenate([learnt.address[paths], learnt.bits[paths, None] + np.uint8(1)], axis=1).view("S17")
    paths = paths[np.sort(np.unique(network, return_index=True)[1])][: store.room]
    rows = store.extend(learnt.address[paths], learnt.bits[paths], group[paths], now - learnt.idle[paths])
    found[len(learnt.groups) + paths] = rows

    slots = {name: position for position, name in enumerate(_slot_names(store.dimensions, host_congestion))}
    slot = np.array([slots.get(name, -1) for name in learnt.slots], np.intp)[learnt.slot]
    row = found[learnt.row]
    same = (row >= 0) & (slot >= 0)
    sums = learnt.sums[same] * np.float32(factor)
    if list(learnt.fields) != names:
        sums = sums[:, [learnt.fields.index(name) for name in names]]
    store.fill(row[same], slot[same], sums)
    return found


def _slot_names(dimensions: Sequence[Dimension], host_congestion: str) -> tuple[str, ...]:
    """The slots of an EvidenceStore. The host's own algorithm goes by its name, for it may become an arm or cease to be
    one; what is compared with the host's defaults is worth nothing under others."""
    names = []
    for dimension in dimensions:
        default = host_congestion if dimension.name == CONGESTION else dimension.arms[0].name
        names += [f"{dimension.name}/{arm}" for arm in (default, *(arm.name for arm in dimension.arms[1:]))]
    return (*names, f"holdout/{host_congestion}", f"treated/{host_congestion}")


def _halves(address: Array) -> Array:
    """Addresses (paths, 16) as numbers, (paths, 2)."""
    return np.ascontiguousarray(address).view(">u8").astype(np.uint64)


def _masks(bits: Array) -> Array:
    """Prefix lengths as masks, (paths, 2)."""
    lengths = np.clip(bits[:, None].astype(np.int64) - (0, 64), 0, 64)
    all_ones = np.uint64(2**64 - 1)
    # A shift by all 64 bits is undefined.
    return np.where(lengths == 0, 0, all_ones << (64 - np.maximum(lengths, 1)).astype(np.uint64)).astype(np.uint64)


def _is_network(address: Array, bits: Array) -> Array:
    """Whether there is nothing after the prefix."""
    rest: Array = _halves(address) & ~_masks(bits)
    return np.logical_not(rest.any(axis=1))


def _governing(address: Array, rules: Sequence[Rule]) -> Array:
    """The number of the longest rule that covers each address; there is always one, of all addresses."""
    halves = _halves(address)
    found = np.zeros(len(halves), np.intp)
    for number in sorted(range(len(rules)), key=lambda number: rules[number].bits):
        rule = rules[number]
        network = _halves(np.frombuffer(rule.address, np.uint8).reshape(1, 16))
        mask = _masks(np.array([rule.bits]))
        found[((halves ^ network) & mask == 0).all(axis=1)] = number
    return found
