"""The whole loop with a fleet's experience, on public paths as they were measured: what it saves, and what lies cost.

The fleet is two other hosts, each with two paths of the kind; recording rules are done by hand.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from simulated_host import MEASURED, Host

from controllers.base import Floats
from controllers.fleet import MOST_GAIN, MOST_PRECISION, MOST_SAFE, Total, of_fleet

SEEDS = range(6)
# Where windows are worth something, and the first of them are safe.
GAINING = (2, 5, 14, 17, 18)


@cache
def taught(path: int) -> tuple[Floats, ...]:
    """The sums over hosts in initial window and congestion control."""
    hosts = [Host([MEASURED[path]], copies=2, seed=seed) for seed in (11, 12)]
    for host in hosts:
        host.run(50)
    return tuple(sum(_sums(host, number) for host in hosts) for number in (0, 1))  # type: ignore[misc]


def _sums(host: Host, number: int) -> Floats:
    """What config/prometheus/rules.yml makes of one host."""
    told = host.networks.experience(number)
    known = told.precision > 0
    gain, weight = np.clip(told.gain, -MOST_GAIN, MOST_GAIN), np.minimum(told.precision, MOST_PRECISION)
    safe, unsafe = (np.clip(paths, 0, MOST_SAFE) for paths in (told.safe, told.unsafe))
    parts = (1.0, weight, weight * gain, weight * gain**2, safe, unsafe)
    return np.stack([np.where(known, part, 0.0) for part in parts], axis=-1)


def lie(gains: tuple[float, ...]) -> Floats:
    """A million hosts swear that no arm loses anything, and that these are the gains."""
    sums = np.zeros((1, len(gains), len(Total)))
    for arm, gain in enumerate(gains[1:], 1):
        weight = 1e6 * MOST_PRECISION
        sums[0, arm] = (1e6, weight, weight * gain, weight * gain**2, 3e6, 0)
    return sums


def course(path: int, fleet: tuple[Floats, ...] | None, *, seconds: int) -> tuple[Floats, Floats]:
    """Mean time over the oracle's of new hosts after every four connections, (hosts, 1 + seconds); and the sums of
    their counts."""
    found, counts = [], np.zeros(6)
    for seed in SEEDS:
        host = Host([MEASURED[path]], copies=1, seed=seed)
        if fleet is not None:
            host.networks.fleet[:2] = [of_fleet(sums) for sums in fleet]
            host.decider.step(0.0)
        ratios = [host.expected()[0]]
        for _ in range(seconds):
            host.run(1)
            ratios.append(host.expected()[0])
        found.append(ratios)
        counts += host.counts[0]
    return np.array(found), counts


@cache
def honest(path: int) -> Floats:
    """The same of hosts that learn alone."""
    return course(path, None, seconds=30)[0]


def test_a_fleet_saves_three_quarters_of_the_connections() -> None:
    alone = np.mean([honest(path)[:, :13] for path in GAINING], axis=(0, 1))
    together = np.mean([course(path, taught(path), seconds=12)[0] for path in GAINING], axis=(0, 1))
    print(np.round(alone, 2), np.round(together, 2))
    # Half of what there is to gain; connections come by four.
    half = (alone[0] + 1.0) / 2
    needed = [4 * int(np.flatnonzero(ratios > half)[-1] + 1) for ratios in (alone, together)]
    assert needed[1] <= needed[0] / 4, needed


LIES = {
    "larger is better": ((0, 0.3, 0.6, 0.9, 1.2, 1.6, 2), (0, -2)),
    "all is bad": ((0, -2, -2, -2, -2, -2, -2), (0, -2)),
    "what is not possible": ((0, 1e9, -1e9, 1e9, -1e9, 1e99, -1e99), (0, 1e99)),
}


@pytest.mark.parametrize("path", [1, 16, *(pytest.param(path, marks=pytest.mark.long) for path in (8, 17))])
@pytest.mark.parametrize("name", LIES)
def test_what_a_lying_fleet_costs_is_soon_over(path: int, name: str) -> None:
    """The first connections of a host's first paths begin where the liar says; then their own experience counts."""
    alone = honest(path)
    fooled, (connections, seconds, *_) = course(path, tuple(lie(gains) for gains in LIES[name]), seconds=30)
    # Transfers are never much slower than the kernel's default makes them,
    assert fooled.mean(axis=0).max() <= max(1.05 * alone[0, 0], 1.25)
    assert seconds / connections <= 1.08 * MEASURED[path].times[0, 0]
    # and after 120 connections it is as if nobody had said anything; but where the guard put a path back for a while.
    assert np.median(fooled[:, -1]) <= np.median(alone[:, -1]) + 0.15
