"""Discounted Thompson sampling: every arm is drawn as often as it is likely to be the best.

The sampling itself happens in the kernel, once a connection; here its probabilities are computed, from the same fixed
points of the normal distribution every time, so that the same evidence gives the same decision. Discounting is the
half-life of the evidence: a verdict fades, and its arm is tried again.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from controllers.base import ARM_DEFAULT, Decision, Evidence, Field, Floats

__all__ = ["REASONS", "decide"]

REASONS = (
    "no evidence yet: the kernel's default",
    "comparing: the arms have too few transfers",
    "best by time, retransmissions and round-trip time",
    "none is better than the kernel's default",
    "the faster arm retransmits too much",
)
UNKNOWN, COMPARING, BEST, NO_GAIN, VETOED = range(len(REASONS))

ENOUGH = 6.0  # transfers of an arm before its estimate is believed
LEAST_SHARE = 0.03  # an arm with evidence against it keeps a chance to return
UNKNOWN_SPREAD = 0.5  # log2: an unseen arm may be 40 % better or worse than the known ones
DOUBT = 0.5  # standard errors: the better known of two equals wins
DEFAULT_BONUS = 0.02  # log2: the default stays unless something is 1.4 % better
DRAWS = 256


def decide(utility: Floats, variance: Floats, vetoed: NDArray[np.bool_], evidence: Evidence) -> Decision:
    """Turns utilities (log2: 1 is twice as good) and their variances, shape (paths, arms), into a decision."""
    paths, arms = utility.shape
    rows = np.arange(paths)
    transfers = evidence[Field.TRANSFERS].astype(np.float64)
    seen = np.isfinite(variance)
    believed = transfers >= ENOUGH

    # An unseen arm is thought to be like the average of the seen ones.
    average = np.where(seen, utility, 0.0).sum(axis=1, keepdims=True) / np.maximum(seen.sum(axis=1, keepdims=True), 1)
    centre = np.where(seen, utility, average)
    spread = np.where(seen, np.sqrt(np.where(seen, variance, 0.0)), UNKNOWN_SPREAD)

    best = np.zeros((paths, arms))
    allowed = np.where(vetoed, -np.inf, centre)
    for points in _normal_points(arms):
        best[rows, (allowed + spread * points).argmax(axis=1)] += 1.0 / DRAWS

    floor = np.where(vetoed, LEAST_SHARE / 3, LEAST_SHARE)
    probabilities = np.maximum(best, floor)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    # Until every arm has been seen often enough, those that have not share half of the connections.
    lacking = ~believed & ~vetoed
    comparing = lacking.any(axis=1) & (transfers.sum(axis=1) > 0)
    share = np.where(lacking, 0.5 / np.maximum(lacking.sum(axis=1, keepdims=True), 1), 0.0)
    probabilities = np.where(comparing[:, None], 0.5 * probabilities + share, probabilities)

    score = np.where(believed & ~vetoed, centre - DOUBT * spread, -np.inf)
    score[:, ARM_DEFAULT] = np.where(believed[:, ARM_DEFAULT], score[:, ARM_DEFAULT] + DEFAULT_BONUS, -1e9)
    chosen = score.argmax(axis=1)

    reason = np.full(paths, BEST)
    reason[chosen == ARM_DEFAULT] = NO_GAIN
    reason[(vetoed & (centre > centre[rows, chosen][:, None])).any(axis=1)] = VETOED
    reason[comparing] = COMPARING
    reason[transfers.sum(axis=1) == 0] = UNKNOWN
    return Decision(probabilities, chosen, reason, REASONS)


def _normal_points(arms: int) -> Floats:
    """Fixed draws from the standard normal distribution, shape (DRAWS, arms)."""
    return np.random.default_rng(20190520).standard_normal((DRAWS, arms))
