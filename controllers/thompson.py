"""Discounted Thompson sampling: every arm is drawn as often as it is likely to be the best.

The sampling itself happens in the kernel, once a connection; here its probabilities are computed, without any draws, so
that the same evidence gives the same decision. Discounting is the half-life of the evidence: a verdict fades, and its
arm is tried again.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from controllers.base import ARM_DEFAULT, Decision, Evidence, Field, Floats

__all__ = ["REASONS", "believe", "decide", "likely_best"]

REASONS = (
    "no evidence yet: the kernel's default",
    "comparing: the arms have too few transfers",
    "best by time, retransmissions and round-trip time",
    "none is better than the kernel's default",
    "the faster arm retransmits too much",
)
UNKNOWN, COMPARING, BEST, NO_GAIN, VETOED = range(len(REASONS))

ENOUGH = 6.0  # transfers of an arm before its estimate is believed
LEAST_SHARE = 0.03  # an arm with evidence against it keeps a chance to return,
LEAST_COST = 0.01  # but that must not make the path's transfers more than 1 % slower
COMPARING_SHARE = 0.3  # of the connections, for all arms not seen often enough: some will turn out to be slow
CLEARLY = 3.0  # standard errors behind the best: no reason to go on comparing,
SEEN_TWICE = 1.5  # once both were seen more than once, a little faded
UNKNOWN_SPREAD = 0.5  # log2: an unseen arm may be 40 % better or worse than the known ones
DOUBT = 0.5  # standard errors: the better known of two equals wins
DEFAULT_BONUS = 0.02  # log2: the default stays unless something is 1.4 % better
# Half of a faded transfer and less says nothing, but would keep an idle path comparing for hours.
NOTHING = 0.5


def decide(utility: Floats, variance: Floats, vetoed: NDArray[np.bool_], evidence: Evidence) -> Decision:
    """Turns utilities (log2: 1 is twice as good) and their variances, shape (paths, arms), into a decision."""
    paths, arms = utility.shape
    rows = np.arange(paths)
    transfers = evidence[Field.TRANSFERS]
    believed = transfers >= ENOUGH
    centre, spread = believe(utility, variance, UNKNOWN_SPREAD)

    leader = np.where(vetoed, -np.inf, centre).argmax(axis=1)
    behind = np.maximum(centre[rows, leader][:, None] - centre, 0.0)
    floor = np.minimum(LEAST_SHARE, LEAST_COST / np.maximum(np.exp2(np.minimum(behind, 10.0)) - 1.0, 1e-9))
    floor = np.where(vetoed, floor / 3, floor)
    probabilities = np.maximum(likely_best(centre, spread, ~vetoed), floor)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    # Until every arm has been seen often enough, those that have not get a share.
    beaten = vetoed | (behind > CLEARLY * np.hypot(spread, spread[rows, leader][:, None]))
    won = beaten.sum(axis=1) >= arms - 1
    believed[rows, leader] |= won & (transfers[rows, leader] >= SEEN_TWICE)
    lacking = ~believed & ~vetoed & ~(beaten & (transfers >= SEEN_TWICE))
    comparing: NDArray[np.bool_] = np.logical_or.reduce(lacking, axis=1)
    share = np.where(lacking, COMPARING_SHARE / np.maximum(lacking.sum(axis=1, keepdims=True), 1), 0.0)
    probabilities = np.where(comparing[:, None], (1.0 - COMPARING_SHARE) * probabilities + share, probabilities)
    # No transfer to judge by, no arm to try: arm 0 alone, until some connection transfers enough.
    nothing = transfers.sum(axis=1) < NOTHING
    probabilities[nothing] = 0.0
    probabilities[nothing, ARM_DEFAULT] = 1.0

    score = np.where(believed & ~vetoed, centre - DOUBT * spread, -np.inf)
    score[:, ARM_DEFAULT] = np.where(believed[:, ARM_DEFAULT], score[:, ARM_DEFAULT] + DEFAULT_BONUS, -np.inf)
    # Nothing believed: argmax of equals is arm 0.
    chosen = score.argmax(axis=1)

    reason = np.full(paths, BEST)
    reason[chosen == ARM_DEFAULT] = NO_GAIN
    reason[(vetoed & (centre > centre[rows, chosen][:, None])).any(axis=1)] = VETOED
    reason[comparing] = COMPARING
    reason[nothing | (arms == 1)] = UNKNOWN
    return Decision(probabilities, chosen, reason, REASONS)


def believe(utility: Floats, variance: Floats, doubt: float) -> tuple[Floats, Floats]:
    """What to think of every arm: mean and standard deviation, shape (paths, arms).

    Before it is seen an arm is thought to be like the average of the path's other arms, give or take `doubt`; what was
    measured (`variance` is infinite where nothing was) moves it from there by its weight (a normal prior's posterior).
    """
    weight = 1.0 / variance
    total = weight.sum(axis=1, keepdims=True)
    average = (weight * utility).sum(axis=1, keepdims=True) / np.where(total > 0, total, 1.0)
    prior = 1.0 / doubt**2
    return (weight * utility + prior * average) / (weight + prior), 1.0 / np.sqrt(weight + prior)


def likely_best(centre: Floats, spread: Floats, allowed: NDArray[np.bool_]) -> Floats:
    """The probability of every arm to be the best of those allowed, shape (paths, arms); at least one must be.

    Every arm has odds against the leader, by which the whole is divided. For two arms and for equals that is exact; it
    takes one look at every arm, where drawing or integrating takes hundreds.
    """
    rows = np.arange(len(centre))
    hopeful = np.where(allowed, centre, -np.inf)
    leader = hopeful.argmax(axis=1)
    behind = (centre[rows, leader][:, None] - centre) / np.sqrt(spread**2 + spread[rows, leader][:, None] ** 2)
    behind = np.clip(behind, 0.0, 10.0)
    # log of (1 - P) / P for P = the normal distribution's integral up to `behind`; off by less than 0.0002 in P
    odds = np.where(allowed, np.exp(-(1.5976 + 0.07056 * behind**2) * behind), 0.0)
    odds[rows, leader] = 1.0
    best: Floats = odds / odds.sum(axis=1, keepdims=True)
    return best
