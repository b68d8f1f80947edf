"""What was learnt, by names instead of numbers, so that it outlives the process and a change of the configuration.

Groups, arms and fields are numbered by the configuration and the program in force. Here they have names: another
configuration, or another version, finds what still means the same and leaves the rest. Paths are networks already.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from agent.dimensions import Dimension, against
from agent.evidence import EvidenceStore
from agent.libbpf import Array
from agent.rules import Rule, governing, masked
from agent.section import Section
from controllers import Field
from controllers.base import ARM_DEFAULT

__all__ = ["MOST_CELLS", "Learnt", "gather", "restore", "worth_keeping"]

# Arms of paths that have evidence: 62 bytes each, so 124 MB at most; 100,000 busy paths have 1.5 million.
MOST_CELLS = 2_000_000


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


def worth_keeping(store: EvidenceStore, also: Array | None = None) -> Array:
    """The rows of `store` that `gather` should take: the groups, and paths with evidence or `also` named.

    Beyond MOST_CELLS, the paths idle for longest are left out.
    """
    cells = _some(store.sums).sum(axis=1)
    first = store.groups
    wanted = cells > 0
    if also is not None:
        wanted[also] = True
    order = first + np.argsort(-store.seen[first:], kind="stable")
    order = order[wanted[order]]
    order = order[np.cumsum(cells[order]) <= MOST_CELLS - cells[:first].sum()]
    return np.concatenate([np.arange(first), np.sort(order)])


def gather(store: EvidenceStore, rows: Array, groups: Sequence[str], host_congestion: str, *, now: float) -> Learnt:
    """Copies `rows` out of `store`, of which the first are all group rows, named by `groups`.

    `now` is of the clock that `store` was told of.
    """
    row, slot = np.nonzero(_some(store.sums)[rows])
    paths = rows[store.groups :]
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


def _some(sums: Array) -> Array:
    """Where there is any evidence, (rows, slots)."""
    some: Array = sums[:, :, Field.CLOSED] + sums[:, :, Field.TRANSFERS] + sums[:, :, Field.SEGMENTS] > 0
    return some


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

    rule = governing(learnt.address, rules)
    path_bits = np.array([one.path_bits for one in rules])[rule]
    excluded = np.array([one.excluded for one in rules])[rule]
    group = np.array([one.group for one in rules])[rule]
    network = (masked(learnt.address, learnt.bits) == learnt.address).all(axis=1)
    paths = np.flatnonzero((path_bits == learnt.bits) & ~excluded & network)
    # The busiest first; each network once.
    paths = paths[np.argsort(learnt.idle[paths], kind="stable")]
    # As byte strings, which lose zeros at the end: there is none.
    identity = np.concatenate([learnt.address[paths], learnt.bits[paths, None] + np.uint8(1)], axis=1).view("S17")
    paths = paths[np.sort(np.unique(identity, return_index=True)[1])][: store.room]
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
    one, and so does its variant; what is compared with the host's defaults is worth nothing under others."""
    names = []
    for dimension in dimensions:
        default = against(dimension, host_congestion)
        own = {arm.name: f"{default}-{arm.name}" for arm in dimension.arms if arm.variant_of == ARM_DEFAULT}
        arms = (default, *(own.get(arm.name, arm.name) for arm in dimension.arms[1:]))
        names += [f"{dimension.name}/{arm}" for arm in arms]
    return (*names, f"holdout/{host_congestion}", f"treated/{host_congestion}")
