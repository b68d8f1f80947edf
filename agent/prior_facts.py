"""Whose experience stands behind a decision: the network's, the group's or other hosts'."""

from __future__ import annotations

import numpy as np

from agent.tuner import Match, Tuner
from controllers import Evidence
from controllers.inheritance import statistics

__all__ = ["SOURCES", "prior_facts"]

SOURCES = ("network", "group", "fleet")


def prior_facts(tuner: Tuner, number: int, match: Match) -> dict[str, float] | None:
    """The share of each source in what the address's path inherits in a dimension; None where nobody knows anything."""
    dimension = tuner.dimensions[number]
    sums = tuner.store.part(number, np.array([match.row]))
    if match.inherited is not None:
        sums = np.zeros_like(sums)
    measure = dimension.law().measure(Evidence(dimension.arms, sums))
    if measure is None:
        return None
    weight = tuner.networks.lent(number, np.array([match.network]), statistics(measure)).sum(axis=(1, 2))
    total = float(weight.sum())
    if total <= 0:
        return None
    return {source: round(float(part) / total, 3) for source, part in zip(SOURCES, weight, strict=True)}
