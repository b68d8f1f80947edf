"""One round of the loop: the kernel's rows in, evidence, decisions, policies out."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, replace
from ipaddress import IPv4Address, IPv6Address

import numpy as np

from agent import features
from agent.administrator import Override, heeded
from agent.adoption import Adoption
from agent.changes import Changes
from agent.config import Config
from agent.decider import Decider
from agent.dimensions import Dimension, arm_table, dimensions
from agent.effect import Effect
from agent.errors import UsageError
from agent.evidence import EvidenceStore
from agent.extensions import algorithm_table, control_fields, honoured_keys, sends_table, wanted_of_listeners
from agent.fleet import Knowledge, lessons
from agent.fleet_answer import Key, keys
from agent.guarding import Guarding
from agent.heap import keep_large_arrays_out
from agent.journal import Journal
from agent.kernel import Kernel
from agent.learnt import Learnt, gather, restore, worth_keeping
from agent.libbpf import Array
from agent.loader import map_sizes, most_networks
from agent.networks import Networks
from agent.policy import Publisher
from agent.rules import Rule, network_name, packed, rules
from agent.totals import Totals
from controllers import Decision

__all__ = ["Match", "Tuner"]

logger = logging.getLogger(__name__)

# Beyond the limit, so many more are dropped at once that it does not happen at every step.
_FORGET_SHARE = 0.1


@dataclass(frozen=True)
class Match:
    """What is known about one address: the row of its path, or of its group if the path is unknown.

    `network` is the number in `Tuner.networks` of the network above it (below the number of groups: none is known).
    `inherited` names what an unknown path inherits from; None for a known one.
    """

    path: str
    group: str
    excluded: bool
    row: int
    network: int
    inherited: str | None


@dataclass(frozen=True)
class _Meaning:
    """What evidence is about; where it is another, evidence begins anew, with what still means the same."""

    groups: tuple[str, ...]
    rules: tuple[Rule, ...]
    dimensions: tuple[Dimension, ...]
    most_paths: int
    host_congestion: str


@dataclass(frozen=True)
class _Plan:
    """What a configuration comes to: its meaning, and the tables of the options."""

    meaning: _Meaning
    sends: Array
    honoured: Array
    algorithms: Array


class Tuner:
    """Samples and decides. Not thread-safe: the service runs all of it in one worker.

    `learnt` is what an earlier process knew, `worth` how much of its weight is left. `knowledge` may be set to what
    other hosts know, for the next step.
    """

    def __init__(
        self, config: Config, kernel: Kernel, journal: Journal, *,
        dry_run: bool, learnt: Learnt | None = None, worth: float = 1.0,
    ) -> None:  # fmt: skip
        self.config = config
        self.kernel = kernel
        self.journal = journal
        self.dry_run = dry_run
        self.generation = 0
        self.changes = Changes(journal, self.named)
        self.override: Override | None = None
        self.failures: dict[str, int] = {}
        self.last_rows = 0
        self.policy_capacity = map_sizes(config)["POLICY_ENTRIES"]
        self._meaning: _Meaning | None = None
        self.knowledge: Knowledge | None = None
        self._taught: Knowledge | None = None
        keep_large_arrays_out()
        self._honoured = np.zeros(0, kernel.prefix_key)
        self.adoption = Adoption(kernel)
        self._begin(self._plan(config), learnt, worth)

    def reconfigure(self, config: Config) -> None:
        """Takes over a new configuration whose maps have the same sizes.

        Evidence is kept for all paths and arms that mean the same as before.
        Raises UsageError, with nothing changed, for what the kernel side cannot do or has no room for.
        """
        self._take_over(config, None)

    def _take_over(self, config: Config, override: Override | None) -> None:
        plan = self._plan(heeded(config, override))
        learnt = self.learnt(time.monotonic())
        self.publisher.withdraw_all()
        self.config, self.override = config, override
        self._begin(plan, learnt)

    def _heed_administrator(self) -> None:
        current = features.host_congestion()
        if current != self.host_congestion:
            override = Override(time.time(), self.host_congestion, current)
            logger.warning(override.text)
            self._take_over(self.config, override)
            self.journal.write(override.entry)

    def learnt(self, now: float) -> Learnt:
        """A copy of all evidence, worth what it is at `now` (monotonic seconds)."""
        self.store.age(now)
        rows = worth_keeping(self.store, self.guarding.guard.remembered)
        learnt = gather(self.store, rows, self.groups, self.host_congestion, now=now)
        if self.dry_run:  # nor are they a holdout for those who will be treated
            arms = learnt.slot < self.store.holdout_slot
            learnt = replace(learnt, row=learnt.row[arms], slot=learnt.slot[arms], sums=learnt.sums[arms])
        sections = {**self.guarding.dump(rows), **self.changes.dump(rows), **self.store.rates.dump(rows)}
        return replace(learnt, sections=sections)

    def _plan(self, config: Config) -> _Plan:
        """Everything about a configuration that can be refused."""
        algorithms, host_congestion = features.algorithms(), features.host_congestion()
        found = rules(config.paths, config.groups)
        if len(found) + config.paths.max + most_networks(config.paths.max) > self.policy_capacity:
            raise UsageError("paths.rules: more networks than there is room for; restart: systemctl restart tcptuned")
        return _Plan(
            meaning=_Meaning(
                groups=config.groups,
                rules=found,
                dimensions=dimensions(
                    config, algorithms=algorithms, host_congestion=host_congestion, paces=features.tells_pacing()
                ),
                most_paths=config.paths.max,
                host_congestion=host_congestion,
            ),
            sends=sends_table(config, self.kernel.sends),
            honoured=honoured_keys(config, self.kernel.prefix_key),
            algorithms=algorithm_table(config, algorithms, self.kernel.arm),
        )

    def _begin(self, plan: _Plan, learnt: Learnt | None, worth: float = 1.0) -> None:
        config, kernel, meaning = self.config, self.kernel, plan.meaning
        if meaning != self._meaning:
            self._meaning = meaning
            self.groups, self.rules, self.dimensions = meaning.groups, meaning.rules, meaning.dimensions
            self.host_congestion = meaning.host_congestion
            self.generation = (self.generation + 1) % 256
            self.store = EvidenceStore(
                self.dimensions, groups=len(self.groups), most_paths=meaning.most_paths,
                half_life=config.control.half_life, dry_run=self.dry_run,
            )  # fmt: skip
            self.networks = Networks(self.rules, self.store, most=most_networks(meaning.most_paths))
            self._taught = None
            self.guarding = Guarding(self.store)
            self.totals = Totals(self.dimensions, len(self.groups))
            self.effect = Effect()
            self.changes.begin(self.dimensions)
            kernel.clear_rtt()
            if learnt is not None:
                rows = restore(
                    learnt, self.store, self.groups, self.rules, self.host_congestion,
                    now=time.monotonic(), factor=worth,
                )  # fmt: skip
                self.guarding.load(learnt.sections, rows)
                self.changes.load(learnt.sections, rows)
                self.store.rates.load(learnt.sections, rows)
        self.store.half_life = self.store.rates.period = config.control.half_life
        self.publisher = Publisher(kernel, self.rules, self.store, self.networks)
        self.decider = Decider(self.dimensions, self.store, self.networks, self.guarding, self.failures)
        kernel.publish_arms(arm_table(self.dimensions, kernel.arm))
        kernel.publish_extensions(plan.sends, plan.algorithms, plan.honoured, self._honoured)
        self._honoured = plan.honoured
        options = control_fields(config, plan.sends)
        kernel.control(
            initial_window_max=config.initial_window.max,
            # net/core/filter.c takes more than TCP_TIMEOUT_MIN, which is two ticks (include/net/tcp.h)
            ack_delay_min_us=2 * features.jiffy_us() + 1,
            generation=self.generation,
            observe_only=self.dry_run,
            **options,
            host_congestion=self.host_congestion.encode("ascii"),
        )
        self.adoption.call(wanted_of_listeners(options) if not self.dry_run else frozenset())
        self.decide(time.monotonic())

    def arms_of_others(self) -> frozenset[Key]:
        """Which arms other hosts can tell this one about."""
        return keys(self.groups, self.dimensions, self.host_congestion)

    @property
    def decisions(self) -> list[Decision]:
        """The last decisions, one a dimension, for the rows of the store; none before the first."""
        return self.decider.decisions

    def renew_lease(self) -> None:
        """Lets the kernel apply policies for `control.lease` seconds from now."""
        # CLOCK_MONOTONIC is what bpf_ktime_get_ns reads
        self.kernel.control(lease_until_ns=time.monotonic_ns() + round(self.config.control.lease * 1e9))

    def sample(self, now: float) -> None:
        """Takes in what connections did, and what the administrator did; `now` is monotonic seconds."""
        self._heed_administrator()
        self.adoption.step()
        self._absorb(*self.kernel.drain(), now)
        rows = self.decider.hurry(now)
        if len(rows):
            self._publish(rows, rows[:0])
            self.changes.note(rows, self.decisions)

    def sample_rest(self, now: float) -> None:
        """Takes in everything; for the end, when nothing is attached any more."""
        self._absorb(*self.kernel.drain_all(), now)

    def _absorb(self, keys: Array, rows: Array, now: float) -> None:
        self.last_rows = len(keys)
        self.totals.absorb(keys, rows, self.generation)
        samples = self.store.absorb(keys, rows, generation=self.generation, now=now)
        if samples is not None:
            self.guarding.absorb(samples)

    def decide(self, now: float) -> None:
        """Lets every controller decide, publishes the result and writes the journal.

        A controller that raises leaves its dimension at the kernel's defaults, and is counted.
        """
        if (over := self.store.overflow) > 0:
            gone, kept = self.store.forget(over + int(self.config.paths.max * _FORGET_SHARE))
            self.guarding.guard.keep(kept)
            self.changes.keep(kept)
            self.publisher.forget(gone)
            self.networks.forget()
            self.guarding.forget_networks()
            self.decider.forget()
        if self.knowledge is not self._taught:
            self._taught = self.knowledge
            self.networks.fleet = lessons(self.knowledge, self.groups, self.dimensions, self.host_congestion)
        first = not self.decisions
        events = self.guarding.step(now)
        rows, networks = self.decider.step(now)
        # Before what may fail.
        for entry in self.guarding.entries(events, self.named):
            self.journal.write(entry)
        self._publish(rows, networks)
        if not self.dry_run:  # what was treated before a dry run is no match for what is left alone now
            self.effect.step(self.store)
        self.changes.note(rows, self.decisions, first=first)

    def _publish(self, rows: Array, networks: Array) -> None:
        usual, parents = self.config.control.holdout, self.networks.parents()[rows]
        self.guarding.vouch(rows, parents, networks)
        holdout = self.guarding.holdout(usual, rows, parents), self.guarding.unknown_holdout(usual, networks)
        self.publisher.publish(self.decisions, self.decider.unknown, rows, networks, holdout)

    def name(self, row: int) -> str:
        """What people call a row of the evidence."""
        if row < self.store.groups:
            return f"group {self.groups[row]}"
        identity = self.store.identity[row]
        return network_name(identity["address"].tobytes(), int(identity["bits"]))

    def named(self, row: int) -> tuple[str, str]:
        """The names of a row and of its group."""
        return self.name(row), self.groups[self.group(row)]

    def group(self, row: int) -> int:
        """The group's number of a row."""
        return row if row < self.store.groups else int(self.store.identity[row]["group"])

    def match(self, address: IPv4Address | IPv6Address) -> Match:
        """The path of an address, found as the kernel finds it: by the longest rule."""
        data = packed(address)
        number = int.from_bytes(data)

        def covers(other: bytes, bits: int) -> bool:
            return (number ^ int.from_bytes(other)) >> (128 - bits) == 0

        rule = max((rule for rule in self.rules if covers(rule.address, rule.bits)), key=lambda rule: rule.bits)
        bits = rule.path_bits
        network = (number >> (128 - bits) << (128 - bits)).to_bytes(16)
        row = self.store.find(network, bits, rule.group)
        parent = self.networks.above(data, rule)
        inherited = f"group {self.groups[rule.group]}" if parent is None else f"network {self.networks.name(parent)}"
        return Match(
            path=network_name(network, bits),
            group=self.groups[rule.group],
            excluded=rule.excluded,
            row=row if row is not None else rule.group,
            network=parent if parent is not None else rule.group,
            inherited=inherited if row is None else None,
        )
