"""Ratios of what was measured to a baseline, with intervals that tell how sure they are (bootstrap, Efron 1979)."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = ["Ratio", "geometric_mean", "mean_ratio", "median_ratio", "paired_ratio", "quantile_ratio"]

_RESAMPLES = 2000
_INTERVAL = (2.5, 97.5)  # percent


@dataclass(frozen=True)
class Ratio:
    """A ratio to the baseline and its 95 % bootstrap interval; 1 is no difference."""

    value: float
    low: float
    high: float


def paired_ratio(measured: Sequence[float], baseline: Sequence[float]) -> Ratio:
    """The median of the rounds' ratios; element i of both is of round i, all above 0.

    What disturbs a whole round, such as another program on the machine, cancels out; what disturbs one run of it is an
    outlier that the median does not follow. Rounds are what the bootstrap draws again.
    """
    logs = np.log(np.asarray(measured, float) / np.asarray(baseline, float))
    drawn = _rng().integers(0, len(logs), (_RESAMPLES, len(logs)))
    return _ratio(float(np.median(logs)), np.median(logs[drawn], axis=1))


def quantile_ratio(measured: Sequence[float], baseline: Sequence[float], quantile: float) -> Ratio:
    """The ratio of a quantile, 0 to 1, of two independent samples of values above 0."""
    ours, theirs = np.asarray(measured, float), np.asarray(baseline, float)
    rng = _rng()
    drawn = [rng.choice(sample, (_RESAMPLES, len(sample))) for sample in (ours, theirs)]
    logs = [np.log(np.quantile(each, quantile, axis=1)) for each in drawn]
    return _ratio(np.log(np.quantile(ours, quantile) / np.quantile(theirs, quantile)), logs[0] - logs[1])


def mean_ratio(measured: Sequence[Sequence[float]], baseline: Sequence[Sequence[float]]) -> Ratio:
    """The ratio of means, averaged over kinds (element i of both is of kind i, such as a size) that both have."""
    return _ratio_by_kind(measured, baseline, np.mean)


def median_ratio(measured: Sequence[Sequence[float]], baseline: Sequence[Sequence[float]]) -> Ratio:
    """The same of medians."""
    return _ratio_by_kind(measured, baseline, np.median)


def geometric_mean(ratios: Sequence[Ratio]) -> Ratio:
    """Of independent ratios; their errors are taken as normal in the logarithm. nan of nothing."""
    if not ratios:
        return Ratio(math.nan, math.nan, math.nan)
    value = statistics.fmean(math.log(each.value) for each in ratios)
    bounds = [
        math.sqrt(sum(math.log(end / each.value) ** 2 for each, end in ends)) / len(ratios)
        for ends in ([(each, each.low) for each in ratios], [(each, each.high) for each in ratios])
    ]
    return Ratio(math.exp(value), math.exp(value - bounds[0]), math.exp(value + bounds[1]))


def _ratio_by_kind(
    measured: Sequence[Sequence[float]], baseline: Sequence[Sequence[float]], statistic: Callable[..., Any]
) -> Ratio:
    rng = _rng()
    pairs = [(np.asarray(a, float), np.asarray(b, float)) for a, b in zip(measured, baseline, strict=True) if a and b]

    def drawn(sample: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        found: np.ndarray[Any, Any] = statistic(rng.choice(sample, (_RESAMPLES, len(sample))), axis=1)
        return found

    value = np.log(np.mean([statistic(a) / statistic(b) for a, b in pairs]))
    return _ratio(float(value), np.log(np.mean([drawn(a) / drawn(b) for a, b in pairs], axis=0)))


def _ratio(log: float, drawn: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Ratio:
    low, high = np.exp(np.percentile(drawn, _INTERVAL))
    return Ratio(float(np.exp(log)), float(low), float(high))


def _rng() -> np.random.Generator:
    return np.random.default_rng(1)  # the same measurements always give the same interval
