"""Harm: whether the treated fare worse than the holdout beyond doubt, asked again and again.

A mixture sequential probability ratio test (Robbins 1970; Johari, Pekelis and Walsh 2015): the likelihood of what was
seen if the treated are worse, averaged over how much worse they may be, to that if they are not. Without harm it
exceeds 1 / a with a chance of at most a, however often one looks.

What varies is taken from both sides together. Connections are drawn into the holdout at random, so without harm the
holdout is a random part of all: then that is the right spread even where times depend on the hour or the host, and
even where the holdout is three connections.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from math import log2

import numpy as np
from numpy.typing import NDArray

from controllers.base import Field, Floats
from controllers.estimates import residual_of, slope_of

__all__ = [
    "CONTROL", "HARMS", "PARTS", "TREATED", "WIDESPREAD", "Harm", "Measured", "Seen", "added", "evidence_of_all",
    "evidence_of_each", "evidence_of_gain", "measure", "parts", "usual_spread",
]  # fmt: skip

CONTROL, TREATED = 0, 1


class Seen(IntEnum):
    """The last axis of what is summed up: shape (paths, 2 sides, len(Seen)). Not faded."""

    TRANSFERS = 0
    LOG_TIME = 1
    LOG_BYTES = 2
    LOG_TIME_SQUARED = 3
    LOG_BYTES_SQUARED = 4
    LOG_TIME_BYTES = 5
    CONNECTIONS = 6
    SEGMENTS = 7  # of first windows, lost ones, squares and products of these over the samples
    LOST = 8
    SEGMENTS_SQUARED = 9
    LOST_SQUARED = 10
    SEGMENTS_LOST = 11
    SEGMENTS_OF_EACH = 12  # the squares again, of each connection of a sample
    ALL_SEGMENTS = 13  # and the same of all data segments and retransmissions
    ALL_LOST = 14
    ALL_SEGMENTS_SQUARED = 15
    ALL_LOST_SQUARED = 16
    ALL_SEGMENTS_LOST = 17
    ALL_SEGMENTS_OF_EACH = 18


class Harm(IntEnum):
    """What can be worse."""

    TIME = 0
    FIRST_WINDOW = 1
    RETRANSMISSION = 2


WIDESPREAD = len(Harm)  # too many paths are in quarantine
HARMS = (
    "transfers take longer than the holdout's",
    "first windows lose more than the holdout's",
    "more segments are retransmitted than in the holdout",
)

# What is tolerated: 2 % of the time, as trying things costs something; and one percentage point.
MARGIN = np.array([[log2(1.02)], [0.01], [0.01]], np.float32)
# How much worse harm is thought to be, if there is some (squared): a factor of 2^0.5 (40 %), five percentage points.
SCALE = np.array([[0.5], [0.05], [0.05]], np.float32) ** 2
# What one connection is thought to vary by before any is seen, and how many that is worth.
PRIOR_VARIANCE = np.array([[0.3], [0.05], [0.05]], np.float32) ** 2
PRIOR_WEIGHT = 4.0
# Fewer connections of either side are no comparison: the mean of a handful is far from normal.
LEAST_CONTROL = 8.0
LEAST_TREATED = 8.0
LEAST_OF_ALL = 16.0  # of the holdout, over all paths
# Where the path became four times as fast, its retransmissions are left to the congestion control's law to judge.
MUCH_FASTER = 2.0
PARTS = 5
_TINY = 1e-9


@dataclass(frozen=True)
class Measured:
    """The treated against the holdout, by kind of harm: arrays of shape (len(Harm), paths).

    `worse` is by how much the treated are (log2 of the time, shares). Its variance without harm is `factor` times that
    of one connection, which is estimated from `deviation`, a sum of squares with `freedom` degrees; and not less than
    `least`. `factor` is 0 where there is no comparison, `enough` tells where there is one worth a verdict.
    """

    worse: Floats
    factor: Floats
    deviation: Floats
    freedom: Floats
    least: Floats
    enough: NDArray[np.bool_]


def added(fields: Floats) -> Floats:
    """Samples of evidence, (samples, len(Field)), as what is summed up, (samples, len(Seen)).

    A sample is what one connection did in a while, or some of the same side.
    """
    seen = np.zeros((len(fields), len(Seen)), np.float32)
    seen[:, : Field.CLOSED + 1] = fields[:, : Field.CLOSED + 1]
    for first, segments, lost in (
        (Seen.SEGMENTS, Field.FIRST_WINDOW_SEGMENTS, Field.FIRST_WINDOW_LOSSES),
        (Seen.ALL_SEGMENTS, Field.SEGMENTS, Field.RETRANSMITTED),
    ):
        sent = fields[:, segments]
        # A segment may be lost again when it is sent again; a share above 1 is none.
        gone = np.minimum(fields[:, lost], sent)
        of_each = sent**2 / np.maximum(fields[:, Field.CLOSED], 1.0)
        for position, value in enumerate((sent, gone, sent**2, gone**2, sent * gone, of_each)):
            seen[:, first + position] = value
    return seen


def measure(seen: Floats) -> Measured:
    """Compares the sides of every path; `seen` has shape (paths, 2 sides, len(Seen))."""
    # (fields, sides, paths): every step below runs over contiguous memory
    sums = np.ascontiguousarray(seen.transpose(2, 1, 0))
    connections = sums[Seen.CONNECTIONS]
    kinds = (
        _time(sums),
        _loss(sums[Seen.SEGMENTS : Seen.ALL_SEGMENTS], connections),
        _loss(sums[Seen.ALL_SEGMENTS :], connections),
    )
    worse, factor, deviation, freedom, least = (np.stack(values) for values in zip(*kinds, strict=True))
    transfers = np.minimum(sums[Seen.TRANSFERS], connections)
    enough = np.stack([_enough(transfers), _enough(connections), _enough(connections)])
    return Measured(worse, factor, deviation, freedom, least, enough & (factor > 0))


def evidence_of_each(found: Measured) -> Floats:
    """The logarithm (natural) of the evidence of harm on every path, (len(Harm), paths); 0: none."""
    return _evidence(found.worse, _variance(found), found.enough)


def evidence_of_gain(found: Measured) -> Floats:
    """The same evidence, of transfers taking less time than the holdout's; (paths,)."""
    time = slice(Harm.TIME, Harm.TIME + 1)
    evidence: Floats = _likelihood(-found.worse[time], _variance(found)[time], found.enough[time], time)[0]
    return evidence


def _variance(found: Measured) -> Floats:
    spread = (found.deviation + PRIOR_WEIGHT * PRIOR_VARIANCE) / (found.freedom + PRIOR_WEIGHT)
    variance: Floats = np.maximum(spread * found.factor, found.least)
    return variance


def parts(found: Measured, usual: Floats) -> Floats:
    """What every path adds to a comparison over all paths, (PARTS, len(Harm), paths), to be summed up.

    As in the uplift (controllers/uplift.py) paths are weighed by what they can tell, and one that shows little itself
    is thought to vary as `usual` (len(Harm), 1).
    """
    compared = found.factor > 0
    weight = np.where(compared, 1.0 / np.where(compared, found.factor, 1.0), 0.0)
    spread = (found.deviation + PRIOR_WEIGHT * usual) / (found.freedom + PRIOR_WEIGHT)
    variance = np.maximum(spread * found.factor, found.least)
    deviation, freedom = found.deviation * compared, found.freedom * compared
    return np.stack([weight, weight * found.worse, weight**2 * variance, deviation, freedom])


def usual_spread(pool: Floats) -> Floats:
    """The variance of one connection by the sums of `parts`, (len(Harm), 1)."""
    spread: Floats = (pool[3, :, None] + PRIOR_WEIGHT * PRIOR_VARIANCE) / (pool[4, :, None] + PRIOR_WEIGHT)
    return spread


def evidence_of_all(pool: Floats) -> tuple[Floats, Floats]:
    """By the sums of `parts`, (PARTS, len(Harm)): how much worse the treated are, and the evidence of it; (len(Harm),).

    The sums may fade, if the squares (the third) do so twice as fast.
    """
    weight = np.maximum(pool[0, :, None], _TINY)
    worse = pool[1, :, None] / weight
    variance = np.maximum(pool[2, :, None] / weight**2, usual_spread(pool) / weight)
    return worse[:, 0], _evidence(worse, variance, weight >= LEAST_OF_ALL)[:, 0]


def _evidence(worse: Floats, variance: Floats, enough: NDArray[np.bool_]) -> Floats:
    evidence = _likelihood(worse, variance, enough, slice(None))
    much_faster = np.logical_and(enough, worse + np.sqrt(variance) < -MUCH_FASTER)[Harm.TIME]
    evidence[Harm.RETRANSMISSION] = np.where(much_faster, 0.0, evidence[Harm.RETRANSMISSION])
    return evidence


def _likelihood(worse: Floats, variance: Floats, enough: NDArray[np.bool_], kinds: slice) -> Floats:
    """The logarithm of the mixture's likelihood ratio, for a normal prior of SCALE around MARGIN."""
    variance, scale = np.maximum(variance, _TINY), SCALE[kinds]
    above = np.maximum(worse - MARGIN[kinds], 0.0)
    evidence = 0.5 * (above**2 * scale / (variance * (variance + scale)) - np.log1p(scale / variance))
    return np.where(enough & (above > 0), evidence, 0.0)


def _enough(count: Floats) -> NDArray[np.bool_]:
    enough: NDArray[np.bool_] = np.logical_and(count[CONTROL] >= LEAST_CONTROL, count[TREATED] >= LEAST_TREATED)
    return enough


def _factor(count: Floats) -> Floats:
    """The variance of a difference of means in variances of one; 0 without one of the sides."""
    both = (count[CONTROL] > 0) & (count[TREATED] > 0)
    safe = np.where(both, count, 1.0)
    return np.where(both, 1.0 / safe[CONTROL] + 1.0 / safe[TREATED], 0.0)


def _time(sums: Floats) -> tuple[Floats, ...]:
    """`sums` is (fields, 2, paths)."""
    both = sums[: Seen.CONNECTIONS, CONTROL] + sums[: Seen.CONNECTIONS, TREATED]
    transfers, moments = _moments(both)
    slope = slope_of(moments[1], moments[2])
    residual = residual_of(slope, *moments)
    side, own_moments = _moments(sums)
    own = residual_of(slope, *own_moments)

    adjusted = (sums[Seen.LOG_TIME] - slope * sums[Seen.LOG_BYTES]) / side
    # Transfers of one connection are alike: they are one.
    count = np.minimum(sums[Seen.TRANSFERS], sums[Seen.CONNECTIONS])
    total = count[CONTROL] + count[TREATED]
    deviation, freedom = residual * (total / transfers), np.maximum(total - 2.0, 0.0)
    # Where one side varies more than both together, it leaves more to chance: the holdout, beside the paced.
    prior = PRIOR_WEIGHT * PRIOR_VARIANCE[Harm.TIME]
    of_side = (own * (count / side) + prior) / (np.maximum(count - 1.0, 0.0) + PRIOR_WEIGHT)
    of_both = (deviation + prior) / (freedom + PRIOR_WEIGHT)
    factor = _factor(count)
    apart = (np.maximum(of_side, of_both) / np.maximum(count, _TINY)).sum(axis=0)
    least = np.where((factor > 0) & (of_side > of_both).any(axis=0), apart, 0.0)
    return adjusted[TREATED] - adjusted[CONTROL], factor, deviation, freedom, least


def _moments(sums: Floats) -> tuple[Floats, tuple[Floats, Floats, Floats]]:
    """How many transfers, and the squares around their means: of times, of both, of sizes."""
    transfers = np.maximum(sums[Seen.TRANSFERS], _TINY)
    time, size = sums[Seen.LOG_TIME] / transfers, sums[Seen.LOG_BYTES] / transfers
    times = np.maximum(sums[Seen.LOG_TIME_SQUARED] - sums[Seen.LOG_TIME] * time, 0.0)
    sizes = np.maximum(sums[Seen.LOG_BYTES_SQUARED] - sums[Seen.LOG_BYTES] * size, 0.0)
    return transfers, (times, sums[Seen.LOG_TIME_BYTES] - sums[Seen.LOG_TIME] * size, sizes)


def _loss(sums: Floats, connections: Floats) -> tuple[Floats, ...]:
    """`sums` is (6, 2, paths): segments, lost, squares of both, products, and squares of each, over samples."""
    sent, lost, sent_squared, lost_squared, products, of_each = sums
    share = lost / np.maximum(sent, 1.0)
    usual = (lost[CONTROL] + lost[TREATED]) / np.maximum(sent[CONTROL] + sent[TREATED], 1.0)
    # Losses come in bursts, so what varies is the share of a whole connection, not the segment. Many treated ones come
    # in one sample, where they vary less together; of the holdout it is one as a rule.
    deviation = np.maximum(lost_squared - usual * (2.0 * products - usual * sent_squared), 0.0)
    squares = np.maximum(of_each, 1.0)
    count = np.minimum(sent**2 / squares, connections)
    total = count[CONTROL] + count[TREATED]
    spread = (deviation[CONTROL] + deviation[TREATED]) / (squares[CONTROL] + squares[TREATED])
    # A side with fewer segments leaves more to chance than both together.
    chance = usual * (1.0 - usual) / np.maximum(sent, 1.0)
    least = chance[CONTROL] + chance[TREATED]
    return share[TREATED] - share[CONTROL], _factor(count), total * spread, np.maximum(total - 1.0, 0.0), least
