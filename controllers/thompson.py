"""Discounted Thompson sampling: every arm is drawn as often as it is likely to be the best.

The sampling itself happens in the kernel, once a connection; here its probabilities are computed, without any draws, so
that the same evidence gives the same decision. Discounting is the half-life of the evidence: a verdict fades, and its
arm is tried again.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from controllers.base import ARM_DEFAULT, Decision, Floats, Measure, Prior
from controllers.estimates import PRIOR_VARIANCE

__all__ = ["NOTHING", "REASONS", "Belief", "believe", "decide", "likely_best"]

REASONS = (
    "no evidence yet: the kernel's default",
    "comparing: the arms have too few transfers",
    "best by time, retransmissions and round-trip time",
    "none is better than the kernel's default",
    "the faster arm retransmits too much",
    "no evidence of its own yet: as others found",
)
UNKNOWN, COMPARING, BEST, NO_GAIN, VETOED, INHERITED = range(len(REASONS))

ENOUGH = 6.0  # transfers of an arm before its estimate is believed
LEAST_SHARE = 0.03  # an arm with evidence against it keeps a chance to return,
LEAST_COST = 0.005  # but that must not make the path's transfers more than 0.5 % slower
COMPARING_SHARE = 0.3  # of the connections, for all arms not seen often enough: some will turn out to be slow
SUSPECT_SHARE = 0.05  # for an arm that retransmits too much on other paths of the network
CLEARLY = 3.0  # standard errors behind the best: no reason to go on comparing,
SETTLED = 0.9  # of the connections go to the arm held to be best
SEEN_TWICE = 1.5  # once both were seen more than once, a little faded
UNKNOWN_SPREAD = 0.5  # log2: an unseen arm may be 40 % better or worse than the known ones
DOUBT = 0.5  # standard errors: the better known of two equals wins
DEFAULT_BONUS = 0.02  # log2: the default stays unless something is 1.4 % better
# Half of a faded transfer and less says nothing, but would keep an idle path comparing for hours.
NOTHING = 0.5

Mask = NDArray[np.bool_] | None


def decide(
    measure: Measure, prior: Prior | None, vetoed: Mask = None, suspect: Mask = None, absent: Mask = None
) -> Decision:
    """Turns what was measured, and what others taught, into a decision.

    `vetoed`, `suspect` and `absent` have shape (paths, arms), or are None: what loses too much here, what would if this
    path were as others, and what cannot be had on a path, or is of no use there; it is never drawn.
    """
    vetoed, suspect, absent = (_given(one, measure) for one in (vetoed, suspect, absent))
    vetoed = vetoed & ~absent
    suspect = suspect & ~vetoed
    paths, arms = vetoed.shape
    rows = np.arange(paths)
    belief = believe(measure, prior, UNKNOWN_SPREAD)
    centre, spread, seen = belief.centre, belief.spread, belief.seen
    believed = seen >= ENOUGH

    barred = vetoed | suspect | absent
    leader = np.where(barred, -np.inf, centre).argmax(axis=1)
    behind = np.maximum(centre[rows, leader][:, None] - centre, 0.0)
    floor = np.minimum(LEAST_SHARE, LEAST_COST / np.maximum(np.exp2(np.minimum(behind, 10.0)) - 1.0, 1e-9))
    floor = np.where(vetoed, floor / 3, np.where(absent, 0.0, floor))
    probabilities = np.maximum(likely_best(centre, spread, ~barred), floor)
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    # Until every arm has been seen often enough, those that have not get a share.
    beaten = vetoed | absent | (behind > CLEARLY * np.hypot(spread, spread[rows, leader][:, None]))
    won = beaten.sum(axis=1) >= arms - 1
    believed[rows, leader] |= won & (seen[rows, leader] >= SEEN_TWICE)
    lacking = ~believed & ~vetoed & ~absent & ~(beaten & (seen >= SEEN_TWICE))
    comparing: NDArray[np.bool_] = np.logical_or.reduce(lacking, axis=1)
    # Who has nearly all connections anyway needs none of it.
    needed = lacking * (1.0 - probabilities**2)
    share = COMPARING_SHARE * needed / np.maximum(needed.sum(axis=1, keepdims=True), 1e-9)
    share = np.where(suspect, np.minimum(share, SUSPECT_SHARE), share)
    probabilities = (1.0 - share.sum(axis=1, keepdims=True)) * probabilities + share
    # No transfer to judge by, no arm to try: arm 0 alone, until some connection transfers enough.
    idle = measure.trials.sum(axis=1) < NOTHING
    taught = np.zeros(paths, np.bool_) if prior is None else (prior.precision > 0).any(axis=1)
    nothing = idle & ~taught
    probabilities[nothing] = 0.0
    probabilities[nothing, ARM_DEFAULT] = 1.0

    score = np.where(believed & ~vetoed & ~absent, centre - DOUBT * spread, -np.inf)
    score[:, ARM_DEFAULT] = np.where(believed[:, ARM_DEFAULT], score[:, ARM_DEFAULT] + DEFAULT_BONUS, -np.inf)
    # Nothing believed: argmax of equals is arm 0.
    chosen = score.argmax(axis=1)
    # Without evidence of its own a path goes by what others taught.
    lent = idle & taught
    chosen[lent] = probabilities[lent].argmax(axis=1)

    reason = np.full(paths, BEST)
    reason[chosen == ARM_DEFAULT] = NO_GAIN
    reason[(vetoed & (centre > centre[rows, chosen][:, None])).any(axis=1)] = VETOED
    reason[comparing] = COMPARING
    reason[lent] = INHERITED
    reason[nothing | (arms == 1)] = UNKNOWN
    settled = (probabilities[rows, chosen] >= SETTLED) & ~idle & (arms > 1)
    return Decision(probabilities, chosen, reason, REASONS, learning=comparing & ~nothing, settled=settled)


def _given(mask: Mask, measure: Measure) -> NDArray[np.bool_]:
    return np.zeros_like(measure.utility, np.bool_) if mask is None else mask


@dataclass(frozen=True)
class Belief:
    """What to think of every arm, shape (paths, arms): utility, its standard deviation, and the connections that the
    path's own and inherited knowledge of it is worth."""

    centre: Floats
    spread: Floats
    seen: Floats


def believe(measure: Measure, prior: Prior | None, doubt: float) -> Belief:
    """Joins what a path showed with what it inherits (a normal prior's posterior).

    Before it is seen, an arm is thought to be better than arm 0 by what others found, give or take how much they differ
    from each other; where nobody knows, to be like the path's other arms, give or take `doubt`.
    """
    own = 1.0 / measure.variance
    certain = 1.0 / (2.0 * doubt**2)
    taught = np.zeros_like(own) if prior is None else prior.precision
    gain = 0.0 if prior is None else prior.gain * taught / (taught + certain)
    variance = 1.0 / (taught + certain)
    # The variance is that of a difference: arm 0 has its part in it.
    variance[:, ARM_DEFAULT] = np.inf
    part = np.minimum(variance.min(axis=1, keepdims=True) / 2.0, doubt**2)
    variance -= part
    variance[:, ARM_DEFAULT] = part[:, 0]
    weight = 1.0 / (measure.variance + variance)
    total = weight.sum(axis=1, keepdims=True)
    level = (weight * (measure.utility - gain)).sum(axis=1, keepdims=True) / np.where(total > 0, total, 1.0)
    weight = 1.0 / variance
    known = own + weight
    lent = PRIOR_VARIANCE * taught
    lent[:, ARM_DEFAULT] = lent.max(axis=1)  # who knows a difference knows both sides of it
    return Belief(
        (own * measure.utility + weight * (level + gain)) / known, 1.0 / np.sqrt(known), measure.trials + lent
    )


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
