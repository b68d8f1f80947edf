"""The networks above the paths: what the paths of one network, or of one group, learnt together.

A path inherits from its parent network (IPv4 /16, IPv6 /32), then from its group. The networks that are known stand in
the kernel's policy trie too, so that the first connection of an unknown path in them gains already.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from agent.evidence import EvidenceStore, chunks
from agent.libbpf import Array
from agent.rules import MAPPED_BITS, Rule, governing, masked, network_name
from controllers import Controller, Evidence
from controllers.base import Measure, Prior
from controllers.inheritance import GROUP, NETWORK, STATISTICS, Pooled, inherit, pooled, statistics

__all__ = ["IPV4_BITS", "IPV6_BITS", "Networks"]

IPV4_BITS = MAPPED_BITS + 16
IPV6_BITS = 32
_IDENTITY = np.dtype([("address", "u1", 16), ("bits", "u1"), ("group", "u1"), ("path_bits", "u1"), ("rule", "?")])
_NAME = 18  # bytes of it that tell networks apart


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
        self.forget()

    def forget(self) -> None:
        """Begins anew, because the rows of the store moved."""
        self._index: dict[bytes, int] = {}
        self._identity = np.zeros(self.groups, _IDENTITY)
        self._identity["group"] = np.arange(self.groups)
        self._parents = np.zeros(0, np.int32)
        self._known: list[tuple[Pooled, Pooled] | None] = [None] * len(self._store.dimensions)

    def __len__(self) -> int:
        return len(self._identity)

    @property
    def identity(self) -> Array:
        """Address, bits, group, path_bits and whether it is a rule, of every network; the first `groups` are none."""
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
        ipv4 = paths["bits"] >= MAPPED_BITS
        bits = np.maximum(np.where(ipv4, IPV4_BITS, IPV6_BITS), rule_bits)
        wanted = np.zeros(len(rows), _IDENTITY)
        wanted["address"], wanted["bits"] = masked(paths["address"], bits), bits
        wanted["group"], wanted["path_bits"], wanted["rule"] = paths["group"], paths["bits"], bits == rule_bits
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
        self._identity = np.concatenate([self._identity, wanted[made]])
        return found

    def find(self, address: bytes, bits: int, group: int) -> int | None:
        """The number of a network, if it is known."""
        return self._index.get(address + bytes([bits, group]))

    def above(self, address: bytes, rule: Rule) -> int | None:
        """The number of the network above the path of an address that `rule` governs, if it is known."""
        bits = max(IPV4_BITS if rule.path_bits >= MAPPED_BITS else IPV6_BITS, rule.bits)
        network = masked(np.frombuffer(address, np.uint8)[None], np.array([bits]))[0].tobytes()
        return self.find(network, bits, rule.group)

    def name(self, number: int) -> str:
        """The prefix of a network as people write it."""
        identity = self._identity[number]
        return network_name(identity["address"].tobytes(), int(identity["bits"]))

    def learn(self, number: int, law: Controller) -> None:
        """Adds up what the paths of every network and group know in one dimension."""
        parents = self.parents()
        arms = self._store.dimensions[number].arms
        networks = np.zeros((len(self), len(arms), STATISTICS))
        self._known[number] = None
        for rows in chunks(np.arange(self.groups, len(self._store))):
            measure = law.measure(Evidence(arms, self._store.part(number, rows)))
            if measure is None:
                return
            _add(networks, parents[rows], statistics(measure))
        groups = np.zeros((self.groups, *networks.shape[1:]))
        _add(groups, self._identity["group"], networks)
        networks[: self.groups] = 0.0  # these are no siblings: they have only the group in common
        self._known[number] = pooled(networks, NETWORK), pooled(groups, GROUP)

    def prior(self, number: int, measure: Measure | None, rows: Array) -> Prior | None:
        """What the paths at `rows` of the store inherit in a dimension, beside what they measured themselves."""
        return self._inherit(number, measure, self.parents()[rows])

    def prior_of_unknown(self, number: int, measure: Measure | None) -> Prior | None:
        """What an unknown path inherits from every network; the first `groups` stand for the groups."""
        return self._inherit(number, measure, np.arange(len(self)))

    def _inherit(self, number: int, measure: Measure | None, networks: Array) -> Prior | None:
        known = self._known[number]
        if known is None or measure is None:
            return None
        groups = self._identity["group"][networks]
        return inherit(statistics(measure), (known[0].take(networks), known[1].take(groups)))


def _add(sums: Array, index: Array, values: Array) -> None:
    """Adds every element of `values` to the element of `sums` that `index` names."""
    if len(index):
        order = np.argsort(index, kind="stable")
        found, first = np.unique(index[order], return_index=True)
        sums[found] += np.add.reduceat(values[order], first, axis=0)
