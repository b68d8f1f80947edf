"""The networks above the paths: what the paths of one network, or of one group, learnt together.

A path inherits from its parent network (IPv4 /16, IPv6 /32), then from its group. The networks that are known stand in
the kernel's policy trie too, so that the first connection of an unknown path in them gains already.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from agent.evidence import EvidenceStore
from agent.libbpf import Array
from agent.rules import MAPPED_BITS, Rule, are_ipv4, governing, masked, network_name
from controllers.base import Prior
from controllers.fleet import Experience, experience
from controllers.inheritance import GROUP, NETWORK, STATISTICS, Pooled, inherit, lent, pooled

__all__ = ["IPV4_BITS", "IPV6_BITS", "Lesson", "Networks"]

IPV4_BITS = MAPPED_BITS + 16
IPV6_BITS = 32
# Paths that networks learn from in one step.
_PATHS_A_TURN = 12_500
_YOUNG = 3000.0  # segments sent on a path until its rate is its own: 40 objects of 100 KB, a download of 4 MB
_LATE = 0.05  # half-lives without a look
_IDENTITY = np.dtype([("address", "u1", 16), ("bits", "u1"), ("group", "u1"), ("rule", "?"), ("path_bits", "u1")])
_NAME = 19  # bytes of it that tell networks apart


@dataclass(frozen=True)
class Lesson:
    """Statistics of the paths of `networks` (sorted numbers), summed up: `sums` (networks, arms, STATISTICS)."""

    networks: Array
    sums: Array

    def add(self, parents: Array, statistics: Array) -> None:
        """Of some paths: `parents` (paths,) are the numbers of their networks, `statistics` (paths, arms, STATISTICS)
        theirs. Those of other networks do not count."""
        ours = np.isin(parents, self.networks)
        _add(self.sums, np.searchsorted(self.networks, parents[ours]), statistics[ours])


def _network_bits(addresses: Array) -> Array:
    """How long the networks above these addresses (any, 16 bytes) are, (any,); the paths' length does not tell."""
    return np.where(are_ipv4(addresses), IPV4_BITS, IPV6_BITS)


class Networks:
    """Which network every path of a store is in, and what the networks and the groups know.

    Numbers below `groups` are not networks: they stand for all paths of that group that have no network.
    """

    def __init__(self, rules: Sequence[Rule], store: EvidenceStore, *, most: int) -> None:
        self._rules = tuple(rules)
        self._paths = np.array([rule.path_bits for rule in rules])
        self._store = store
        self._most = most
        self.groups = store.groups
        # What other hosts know, by dimension and group; None: nobody was asked.
        self.fleet: list[Pooled | None] = [None] * len(store.dimensions)
        self.forget()

    def forget(self) -> None:
        """Begins anew, because the rows of the store moved."""
        self._index: dict[bytes, int] = {}
        self._identity = np.zeros(self.groups, _IDENTITY)
        self._identity["group"] = np.arange(self.groups)
        self._parents = np.zeros(0, np.int32)
        self._learnt = np.full(self.groups, -np.inf)
        arms = [len(dimension.arms) for dimension in self._store.dimensions]
        self._sums = [np.zeros((self.groups, count, STATISTICS), np.float32) for count in arms]
        self._pooled = [Pooled.of_nobody(self.groups, count) for count in arms]
        self._of_groups = [Pooled.of_nobody(self.groups, count) for count in arms]

    def __len__(self) -> int:
        return len(self._identity)

    @property
    def identity(self) -> Array:
        """Address, bits, group and path_bits of every network; the first `groups` are none.

        `rule`: its paths belong to rules as long or longer, which have the entries for unknown paths.
        """
        return self._identity

    def parents(self) -> Array:
        """The number of the network of every row of the store; a group's row is its own number."""
        known = len(self._parents)
        if known < len(self._store):
            fresh = np.arange(max(known, self.groups), len(self._store))
            found = np.concatenate([np.arange(known, self.groups, dtype=np.int32), self._find(fresh)])
            self._parents = np.concatenate([self._parents, found])
        return self._parents

    def _find(self, rows: Array) -> Array:
        """The networks of new paths; new networks get a number while there is room."""
        paths = self._store.identity[rows]
        rule = governing(paths["address"], self._rules)
        rule_bits = np.array([one.bits for one in self._rules])[rule]
        bits = _network_bits(paths["address"])
        wanted = np.zeros(len(rows), _IDENTITY)
        wanted["address"], wanted["bits"] = masked(paths["address"], bits), bits
        wanted["group"], wanted["path_bits"], wanted["rule"] = paths["group"], paths["bits"], rule_bits >= bits
        found = paths["group"].astype(np.int32)
        # A wide path has no network above it. After a reload a path may still be of a rule that is gone.
        fits = (bits < paths["bits"]) & (self._paths[rule] == paths["bits"])
        made: list[int] = []
        for position in np.flatnonzero(fits):
            name = wanted[position].tobytes()[:_NAME]
            number = self._index.get(name)
            if number is None:
                if len(self._index) >= self._most:
                    continue
                number = self._index[name] = len(self._identity) + len(made)
                made.append(int(position))
            found[position] = number
        self._grow(wanted[made])
        return found

    def _grow(self, identity: Array) -> None:
        more = len(identity)
        self._identity = np.concatenate([self._identity, identity])
        self._learnt = np.concatenate([self._learnt, np.full(more, -np.inf)])
        self._sums = [np.concatenate([sums, np.zeros((more, *sums.shape[1:]), np.float32)]) for sums in self._sums]
        self._pooled = [known.grown(more) for known in self._pooled]

    def above(self, address: bytes, rule: Rule) -> int | None:
        """The number of the network above the path of an address that `rule` governs, if it is known."""
        known = np.frombuffer(address, np.uint8)[None]
        bits = _network_bits(known)
        network, length = masked(known, bits)[0].tobytes(), int(bits[0])
        return self._index.get(network + bytes([length, rule.group, rule.bits >= length]))

    def of_rules(self, rules: Array) -> Array:
        """The number of the network that each rule lies in, or is; -1 if it is wider, or nothing is known.

        `rules` are identities (agent/identities.py) with the rules' own lengths.
        """
        bits = _network_bits(rules["address"])
        names = np.zeros(len(rules), _IDENTITY)
        names["address"], names["bits"] = masked(rules["address"], bits), bits
        names["group"], names["rule"] = rules["group"], True
        found = [self._index.get(name.tobytes()[:_NAME], -1) for name in names]
        return np.where(rules["bits"] >= bits, found, -1)

    def name(self, number: int) -> str:
        """The prefix of a network as people write it."""
        identity = self._identity[number]
        return network_name(identity["address"].tobytes(), int(identity["bits"]))

    def due(self, now: float) -> Array:
        """The networks whose turn it is to learn from their paths, as numbers.

        Those with news first that waited for longest, as many as have a bounded number of paths together; nobody waits
        for long without news either, because evidence fades.
        """
        news = np.bincount(self.parents(), self._store.news, len(self)) > 0
        late = now - self._learnt > _LATE * self._store.half_life
        waiting = np.flatnonzero(news | late)
        order = waiting[np.argsort(self._learnt[waiting], kind="stable")]
        paths = np.cumsum(np.bincount(self.parents(), minlength=len(self))[order])
        due = order[: 1 + int(np.searchsorted(paths, _PATHS_A_TURN))]
        self._learnt[due] = now
        return np.sort(due)

    def lesson(self, number: int, networks: Array) -> Lesson:
        """What the paths of `networks` know in a dimension, nothing so far; for `learn`."""
        return Lesson(networks, np.zeros((len(networks), *self._sums[number].shape[1:])))

    def learn(self, number: int, lesson: Lesson) -> None:
        """Takes in what all paths of some networks know in one dimension."""
        sums, networks = self._sums[number], lesson.networks
        sums[networks] = lesson.sums
        together = np.zeros((self.groups, *sums.shape[1:]))
        _add(together, self._identity["group"], sums)
        self._of_groups[number] = pooled(together, GROUP)
        # The first are no siblings: they have only the group in common.
        networks = networks[networks >= self.groups]
        self._pooled[number].put(networks, pooled(sums[networks], NETWORK))

    def pacing(self, rows: Array) -> tuple[Array, Array]:
        """What some paths deliver, in bytes a second, and the segments that fill them, (rows,) each; 0: not known.

        A path that carried little has not shown all it has: it is thought to be as fast as the fastest of its network.
        """
        own = rates = self._store.rates.of(rows)
        young = self._store.segments(rows) < _YOUNG
        if young.any():
            rates = np.where(young, np.maximum(own, self.rates(self.parents()[rows])), own)
        return rates, self._store.rates.pipe(rows, rates)

    def rates(self, networks: Array) -> Array:
        """What the fastest path in each of `networks` was seen to deliver, in bytes a second: others may have less.

        Paths that have only their group in common say nothing of each other: 0.
        """
        return self._greatest(self._store.rates.of, networks)

    def pipe(self, networks: Array) -> Array:
        """Segments on their way when the path is just filled that has room for most, in each of `networks`; else 0."""
        rates = self._store.rates
        return self._greatest(lambda rows: rates.pipe(rows, rates.of(rows)), networks)

    def _greatest(self, of: Callable[[Array], Array], networks: Array) -> Array:
        known = np.zeros(len(self), np.float32)
        np.maximum.at(known, self.parents(), of(np.arange(len(self._store), dtype=np.int32)))
        known[: self.groups] = 0.0
        found: Array = known[networks]
        return found

    def experience(self, number: int) -> Experience:
        """What all paths of every group found out in a dimension, for other hosts: nothing that others told."""
        return experience(self._of_groups[number])

    def prior(self, number: int, networks: Array, own: Array) -> Prior:
        """What paths inherit in a dimension.

        `networks` (paths,) are the numbers of their networks, `own` (paths, arms, STATISTICS) is what they bring
        themselves; an unknown path brings zeros.
        """
        return inherit(own, self._sources(number, networks))

    def lent(self, number: int, networks: Array, own: Array) -> Array:
        """The precision of what each path is told about every arm by its network, its group and the fleet: (3, paths,
        arms)."""
        sources = self._sources(number, networks)
        weights = [lent(own, source) for source in sources]
        return np.stack([*weights, *([np.zeros_like(weights[0])] * (3 - len(weights)))])

    def _sources(self, number: int, networks: Array) -> list[Pooled]:
        groups = self._identity["group"][networks]
        sources = [self._pooled[number].take(networks), self._of_groups[number].take(groups)]
        if (fleet := self.fleet[number]) is not None:
            sources.append(fleet.take(groups))
        return sources


def _add(sums: Array, index: Array, values: Array) -> None:
    """Adds every element of `values` to the element of `sums` that `index` names."""
    if len(index):
        order = np.argsort(index, kind="stable")
        found, first = np.unique(index[order], return_index=True)
        sums[found] += np.add.reduceat(values[order], first, axis=0)
