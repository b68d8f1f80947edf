"""What the guard says of one address, ready for JSON."""

from __future__ import annotations

from typing import Any

import numpy as np

from agent.guarding import Verdict
from agent.tuner import Match, Tuner
from controllers.guard import ALL

__all__ = ["guard_facts", "holdout", "in_force", "verdict_facts"]


def in_force(tuner: Tuner, match: Match) -> Verdict | None:
    """The quarantine of an address: of everything, or of its path."""
    everything = tuner.guarding.verdict(ALL)
    return everything if everything is not None or match.inherited else tuner.guarding.verdict(match.row)


def holdout(tuner: Tuner, match: Match) -> float:
    """The holdout's share of an address."""
    usual, network = tuner.config.control.holdout, np.array([match.network])
    if match.inherited:
        return float(tuner.guarding.unknown_holdout(usual, network)[0])
    return float(tuner.guarding.holdout(usual, np.array([match.row]), network)[0])


def guard_facts(tuner: Tuner, match: Match) -> dict[str, Any]:
    """What the guard says of an address."""
    verdict = in_force(tuner, match)
    if verdict is not None:
        state = "off" if tuner.guarding.verdict(ALL) else "quarantined"
    else:
        state = "probation" if match.inherited or tuner.guarding.guard.on_probation(match.row) else "watched"
    return {"state": state, **verdict_facts(verdict), "holdout": round(holdout(tuner, match), 4)}


def verdict_facts(verdict: Verdict | None) -> dict[str, Any]:
    """A verdict, ready for JSON."""
    return {"until": verdict.until if verdict else None, "because": verdict.because if verdict else None}
