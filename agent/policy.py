"""The publisher: decisions become policies in the kernel, only where they changed, and the journal learns of it."""

from __future__ import annotations

import numpy as np

from agent.bpf_source import constants
from agent.dimensions import INITIAL_WINDOW, Dimension
from agent.evidence import EvidenceStore
from agent.kernel import Kernel
from agent.libbpf import Array
from agent.networks import Networks
from agent.rules import Rule
from controllers import Decision

__all__ = ["STEPS", "Publisher", "cumulative"]

# Probabilities move a little with every sample; below 1/256 it is not worth a write.
STEPS = 256
_FULL = 65535
_TOLERANCE = 0.01


def cumulative(probabilities: Array, arms: int) -> Array:
    """Probabilities (paths, arms used) as the kernel's cumulative 1/65536, shape (paths, `arms`).

    A path whose probabilities are no such thing (not a number, negative, or not 1 together) gets arm 0 alone.
    """
    with np.errstate(invalid="ignore", over="ignore"):  # infinities of both signs
        total = probabilities.sum(axis=1, keepdims=True)
    sound = np.isfinite(total) & (np.abs(total - 1.0) < _TOLERANCE) & (probabilities >= 0).all(axis=1, keepdims=True)
    clean = np.where(sound, probabilities, 0.0)
    steps = np.round(clean * STEPS)
    # Every arm that may be drawn at all keeps at least one step.
    steps = np.where((clean > 0) & (steps == 0), 1.0, steps)
    total = steps.sum(axis=1, keepdims=True)
    upto = np.zeros((len(clean), arms), np.uint16)
    ends = np.cumsum(steps, axis=1) / np.maximum(total, 1.0)
    upto[:, : clean.shape[1]] = np.where(total > 0, np.floor(ends * _FULL), 0)
    upto[:, clean.shape[1] :] = upto[:, clean.shape[1] - 1 : clean.shape[1]]
    return upto


def safe_windows(dimensions: tuple[Dimension, ...], decisions: list[Decision]) -> Array:
    """The largest window, in segments, that a peer may be granted on every row; 0 where nothing speaks against any."""
    for dimension, decision in zip(dimensions, decisions, strict=True):
        if dimension.name == INITIAL_WINDOW and decision.limit is not None:
            windows = np.array([constants()["INITIAL_WINDOW_KERNEL"], *(arm.value for arm in dimension.arms[1:])])
            loses = decision.limit < len(windows)
            return np.where(loses, windows[np.clip(decision.limit - 1, 0, None)], 0)
    return np.zeros(len(decisions[0].chosen), np.intp)


class Publisher:
    """Keeps the kernel's policy trie equal to the last decisions: entries for rules, for networks and for paths."""

    def __init__(self, kernel: Kernel, rules: tuple[Rule, ...]) -> None:
        self._kernel = kernel
        self._rules = rules
        self._moved = False
        self._published = self._nothing()

    def publish(
        self, store: EvidenceStore, decisions: list[Decision], networks: Networks, unknown: list[Decision]
    ) -> int:
        """Writes what changed; returns how many entries that were.

        `decisions` are those of the rows of `store`, `unknown` those for unknown paths in `networks`.
        """
        identity = store.identity[store.groups :]
        of_paths = self._policies(store.dimensions, [one.part(slice(store.groups, None)) for one in decisions])
        of_paths["path_bits"], of_paths["group"] = identity["bits"], identity["group"]
        above = networks.identity
        of_networks = self._policies(store.dimensions, unknown)
        of_networks["path_bits"], of_networks["group"] = above["path_bits"], above["group"]

        rules = self._rules
        of_rules = np.zeros(len(rules), self._kernel.policy)
        for position, rule in enumerate(rules):
            # The kernel has one entry for a prefix: a path with the rule's own stands for both, or else a network.
            path = store.find(rule.address, rule.bits, rule.group)
            network = networks.find(rule.address, rule.bits, rule.group)
            source = of_networks[rule.group if network is None else network]
            of_rules[position] = source if path is None else of_paths[path - store.groups]
            of_rules["path_bits"][position] = rule.path_bits
            of_rules["group"][position] = rule.group
            of_rules["excluded"][position] = rule.excluded

        rule_keys = self._keys(
            np.array([list(rule.address) for rule in rules], np.uint8), np.array([rule.bits for rule in rules])
        )
        # The first are no networks; those that are rules too are written with these.
        own = np.flatnonzero(~above["rule"])[networks.groups :]
        new = [
            (rule_keys, of_rules),
            (self._keys(above["address"][own], above["bits"][own]), of_networks[own]),
            (self._keys(identity["address"], identity["bits"]), of_paths),
        ]
        if self._moved:
            old = _all_keys(self._published)
            self._kernel.withdraw(old[~np.isin(_bytes(old), _bytes(_all_keys(new)))])
            self._published, self._moved = self._nothing(), False
        changed = [_changed(before, policies) for (_, before), (_, policies) in zip(self._published, new, strict=True)]
        self._kernel.publish(
            np.concatenate([keys[which] for (keys, _), which in zip(new, changed, strict=True)]),
            np.concatenate([policies[which] for (_, policies), which in zip(new, changed, strict=True)]),
        )
        self._published = new
        return int(sum(which.sum() for which in changed))

    def _policies(self, dimensions: tuple[Dimension, ...], decisions: list[Decision]) -> Array:
        policies = np.zeros(len(decisions[0].chosen), self._kernel.policy)
        arms = constants()["ARMS"]
        policies["upto"] = np.concatenate([cumulative(one.probabilities, arms) for one in decisions], axis=1)
        policies["safe_window"] = safe_windows(dimensions, decisions)
        return policies

    def _keys(self, address: Array, bits: Array) -> Array:
        keys = np.zeros(len(bits), self._kernel.prefix_key)
        keys["bits"] = bits
        keys["address"] = np.ascontiguousarray(address).view(np.uint32)
        return keys

    def withdraw_all(self) -> None:
        """Deletes every policy: every connection gets the kernel's defaults."""
        self._kernel.withdraw(_all_keys(self._published))
        self._published, self._moved = self._nothing(), False

    def rows_moved(self) -> None:
        """For when paths were forgotten: all others are written anew with the next decisions."""
        self._moved = True

    def _nothing(self) -> list[tuple[Array, Array]]:
        return [(np.zeros(0, self._kernel.prefix_key), np.zeros(0, self._kernel.policy))] * 3

    @property
    def entries(self) -> int:
        """How many policies the kernel holds."""
        return sum(len(keys) for keys, _ in self._published)


def _all_keys(entries: list[tuple[Array, Array]]) -> Array:
    """All keys; a path may have the prefix of a rule: then only one is there."""
    keys = np.concatenate([keys for keys, _ in entries])
    return keys[np.unique(_bytes(keys), return_index=True)[1]]


def _bytes(keys: Array) -> Array:
    """Keys as what numpy can compare, which structs are not."""
    return keys.view(f"S{keys.dtype.itemsize}")


def _changed(before: Array, policies: Array) -> Array:
    """Which policies are new or other than before."""
    changed = np.ones(len(policies), np.bool_)
    known = min(len(before), len(policies))
    changed[:known] = policies[:known] != before[:known]
    return changed
