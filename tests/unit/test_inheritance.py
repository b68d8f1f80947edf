"""What paths learn from each other: differences within paths, pooled; the own evidence soon outweighs what is lent."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers import Arm, Evidence, Field
from controllers.base import Floats, Measure, Prior
from controllers.congestion import CongestionThompson
from controllers.inheritance import GROUP, NETWORK, inherit, pooled, statistics, time_differences
from controllers.initial_window import InitialWindowTrial
from controllers.thompson import UNKNOWN_SPREAD, believe

LADDER = (10, 14, 20, 28, 40, 56, 80)
SPREAD = 0.3


def measured(
    utility: Floats, count: Floats, lost: Floats | float = 0.0, sent: Floats | float = 0.0
) -> Measure:
    """Paths whose arms were used `count` times each; all of shape (paths, arms)."""
    utility, count = np.asarray(utility, np.float64), np.asarray(count, np.float64)
    with np.errstate(divide="ignore"):
        variance = SPREAD**2 / count
    shape = utility.shape
    return Measure(
        np.where(count > 0, utility, 0.0), variance, np.broadcast_to(lost, shape), np.broadcast_to(sent, shape), count
    )


def learnt(measure: Measure, *, kinship: object = NETWORK) -> Prior:
    """What a path without evidence of its own inherits from these siblings."""
    source = pooled(statistics(measure).sum(axis=0, keepdims=True), kinship)  # type: ignore[arg-type]
    return inherit(np.zeros((1, *statistics(measure).shape[1:])), (source,))


def test_differences_are_pooled_within_paths() -> None:
    """The faster arm ran mostly on slow paths: pooled times call it several times slower, and are wrong."""
    level = np.array([0.0, -4.0, -5.0, 0.5])
    utility = level[:, None] + np.array([0.0, 0.5])
    count = np.array([[60, 4], [4, 60], [4, 60], [60, 4]])
    naive = (utility * count).sum(axis=0) / count.sum(axis=0)
    assert naive[1] - naive[0] < -2.0
    prior = learnt(measured(utility, count))
    assert prior.gain[0, 1] == pytest.approx(0.5)
    assert prior.precision[0, 1] > 10


def test_where_no_path_has_both_arms_nothing_is_known() -> None:
    prior = learnt(measured(np.array([[0.0, 0.0], [0.0, 3.0]]), np.array([[9, 0], [0, 9]])))
    assert prior.precision[0].tolist() == [0, 0]


def test_siblings_that_agree_are_trusted_more_than_siblings_that_differ() -> None:
    count = np.full((6, 2), 30)
    agree = learnt(measured(np.array([[0, 0.5]] * 6), count))
    differ = learnt(measured(np.array([[0, gain] for gain in (2.5, -1.5, 1.5, -0.5, 0.5, 0.5)]), count))
    one = learnt(measured(np.array([[0, 0.5]]), count[:1]))
    assert agree.gain[0, 1] == pytest.approx(differ.gain[0, 1]) == pytest.approx(0.5)
    assert agree.precision[0, 1] > 2 * one.precision[0, 1]
    assert differ.precision[0, 1] < one.precision[0, 1]


def test_no_single_path_outvotes_its_siblings() -> None:
    gains, counts = [[0, -1.0], *[[0, 0.5]] * 3], [[1e6, 1e6], *[[60, 60]] * 3]
    assert learnt(measured(np.array(gains), np.array(counts))).gain[0, 1] > 0


def test_nobody_inherits_from_himself() -> None:
    measure = measured(np.array([[0, 0.5]]), np.array([[30, 30]]), lost=3.0, sent=300.0)
    own = statistics(measure)
    source = pooled(own.sum(axis=0, keepdims=True), NETWORK)
    prior = inherit(own, (source,))
    assert prior.precision[0].tolist() == [0, 0]
    assert prior.segments[0, 1] == 0
    assert prior.trust[0, 1] <= 0


def test_own_evidence_outweighs_what_is_lent() -> None:
    """Siblings say half as fast again; here it is the other way round."""
    lent = learnt(measured(np.array([[0, 0.6]] * 3), np.full((3, 2), 30)))
    centres = []
    for count in (0, 1, 3, 10, 30):
        belief = believe(measured(np.array([[0, -0.6]]), np.array([[count, count]])), lent, UNKNOWN_SPREAD)
        centres.append(float(belief.centre[0, 1] - belief.centre[0, 0]))
    assert centres[0] > 0.4
    assert centres == sorted(centres, reverse=True)
    assert centres[3] < 0.1
    assert -0.6 < centres[-1] < -0.25


def test_the_group_counts_less_than_the_network_and_where_it_is_silent_alone() -> None:
    faster, slower = (
        pooled(statistics(measured(np.array([[0, gain]] * 4), np.full((4, 2), 30))).sum(axis=0, keepdims=True), kinship)
        for gain, kinship in ((0.6, NETWORK), (-0.6, GROUP))
    )
    nothing = pooled(np.zeros((1, *statistics(measured([[0, 0]], [[0, 0]])).shape[1:])), NETWORK)
    own = np.zeros((1, *statistics(measured([[0, 0]], [[0, 0]])).shape[1:]))
    assert inherit(own, (faster, slower)).gain[0, 1] > 0.1
    assert inherit(own, (nothing, slower)).gain[0, 1] == pytest.approx(-0.6)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-3, 3), st.floats(-1, 1), st.integers(0, 300), st.integers(0, 300)), min_size=1,
             max_size=8),
    st.randoms(use_true_random=False),
)
def test_the_order_of_siblings_does_not_count_and_all_is_finite(
    paths: list[tuple[float, float, int, int]], random: object
) -> None:
    def of(some: list[tuple[float, float, int, int]]) -> Prior:
        utility = np.array([[level, level + gain] for level, gain, _, _ in some])
        count = np.array([[first, second] for _, _, first, second in some], np.float64)
        return learnt(measured(utility, count, lost=0.01 * count, sent=10 * count))

    prior = of(paths)
    shuffled = list(paths)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    for name in ("gain", "precision", "excess", "segments"):
        found = getattr(prior, name)
        assert np.isfinite(found).all()
        np.testing.assert_allclose(found, getattr(of(shuffled), name), atol=1e-9)
    assert (prior.precision >= 0).all()
    gains = [gain for _, gain, first, second in paths if first and second]
    if gains:
        assert min(gains) - 1e-9 <= prior.gain[0, 1] <= max(gains) + 1e-9


def windows(times: Floats, counts: Floats, losses: Floats) -> Evidence:
    """Evidence of one path for every row of `counts`; times are log2, losses shares of the first window."""
    counts = np.asarray(counts, np.float64)
    sums = np.zeros((*counts.shape, len(Field)), np.float32)
    log = np.broadcast_to(np.asarray(times, np.float64), counts.shape)
    for field in (Field.TRANSFERS, Field.CLOSED, Field.FIRST_WINDOWS):
        sums[..., field] = counts
    sums[..., Field.LOG_TIME] = counts * log
    sums[..., Field.LOG_TIME_SQUARED] = counts * (log**2 + SPREAD**2)
    sent = counts * LADDER
    sums[..., Field.FIRST_WINDOW_SEGMENTS], sums[..., Field.FIRST_WINDOW_LOSSES] = sent, sent * np.asarray(losses)
    sums[..., Field.SEGMENTS], sums[..., Field.RETRANSMITTED] = counts * 70, sent * np.asarray(losses)
    return Evidence(tuple(Arm(f"iw{window}", window) for window in LADDER), sums)


def decided(siblings: Evidence, own: Evidence) -> tuple[Floats, int, str]:
    """What a path with `own` evidence gets in a network with these siblings."""
    law = InitialWindowTrial()
    together = np.concatenate([siblings.sums, own.sums])
    shares = statistics(law.measure(Evidence(own.arms, together)))
    source = pooled(shares.sum(axis=0, keepdims=True), NETWORK)
    decision = law.step(0.0, Evidence(own.arms, own.sums, inherit(shares[-1:], (source,))))
    return decision.probabilities[0], int(decision.chosen[0]), decision.reasons[decision.reason[0]]


FAST = np.log2([4.0, 4.0, 4.0, 3.0, 3.0, 3.0, 3.0])
NONE = windows(FAST, [[0.0] * 7], 0.0)


def test_the_first_connection_of_a_path_uses_the_window_that_its_sibling_found() -> None:
    """A control share is left, the larger the fewer the siblings."""
    counts = [20, 10, 10, 60, 20, 10, 10]
    shares, chosen, why = decided(windows(FAST, [counts], 0.0), NONE)
    assert chosen in (3, 4, 5, 6)
    assert why == "no evidence of its own yet: as others found"
    assert shares[3:].sum() > 0.7
    assert shares[0] > 0.15
    assert decided(windows(FAST, [counts] * 4, 0.0), NONE)[0][3:].sum() > 0.85


def test_a_converged_sibling_teaches_though_its_default_is_hardly_used_any_more() -> None:
    shares, chosen, _ = decided(windows(FAST, [[3, 2, 2, 150, 3, 2, 2]], 0.0), NONE)
    assert chosen == 3
    assert shares[3:].sum() > 0.6


def test_what_lost_on_a_sibling_is_not_where_a_path_begins() -> None:
    lossy = windows(FAST, [[20, 20, 20, 10, 0, 0, 0]], [0, 0, 0, 0.3, 0, 0, 0])
    shares, chosen, _ = decided(lossy, NONE)
    assert shares[3:].sum() == 0
    assert chosen < 3


def test_a_window_that_lost_on_a_sibling_is_tried_carefully_and_then_judged_by_its_own() -> None:
    """Two unlike paths of one network: neither binds the other."""
    lossy = windows(FAST, [[40, 20, 0, 0, 0, 0, 0]], [0, 0.3, 0, 0, 0, 0, 0])
    shares, _, why = decided(lossy, windows(FAST, [[8, 0, 0, 0, 0, 0, 0]], 0.0))
    assert why.startswith("trying a larger window")
    assert shares[1] == pytest.approx(0.15)
    assert shares[2:].sum() == 0
    shares, _, _ = decided(lossy, windows(FAST, [[8, 4, 0, 0, 0, 0, 0]], 0.0))
    assert shares[2] == pytest.approx(0.5)


def test_losses_of_ones_own_outweigh_a_siblings_good_experience_at_once() -> None:
    good = windows(FAST, [[30] * 7] * 3, 0.0)
    own = windows(FAST, [[3, 0, 0, 2, 1, 0, 0]], [0, 0, 0, 0.25, 0.4, 0, 0])
    shares, chosen, _ = decided(good, own)
    assert shares[3:].sum() == 0
    assert chosen < 3


def test_an_unlike_group_does_not_make_a_window_safe() -> None:
    """One network only: others of the group begin with the default, though they know what to look for."""
    law = InitialWindowTrial()
    shares = statistics(law.measure(windows(FAST, [[20, 10, 10, 60, 20, 10, 10]], 0.0)))
    source = pooled(shares.sum(axis=0, keepdims=True), GROUP)
    prior = inherit(np.zeros(shares.shape), (source,))
    assert (prior.trust <= 0).all()
    assert law.step(0.0, Evidence(NONE.arms, NONE.sums, prior)).probabilities[0, 0] == 1
    many = pooled(5 * shares.sum(axis=0, keepdims=True), GROUP)
    assert inherit(np.zeros(shares.shape), (many,)).trust[0, 3] > 0.5


def test_an_algorithm_is_inherited_too_and_its_veto() -> None:
    law = CongestionThompson()
    arms = (Arm("default"), Arm("bbr"))

    def step(again: float) -> Floats:
        sums = np.zeros((2, 2, len(Field)), np.float32)
        for field in (Field.TRANSFERS, Field.CLOSED):
            sums[..., field] = 40
        sums[..., 1, Field.LOG_TIME], sums[..., 1, Field.LOG_TIME_SQUARED] = -40, 40 * (1 + SPREAD**2)
        sums[..., 0, Field.LOG_TIME_SQUARED] = 40 * SPREAD**2
        sums[..., Field.SEGMENTS] = 4000
        sums[..., 1, Field.RETRANSMITTED] = 4000 * again
        shares = statistics(law.measure(Evidence(arms, sums)))
        prior = inherit(np.zeros((1, *shares.shape[1:])), (pooled(shares.sum(axis=0, keepdims=True), NETWORK),))
        return law.step(0.0, Evidence(arms, np.zeros((1, 2, len(Field)), np.float32), prior)).probabilities[0]

    assert step(0.0)[1] > 0.8
    assert 0 < step(0.2)[1] < 0.1


def test_time_differences_are_those_within_the_paths() -> None:
    evidence = windows(np.array([[0.0] * 7, [3.0] * 7]) + FAST, [[30, 3, 3, 3, 3, 3, 3], [3, 30, 30, 30, 3, 3, 0]], 0.0)
    difference, error = time_differences(evidence)
    np.testing.assert_allclose(difference, FAST - FAST[0], atol=1e-5)
    assert error[0] == np.inf
    assert (error[1:] < 0.5).all()
    one = Evidence(evidence.arms, evidence.sums[1:])
    assert time_differences(one)[1][6] == np.inf
