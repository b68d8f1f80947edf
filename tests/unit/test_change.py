"""A path that changed is noticed within a few connections; one that did not is left in peace, whatever its arms are."""

from __future__ import annotations

import numpy as np
import pytest
from handmade import KEY, ROW

from agent.bpf_source import constants
from agent.config import Config
from agent.dimensions import dimensions
from agent.evidence import EvidenceStore
from controllers import Field
from controllers.base import Floats
from controllers.change import KEPT

LIMITS = constants()
SCALE = 1 << LIMITS["LOG_SHIFT"]
LADDER = (10, 14, 20, 28, 40, 56, 80)
PATHS = 100


def new_store() -> EvidenceStore:
    made = dimensions(Config(), algorithms=("cubic", "bbr"), host_congestion="cubic")
    return EvidenceStore(made, groups=1, most_paths=1000, half_life=600.0)


def connect(
    store: EvidenceStore, random: np.random.Generator, *, count: int, level: float, spread: float = 0.2,
    losses: Floats | float = 0.0, arms: Floats | None = None, gains: tuple[float, float] = (0.0, 0.0),
) -> None:  # fmt: skip
    """`count` connections one after the other on each of PATHS paths; times are log2 of microseconds.

    `arms` are (windows, algorithms) to draw from; `gains` what the largest window and the second algorithm save.
    """
    windows, algorithms = arms if arms is not None else (range(7), range(2))
    for _ in range(count):
        keys, rows = np.zeros(PATHS, KEY), np.zeros(PATHS, ROW)
        keys["address"][:, 3] = np.arange(PATHS)
        keys["path_bits"], keys["treatment"] = 120, LIMITS["TREATMENT_APPLIED"]
        keys["arms"][:, 0] = random.choice(list(windows), PATHS)
        keys["arms"][:, 1] = random.choice(list(algorithms), PATHS)
        arm = np.minimum(keys["arms"][:, 0], 6)  # a window of its own is a large one
        window = np.array(LADDER)[arm]
        rows["closed"] = rows["first_windows"] = 1
        rows["first_window_segments"] = window
        rows["first_window_losses"] = random.binomial(window, np.broadcast_to(losses, 7)[arm])
        rows["sent_segments"] = 70
        size = random.normal(17, 0.5, PATHS)
        time = level + 0.7 * (size - 17) + random.normal(0, spread, PATHS)
        time -= gains[0] * arm / 6 + gains[1] * keys["arms"][:, 1]
        log_time, log_size = (time * SCALE).astype(np.uint64), (size * SCALE).astype(np.uint64)
        sent = rows["sent"]
        sent["count"], sent["log_time"], sent["log_bytes"] = 1, log_time, log_size
        sent["log_time_squared"], sent["log_bytes_squared"] = log_time**2, log_size**2
        sent["log_time_bytes"] = log_time * log_size
        store.absorb(keys, rows, generation=0, now=0.0)


def worth(store: EvidenceStore) -> Floats:
    """Connections that the evidence of every path is worth."""
    closed: Floats = store.of(1)[Field.CLOSED][1:].sum(axis=1)
    return closed


@pytest.mark.parametrize("spread", [0.05, 0.2, 0.6])
@pytest.mark.parametrize("losses", [0.0, 0.03])
def test_a_path_that_stays_as_it_is_is_left_in_peace(spread: float, losses: float) -> None:
    store = new_store()
    connect(store, np.random.default_rng(1), count=150, level=18, spread=spread, losses=losses)
    assert store.changes <= 0.0005 * 150 * PATHS


def test_using_better_arms_is_no_change_of_the_path() -> None:
    store, random = new_store(), np.random.default_rng(2)
    gains = (1.5, 3.0)
    connect(store, random, count=60, level=21, gains=gains)
    connect(store, random, count=60, level=21, gains=gains, arms=np.array([[5, 6], [1, 1]]))
    assert store.changes <= 3


@pytest.mark.parametrize("by", [1.5, -1.5, 2.3])
def test_other_times_are_noticed_within_ten_connections(by: float) -> None:
    store, random = new_store(), np.random.default_rng(3)
    connect(store, random, count=100, level=18)
    before = store.changes
    connect(store, random, count=10, level=18 + by)
    assert before + 0.95 * PATHS <= store.changes <= before + 1.2 * PATHS  # once each
    assert np.median(worth(store)) < KEPT + 11


PACED = np.array([[LIMITS["ARM_NONE"]], [2]])


@pytest.mark.parametrize(("by", "noticed"), [(1.5, True), (-1.5, False), (0.0, False)])
def test_what_is_paced_may_become_faster_by_itself(by: float, noticed: bool) -> None:
    """The rate that it is held to grows; if it takes longer, the path has changed."""
    store, random = new_store(), np.random.default_rng(8)
    connect(store, random, count=100, level=18, arms=PACED)
    connect(store, random, count=10, level=18 + by, arms=PACED)
    assert store.changes >= 0.95 * PATHS if noticed else store.changes <= 0.001 * 110 * PATHS


def test_what_a_window_of_its_own_loses_is_not_compared_with_others() -> None:
    store, random = new_store(), np.random.default_rng(9)
    connect(store, random, count=60, level=18, losses=0.0)
    connect(store, random, count=20, level=18, losses=0.5, arms=PACED)
    assert store.changes <= 3


def test_a_queue_that_became_short_is_noticed_within_ten_connections() -> None:
    store, random = new_store(), np.random.default_rng(4)
    arms = np.array([[0, 3, 4, 4, 4, 4], [0] * 6])
    connect(store, random, count=60, level=18, arms=arms)
    connect(store, random, count=10, level=18.2, arms=arms, losses=np.array([0.02, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6]))
    assert store.changes >= 0.95 * PATHS


def test_an_algorithm_that_loses_is_no_change_of_the_path() -> None:
    """Where windows are judged under another one, which loses nothing."""
    store, random = new_store(), np.random.default_rng(7)
    connect(store, random, count=60, level=18, arms=np.array([[4], [1]]))
    store.judge_windows_under(np.ones(PATHS, np.uint8), np.arange(1, PATHS + 1))
    connect(store, random, count=1, level=18, arms=np.array([[4], [0]]), losses=0.6)
    assert store.changes == 0
    connect(store, random, count=1, level=18, arms=np.array([[4], [1]]), losses=0.6)
    assert store.changes >= 0.9 * PATHS


def test_windows_are_unknown_under_an_algorithm_until_it_had_one() -> None:
    store, random, paths = new_store(), np.random.default_rng(10), np.arange(1, PATHS + 1)
    connect(store, random, count=10, level=18, arms=np.array([[0, 1], [0, 0]]))
    assert not store.unjudged(paths).any()
    store.judge_windows_under(np.ones(PATHS, np.uint8), paths)
    connect(store, random, count=1, level=18, arms=np.array([[0], [0]]))
    assert store.unjudged(paths).all()
    connect(store, random, count=1, level=18, arms=np.array([[0], [1]]))
    assert not store.unjudged(paths).any()


def test_what_is_left_keeps_its_proportions() -> None:
    store, random = new_store(), np.random.default_rng(5)
    connect(store, random, count=100, level=18, arms=np.array([[0, 2, 4], [0, 0, 0]]))
    before = store.of(0)[Field.CLOSED][1:].copy()
    connect(store, random, count=8, level=20, arms=np.array([[2], [0]]))
    after = store.of(0)[Field.CLOSED][1:]
    cut = after.sum(axis=1) < 20
    assert cut.mean() > 0.9
    np.testing.assert_allclose(after[cut, 0] / after[cut, 4], before[cut, 0] / before[cut, 4], rtol=1e-4)


def test_nothing_is_a_change_before_anything_is_known() -> None:
    store, random = new_store(), np.random.default_rng(6)
    connect(store, random, count=4, level=18)
    connect(store, random, count=1, level=25)
    assert store.changes == 0
