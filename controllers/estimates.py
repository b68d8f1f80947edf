"""Estimates that every controller needs, over all paths at once. Arrays have shape (paths, arms) unless said."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controllers.base import Evidence, Field, Floats

__all__ = [
    "PRIOR_VARIANCE", "PRIOR_WEIGHT", "TimeEstimate", "first_window_loss", "residual_of", "retransmission",
    "rtt_inflation", "slope_of", "transfer_time",
]  # fmt: skip

# What an arm's spread is thought to be before it is seen: a factor of 2^0.3 (23 %), worth four transfers.
PRIOR_VARIANCE = 0.3**2
PRIOR_WEIGHT = 4.0
MOST = 40.0  # log2, of any time or size
MOST_INFLATION = 1000.0
LEAST_VARIANCE = 1e-9


@dataclass(frozen=True)
class TimeEstimate:
    """log2 of the time of a transfer of the path's usual size: mean and its variance, by path and arm.

    A difference of 1 is a factor of 2. Arms without transfers have a mean of 0 and an infinite variance.
    """

    mean: Floats
    variance: Floats


def transfer_time(evidence: Evidence) -> TimeEstimate:
    """Mean log2 time per arm, adjusted for the sizes that the arm happened to get (analysis of covariance).

    The slope of time on size is estimated within the arms of a path, so a difference between arms cannot hide in it.
    Sizes do not depend on the arm, as arms are drawn at random; the adjustment only takes noise away.
    """

    count = evidence[Field.TRANSFERS]
    safe = np.maximum(count, 1e-9)
    # What no transfer can have left is damage; the bounds keep it from spreading.
    most = MOST * safe
    time = np.clip(evidence[Field.LOG_TIME], -most, most) / safe
    size = np.clip(evidence[Field.LOG_BYTES], -most, most) / safe
    most *= MOST
    spread_time = np.clip(evidence[Field.LOG_TIME_SQUARED] - count * time**2, 0.0, most)
    spread_size = np.clip(evidence[Field.LOG_BYTES_SQUARED] - count * size**2, 0.0, most)
    together = np.clip(evidence[Field.LOG_TIME_BYTES] - count * time * size, -most, most)

    slope = slope_of(together.sum(axis=1, keepdims=True), spread_size.sum(axis=1, keepdims=True))
    total = np.maximum(count.sum(axis=1, keepdims=True), 1e-9)
    usual = (count * size).sum(axis=1, keepdims=True) / total
    mean = np.where(count > 0, time - slope * (size - usual), 0.0)

    residual = residual_of(slope, spread_time, together, spread_size)
    one = (residual + PRIOR_WEIGHT * PRIOR_VARIANCE) / (count + PRIOR_WEIGHT)
    variance = np.where(count > 0, np.maximum(one / safe, LEAST_VARIANCE), np.inf)
    return TimeEstimate(mean, variance)


def slope_of(products: Floats, sizes: Floats) -> Floats:
    """The slope of time on size: `products` are those of the deviations of both, `sizes` the squares of the size's.

    Transfers that all have one size tell nothing about it; 0.01 keeps rounding out of it.
    """
    slope: Floats = np.clip(products / (sizes + 0.01), 0.0, 2.0)
    return slope


def residual_of(slope: Floats, times: Floats, products: Floats, sizes: Floats) -> Floats:
    """The squares of the deviations of the time that a slope leaves; `times` are all of them."""
    residual: Floats = np.maximum(times - slope * (2.0 * products - slope * sizes), 0.0)
    return residual


def first_window_loss(evidence: Evidence) -> Floats:
    """The share of first-window segments that were lost; 0 where none was sent."""
    return _ratio(evidence[Field.FIRST_WINDOW_LOSSES], evidence[Field.FIRST_WINDOW_SEGMENTS])


def retransmission(evidence: Evidence) -> Floats:
    """The share of data segments that were retransmissions; 0 where none was sent."""
    return _ratio(evidence[Field.RETRANSMITTED], evidence[Field.SEGMENTS])


def rtt_inflation(evidence: Evidence) -> Floats:
    """Mean RTT over the path's least: 1 is an empty queue; 1 where nothing was measured."""
    base = evidence[Field.BASE_RTT]
    return np.maximum(_divided(np.minimum(evidence[Field.RTT], MOST_INFLATION * base), base), 1.0)


def _ratio(part: Floats, whole: Floats) -> Floats:
    """A share: 0 to 1, whatever the sums say."""
    return _divided(np.clip(part, 0.0, whole), whole)


def _divided(part: Floats, whole: Floats) -> Floats:
    """The quotient; 0 where there is nothing to divide by."""
    some = whole > 0
    quotient: Floats = np.where(some, part / np.where(some, whole, 1.0), 0.0)
    return quotient
