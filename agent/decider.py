"""Decisions for all paths: each dimension's law asked about evidence of a path's own and what the path inherits.

Only what changed is decided anew: rows with news, in turn where they are very many, and the rows of networks whose turn
it is. A row's evidence ages when it is decided, so a decision is always what its law says of the evidence as it stands,
unless the guard overrules it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from agent.dimensions import CONGESTION, INITIAL_WINDOW, Dimension
from agent.evidence import ANY, EvidenceStore
from agent.guarding import Guarding
from agent.libbpf import Array
from agent.networks import Networks
from agent.sums import chunks, enlarged
from controllers import Controller, Decision, Evidence, Field
from controllers.base import ARM_DEFAULT, plain
from controllers.inheritance import STATISTICS, statistics

__all__ = ["MOST_DECIDED", "Decider"]

_FAR_DOWN = 2  # steps of the ladder
# Rows with news that are decided at once, so that nothing takes long. The others keep their news.
MOST_DECIDED = 20_000


@dataclass(frozen=True)
class _Due:
    """What to decide: rows of the store, and networks for unknown paths; `networks` learn from their paths as well."""

    rows: Array
    networks: Array
    unknown: Array


class Decider:
    """Holds the last decisions, one a dimension.

    `decisions` has a row for every row of the store (a group's is that of unknown paths of the group), `unknown` one
    for every network: what unknown paths in it get. `failures` counts the laws' failures by dimension.
    """

    def __init__(
        self, dimensions: Sequence[Dimension], store: EvidenceStore, networks: Networks, guarding: Guarding,
        failures: dict[str, int],
    ) -> None:  # fmt: skip
        self._dimensions = tuple(dimensions)
        self._laws: list[Controller] = [dimension.law() for dimension in dimensions]
        self._store = store
        self._networks = networks
        self._guarding = guarding
        names = [dimension.name for dimension in dimensions]
        self._windows, self._congestion = names.index(INITIAL_WINDOW), names.index(CONGESTION)
        self.failures = failures
        self._turns, self._hurried = _Turns(), _Turns()
        self.forget()

    def forget(self) -> None:
        """For when the rows of the store moved: no decision is that of its row any more."""
        self._rows = [_Table(len(dimension.arms)) for dimension in self._dimensions]
        self._unknown = [_Table(len(dimension.arms)) for dimension in self._dimensions]
        self._failed = False

    @property
    def decisions(self) -> list[Decision]:
        """The last ones; none before the first step."""
        return [table.decision() for table in self._rows] if len(self._rows[0]) else []

    @property
    def unknown(self) -> list[Decision]:
        """The last ones; none before the first step."""
        return [table.decision() for table in self._unknown] if len(self._unknown[0]) else []

    def step(self, now: float) -> tuple[Array, Array]:
        """Decides what is due; returns the rows of the store and the networks that were decided.

        A law that raises leaves its dimension at the kernel's defaults, and is counted.
        """
        store, parents = self._store, self._networks.parents()
        known = len(self._rows[0])
        everything = self._failed or self._guarding.turned
        networks = self._networks.due(now)
        in_turn = np.zeros(len(self._networks), np.bool_)
        in_turn[networks] = True
        due = store.urgent | in_turn[parents]
        due[0 if everything else known :] = True
        due[self._turns.take(np.flatnonzero(store.news & ~due))] = True
        due[: store.groups] = False
        rows = np.flatnonzero(due)
        # The groups' own sums are for people to read, and what no network knows every group knows.
        store.age(now, np.concatenate([np.arange(store.groups), rows]))
        store.news[rows] = store.news[: store.groups] = False
        store.urgent[:] = False
        in_turn[: store.groups] = True
        in_turn[0 if everything else len(self._unknown[0]) :] = True
        self._failed = False
        unknown = np.flatnonzero(in_turn)
        for number in range(len(self._laws)):
            self._decide(number, now, _Due(rows, networks, unknown))
        return np.concatenate([np.arange(store.groups), rows]), unknown

    def hurry(self, now: float) -> Array:
        """Decides rows with news that are urgent, new or learning, which should not wait for a step; returns them."""
        store, nothing = self._store, np.zeros(0, np.intp)
        if not len(self._rows[0]):
            return nothing
        for table in self._rows:
            table.grow(len(store))
        learning = np.logical_or.reduce([table.learning for table in self._rows])
        due = store.news & store.urgent
        due[self._hurried.take(np.flatnonzero(store.news & learning & ~due))] = True
        due[: store.groups] = False
        rows = np.flatnonzero(due)
        store.age(now, rows)
        store.urgent[rows] = False
        for number in range(len(self._laws)):
            # The news stay news, because the networks have not learnt of them.
            self._decide(number, now, _Due(rows, nothing, nothing))
        return rows

    def _decide(self, number: int, now: float, due: _Due) -> None:
        try:
            self._step(number, now, due)
        except Exception as error:  # a fault in one law must not stop the others, nor the agent
            name = self._dimensions[number].name
            self.failures[name] = self.failures.get(name, 0) + 1
            reason = f"the controller failed: {error!r}"
            self._failed = True  # so that everything is due at the next step
            self._rows[number].reset(len(self._store), reason)
            self._unknown[number].reset(len(self._networks), reason)

    def _step(self, number: int, now: float, due: _Due) -> None:
        law, rows, unknown = self._laws[number], due.rows, due.unknown
        arms, parents = self._dimensions[number].arms, self._networks.parents()
        table = self._rows[number]
        table.grow(len(self._store))
        lesson = self._networks.lesson(number, due.networks)
        for some in chunks(rows):
            evidence = self._evidence(number, some)
            measure = law.measure(evidence)
            if measure is not None:
                own = statistics(measure)
                lesson.add(parents[some], own)
                prior = self._networks.prior(number, parents[some], own)
                evidence = replace(evidence, prior=prior)
            decision = law.step(now, evidence, measure)
            if number == self._windows:
                fell = decision.chosen + _FAR_DOWN <= table.decision().chosen[some]
                self._store.windows_fell(some[fell])
            table.put(some, self._guarding.restrained(decision, some))
            if number == self._congestion and decision.settled is not None:
                self._settle(decision, some)
        if len(rows):
            self._networks.learn(number, lesson)

        prior = self._networks.prior(number, unknown, _zeros(len(unknown), len(arms), STATISTICS))
        evidence = Evidence(arms, _zeros(len(unknown), len(arms), len(Field)), prior)
        if number == self._congestion:
            evidence = replace(evidence, rate=self._networks.rates(unknown))
        decision = self._guarding.restrained_unknown(law.step(now, evidence))
        self._unknown[number].grow(len(self._networks))
        self._unknown[number].put(unknown, decision)
        groups = np.arange(min(self._store.groups, len(unknown)))
        table.put(groups, decision)

    def _settle(self, decision: Decision, rows: Array) -> None:
        """Windows are judged under the algorithm that is settled on; its variant has one of its own, and few other
        connections are left to try one."""
        assert decision.settled is not None
        algorithm = plain(self._dimensions[self._congestion].arms)[decision.chosen]
        self._store.judge_windows_under(np.where(decision.settled, algorithm, ANY).astype(np.uint8), rows)
        self._rows[self._windows].calm(rows[decision.settled & (algorithm != decision.chosen)])

    def _evidence(self, number: int, rows: Array) -> Evidence:
        """What the law of a dimension is told of some rows; what others have taught comes after its measure."""
        store = self._store
        evidence = Evidence(self._dimensions[number].arms, store.part(number, rows), holdout=store.holdout(rows))
        if number == self._windows:
            return replace(evidence, pipe=store.pipe(rows))
        if number == self._congestion:
            rate, _ = self._networks.pacing(rows)
            exploring = self._rows[self._windows].learning[rows] | store.unjudged(rows)
            # What a network lends was not found out by small windows.
            return replace(evidence, rate=rate, exploring=exploring & (rate <= store.rates.of(rows)))
        return evidence


def _zeros(*shape: int) -> Array:
    """Zeros whose first axis is contiguous in memory."""
    return np.zeros(shape[::-1], np.float32).T


class _Turns:
    """Who of many comes next: at most MOST_DECIDED at once, after those of the time before."""

    def __init__(self) -> None:
        self._next = 0

    def take(self, rows: Array) -> Array:
        """Some of `rows`, which are in ascending order."""
        if len(rows) > MOST_DECIDED:
            rows = np.roll(rows, -int(np.searchsorted(rows, self._next)))[:MOST_DECIDED]
            self._next = int(rows[-1]) + 1
        return rows


class _Table:
    """The decisions of one dimension by row; rows not decided yet have arm 0."""

    def __init__(self, arms: int) -> None:
        self._arms = arms
        self._length = 0
        self._probabilities = np.zeros((0, arms), np.float32)
        # By row: chosen, reason, limit, and whether it is learning.
        self._rest = np.zeros((0, 4), np.uint8)
        self._reasons: tuple[str, ...] = ("nothing is decided yet",)
        self._limits = False

    def __len__(self) -> int:
        return self._length

    @property
    def learning(self) -> Array:
        """Which rows are new, or would be decided anew soon."""
        return self._rest[: self._length, 3] > 0

    def decision(self) -> Decision:
        """All rows; views, which change with the next step."""
        rest = self._rest[: self._length]
        limit = rest[:, 2] if self._limits else None
        return Decision(self._probabilities[: self._length], rest[:, 0], rest[:, 1], self._reasons, limit)

    def grow(self, length: int) -> None:
        """Makes it at least so long."""
        first, self._length = self._length, max(self._length, length)
        if self._length > len(self._rest):
            for name in ("_probabilities", "_rest"):
                setattr(self, name, enlarged(getattr(self, name), max(self._length, 1024)))
        self._default(slice(first, self._length))

    def calm(self, rows: Array) -> None:
        """Nothing of what these rows are learning is worth a hurry."""
        self._rest[rows, 3] = 0

    def reset(self, length: int, reason: str) -> None:
        """Gives every row arm 0."""
        self.grow(length)
        self._reasons, self._limits = (reason,), False
        self._default(slice(0, self._length))

    def _default(self, rows: slice) -> None:
        self._probabilities[rows] = np.arange(self._arms) == ARM_DEFAULT
        self._rest[rows] = (ARM_DEFAULT, 0, 0, 1)

    def put(self, rows: Array, decision: Decision) -> None:
        """Replaces some rows; those beyond `rows` in `decision` do not count."""
        count = len(rows)
        self._probabilities[rows] = decision.probabilities[:count]
        self._rest[rows, 0], self._rest[rows, 1] = decision.chosen[:count], decision.reason[:count]
        self._reasons, self._limits = decision.reasons, decision.limit is not None
        if decision.limit is not None:
            self._rest[rows, 2] = decision.limit[:count]
        self._rest[rows, 3] = 0 if decision.learning is None else decision.learning[:count]
