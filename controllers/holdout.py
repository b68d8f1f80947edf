"""How many connections of a path are its holdout: as many as the proof needs, and no more than it is worth.

A new path is on probation, with a larger holdout: harm shows only against one. Where the treated are proven to be k
times as fast, k - 1 times as few are held back: then the holdout costs the path's transfers about its own share of the
time. What became slower since has its whole holdout again.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from controllers.base import Field, Floats, Integers
from controllers.harm import CONTROL, TREATED

__all__ = ["LATELY", "gain", "holdout", "probation_holdout", "remember"]

PROBATION = 4.0  # times the usual holdout,
MOST = 0.5  # but not more
# The usual holdout is halved up to three times: an eighth of 5 % still shows in some hundred connections what is wrong.
HALVED = 3.0
# What the last connections of either side did: how many transfers, the sums of log2 of time and of size.
LATELY = (Field.TRANSFERS, Field.LOG_TIME, Field.LOG_BYTES)
MEMORY = 0.85  # what is left of a transfer after the next one of its side: the last seven count
SLOPE = 0.6  # log2 of time by log2 of size; only so that a few small objects are not taken for a fast path


def probation_holdout(usual: float) -> float:
    """The share of a path on probation, where it is `usual` elsewhere."""
    return max(usual, min(MOST, PROBATION * usual))


def holdout(usual: float, probation: NDArray[np.bool_], proven: NDArray[np.bool_], lately: Floats) -> Floats:
    """The share of every path, (paths,): by whether it is on probation, or else `proven` to be faster for treatment.

    `lately` is what `remember` kept. Shares are halves, quarters and eighths of the usual one, so that they stay the
    same from one step to the next.
    """
    shares = np.where(probation, probation_holdout(usual), usual)
    rows = np.flatnonzero(proven & ~probation)
    times = np.exp2(np.clip(gain(lately[rows]), 0.0, HALVED + 1.0)) - 1.0
    shares[rows] *= np.exp2(-np.clip(np.round(np.log2(np.maximum(times, 1.0))), 0.0, HALVED))
    return shares


def remember(lately: Floats, rows: Integers, side: Integers, samples: Floats) -> None:
    """Takes samples (samples, len(Field)) of `rows` and sides into `lately`, shape (paths, 2, len(LATELY))."""
    places, inverse = np.unique(2 * rows + side, return_inverse=True)
    new = np.stack([np.bincount(inverse, samples[:, field], len(places)) for field in LATELY], axis=1)
    flat = lately.reshape(-1, len(LATELY))  # a view: what is written is written to `lately`
    flat[places] = flat[places] * np.power(MEMORY, new[:, :1]) + new


def gain(lately: Floats) -> Floats:
    """log2 of how many times as fast the treated were lately, roughly; 0 without one of the sides. (paths,)"""
    transfers = lately[..., 0]
    time = (lately[..., 1] - SLOPE * lately[..., 2]) / np.maximum(transfers, 1e-9)
    found: Floats = np.where((transfers > 0).all(axis=1), time[:, CONTROL] - time[:, TREATED], 0.0)
    return found
