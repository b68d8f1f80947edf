"""What hosts learn from each other: the experience of every host's groups, summed over hosts, as a first guess.

Sums come from outside, so nothing here trusts them: whatever they hold, a fleet is worth a few connections of a path's
own, and never all of the trust that it takes to use an arm untried. Hosts are siblings as paths are: how much they
differ from each other says how much a new one may differ from them.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np

from controllers.base import ARM_DEFAULT, Floats
from controllers.inheritance import CAUTION, GROUP, PRESUMED_SIBLINGS, Pooled

__all__ = ["MOST_GAIN", "MOST_PRECISION", "MOST_SAFE", "MOST_TRUST", "Experience", "Total", "experience", "of_fleet"]

# The bounds of one host's part; config/prometheus/rules.yml has them, too.
MOST_GAIN = 2.0  # log2: four times as fast, or as slow
MOST_PRECISION = 16.0  # a standard deviation of 2^0.25, 19 %
MOST_SAFE = 3.0  # paths
# What a fleet is believed, log2. That an arm is good shows as soon as it is tried; that it is bad would keep it from
# being tried, so that a wrong fleet would be believed for long.
BEST, WORST = 1.0, -0.2
# The standard deviation (log2) of an arm's advantage from host to host, before they show it.
SPREAD = 0.25
# A tenth of a new path's connections at least keeps to what is known there, however many others tried more.
MOST_TRUST = 0.9
_MOST = 1e9  # of any sum
_TINY = 1e-9


@dataclass(frozen=True)
class Experience:
    """What the paths of a host's groups know together; arrays of shape (groups, arms).

    `gain` is the utility less arm 0's (log2) on a path not seen yet, `precision` one over its variance: 0 where nothing
    is known. `safe` paths tried the arm and did not lose more by it, `unsafe` ones did.
    """

    gain: Floats
    precision: Floats
    safe: Floats
    unsafe: Floats


class Total(IntEnum):
    """The last axis of what is added up over hosts."""

    HOSTS = 0
    PRECISION = 1
    GAIN = 2  # times precision, as is the next
    GAIN_SQUARED = 3
    SAFE = 4
    UNSAFE = 5


def experience(groups: Pooled) -> Experience:
    """What a host's groups, pooled, tell others."""
    return Experience(
        groups.gain.copy(), groups.precision.copy(), groups.safe + (GROUP.enough - 1.0), groups.unsafe / CAUTION
    )


def of_fleet(totals: Floats) -> Pooled:
    """What a fleet teaches the paths of every group; `totals` has shape (groups, arms, len(Total)).

    Whatever is not a finite number, or cannot be, counts as unknown.
    """
    totals = np.asarray(totals, np.float64)
    sound = np.isfinite(totals).all(axis=2) & (totals[..., Total.HOSTS] >= 1) & (totals[..., Total.PRECISION] > 0)
    sound[:, ARM_DEFAULT] = False
    totals = np.where(sound[..., None], np.clip(totals, -_MOST, _MOST), 0.0)
    hosts = np.maximum(totals[..., Total.HOSTS], 1.0)
    weight = np.maximum(totals[..., Total.PRECISION], _TINY)
    mean = np.clip(totals[..., Total.GAIN] / weight, -MOST_GAIN, MOST_GAIN)
    scatter = np.clip(totals[..., Total.GAIN_SQUARED] / weight - mean**2, 0.0, MOST_GAIN**2)
    between = (hosts * scatter + PRESUMED_SIBLINGS * SPREAD**2) / (hosts - 1.0 + PRESUMED_SIBLINGS)
    within = np.maximum(hosts / weight, 1.0 / MOST_PRECISION)
    found = Pooled.of_nobody(*mean.shape)
    found.part[:] = found.loss_part[:] = 0.0  # none of it is the path's own, as far as that can be told
    found.gain[:] = np.where(sound, np.clip(mean, WORST, BEST), 0.0)
    found.precision[:] = np.where(sound, 1.0 / (within + between), 0.0)
    safe = np.where(sound, np.clip(totals[..., Total.SAFE], 0.0, MOST_SAFE * hosts) - (GROUP.enough - 1.0), 0.0)
    found.safe[:] = safe
    least = np.maximum(safe, 0.0) * (1.0 / MOST_TRUST - 1.0)
    found.unsafe[:] = np.maximum(CAUTION * np.maximum(totals[..., Total.UNSAFE], 0.0), least)
    return found
