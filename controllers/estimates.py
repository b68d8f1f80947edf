"""Estimates that every controller needs, over all paths at once. Arrays have shape (paths, arms) unless said."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controllers.base import Evidence, Field, Floats

__all__ = ["PRIOR_VARIANCE", "TimeEstimate", "first_window_loss", "retransmission", "rtt_inflation", "transfer_time"]

# What an arm's spread is thought to be before it is seen: a factor of 2^0.3 (23 %), worth four transfers.
PRIOR_VARIANCE = 0.3**2
PRIOR_WEIGHT = 4.0


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

    def column(field: Field) -> Floats:
        return evidence[field].astype(np.float64)

    count = column(Field.TRANSFERS)
    safe = np.maximum(count, 1e-9)
    time = column(Field.LOG_TIME) / safe
    size = column(Field.LOG_BYTES) / safe
    spread_time = np.maximum(column(Field.LOG_TIME_SQUARED) - count * time**2, 0.0)
    spread_size = np.maximum(column(Field.LOG_BYTES_SQUARED) - count * size**2, 0.0)
    together = column(Field.LOG_TIME_BYTES) - count * time * size

    # A path whose transfers all have one size tells nothing about the slope; 0.01 keeps rounding out of it.
    total_size = spread_size.sum(axis=1, keepdims=True)
    slope = np.clip(together.sum(axis=1, keepdims=True) / (total_size + 0.01), 0.0, 2.0)
    total = np.maximum(count.sum(axis=1, keepdims=True), 1e-9)
    usual = (count * size).sum(axis=1, keepdims=True) / total
    mean = np.where(count > 0, time - slope * (size - usual), 0.0)

    residual = np.maximum(spread_time - 2 * slope * together + slope**2 * spread_size, 0.0)
    one = (residual + PRIOR_WEIGHT * PRIOR_VARIANCE) / (count + PRIOR_WEIGHT)
    variance = np.where(count > 0, one / safe, np.inf)
    return TimeEstimate(mean, variance)


def first_window_loss(evidence: Evidence) -> Floats:
    """The share of first-window segments that were lost; 0 where none was sent."""
    return _ratio(evidence[Field.FIRST_WINDOW_LOSSES], evidence[Field.FIRST_WINDOW_SEGMENTS])


def retransmission(evidence: Evidence) -> Floats:
    """The share of data segments that were retransmissions; 0 where none was sent."""
    return _ratio(evidence[Field.RETRANSMITTED], evidence[Field.SEGMENTS])


def rtt_inflation(evidence: Evidence) -> Floats:
    """Mean RTT over the path's least: 1 is an empty queue; 1 where nothing was measured."""
    base = evidence[Field.BASE_RTT].astype(np.float64)
    measured = base > 0
    ratio: Floats = np.where(measured, evidence[Field.RTT] / np.where(measured, base, 1.0), 1.0)
    return np.maximum(ratio, 1.0)


def _ratio(part: Floats, whole: Floats) -> Floats:
    """A share: 0 to 1, whatever the sums say."""
    some = whole > 0
    ratio: Floats = np.where(some, part.astype(np.float64) / np.where(some, whole, 1.0), 0.0)
    return np.clip(ratio, 0.0, 1.0)
