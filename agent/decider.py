"""Decisions for all paths: each dimension's law asked about evidence of a path's own and what the path inherits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from agent.dimensions import Dimension
from agent.evidence import EvidenceStore, chunks
from agent.networks import Networks
from controllers import Controller, Decision, Evidence, Field

__all__ = ["Decider"]


class Decider:
    """Holds the last decisions, one a dimension.

    `decisions` has a row for every row of the store (a group's is that of unknown paths of the group), `unknown` one
    for every network: what unknown paths in it get. `failures` counts the laws' failures by dimension.
    """

    def __init__(
        self, dimensions: Sequence[Dimension], store: EvidenceStore, networks: Networks, failures: dict[str, int]
    ) -> None:
        self._dimensions = tuple(dimensions)
        self._laws: list[Controller] = [dimension.law() for dimension in dimensions]
        self._store = store
        self._networks = networks
        self.failures = failures
        self.decisions: list[Decision] = []
        self.unknown: list[Decision] = []

    def step(self, now: float) -> None:
        """Decides anew; a law that raises leaves its dimension at the kernel's defaults, and is counted."""
        decided = [self._decide(number, now) for number in range(len(self._laws))]
        self.unknown = [unknown for unknown, _ in decided]
        self.decisions = [known for _, known in decided]

    def forget(self) -> None:
        """For when the rows of the store moved: no decision is that of its row any more."""
        self.decisions, self.unknown = [], []

    def _decide(self, number: int, now: float) -> tuple[Decision, Decision]:
        try:
            return self._step(number, self._laws[number], now)
        except Exception as error:  # a fault in one law must not stop the others, nor the agent
            dimension = self._dimensions[number]
            self.failures[dimension.name] = self.failures.get(dimension.name, 0) + 1
            reason = f"the controller failed: {error!r}"
            arms = len(dimension.arms)
            return _default(len(self._networks), arms, reason), _default(len(self._store), arms, reason)

    def _step(self, number: int, law: Controller, now: float) -> tuple[Decision, Decision]:
        arms, first = self._dimensions[number].arms, self._store.groups
        self._networks.learn(number, law)
        nothing = Evidence(arms, np.zeros((len(self._networks), len(arms), len(Field)), np.float32))
        unknown = law.step(now, replace(nothing, prior=self._networks.prior_of_unknown(number, law.measure(nothing))))
        decided = [unknown.part(slice(first))]
        for rows in chunks(np.arange(first, len(self._store))):
            evidence = Evidence(arms, self._store.part(number, rows))
            prior = self._networks.prior(number, law.measure(evidence), rows)
            decided.append(law.step(now, replace(evidence, prior=prior)))
        return unknown, Decision.joined(decided)


def _default(rows: int, arms: int, reason: str) -> Decision:
    """Arm 0 for everybody."""
    probabilities = np.zeros((rows, arms))
    probabilities[:, 0] = 1.0
    nothing = np.zeros(rows, np.intp)
    return Decision(probabilities, nothing, nothing, (reason,))
