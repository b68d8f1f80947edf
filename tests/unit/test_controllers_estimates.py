"""Estimates and the veto, against figures worked out by hand or drawn from a known truth."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controllers import Arm, Evidence, Field
from controllers.base import Floats
from controllers.estimates import first_window_loss, retransmission, rtt_inflation, transfer_time
from controllers.veto import loses_more


def evidence_of(times: list[Floats], sizes: list[Floats]) -> Evidence:
    """One path's transfers by arm, as log2."""
    sums = np.zeros((1, len(times), len(Field)), np.float32)
    for arm, (time, size) in enumerate(zip(times, sizes, strict=True)):
        sums[0, arm, Field.TRANSFERS] = len(time)
        sums[0, arm, Field.LOG_TIME], sums[0, arm, Field.LOG_BYTES] = time.sum(), size.sum()
        sums[0, arm, Field.LOG_TIME_SQUARED], sums[0, arm, Field.LOG_BYTES_SQUARED] = (time**2).sum(), (size**2).sum()
        sums[0, arm, Field.LOG_TIME_BYTES] = (time * size).sum()
    return Evidence(tuple(Arm(f"arm{number}") for number in range(len(times))), sums)


def simple(**fields: list[float]) -> Evidence:
    columns = {Field[name.upper()]: value for name, value in fields.items()}
    arms = len(next(iter(columns.values())))
    sums = np.zeros((1, arms, len(Field)), np.float32)
    for field, values in columns.items():
        sums[0, :, field] = values
    return Evidence(tuple(Arm(f"arm{number}") for number in range(arms)), sums)


def test_sizes_that_an_arm_happened_to_get_do_not_count_for_it() -> None:
    """Time grows with 0.8 of the size; the second arm is faster by 0.3, but had objects four times as large."""
    random = np.random.default_rng(8)
    sizes = [random.normal(1, 1, 300), random.normal(3, 1, 300)]
    times = [2 + 0.8 * sizes[0] + random.normal(0, 0.2, 300), 1.7 + 0.8 * sizes[1] + random.normal(0, 0.2, 300)]
    estimate = transfer_time(evidence_of(times, sizes))
    assert times[1].mean() > times[0].mean() + 1
    assert estimate.mean[0, 0] - estimate.mean[0, 1] == pytest.approx(0.3, abs=0.06)
    # What the size explains is no noise: 0.2 is left, of about 0.8.
    assert np.sqrt(estimate.variance[0] * 300) == pytest.approx([0.2, 0.2], abs=0.03)


def test_of_one_size_it_is_the_plain_mean() -> None:
    times = [np.array([1.0, 1.5, 2.0]), np.array([0.5, 0.5])]
    estimate = transfer_time(evidence_of(times, [np.full(3, 1.0), np.full(2, 1.0)]))
    assert estimate.mean[0] == pytest.approx([1.5, 0.5])
    # Squares of 0.5 on both sides of the mean, and the prior's four times 0.3 squared, over three and four.
    assert estimate.variance[0, 0] == pytest.approx((0.5 + 4 * 0.09) / 7 / 3, rel=1e-3)
    # Without any spread of its own, two transfers still are not certain.
    assert estimate.variance[0, 1] == pytest.approx(4 * 0.09 / 6 / 2, rel=1e-3)


def test_nothing_seen_is_not_known() -> None:
    estimate = transfer_time(simple(transfers=[0, 0]))
    assert estimate.mean.tolist() == [[0, 0]]
    assert np.isinf(estimate.variance).all()


def test_shares_and_their_bounds() -> None:
    evidence = simple(
        segments=[100, 0, 10],
        retransmitted=[5, 3, 30],
        first_window_segments=[40, 0, 10],
        first_window_losses=[4, 1, 11],
    )
    assert retransmission(evidence)[0] == pytest.approx([0.05, 0, 1])
    assert first_window_loss(evidence)[0] == pytest.approx([0.1, 0, 1])


def test_inflation_is_one_at_least() -> None:
    evidence = simple(rtt=[300, 100, 0, 50, 70], base_rtt=[100, 100, 0, 100, 0])
    assert rtt_inflation(evidence)[0].tolist() == [3, 1, 1, 1, 1]


def vetoed(lost: list[float], sent: list[float], at_least: float = 2.0) -> list[bool]:
    return [bool(one) for one in loses_more(np.array([lost]), np.array([sent]), at_least=at_least)[0]]


@pytest.mark.parametrize(
    ("lost", "sent", "expected"),
    [
        ([0, 20], [1000, 100], True),
        ([0, 5], [1000, 1000], False),  # half a percentage point
        ([0, 1], [1000, 5], False),  # one segment is never clear
        ([200, 210], [1000, 1000], False),  # the path loses whatever is sent
        ([0, 12], [0, 28], True),  # nothing known of the default: it is thought to lose nothing
        ([0, 0], [0, 0], False),
        ([5, 500], [1000, 100], True),  # more lost than sent
    ],
)
def test_the_veto(lost: list[float], sent: list[float], expected: bool) -> None:
    assert vetoed(lost, sent) == [False, expected]


def test_two_connections_into_a_full_queue_are_enough() -> None:
    assert vetoed([0, 0, 10], [200, 140, 56]) == [False, False, True]


@settings(max_examples=500, deadline=None)
@given(
    st.lists(st.floats(0, 1e6), min_size=2, max_size=8),
    st.floats(0, 1e6),
    st.integers(1, 7),
    st.floats(1, 1e6),
    st.floats(0, 0.5),
)
def test_more_loss_never_lifts_a_veto(lost: list[float], more: float, arm: int, sent: float, base: float) -> None:
    arm = min(arm, len(lost) - 1)
    lost[0] = base * sent
    before = vetoed(lost, [sent] * len(lost))
    lost[arm] += more
    after = vetoed(lost, [sent] * len(lost))
    assert after[arm] or not before[arm]
    assert not after[0]
    assert [one for number, one in enumerate(after) if number != arm] == [
        one for number, one in enumerate(before) if number != arm
    ]


@pytest.mark.parametrize("loss", [0.005, 0.01, 0.03])
def test_loss_that_is_alike_is_seldom_taken_for_more(loss: float) -> None:
    random = np.random.default_rng(9)
    sent = np.broadcast_to(np.array([10, 14, 20, 28, 40, 56, 80]) * 8, (20_000, 7))
    found = loses_more(random.binomial(sent, loss).astype(np.float64), sent.astype(np.float64), at_least=2.0)
    assert found[:, 1:].mean() < 0.02
