"""How many connections of a path are its holdout: as many as the proof needs, and no more than it is worth.

A new path is on probation, with a larger holdout: harm shows only against one. Where the treated are k times as fast,
k - 1 times as few are held back: then the holdout costs the path's transfers about its own share of the time. It goes
by the last connections of either side, so what the path was before it was tuned does not count, and a path that turns
slow has its whole holdout again within some ten of them. A path that cannot tell yet goes by what its siblings show.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from controllers.base import Field, Floats, Integers
from controllers.estimates import PRIOR_VARIANCE, PRIOR_WEIGHT
from controllers.harm import CONTROL, TREATED

__all__ = ["LATELY", "gain", "holdout", "probation_holdout", "remember", "unknown_holdout", "vouched"]

PROBATION = 4.0  # times the usual holdout,
MOST = 0.5  # but not more
# It is halved up to three times: an eighth of 5 % still shows in some hundred connections what is wrong.
HALVED = 3.0
# Of the last connections of either side: transfers, and the sums of log2 of their time, adjusted for size, and of its
# square.
LATELY = 3
MEMORY = 0.9  # what is left of a transfer after the next one of its side: the last ten count
SLOPE = 0.6  # log2 of time by log2 of size, roughly
ENOUGH = 4.0  # transfers of either side
BEYOND_DOUBT = 4.0  # standard errors
MUCH = 0.5  # log2: 40 % faster


def probation_holdout(usual: float) -> float:
    """The share of a path on probation, where it is `usual` elsewhere."""
    return max(usual, min(MOST, PROBATION * usual))


def unknown_holdout(usual: float, vouched: Floats) -> Floats:
    """The share of paths of which nothing is known but what their siblings vouch for."""
    return probation_holdout(usual) * np.exp2(-vouched)


def holdout(usual: float, probation: NDArray[np.bool_], lately: Floats, vouched: Floats) -> Floats:
    """The share of every path, (paths,): by whether it is on `probation`, by its `gain`, and while it has too few
    transfers of either side to tell, by what its siblings have `vouched` for.

    It is halved so and so often, so that it stays the same from one step to the next.
    """
    halved = _halved(lately)
    unproven = np.where(_known(lately), probation_holdout(usual), unknown_holdout(usual, vouched))
    return np.where(probation & (halved == 0), unproven, usual * np.exp2(-halved))


def vouched(lately: Floats, network: Integers, networks: int) -> Floats:
    """How often the holdout of an unknown path is halved, (networks,): as often as that of the sibling that gains
    least. `network` (paths,) is each path's."""
    known = _known(lately)
    least = np.full(networks, np.inf)
    np.minimum.at(least, network[known], _halved(lately[known]))
    return np.where(np.isfinite(least), least, 0.0)


def _known(lately: Floats) -> NDArray[np.bool_]:
    known: NDArray[np.bool_] = np.logical_and.reduce(lately[..., 0] >= ENOUGH, axis=1)
    return known


def _halved(lately: Floats) -> Floats:
    times = np.exp2(np.clip(gain(lately), 0.0, HALVED + 1.0)) - 1.0
    return np.clip(np.round(np.log2(np.maximum(times, 1.0))), 0.0, HALVED)


def remember(lately: Floats, rows: Integers, side: Integers, samples: Floats) -> None:
    """Takes samples (samples, len(Field)) of `rows` and sides into `lately`, shape (paths, 2, LATELY)."""
    times = samples[:, Field.LOG_TIME] - SLOPE * samples[:, Field.LOG_BYTES]
    squares = samples[:, Field.LOG_TIME_SQUARED] - SLOPE * (
        2.0 * samples[:, Field.LOG_TIME_BYTES] - SLOPE * samples[:, Field.LOG_BYTES_SQUARED]
    )
    places, inverse = np.unique(2 * rows + side, return_inverse=True)
    sums = (samples[:, Field.TRANSFERS], times, squares)
    new = np.stack([np.bincount(inverse, each, len(places)) for each in sums], axis=1)
    flat = lately.reshape(-1, LATELY)  # a view: what is written is written to `lately`
    flat[places] = flat[places] * np.power(MEMORY, new[:, :1]) + new


def gain(lately: Floats) -> Floats:
    """log2 of how many times as fast the treated are, (paths,); 0 where that they are much faster is not certain."""
    count = np.maximum(lately[..., 0], 1e-9)
    mean = lately[..., 1] / count
    deviation = np.maximum(lately[..., 2] - count * mean**2, 0.0).sum(axis=1)
    spread = (deviation + PRIOR_WEIGHT * PRIOR_VARIANCE) / (np.maximum(count.sum(axis=1) - 2.0, 0.0) + PRIOR_WEIGHT)
    doubt = BEYOND_DOUBT * np.sqrt(spread * (1.0 / count).sum(axis=1))
    faster = mean[:, CONTROL] - mean[:, TREATED]
    certain = _known(lately) & (faster - doubt >= MUCH)
    return np.where(certain, faster, 0.0)
