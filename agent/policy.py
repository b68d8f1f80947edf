"""The publisher: decisions become policies in the kernel, only where they changed, and the journal learns of it."""

from __future__ import annotations

import numpy as np

from agent.bpf_source import constants
from agent.dimensions import INITIAL_WINDOW
from agent.evidence import EvidenceStore
from agent.kernel import Kernel
from agent.libbpf import Array
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


def safe_windows(store: EvidenceStore, decisions: list[Decision]) -> Array:
    """The largest window, in segments, that a peer may be granted on every row; 0 where nothing speaks against any."""
    for dimension, decision in zip(store.dimensions, decisions, strict=True):
        if dimension.name == INITIAL_WINDOW and decision.limit is not None:
            windows = np.array([constants()["INITIAL_WINDOW_KERNEL"], *(arm.value for arm in dimension.arms[1:])])
            loses = decision.limit < len(windows)
            return np.where(loses, windows[np.clip(decision.limit - 1, 0, None)], 0)
    return np.zeros(len(store), np.intp)


class Publisher:
    """Keeps the kernel's policy trie equal to the last decisions."""

    def __init__(self, kernel: Kernel, rules: tuple[Rule, ...]) -> None:
        self._kernel = kernel
        self._rules = rules
        self._keys = np.zeros(0, kernel.prefix_key)
        self._policies = np.zeros(0, kernel.policy)

    def publish(self, store: EvidenceStore, decisions: list[Decision]) -> int:
        """Writes what changed; returns how many entries that were."""
        arms = constants()["ARMS"]
        upto = np.concatenate([cumulative(decision.probabilities, arms) for decision in decisions], axis=1)
        safe = safe_windows(store, decisions)
        first, identity = len(self._rules), store.identity[store.groups :]
        keys = np.zeros(first + len(identity), self._kernel.prefix_key)
        policies = np.zeros(len(keys), self._kernel.policy)
        for position, rule in enumerate(self._rules):
            # A path with the rule's own prefix stands for both: the kernel has one entry for a prefix.
            path = store.find(rule.address, rule.bits, rule.group)
            keys["bits"][position] = rule.bits
            keys["address"][position] = np.frombuffer(rule.address, np.uint32)
            policies["upto"][position] = upto[rule.group if path is None else path]
            policies["safe_window"][position] = safe[rule.group if path is None else path]
            policies["path_bits"][position] = rule.path_bits
            policies["group"][position] = rule.group
            policies["excluded"][position] = rule.excluded
        keys["bits"][first:] = identity["bits"]
        keys["address"][first:] = np.ascontiguousarray(identity["address"]).view(np.uint32)
        policies["upto"][first:] = upto[store.groups :]
        policies["safe_window"][first:] = safe[store.groups :]
        policies["path_bits"][first:] = identity["bits"]
        policies["group"][first:] = identity["group"]

        changed = np.ones(len(keys), np.bool_)
        known = len(self._keys)
        changed[:known] = policies[:known] != self._policies
        self._kernel.publish(keys[changed], policies[changed])
        self._keys, self._policies = keys, policies
        return int(changed.sum())

    def withdraw(self, identities: Array) -> None:
        """Deletes the policies of forgotten paths; everything else is written anew with the next decisions."""
        keys = np.zeros(len(identities), self._kernel.prefix_key)
        keys["bits"] = identities["bits"]
        keys["address"] = np.ascontiguousarray(identities["address"]).view(np.uint32)
        self._kernel.withdraw(keys)
        self._keys, self._policies = self._keys[:0], self._policies[:0]

    def withdraw_all(self) -> None:
        """Deletes every policy: every connection gets the kernel's defaults."""
        self._kernel.withdraw(self._keys)
        self._keys, self._policies = self._keys[:0], self._policies[:0]

    @property
    def entries(self) -> int:
        """How many policies the kernel holds."""
        return len(self._keys)
