"""Whose experience stands behind a decision: the network's, the group's or other hosts'."""

from __future__ import annotations

import numpy as np

from agent.tuner import Match, Tuner
from controllers import Evidence
from controllers.inheritance import statistics
from controllers.thompson import INHERITED, REASONS

__all__ = ["SOURCES", "prior_facts", "reason_of"]

SOURCES = ("network", "group", "fleet")
_NEARBY, _ELSEWHERE = "as on networks nearby", "as on other hosts of the fleet"


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


def reason_of(text: str, prior: dict[str, float] | None) -> str:
    """A law's reason; laws do not know whose experience it was that they were given."""
    if text == REASONS[INHERITED] and prior is not None and prior["fleet"] > 0.5:
        return text.replace(_NEARBY, _ELSEWHERE)
    return text
