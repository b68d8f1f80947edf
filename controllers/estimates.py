"""Estimates that every controller needs, over all paths at once. Arrays have shape (paths, arms) unless said."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from controllers.base import Evidence, Field, Floats

__all__ = ["TimeEstimate", "first_window_loss", "retransmission", "rtt_inflation", "transfer_time"]

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

    def faster(self, arm: int | Floats, than: int = 0) -> Floats:
        """By how many standard errors `arm` is faster than `than`, shape (paths,)."""
        rows = np.arange(len(self.mean))
        difference = self.mean[:, than] - self.mean[rows, arm]
        error = np.sqrt(self.variance[:, than] + self.variance[rows, arm])
        return np.where(np.isfinite(error), difference / np.where(np.isfinite(error), error, 1.0), 0.0)


def transfer_time(evidence: Evidence) -> TimeEstimate:
    """Mean log2 time per arm, adjusted for the sizes that the arm happened to get (analysis of covariance).

    The slope of time on size is estimated within the arms of a path, so a difference between arms cannot hide in it.
    Sizes do not depend on the arm, as arms are drawn at random; the adjustment only takes noise away.
    """
    sums = evidence.sums.astype(np.float64)
    count = sums[:, :, Field.TRANSFERS]
    safe = np.maximum(count, 1e-9)
    time = sums[:, :, Field.LOG_TIME] / safe
    size = sums[:, :, Field.LOG_BYTES] / safe
    spread_time = np.maximum(sums[:, :, Field.LOG_TIME_SQUARED] - count * time**2, 0.0)
    spread_size = np.maximum(sums[:, :, Field.LOG_BYTES_SQUARED] - count * size**2, 0.0)
    together = sums[:, :, Field.LOG_TIME_BYTES] - count * time * size

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
    return np.maximum(np.where(evidence[Field.BASE_RTT] > 0, _ratio(evidence[Field.RTT], evidence[Field.BASE_RTT]), 1.0), 1.0)


def _ratio(part: Floats, whole: Floats) -> Floats:
    ratio: Floats = part.astype(np.float64) / np.maximum(whole, 1e-9)
    return np.where(whole > 0, ratio, 0.0)
