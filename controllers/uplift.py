"""The uplift: how much time is saved against a control, by groups of paths, with an interval that can be believed.

Paths differ by far more than treatments do, so they are never mixed: the two sides are compared within every path, and
the differences of all paths are averaged with the weights n_t n_c / (n_t + n_c), which are what each path can tell.

Times are compared as log2, adjusted for size, so the ratio is one of typical (geometric mean) times: a single transfer
that hung for a minute does not decide it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from controllers.base import Field, Floats
from controllers.estimates import residual_of, slope_of

__all__ = ["FIELDS", "Difference", "Uplift", "difference", "uplift"]

# What is needed of the evidence: the fields up to this one.
FIELDS = Field.CLOSED + 1

# A path's spread is thought to be its group's before it is seen, which is worth so many transfers; and the spread of a
# group's side to be that of both sides.
WEIGHT = 4.0
# Before anything is seen: a factor of 2^0.3 (23 %), worth two transfers.
PRIOR_VARIANCE = 0.3**2
PRIOR_WEIGHT = 2.0
# The slope of time on size is the group's until a path's sizes vary: its own counts as much once the squares of its
# log2 sizes sum to this.
SLOPE_WEIGHT = 4.0
# Transfers of the smaller side that a group needs, over all its paths, before there is anything to say.
LEAST_WEIGHT = 1.0
NORMAL = 1.959964  # 95 % of a normal distribution lies within so many standard deviations
LOG_MOST = 64.0  # 64-bit numbers have no larger log2
_TINY = 1e-9
_MOST = 1e9
_BLOCK = 8192  # paths whose numbers stay in the processor's cache; three times as fast as all at once


@dataclass(frozen=True)
class Difference:
    """log2 of the time of treated transfers less that of the control, by group; arrays of shape (groups,).

    `freedom` is the degrees of freedom of the variance. `weight` is how many transfers of the control it is worth;
    where it is 0, nothing is known.
    """

    mean: Floats
    variance: Floats
    freedom: Floats
    weight: Floats


@dataclass(frozen=True)
class Uplift:
    """The share of the time saved, 1 - treated / control, and its 95 % interval; shape (groups,), NaN: not known."""

    ratio: Floats
    lower: Floats
    upper: Floats


@dataclass(frozen=True)
class _Paths:
    """What some paths tell, those that have both sides: shape (2 sides, paths) or (paths,)."""

    group: NDArray[np.intp]
    count: Floats
    apart: Floats  # treated less control: log2 of the time, not adjusted for
    size_apart: Floats  # that of the size
    times: Floats  # sums of squares and products about the means
    sizes: Floats
    products: Floats


@dataclass(frozen=True)
class _Fit:
    """The same paths after the adjustment for size."""

    apart: Floats
    residual: Floats
    free: Floats  # degrees of freedom
    slope_error: Floats  # what the slope's error adds to the variance, in residual variances


def uplift(control: Floats, treated: Floats, group: NDArray[np.intp], groups: int) -> Uplift:
    """The uplift of every group; arguments as for `difference`."""
    found = difference(control, treated, group, groups)
    known = found.weight > 0
    error = _student(found.freedom) * np.sqrt(found.variance)

    def saved(log_ratio: Floats) -> Floats:
        return np.where(known, 1.0 - np.exp2(np.clip(log_ratio, -50.0, 50.0)), np.nan)

    return Uplift(saved(found.mean), saved(found.mean + error), saved(found.mean - error))


def difference(control: Floats, treated: Floats, group: NDArray[np.intp], groups: int) -> Difference:
    """Compares two sides of the same paths: evidence of shape (paths, FIELDS or more); `group` (paths,) is a number.

    Transfers of one connection are alike, so a side counts no more transfers than connections. Faded evidence counts by
    its sum, which is less than it could tell: the interval is rather too wide than too narrow.
    """
    parts = [slice(first, first + _BLOCK) for first in range(0, len(control), _BLOCK)]
    blocks = [_paths(control[part], treated[part], group[part]) for part in parts]

    sums = np.zeros((4, groups))
    for block in blocks:
        sums += _by_group(block, groups, *block.products, *block.sizes)
    usual = slope_of(sums[:2].sum(axis=0), sums[2:].sum(axis=0))

    fits = [_fit(block, usual) for block in blocks]
    sums = np.zeros((4, groups))
    for block, fit in zip(blocks, fits, strict=True):
        sums += _by_group(block, groups, *fit.residual, *fit.free)
    residual, free = sums[:2], sums[2:]
    common = (residual.sum(axis=0) + PRIOR_WEIGHT * PRIOR_VARIANCE) / (free.sum(axis=0) + PRIOR_WEIGHT)
    free = free + WEIGHT
    spread = (residual + WEIGHT * common) / free

    sums = np.zeros((4, groups))
    for block, fit in zip(blocks, fits, strict=True):
        weight = block.count[0] * block.count[1] / (block.count[0] + block.count[1])
        variance = weight**2 * _variance(block, fit, spread, common)
        sums += _by_group(block, groups, weight, weight * fit.apart, *variance)
    known = sums[0] >= LEAST_WEIGHT
    weight = np.where(known, sums[0], 1.0)
    sides = np.where(known, sums[2:] / weight**2, 1.0)
    variance = sides.sum(axis=0)
    # Welch and Satterthwaite: the side with the fewer transfers rules.
    freedom = variance**2 / (sides**2 / free).sum(axis=0)
    return Difference(sums[1] / weight, variance, freedom, np.where(known, weight, 0.0))


def _paths(control: Floats, treated: Floats, group: NDArray[np.intp]) -> _Paths:
    both = np.flatnonzero((control[:, Field.TRANSFERS] > 0) & (treated[:, Field.TRANSFERS] > 0))
    # (sides, fields, paths): every step below runs over contiguous memory
    sums = np.empty((2, FIELDS, len(both)), control.dtype)
    sums[0], sums[1] = control[both, :FIELDS].T, treated[both, :FIELDS].T
    transfers = np.minimum(sums[:, Field.TRANSFERS], _MOST)
    # Evidence may come from a file: what no logarithm can be is cut to what it can be.
    logs, squares = sums[:, Field.LOG_TIME : Field.LOG_BYTES + 1], sums[:, Field.LOG_TIME_SQUARED : Field.CLOSED]
    most = LOG_MOST * transfers[:, None]
    np.clip(logs, -most, most, out=logs)
    np.clip(squares, -LOG_MOST * most, LOG_MOST * most, out=squares)
    time, size = logs[:, 0], logs[:, 1]
    count = np.minimum(transfers, np.maximum(sums[:, Field.CLOSED], _TINY))
    time_mean, size_mean = time / transfers, size / transfers
    # Each connection counts once, however many transfers it had.
    scale = count / transfers
    return _Paths(
        group=group[both],
        count=count,
        apart=time_mean[1] - time_mean[0],
        size_apart=size_mean[1] - size_mean[0],
        times=np.maximum(sums[:, Field.LOG_TIME_SQUARED] - time * time_mean, 0.0) * scale,
        sizes=np.maximum(sums[:, Field.LOG_BYTES_SQUARED] - size * size_mean, 0.0) * scale,
        products=(sums[:, Field.LOG_TIME_BYTES] - time * size_mean) * scale,
    )


def _fit(paths: _Paths, usual: Floats) -> _Fit:
    """`usual` (groups,) is the slope of time on size in every group."""
    sizes = paths.sizes.sum(axis=0)
    firm = 1.0 / (sizes + SLOPE_WEIGHT)
    slope = (paths.products.sum(axis=0) + SLOPE_WEIGHT * _of(paths, usual)) * firm
    np.clip(slope, 0.0, 2.0, out=slope)
    residual = residual_of(slope, paths.times, paths.products, paths.sizes)
    # The path's own part in the slope is fitted to the same transfers.
    free = np.maximum(paths.count - (1.0 + 0.5 * sizes * firm), 0.0)
    return _Fit(paths.apart - slope * paths.size_apart, residual, free, 0.5 * paths.size_apart**2 * firm)


def _variance(paths: _Paths, fit: _Fit, spread: Floats, common: Floats) -> Floats:
    """Of the mean of either side, (2, paths); `spread` (2, groups) is that of one transfer, `common` of both sides'."""
    usual = _of(paths, spread)
    own = (fit.residual + WEIGHT * usual) / (fit.free + WEIGHT)
    whole = (fit.residual.sum(axis=0) + WEIGHT * _of(paths, common)) / (fit.free.sum(axis=0) + WEIGHT)
    # Rare slow transfers may all be on the larger side: the smaller one is not thought to vary less than both together.
    result: Floats = np.maximum(own, whole) / paths.count + usual * fit.slope_error
    return result


def _of(paths: _Paths, by_group: Floats) -> Floats:
    """The group's value for every path, in the precision of the evidence."""
    return by_group.astype(paths.count.dtype)[..., paths.group]


def _by_group(paths: _Paths, groups: int, *values: Floats) -> Floats:
    """The sum by group of each of `values`, shape (values, groups)."""
    return np.stack([np.bincount(paths.group, value, groups) for value in values])


def _student(freedom: Floats) -> Floats:
    """Student's t at 97.5 % (Abramowitz and Stegun 26.7.5), within 0.2 % from 3 degrees of freedom on."""
    x, n = NORMAL, np.maximum(freedom, 1.0)
    terms = (
        (x**3 + x) / 4,
        (5 * x**5 + 16 * x**3 + 3 * x) / 96,
        (3 * x**7 + 19 * x**5 + 17 * x**3 - 15 * x) / 384,
        (79 * x**9 + 776 * x**7 + 1482 * x**5 - 1920 * x**3 - 945 * x) / 92160,
    )
    return np.asarray(x + sum(term / n**power for power, term in enumerate(terms, 1)))
