"""The whole loop on the 18 public paths as they were measured: how soon it is near the best, and what that costs.

The best ("oracle") is the fastest static pair of window and algorithm that loses and retransmits at most 1 percentage
point more than the default.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from simulated_host import MEASURED, Host

from controllers.base import Floats

COPIES = 20
PATHS = list(MEASURED)
# There the best pair is behind windows that lose more: a ladder that stops at the first of these does not find it.
BEYOND_A_GAP = {10}
NEAR = 1.10


def by_path(values: Floats) -> dict[int, Floats]:
    return dict(zip(PATHS, values.reshape(len(PATHS), COPIES, *values.shape[1:]), strict=True))


@pytest.fixture(scope="module")
def learnt() -> Host:
    """After 200 connections on every path, four a second."""
    host = Host(list(MEASURED.values()), copies=COPIES)
    host.run(50)
    return host


def test_two_hundred_connections_are_enough(learnt: Host) -> None:
    found = {path: float(ratio.mean()) for path, ratio in by_path(learnt.expected()).items()}
    late = {path: ratio for path, ratio in found.items() if ratio > NEAR}
    assert set(late) <= BEYOND_A_GAP, found
    # That one gains all the same: a quarter of the default's time.
    assert all(MEASURED[path].oracle * ratio < 0.25 * MEASURED[path].times[0, 0] for path, ratio in late.items())


def test_learning_harms_no_path(learnt: Host) -> None:
    """Of all treated connections, the first included."""
    for path, counts in by_path(learnt.counts).items():
        connections, seconds, first, lost, segments, again = counts.sum(axis=0)
        truth = MEASURED[path]
        assert seconds / connections <= 1.03 * truth.times[0, 0], path
        assert lost / first <= truth.first[0, 0] + 0.01, path
        assert again / segments <= truth.again[0, 0] + 0.025, path


def test_no_path_is_taken_for_another(learnt: Host) -> None:
    assert learnt.store.changes <= 0.0005 * 200 * len(learnt.truth)


def test_a_known_sibling_makes_forty_connections_enough(learnt: Host) -> None:
    learnt.meet_siblings()
    first = {path: float(ratio.mean()) for path, ratio in by_path(learnt.expected()).items()}
    learnt.run(10)
    then = {path: float(ratio.mean()) for path, ratio in by_path(learnt.expected()).items()}
    # At once most of the gain is there, where all else is equal.
    for path in (2, 3, 4, 5, 6, 13, 14, 18):
        assert first[path] < 1.2, path
    late = {path for path, ratio in then.items() if ratio > 1.2}
    assert late <= {8, 9, 10}, then
    assert sum(ratio <= NEAR for ratio in then.values()) >= 13, then


@pytest.mark.parametrize(("before", "after"), [(5, 15), (6, 15), (18, 15), (11, 5), (15, 18), (2, 16), (5, 1)])
def test_a_path_that_became_another_is_learnt_anew(before: int, after: int) -> None:
    """Within 300 connections; 4 a second.

    Losses of first windows are at most twice the default's, but where the rate falls to a hundredth (path 1): there the
    few connections that were under way lose that much.
    """
    host = Host([MEASURED[before]], copies=40)
    host.run(50)
    host.forget_counts()
    host.change([MEASURED[after]])
    host.run(75)
    assert float(np.mean(host.expected())) <= NEAR
    assert host.store.changes >= 30
    _, _, first, lost, _, _ = host.counts.sum(axis=0)
    assert lost / first <= (0.2 if after == 1 else max(2 * MEASURED[after].first[0, 0], 0.06))


def test_a_path_that_became_five_times_as_slow_keeps_its_windows() -> None:
    fast = MEASURED[4]
    slow = replace(
        fast, cubic=[5 * time for time in fast.cubic], bbr=[5 * time for time in fast.bbr],
        rate_mbps=fast.rate_mbps / 5,
    )  # fmt: skip
    host = Host([fast], copies=40)
    host.run(50)
    host.change([slow])
    host.run(40)
    assert host.store.changes >= 38
    assert float(np.mean(host.expected())) <= NEAR


def test_the_guard_has_nothing_to_stop(learnt: Host) -> None:
    assert learnt.quarantines == 0
