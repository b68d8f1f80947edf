"""The publisher: decisions become policies in the kernel, only where they changed, and the journal learns of it."""

from __future__ import annotations

import numpy as np

from agent.bpf_source import constants
from agent.dimensions import INITIAL_WINDOW, Dimension
from agent.evidence import EvidenceStore
from agent.identities import identities
from agent.kernel import Kernel
from agent.libbpf import Array
from agent.networks import Networks
from agent.rules import Rule
from agent.sums import chunks
from controllers import Decision
from controllers.initial_window import filling, windows_of
from controllers.short import short_ones_tell

__all__ = ["STEPS", "Publisher", "cumulative"]

# Probabilities move a little with every sample; below 1/256 it is not worth a write. Smaller ones are powers of two
# down to 1/4096: an arm that is ten times as slow costs much even at 1/256.
STEPS = 256
_LEAST = 1.0 / 16  # steps
_FULL = 65535
_TOLERANCE = 0.01
_SHORTEST = 1  # segments: what is longer can lose one of several
_RATE_STEP = 0.01  # relative: what moves by less is not worth a write


def cumulative(probabilities: Array, arms: int) -> Array:
    """Probabilities (paths, arms used) as the kernel's cumulative 1/65536, shape (paths, `arms`).

    A path whose probabilities are no such thing (not a number, negative, or not 1 together) gets arm 0 alone.
    """
    shares = np.ascontiguousarray(probabilities.T)  # arms first: every step below runs over contiguous memory
    with np.errstate(invalid="ignore", over="ignore"):  # infinities of both signs
        total = shares.sum(axis=0)
    sound = np.isfinite(total) & (np.abs(total - 1.0) < _TOLERANCE) & (shares >= 0).all(axis=0)
    clean = np.where(sound, shares, 0.0)
    steps = np.round(clean * STEPS)
    # Every arm that may be drawn at all keeps a little.
    small = (clean > 0) & (steps == 0)
    steps[small] = np.exp2(np.round(np.log2(np.maximum(clean[small] * STEPS, _LEAST))))
    ends = np.cumsum(steps, axis=0)
    upto = np.zeros((len(probabilities), arms), np.uint16)
    upto[:, : len(ends)] = np.floor(ends * (_FULL / np.maximum(ends[-1], 1.0))).T
    upto[:, len(ends) :] = upto[:, len(ends) - 1 : len(ends)]
    return upto


def safe_windows(dimensions: tuple[Dimension, ...], decisions: list[Decision], rows: Array) -> Array:
    """The largest window, in segments, that a peer may be granted on `rows`; 0 where nothing speaks against any."""
    for dimension, decision in zip(dimensions, decisions, strict=True):
        if dimension.name == INITIAL_WINDOW and decision.limit is not None:
            windows = windows_of(dimension.arms)
            limit = decision.limit[rows].astype(np.intp)
            return np.where(limit < len(windows), windows[np.clip(limit - 1, 0, len(windows) - 1)], 0)
    return np.zeros(len(rows), np.intp)


def paced_rates(dimensions: tuple[Dimension, ...], decisions: list[Decision], rows: Array, rates: Array) -> Array:
    """What paced connections are held to on `rows`, in bytes a second; 0 where none is paced. `rates` (rows,) is what
    each was seen to deliver."""
    for dimension, decision in zip(dimensions, decisions, strict=True):
        if paced := [number for number, arm in enumerate(dimension.arms) if arm.variant_of is not None]:
            used = (decision.probabilities[rows][:, paced] > 0).any(axis=1) & (rates > 0)
            # 32 bits would round the greatest rate up, beyond what the kernel's field holds.
            steps = np.round(np.log(np.where(used, rates, 1.0).astype(np.float64)) / _RATE_STEP)
            return np.where(used, np.minimum(np.exp(steps * _RATE_STEP), constants()["RATE_MAX"]), 0.0)
    return np.zeros(len(rows))


def paced_windows(dimensions: tuple[Dimension, ...], rates: Array, pipe: Array) -> Array:
    """What paced connections begin with, in segments, (rows,): what fills the path; 0 where an arm is drawn for them.

    At the rate of the path no window is a burst, so there is nothing to try. `rates` (rows,) are those told to the
    kernel; `pipe` (rows,) is how many segments are on their way when the path is just filled, 0 where that is not
    known.
    """
    for dimension in dimensions:
        if dimension.name == INITIAL_WINDOW and len(dimension.arms) > 1:
            windows = windows_of(dimension.arms)
            return np.where((rates > 0) & (pipe > 0), windows[filling(windows, pipe)], 0)
    return np.zeros(len(rates), np.intp)


class Publisher:
    """Keeps the kernel's policy trie equal to the last decisions: entries for rules, for networks and for paths."""

    def __init__(self, kernel: Kernel, rules: tuple[Rule, ...], store: EvidenceStore, networks: Networks) -> None:
        self._kernel = kernel
        address = np.frombuffer(b"".join(rule.address for rule in rules), np.uint8).reshape(-1, 16)
        bits, group = np.array([rule.bits for rule in rules]), np.array([rule.group for rule in rules])
        self._rules = identities(address, bits, group)
        self._of_every_rule = {
            "path_bits": np.array([rule.path_bits for rule in rules]), "group": group,
            "excluded": np.array([rule.excluded for rule in rules]),
        }  # fmt: skip
        self._store = store
        self._networks = networks
        self._unwritten: tuple[Array, Array]
        self._forget()

    def publish(
        self, decisions: list[Decision], unknown: list[Decision], rows: Array, networks: Array,
        holdout: tuple[Array, Array],
    ) -> None:  # fmt: skip
        """Writes what changed, and what could not be written the last time.

        `decisions` are those of the rows of the store, `unknown` those for unknown paths in every network; only `rows`
        and `networks` are looked at, and what is new. `holdout` is its share: of every one of `rows`,
        and of unknown paths in every one of `networks`.
        """
        store, above = self._store, self._networks.identity
        paths = rows >= store.groups
        rows = rows[paths]
        identity = store.identity[rows]
        policies = self._policies(decisions, rows, *self._networks.pacing(rows))
        policies["path_bits"], policies["group"] = identity["bits"], identity["group"]
        policies["transfer_min"] = _SHORTEST * short_ones_tell(store.untuned(rows))
        policies["holdout"] = np.round(holdout[0][paths] * _FULL)
        changed = self._of_rows.put(rows, policies, self._keys(identity["address"], identity["bits"]))

        policies = self._policies(unknown, networks, self._networks.rates(networks), self._networks.pipe(networks))
        policies["path_bits"], policies["group"] = above["path_bits"][networks], above["group"][networks]
        policies["holdout"] = np.round(holdout[1] * _FULL)
        keys = self._keys(above["address"][networks], above["bits"][networks])
        own = (networks >= self._networks.groups) & ~above["rule"][networks]
        more = self._of_networks.put(networks, policies, keys, own)
        parts = [self._unwritten, changed, more, self._publish_rules()]
        keys, policies = (np.concatenate(column) for column in zip(*parts, strict=True))
        try:
            self._kernel.publish(keys, policies)
        except BaseException:
            self._unwritten = _latest(keys, policies)
            raise
        self._unwritten = keys[:0], policies[:0]

    def _publish_rules(self) -> tuple[Array, Array]:
        # The kernel has one entry for a prefix: a path with the rule's own stands for both, or else a network.
        rows, networks = self._store.rows_known(self._rules), self._networks.of_rules(self._rules)
        decided = (networks >= 0) & (networks < len(self._of_networks.policies))
        policies = self._of_networks.policies[np.where(decided, networks, self._rules["group"])]
        known = (rows >= 0) & (rows < len(self._of_rows.policies))
        policies[known] = self._of_rows.policies[rows[known]]
        for name, column in self._of_every_rule.items():
            policies[name] = column
        return self._of_rules.put(np.arange(len(policies)), policies, self._rule_keys())

    def _rule_keys(self) -> Array:
        return self._keys(self._rules["address"], self._rules["bits"])

    def _policies(self, decisions: list[Decision], rows: Array, rates: Array, pipe: Array) -> Array:
        policies = np.zeros(len(rows), self._kernel.policy)
        arms = constants()["ARMS"]
        for some, part in zip(chunks(rows), chunks(np.arange(len(rows))), strict=True):
            upto = [cumulative(one.probabilities[some], arms) for one in decisions]
            policies["upto"][part] = np.concatenate(upto, axis=1)
        policies["safe_window"] = safe_windows(self._store.dimensions, decisions, rows)
        policies["rate"] = paced_rates(self._store.dimensions, decisions, rows, rates)
        policies["paced_window"] = paced_windows(self._store.dimensions, policies["rate"], pipe)
        return policies

    def _keys(self, address: Array, bits: Array | list[int]) -> Array:
        keys = np.zeros(len(bits), self._kernel.prefix_key)
        keys["bits"] = bits
        keys["address"] = np.ascontiguousarray(address).view(np.uint32)
        return keys

    def _network_keys(self) -> Array:
        above = self._networks.identity[self._networks.groups : len(self._of_networks.policies)]
        own = above[~above["rule"]]
        return self._keys(own["address"], own["bits"])

    def withdraw_all(self) -> None:
        """Deletes every policy: every connection gets the kernel's defaults."""
        paths = self._store.identity[self._store.groups : len(self._of_rows.policies)]
        self._kernel.withdraw(self._keys(paths["address"], paths["bits"]))
        self._kernel.withdraw(self._network_keys())
        self._kernel.withdraw(self._rule_keys())
        self._forget()

    def forget(self, gone: Array) -> None:
        """For when rows of the store moved, before its networks forget theirs; `gone` are identities of dropped paths.

        Everything is written anew with the next decisions. Until then unknown paths inherit from their rules.
        """
        self._kernel.withdraw(self._keys(gone["address"], gone["bits"]))
        self._kernel.withdraw(self._network_keys())
        self._forget()

    def _forget(self) -> None:
        self._of_rows, self._of_networks, self._of_rules = (_Sent(self._kernel) for _ in range(3))
        self._unwritten = np.zeros(0, self._kernel.prefix_key), np.zeros(0, self._kernel.policy)

    @property
    def entries(self) -> int:
        """How many policies the kernel was sent."""
        paths = max(0, len(self._of_rows.policies) - self._store.groups)
        return paths + len(self._network_keys()) + len(self._of_rules.policies)


def _latest(keys: Array, policies: Array) -> tuple[Array, Array]:
    """The last policy of every key."""
    _, last = np.unique(keys[::-1].view(f"S{keys.itemsize}"), return_index=True)
    return keys[::-1][last], policies[::-1][last]


class _Sent:
    """The policies that the kernel has, or will have, by number."""

    def __init__(self, kernel: Kernel) -> None:
        self._room = np.zeros(0, kernel.policy)
        self.policies = self._room

    def put(self, numbers: Array, policies: Array, keys: Array, own: Array | bool = True) -> tuple[Array, Array]:
        """Takes over `policies`; returns keys and policies to write: of those that changed and have an entry `own`."""
        known = len(self.policies)
        length = max(known, int(numbers.max(initial=-1)) + 1)
        if length > len(self._room):
            room = np.zeros(length + length // 4, self._room.dtype)
            room[:known] = self.policies
            self._room = room
        self.policies = self._room[:length]
        changed = ((self.policies[numbers] != policies) | (numbers >= known)) & own
        self.policies[numbers] = policies
        return keys[changed], policies[changed]
