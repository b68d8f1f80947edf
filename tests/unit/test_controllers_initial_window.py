"""The law `trial`: loss brings a window down, speed up; where the truth is known it finds the best decent window."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_paths import LADDER, Copies, Truth, windows

from controllers import Arm, Decision, Evidence, Field
from controllers.base import Floats, Prior
from controllers.initial_window import BASE_SHARE, ENOUGH, REASONS, InitialWindowTrial

ARMS = tuple(Arm(f"iw{window}", window) for window in LADDER)
# Medians measured on a clean path of 100 ms with objects of 100,000 bytes: gains come in whole round trips, and from 28
# on the client's receive window holds the first flight down.
CLEAN = (412, 412, 412, 310, 310, 310, 310)
BEST = (3, 4, 5, 6)


def known(counts: Floats, times: Floats, *, spread: float = 0.2) -> Floats:
    """Sums of transfers of 70 segments; `times` are log2 of seconds, both of shape (..., arms)."""
    counts = np.asarray(counts, np.float64)
    sums = np.zeros((*counts.shape, len(Field)), np.float32)
    log = np.broadcast_to(np.asarray(times, np.float64) + 4, counts.shape)
    for field in (Field.TRANSFERS, Field.CLOSED, Field.FIRST_WINDOWS, Field.LOG_BYTES, Field.LOG_BYTES_SQUARED):
        sums[..., field] = counts
    sums[..., Field.LOG_TIME] = sums[..., Field.LOG_TIME_BYTES] = counts * log
    sums[..., Field.LOG_TIME_SQUARED] = counts * (log**2 + spread**2)
    sums[..., Field.FIRST_WINDOW_SEGMENTS] = counts * LADDER[: counts.shape[-1]]
    return sums.reshape(-1, counts.shape[-1], len(Field))


def decide(sums: Floats) -> Decision:
    return InitialWindowTrial().step(0.0, Evidence(ARMS[: sums.shape[1]], sums))


def why(decision: Decision) -> str:
    return REASONS[decision.reason[0]]


COUNTS = st.lists(st.sampled_from([0, 1, 3, 4, 5, 9, 10, 24, 100, 1000]), min_size=7, max_size=7)
TIMES = st.lists(st.floats(-3, 3), min_size=7, max_size=7)
SHARES = st.lists(st.sampled_from([0, 0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.3]), min_size=7, max_size=7)


@settings(max_examples=500, deadline=None)
@given(COUNTS, TIMES, SHARES, st.integers(1, 6), st.sampled_from([0.5, 1.0, 3.0, 20.0, 1e4]))
def test_more_loss_never_raises_a_window(
    counts: list[int], times: list[float], shares: list[float], window: int, more: float
) -> None:
    sums = known(np.array(counts), np.array(times))
    sums[:, :, Field.FIRST_WINDOW_LOSSES] = sums[:, :, Field.FIRST_WINDOW_SEGMENTS] * shares
    before = decide(sums)
    sums[:, window, Field.FIRST_WINDOW_LOSSES] += np.float32(more)
    after = decide(sums)
    assert after.probabilities[0, window] <= before.probabilities[0, window] + 1e-9
    assert after.chosen[0] <= before.chosen[0]


@settings(max_examples=300, deadline=None)
@given(COUNTS, TIMES, st.integers(1, 6))
def test_where_a_window_loses_no_larger_one_is_drawn(counts: list[int], times: list[float], window: int) -> None:
    counts[window] = max(counts[window], 10)
    sums = known(np.array(counts), np.array(times))
    sums[:, window, Field.FIRST_WINDOW_LOSSES] = sums[:, window, Field.FIRST_WINDOW_SEGMENTS] * 0.2
    decision = decide(sums)
    assert (decision.probabilities[0, window:] == 0).all()
    assert decision.chosen[0] < window


@pytest.mark.parametrize(
    ("counts", "again", "share"),
    [
        ([0.5, 2, 60, 0, 0, 0, 0], 0.4, BASE_SHARE),
        ([0.5, 2, 60, 0, 0, 0, 0], 0.0, 0.0),
        ([6, 2, 60, 0, 0, 0, 0], 0.4, 0.0),
    ],
    ids=["the default has faded", "nothing is retransmitted", "the default is known"],
)
def test_a_window_that_retransmits_is_compared_with_the_default(
    counts: list[float], again: float, share: float
) -> None:
    sums = known(np.array(counts), np.array([0.0, -0.5, -1.0, 0.0, 0.0, 0.0, 0.0]))
    sums[:, :, Field.SEGMENTS] = 100 * sums[:, :, Field.CLOSED]
    # The default retransmits as much, or there would be a veto.
    sums[:, :, Field.RETRANSMITTED] = again * sums[:, :, Field.SEGMENTS]
    decision = decide(sums)
    assert decision.chosen[0] == 2
    assert share - 1e-6 <= decision.probabilities[0, 0] < share + 0.01
    assert decision.learning is not None
    assert decision.learning[0]
    # Nor is a larger one tried before that is known.
    assert decision.probabilities[0, 3] == (0.0 if share else 0.5)


@pytest.mark.parametrize(
    ("connections", "again", "spared"),
    [(20, 0.41, True), (20, 0.36, False), (3, 0.41, False)],
    ids=["the holdout retransmits more", "it does not", "it is not known"],
)
def test_a_window_may_retransmit_what_the_holdout_does(connections: float, again: float, spared: bool) -> None:
    """bbr with the default window may retransmit less than cubic does: that is no reason against larger ones."""
    sums = known(np.array([20, 20, 20, 20, 0, 0, 0]), np.array([0.0, -0.5, -1.0, -1.5, 0.0, 0.0, 0.0]))
    sums[:, :, Field.SEGMENTS] = 100 * sums[:, :, Field.CLOSED]
    sums[:, :, Field.RETRANSMITTED] = np.array([0.36, 0.36, 0.36, 0.42, 0.0, 0.0, 0.0]) * sums[:, :, Field.SEGMENTS]
    holdout = np.zeros((1, len(Field)))
    holdout[:, Field.CLOSED], holdout[:, Field.SEGMENTS] = connections, 100 * connections
    holdout[:, Field.RETRANSMITTED] = again * 100 * connections
    decision = InitialWindowTrial().step(0.0, Evidence(ARMS, sums, holdout=holdout))
    assert decision.chosen[0] == (3 if spared else 2)
    assert bool(decision.probabilities[0, 4] > 0) is spared


@settings(max_examples=300, deadline=None)
@given(COUNTS, TIMES)
def test_the_climb_leaves_out_no_step(counts: list[int], times: list[float]) -> None:
    decision = decide(known(np.array(counts), np.array(times)))
    largest = max(np.flatnonzero(np.array(counts) >= ENOUGH), default=0)
    assert (decision.probabilities[0, largest + 2 :] == 0).all()
    assert decision.chosen[0] <= largest
    if largest < 6 and max(counts) >= ENOUGH:
        assert decision.probabilities[0, largest + 1] == pytest.approx(0.5)
        assert why(decision).startswith("trying a larger window")


def test_the_climb_begins_when_the_default_is_known_and_ends_at_the_top() -> None:
    for tried in range(8):
        decision = decide(known(np.array([10] * tried + [0] * (7 - tried)), np.zeros(7)))
        if tried == 0:
            assert decision.probabilities[0, 0] == 1
        elif tried < 7:
            assert decision.probabilities[0, tried] == pytest.approx(0.5)
        else:
            assert why(decision) == "no window is clearly faster than the default"


def test_a_clear_gain_is_taken_and_explained() -> None:
    decision = decide(known(np.full(7, 20), np.log2(np.array(CLEAN) / 1000)))
    assert decision.chosen[0] == 3  # the smallest of four equals
    assert decision.probabilities[0, 3] > 0.5
    assert why(decision) == "fastest of the windows tried"


@given(st.floats(-3, 3), st.integers(10, 1000), st.floats(0, 0.5))
@settings(max_examples=100, deadline=None)
def test_of_equals_the_smallest_wins(time: float, count: int, spread: float) -> None:
    decision = decide(known(np.full(7, count), np.full(7, time), spread=spread))
    assert decision.chosen[0] == 0
    assert decision.probabilities[0, 0] == decision.probabilities[0].max()
    assert (np.diff(decision.probabilities[0]) <= 1e-9).all()


def test_every_safe_window_keeps_a_share_that_costs_little() -> None:
    times = np.array([300, 400, 500, 600, 700, 800, 900])
    (shares,) = decide(known(np.full(7, 500), np.log2(times / 1000))).probabilities
    assert shares[0] > 0.95
    assert (shares > 0.001).all()
    assert (shares * (times / 300 - 1)).sum() < 0.03


def test_faded_windows_below_the_best_do_not_bring_the_path_down() -> None:
    """The larger window vouches for the smaller ones: the climb need not begin anew."""
    decision = decide(known(np.array([3, 0.5, 0.2, 60, 3, 2, 1]), np.log2(np.array(CLEAN) / 1000)))
    assert decision.chosen[0] == 3
    assert decision.probabilities[0, 4] == pytest.approx(0.5)
    assert decision.probabilities[0, :3].sum() < 0.2
    assert (decision.probabilities[0, :3] > 0.005).all()


def test_short_transfers_end_the_climb() -> None:
    sums = known(np.array([40, 10, 0, 0, 0, 0, 0]), np.zeros(7))
    sums[:, 1, Field.FIRST_WINDOWS] = 0
    decision = decide(sums)
    assert decision.probabilities[0, 0] > 0.7
    assert (decision.probabilities[0, 2:] == 0).all()
    assert why(decision) == "no window is clearly faster than the default"
    sums[:, 1, Field.FIRST_WINDOWS] = 1  # one in ten fills it: there may be use for a larger one
    assert decide(sums).probabilities[0, 1] == pytest.approx(0.5)
    sums[:, 0, Field.FIRST_WINDOWS] = 0
    sums[:, 1] = 0
    decision = decide(sums)
    assert decision.probabilities[0, 0] == 1, "not even the default's is filled"
    assert why(decision) == "transfers are too short to fill a larger window"


def test_a_window_that_takes_the_whole_transfer_is_used() -> None:
    """21 packets: two rounds by windows of 10 to 20 segments, one by 28, which they do not fill."""
    sums = known(np.array([40, 40, 40, 10, 0, 0, 0]), np.log2(np.array([150, 150, 150, 100, 1, 1, 1]) / 1000))
    sums[:, 3, Field.FIRST_WINDOWS] = 0
    decision = decide(sums)
    assert decision.chosen[0] == 3
    assert (decision.probabilities[0, 4:] == 0).all()
    assert why(decision) == "transfers are too short to fill a larger window"
    # All 21 go out at once, and into a queue of 20 one is lost.
    sums[:, 3, Field.FIRST_WINDOW_SEGMENTS] = 210
    sums[:, 3, Field.FIRST_WINDOW_LOSSES] = 10
    decision = decide(sums)
    assert decision.chosen[0] < 3
    assert decision.probabilities[0, 3] == 0


def test_loss_is_explained_only_where_it_decides() -> None:
    sums = known(np.full(7, 40), np.log2(np.array([400, 400, 400, 300, 300, 250, 250]) / 1000))
    sums[:, 5, Field.FIRST_WINDOW_LOSSES] = 300
    decision = decide(sums)
    assert decision.chosen[0] == 3
    assert why(decision) == "fastest of the windows tried"
    sums[:, 4, Field.FIRST_WINDOW_LOSSES] = 300
    assert why(decide(sums)) == "larger windows lose more than the default in their first round"


@pytest.mark.parametrize("window", range(1, 7))
def test_a_vetoed_window_returns_as_its_evidence_fades(window: int) -> None:
    """Connections go on at the smaller windows, so only the vetoed one and its larger neighbours fade."""
    sums = known(np.full(7, 60), np.log2(np.array(CLEAN) / 1000))
    sums[:, window, Field.FIRST_WINDOW_LOSSES] = sums[:, window, Field.FIRST_WINDOW_SEGMENTS] * 0.2
    half_lives = 0
    while decide(sums).probabilities[0, window] == 0:
        sums[:, window:] *= 0.5
        half_lives += 1
        assert half_lives < 12
    assert half_lives > 1


# From here on: many copies of a path whose truth is known, ten connections a step.


@pytest.mark.parametrize("spread", [0.05, 0.2, 0.5])
def test_the_best_window_is_found_within_200_connections(spread: float) -> None:
    copies = Copies(InitialWindowTrial, windows(CLEAN, spread=spread))
    assert 10 * copies.steps_until(BEST, most=20) <= 200
    shares = copies.run(100)
    assert np.isin(copies.decision.chosen, BEST).mean() > 0.95
    assert shares[:, BEST].sum(axis=1).mean() > 0.9


def test_with_little_noise_it_is_the_smallest_of_the_best() -> None:
    copies = Copies(InitialWindowTrial, windows(CLEAN, spread=0.05))
    copies.run(40)
    assert (copies.decision.chosen == 3).mean() > 0.9


@pytest.mark.parametrize(("connections", "half_life"), [(2, 40), (1, 30)])
def test_few_connections_in_a_half_life_are_enough(connections: int, half_life: float) -> None:
    """About 80 and 30 connections; evidence fades while the climb is under way."""
    copies = Copies(InitialWindowTrial, windows(CLEAN))
    copies.run(120, connections=connections, half_life=half_life)
    held = copies.run(120, connections=connections, half_life=half_life)
    assert np.isin(copies.decision.chosen, BEST).mean() > 0.85
    assert held[:, BEST].sum(axis=1).mean() > 0.75


def test_where_larger_windows_lose_the_default_stays_though_they_are_faster() -> None:
    """A queue of ten packets."""
    path = windows((400, 380, 360, 350, 340, 340, 340), (0.005, 0.10, 0.14, 0.18, 0.2, 0.22, 0.25))
    copies = Copies(InitialWindowTrial, path)
    first = copies.run(10)
    assert first[:, 1:].sum(axis=1).mean() < 0.25
    later = copies.run(100)
    assert (copies.decision.chosen == 0).mean() > 0.95
    assert later[:, 0].mean() > 0.95


def test_a_queue_in_the_middle_of_the_ladder_is_respected() -> None:
    path = windows(CLEAN, (0, 0, 0, 0, 0.12, 0.2, 0.25))
    copies = Copies(InitialWindowTrial, path)
    copies.run(30)
    later = copies.run(60)
    assert (copies.decision.chosen == 3).mean() > 0.9
    assert later[:, 4:].sum(axis=1).mean() < 0.06


@pytest.mark.parametrize("loss", [0.01, 0.03])
def test_random_loss_hits_all_windows_alike_and_stops_none(loss: float) -> None:
    copies = Copies(InitialWindowTrial, windows((450, 450, 450, 340, 340, 340, 340), (loss,) * 7, spread=0.3))
    copies.run(40)
    shares = copies.run(100)
    assert np.isin(copies.decision.chosen, BEST).mean() > 0.9
    assert shares[:, BEST].sum(axis=1).mean() > 0.8


def test_without_any_gain_the_default_stays() -> None:
    copies = Copies(InitialWindowTrial, windows((400,) * 7, spread=0.3))
    copies.run(20)
    assert (copies.decision.chosen == 0).mean() > 0.75
    copies.run(180)
    assert (copies.decision.chosen == 0).mean() > 0.95


@pytest.mark.parametrize(("time", "arm", "share"), [(300, 0, 0.75), (200, 1, 0.85)], ids=["equal", "faster"])
def test_no_window_is_tried_beyond_the_first_that_no_object_fills(time: int, arm: int, share: float) -> None:
    copies = Copies(InitialWindowTrial, windows((300, *[time] * 6), segments=12))
    shares = copies.run(200)
    assert shares[:, arm].mean() > share
    assert (shares[:, 2:] == 0).all()


def changed(copies: Copies, truth: Truth) -> Copies:
    copies.truth = truth
    return copies


def test_a_path_that_becomes_slow_is_left_at_once_and_found_again() -> None:
    """A fifth of the rate: the same windows now overflow the queue. Then everything is as before."""
    fast = windows(CLEAN)
    slow = windows((1600, 1650, 1700, 1700, 1750, 1800, 1800), (0.005, 0.1, 0.14, 0.18, 0.2, 0.22, 0.25))
    copies = Copies(InitialWindowTrial, fast)
    copies.run(200)
    assert 10 * changed(copies, slow).steps_until([0], most=20) <= 200
    worse = copies.run(100)
    assert worse[:, 0].mean() > 0.95
    assert 10 * changed(copies, fast).steps_until(BEST, most=160) <= 1600


def test_a_path_that_becomes_slow_without_loss_keeps_its_windows_or_goes_back() -> None:
    fast = windows(CLEAN)
    copies = Copies(InitialWindowTrial, fast)
    copies.run(200)
    shares = changed(copies, fast.slower(5)).run(200)
    assert np.isin(copies.decision.chosen, BEST).mean() > 0.9
    assert shares[:, BEST].sum(axis=1).mean() > 0.6


@pytest.mark.parametrize(
    ("pipe", "largest"), [(0.0, 80), (3.0, 10), (7.0, 14), (18.0, 28), (25.0, 40), (40.0, 80), (1e6, 80)]
)
def test_a_path_is_filled_by_one_window(pipe: float, largest: int) -> None:
    """Larger ones are neither tried nor kept, however fast they seem; 0 is not known."""
    held = np.array([pipe])
    for count in range(8):  # windows known so far, each faster than the one before
        sums = known(np.where(np.arange(7) < count, 50, 0), -np.arange(7) / 4)
        decision = InitialWindowTrial().step(0.0, Evidence(ARMS, sums, pipe=held))
        drawn = np.array(LADDER)[decision.probabilities[0] > 0]
        assert drawn.max() == min(largest, LADDER[min(count, 6)])
        if count == 7 and 10 < largest < 80:
            assert "filled" in why(decision)
            assert LADDER[decision.chosen[0]] == largest


def test_what_others_taught_ends_where_the_path_is_filled() -> None:
    """A new path is begun as its siblings are, until it is known to be slower."""
    prior = Prior(*(np.full((1, 7), value, np.float32) for value in (1.0, 100.0, 0.0, 100.0, 1.0)))
    sums = known(np.array([2, 0, 0, 0, 0, 0, 0]), np.zeros(7))
    for pipe, largest in ((0.0, 80), (7.0, 14)):
        decision = InitialWindowTrial().step(0.0, Evidence(ARMS, sums, prior, pipe=np.array([pipe])))
        assert np.array(LADDER)[decision.probabilities[0] > 0].max() == largest
