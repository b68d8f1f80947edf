"""What paths learn from each other: the differences between arms within each path, pooled over its siblings.

Paths differ by far more than arms do, so times of unlike paths are never averaged: an arm that happened to be used on
slow paths would look slow. Within a path the arms were drawn at random, so their difference is fair; these differences
are pooled (random effects after DerSimonian and Laird, 1986). How much siblings differ from each other says how much a
path of which nothing is known may differ from them, and so how soon its own evidence outweighs theirs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from controllers.base import ARM_DEFAULT, UNTRIED, Evidence, Floats, Integers, Measure, Prior
from controllers.estimates import transfer_time
from controllers.veto import BURST, LIMIT, loses_more

__all__ = [
    "CAUTION", "GROUP", "NETWORK", "PRESUMED_SIBLINGS", "STATISTICS", "Kinship", "Pooled", "inherit", "lent",
    "pooled", "statistics", "time_differences",
]  # fmt: skip


class _Sum(IntEnum):
    """The last axis of what is added up over siblings; weights are one over a variance."""

    WEIGHT = 0
    GAIN = 1  # weighted, as are the next two
    GAIN_SQUARED = 2
    NOISE = 3  # the variance of a path's own estimate
    LOSS_WEIGHT = 4
    EXCESS = 5
    EXCESS_SQUARED = 6
    LOSS_NOISE = 7
    TRIALS = 8
    SENT = 9
    SAFE = 10  # paths that tried the arm and did not lose more by it,
    UNSAFE = 11  # and those that did
    LOST = 12


STATISTICS = len(_Sum)


@dataclass(frozen=True)
class Kinship:
    """How alike siblings are thought to be before they show it.

    `gain` and `excess` are the standard deviations of an arm's advantage (log2) and of its excess loss from path to
    path. `enough` siblings must have tried an arm before another path uses it untried.
    """

    gain: float
    excess: float
    enough: float


NETWORK = Kinship(gain=0.12, excess=0.02, enough=1.0)
GROUP = Kinship(gain=0.25, excess=0.03, enough=3.0)

# So many siblings weigh as much as the presumption of how alike they are.
PRESUMED_SIBLINGS = 3.0
ENOUGH_TRIALS = 4.0  # connections of a path, after which it is known whether an arm loses there
# What one path suffered counts as much as what so many others did not.
CAUTION = 3.0
# What others lost counts no more than so many connections of the path's own.
MOST_CONNECTIONS = 4.0
BASE_CONNECTIONS = 2.0  # of siblings with arm 0, which stand in for the path's own while it has few
MOST_GAIN = 16.0  # log2; what looks like more is damage
_TINY = 1e-9


def statistics(measure: Measure) -> Floats:
    """What every path adds to its network and its group, shape (paths, arms, STATISTICS)."""
    paths, arms = measure.utility.shape
    # Paths are contiguous in memory, as they are in the evidence.
    result = np.zeros((STATISTICS, arms, paths), measure.utility.dtype).transpose(2, 1, 0)
    noise = measure.variance + measure.variance[:, :1]
    both = np.isfinite(noise)
    both[:, ARM_DEFAULT] = False
    gain = np.clip(measure.utility - measure.utility[:, :1], -MOST_GAIN, MOST_GAIN)
    _moments(result[..., : _Sum.LOSS_WEIGHT], gain, noise, both, NETWORK.gain)

    sent = np.maximum(measure.sent, _TINY)
    lost = np.clip(measure.lost, 0.0, sent)
    smooth = (lost + 1.0) / (sent + 4.0)
    noise = BURST * smooth * (1.0 - smooth) / sent
    noise = noise + noise[:, :1]
    both = (measure.sent >= 1.0) & (measure.sent[:, :1] >= 1.0)
    both[:, ARM_DEFAULT] = False
    share = lost / sent
    _moments(result[..., _Sum.LOSS_WEIGHT :], share - share[:, :1], noise, both, NETWORK.excess)
    result[..., _Sum.TRIALS] = measure.trials
    result[..., _Sum.SENT] = measure.sent
    result[..., _Sum.LOST] = lost
    unsafe = loses_more(measure.lost, measure.sent, at_least=2.0)
    if measure.unsafe is not None:
        unsafe |= measure.unsafe
    result[..., _Sum.SAFE] = (measure.trials >= ENOUGH_TRIALS) & ~unsafe
    result[..., _Sum.UNSAFE] = unsafe
    return result


def _moments(sums: Floats, value: Floats, noise: Floats, known: NDArray[np.bool_], typical: float) -> None:
    """The four sums of one quantity. No single path weighs more than its kinship allows, however busy it is."""
    noise = np.where(known, noise, 1.0)
    weight = known / (noise + typical**2)
    sums[..., 0] = weight
    sums[..., 1] = weight * value
    sums[..., 2] = sums[..., 1] * value
    sums[..., 3] = weight * noise


def time_differences(evidence: Evidence) -> tuple[Floats, Floats]:
    """log2 of every arm's time less arm 0's, within the paths and pooled, and the standard error; shape (arms,).

    The error is infinite where no path has both.
    """
    estimate = transfer_time(evidence)
    noise = estimate.variance + estimate.variance[:, :1]
    noise[:, ARM_DEFAULT] = np.inf
    both = np.isfinite(noise)
    noise[~both] = 0.0
    kinship = NETWORK.gain if len(evidence) > 1 else 0.0
    weight = np.where(both, 1.0 / np.maximum(noise + kinship**2, _TINY), 0.0)
    total = weight.sum(axis=0)
    mean = (weight * (estimate.mean - estimate.mean[:, :1])).sum(axis=0) / np.maximum(total, _TINY)
    return mean, np.where(total > 0, 1.0 / np.sqrt(np.maximum(total, _TINY)), np.inf)


@dataclass(frozen=True)
class Pooled:
    """What sources (networks, or groups) know of every arm; arrays of shape (sources, arms).

    `part` and `loss_part` are one over the sums of their paths' weights, for each path to take its own part off.
    """

    gain: Floats
    precision: Floats
    part: Floats
    excess: Floats
    loss_precision: Floats
    loss_part: Floats
    safe: Floats  # paths that lost nothing by the arm, above what is asked for,
    unsafe: Floats  # and those that did, with their weight
    segments: Floats  # a connection
    share: Floats  # of segments that are lost

    @staticmethod
    def of_nobody(sources: int, arms: int) -> Pooled:
        """For so many sources that know nothing."""
        return pooled(np.zeros((STATISTICS, arms, sources), np.float32).T, NETWORK)

    def take(self, sources: Integers) -> Pooled:
        """One row for every element of `sources`; those are contiguous in memory."""
        return Pooled(*(np.take(column.T, sources, axis=1).T for column in self._columns()))

    def put(self, sources: Integers, other: Pooled) -> None:
        """Replaces the rows of `sources`."""
        for column, values in zip(self._columns(), other._columns(), strict=True):
            column[sources] = values

    def grown(self, sources: int) -> Pooled:
        """With so many more sources that know nothing."""
        nobody = Pooled.of_nobody(sources, self.gain.shape[1])
        pairs = zip(self._columns(), nobody._columns(), strict=True)
        return Pooled(*(np.concatenate([mine.T, more.T], axis=1).T for mine, more in pairs))

    def _columns(self) -> list[Floats]:
        return [getattr(self, name) for name in self.__dataclass_fields__]


def pooled(sums: Floats, kinship: Kinship) -> Pooled:
    """What follows from sums of `statistics`, shape (sources, arms, STATISTICS)."""
    gain, precision = _predict(sums, _Sum.WEIGHT, kinship.gain, NETWORK.gain)
    excess, loss_precision = _predict(sums, _Sum.LOSS_WEIGHT, kinship.excess, NETWORK.excess)
    trials = sums[..., _Sum.TRIALS]
    return Pooled(
        gain, precision, 1.0 / np.maximum(sums[..., _Sum.WEIGHT], _TINY),
        excess, loss_precision, 1.0 / np.maximum(sums[..., _Sum.LOSS_WEIGHT], _TINY),
        sums[..., _Sum.SAFE] - (kinship.enough - 1.0), CAUTION * sums[..., _Sum.UNSAFE],
        sums[..., _Sum.SENT] / np.maximum(trials, 1.0),
        sums[..., _Sum.LOST] / np.maximum(sums[..., _Sum.SENT], 1.0),
    )  # fmt: skip


def _predict(sums: Floats, first: int, typical: float, weighed: float) -> tuple[Floats, Floats]:
    """Mean and precision for a path not seen yet."""
    weight = sums[..., first]
    safe = np.maximum(weight, _TINY)
    mean = sums[..., first + 1] / safe
    scatter = np.maximum(sums[..., first + 2] - mean * sums[..., first + 1], 0.0)
    # One path alone does not scatter; n of them scatter by n - 1 parts.
    others = np.maximum(1.0 - 1.0 / np.maximum(weight * weighed**2, 1.0), 0.0)
    between = np.maximum(scatter - others * sums[..., first + 3], 0.0) + PRESUMED_SIBLINGS * (typical / weighed) ** 2
    between /= others * weight + PRESUMED_SIBLINGS / weighed**2
    precision = np.where(weight > 0, 1.0 / (between + 1.0 / safe), 0.0)
    return mean, precision


def inherit(own: Floats, sources: Sequence[Pooled]) -> Prior:
    """What paths inherit: `own` are their statistics, `sources` what each one's network, group, ... know (`take`n).

    What a path itself brought into a source is taken off the source's weight, so that nobody inherits from himself.
    """
    gain, precision, excess, loss_precision, segments, trust = (np.zeros_like(own[..., 0]) for _ in range(6))
    asked = np.zeros_like(own[..., 0], np.bool_)
    for source in sources:
        weight = lent(own, source)
        gain += weight * source.gain
        precision += weight
        others = _of_others(own[..., _Sum.LOSS_WEIGHT], source.loss_part)
        weight = source.loss_precision * others
        excess += weight * source.excess
        loss_precision += weight
        segments = np.where(segments > 0, segments, (others > 0) * source.segments)
        safe = np.maximum(source.safe - own[..., _Sum.SAFE], 0.0)
        unsafe = np.maximum(source.unsafe - CAUTION * own[..., _Sum.UNSAFE], 0.0)
        # The rule of succession: one good sibling makes a good path likely, no number makes it certain. Who is nearest
        # and knows is asked alone.
        trust = np.where(asked, trust, safe / (safe + unsafe + 0.25))
        asked = asked | (safe > 0) | (unsafe > 0)
    gain /= np.maximum(precision, _TINY)
    excess /= np.maximum(loss_precision, _TINY)
    likely = np.clip(excess, LIMIT, 0.5)
    worth = np.minimum(BURST * likely * (1.0 - likely) * loss_precision, MOST_CONNECTIONS * segments)
    # How much paths lose at all differs too much to ask anybody but the nearest.
    nearest = sources[0]
    excess[:, ARM_DEFAULT] = nearest.share[:, ARM_DEFAULT]
    worth[:, ARM_DEFAULT] = BASE_CONNECTIONS * nearest.segments[:, ARM_DEFAULT]
    return Prior(gain, precision, excess, worth, np.where(asked, trust, UNTRIED))


def lent(own: Floats, source: Pooled) -> Floats:
    """The precision of what a source tells each path about every arm's gain, (paths, arms)."""
    weight: Floats = source.precision * _of_others(own[..., _Sum.WEIGHT], source.part)
    return weight


def _of_others(own: Floats, part: Floats) -> Floats:
    """The share of a source that others brought."""
    others: Floats = np.maximum(1.0 - own * part, 0.0)
    return others
