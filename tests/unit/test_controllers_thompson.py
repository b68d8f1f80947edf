"""Congestion control and ACK policy: the faster arm gets most connections, the one that retransmits does not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simulated_paths import Copies, Truth

from controllers import Arm, Decision, Evidence, Field
from controllers.ack import AckThompson
from controllers.base import Controller, Floats
from controllers.congestion import CongestionThompson
from controllers.thompson import REASONS

BOTH = pytest.mark.parametrize("law", [CongestionThompson, AckThompson])


def known(counts: list[float], times: list[float], again: list[float] | None = None, *, spread: float = 0.3) -> Floats:
    """One path's sums of transfers of 700 segments: `times` are log2, `again` the share of retransmitted segments."""
    count = np.array(counts, np.float64)
    log = np.array(times, np.float64)
    sums = np.zeros((1, len(counts), len(Field)), np.float32)
    for field in (Field.TRANSFERS, Field.CLOSED, Field.RTT, Field.BASE_RTT):
        sums[0, :, field] = count
    sums[0, :, Field.LOG_TIME] = count * log
    sums[0, :, Field.LOG_TIME_SQUARED] = count * (log**2 + spread**2)
    sums[0, :, Field.SEGMENTS] = 700 * count
    sums[0, :, Field.RETRANSMITTED] = 700 * count * np.array(again or [0.0] * len(counts))
    return sums


def decide(law: type[Controller], sums: Floats) -> Decision:
    arms = tuple(Arm(f"arm{number}") for number in range(sums.shape[1]))
    return law().step(0.0, Evidence(arms, sums))


def why(decision: Decision) -> str:
    return REASONS[decision.reason[0]]


@BOTH
@pytest.mark.parametrize("arms", [2, 4, 8])
def test_a_clearly_faster_arm_gets_most(law: type[Controller], arms: int) -> None:
    for best in range(arms):
        decision = decide(law, known([50] * arms, [-1.0 if arm == best else 0.0 for arm in range(arms)]))
        assert decision.chosen[0] == best
        assert decision.probabilities[0, best] > 0.75
        # What is left to the others costs the path about 1 % an arm at the most.
        assert (decision.probabilities[0] > 0.0025).all()
        assert why(decision) == ("best by time, retransmissions and round-trip time" if best else REASONS[3])


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.integers(6, 500), min_size=3, max_size=3),
    st.lists(st.floats(-2, 2), min_size=3, max_size=3),
    st.integers(0, 2),
    st.floats(0, 3),
)
@BOTH
def test_being_slower_never_helps(
    law: type[Controller], counts: list[float], times: list[float], arm: int, more: float
) -> None:
    before = decide(law, known(counts, times))
    times[arm] += more
    after = decide(law, known(counts, times))
    # The leader's own doubt is in the others' odds; where the lead changes hands these move a little.
    assert after.probabilities[0, arm] <= before.probabilities[0, arm] + 0.06
    assert before.chosen[0] == arm or after.chosen[0] != arm


@BOTH
def test_what_was_never_tried_is_tried(law: type[Controller]) -> None:
    decision = decide(law, known([50, 0, 3, 50], [0, 0, 0, 0]))
    assert decision.probabilities[0, 1] >= 0.25
    assert decision.probabilities[0, 2] >= 0.25
    assert why(decision) == "comparing: the arms have too few transfers"


@BOTH
def test_no_arm_is_ever_without_a_chance(law: type[Controller]) -> None:
    decision = decide(law, known([500] * 4, [0, 3, 3, 3], [0, 0, 0.3, 0.3]))
    assert (decision.probabilities[0] > 0).all()
    # Eight times as slow: what they are drawn for makes the path's transfers at most 1 % an arm slower.
    assert decision.probabilities[0, 1:].sum() * 7 < 0.031


@BOTH
def test_a_hopeless_arm_is_not_compared_to_the_end(law: type[Controller]) -> None:
    """Twice seen and 2.5 times as slow: the other four trials would cost more than they tell."""
    decision = decide(law, known([30, 2], [0, 1.3], spread=0.1))
    assert decision.probabilities[0, 0] > 0.95
    close = decide(law, known([30, 2], [0, 0.1], spread=0.1))
    assert close.probabilities[0, 1] > 0.4
    # The other way round: twice seen and clearly the best is enough to be chosen.
    assert decide(law, known([30, 2], [0, -3], spread=0.1)).chosen[0] == 1
    assert decide(law, known([30, 2], [0, -0.1], spread=0.1)).chosen[0] == 0


@BOTH
def test_what_is_settled(law: type[Controller]) -> None:
    for times, settled in (([0, -2, 0.1], True), ([0, -0.06, -0.05], False), ([0, -2, -2], False), ([-1, 0, 0], True)):
        decision = decide(law, known([50] * 3, times, spread=0.1))  # type: ignore[arg-type]
        assert decision.settled is not None
        assert decision.settled[0] == settled
    for sums in (known([2, 2], [0, -0.7]), known([50], [0]), known([0, 0], [0, 0])):
        decision = decide(law, sums)
        assert decision.settled is not None
        assert not decision.settled[0]


@BOTH
def test_without_a_gain_the_default_is_held_to_be_best(law: type[Controller]) -> None:
    decision = decide(law, known([100, 100], [0, -0.005]))
    assert decision.chosen[0] == 0
    assert why(decision) == "none is better than the kernel's default"


@BOTH
def test_what_has_faded_away_is_not_compared(law: type[Controller]) -> None:
    decision = decide(law, known([50, 50], [0, -1]) * np.float32(0.5**10))
    assert decision.probabilities[0, 0] == 1
    assert why(decision) == "no evidence yet: the kernel's default"


@given(st.floats(0, 1.4), st.integers(40, 1000), st.floats(0.03, 0.5), st.floats(0, 0.2))
@settings(max_examples=200, deadline=None)
def test_who_retransmits_more_is_vetoed_however_fast(gain: float, count: int, excess: float, base: float) -> None:
    decision = decide(CongestionThompson, known([count, count], [0, -gain], [base, base + excess], spread=0.1))
    assert decision.chosen[0] == 0
    assert decision.probabilities[0, 1] < 0.02


def test_one_percentage_point_more_is_allowed() -> None:
    decision = decide(CongestionThompson, known([500, 500], [0, -0.5], [0.02, 0.029]))
    assert decision.chosen[0] == 1
    assert decision.probabilities[0, 1] > 0.9


def test_a_few_retransmissions_more_have_their_price() -> None:
    alike, more = (known([500, 500], [0, -0.12], again, spread=0.1) for again in ([0.02, 0.02], [0.02, 0.029]))
    assert decide(CongestionThompson, alike).chosen[0] == 1
    assert decide(CongestionThompson, more).chosen[0] == 0


def test_speed_spares_an_algorithm_the_veto_at_first_and_within_bounds() -> None:
    for gain, transfers, again, chosen in (
        (1.5, 20, 0.04, 0), (3.0, 20, 0.04, 1), (3.0, 20, 0.2, 0), (3.0, 40, 0.04, 0), (4.0, 100, 0.04, 0)
    ):  # fmt: skip
        decision = decide(CongestionThompson, known([20, transfers], [0, -gain], [0, again]))
        assert decision.chosen[0] == chosen
        assert (why(decision) == "the faster arm retransmits too much") == (chosen == 0)


def test_few_losses_are_never_clear() -> None:
    sums = known([8, 8], [0, -1])
    sums[0, 1, Field.SEGMENTS] = 100
    sums[0, 1, Field.RETRANSMITTED] = 9
    assert decide(CongestionThompson, sums).probabilities[0, 1] > 0.5


def test_a_full_queue_has_its_price() -> None:
    sums = known([400, 400], [0, -0.12], spread=0.1)
    assert decide(CongestionThompson, sums).chosen[0] == 1
    sums[0, 1, Field.RTT] *= 4
    assert decide(CongestionThompson, sums).chosen[0] == 0


def test_retransmissions_do_not_count_for_received_data() -> None:
    assert decide(AckThompson, known([100, 100], [0, -1], [0, 0.5])).chosen[0] == 1


@pytest.mark.parametrize(("slower", "chosen"), [(0.0, 1), (0.1, 0)])
def test_fewer_acks_are_worth_a_little(slower: float, chosen: int) -> None:
    """At equal times the arm that sends fewer ACKs wins; not if transfers take 7 % longer."""
    sums = known([400, 400], [0, slower], spread=0.1)
    sums[..., Field.RECEIVED_SEGMENTS] = 30_000
    sums[..., Field.ACKS] = [15_000, 4_500]
    assert decide(AckThompson, sums).chosen[0] == chosen


# From here on: many copies of a path whose truth is known, ten connections a step.


def test_the_faster_algorithm_is_found_and_lost_again_when_it_loses_packets() -> None:
    faster = Truth((400, 300), (0.002, 0.006), spread=0.3, segments=700)
    copies = Copies(CongestionThompson, faster)
    assert 10 * copies.steps_until([1], most=20) <= 200
    assert copies.run(100)[:, 1].mean() > 0.9
    copies.truth = Truth((400, 300), (0.002, 0.05), spread=0.3, segments=700)
    assert 10 * copies.steps_until([0], most=30) <= 300
    assert copies.run(100)[:, 0].mean() > 0.9
    copies.truth = faster
    assert 10 * copies.steps_until([1], most=200) <= 2000


def test_the_default_stays_where_the_other_is_slower() -> None:
    copies = Copies(CongestionThompson, Truth((300, 330), (0.0, 0.0), spread=0.5))
    copies.run(50)
    shares = copies.run(100)
    assert (copies.decision.chosen == 0).mean() > 0.9
    assert shares[:, 0].mean() > 0.85


def test_the_best_of_four_is_found() -> None:
    copies = Copies(CongestionThompson, Truth((400, 380, 300, 500), (0.0,) * 4, spread=0.5))
    assert 10 * copies.steps_until([2], most=30) <= 300
    assert copies.run(100)[:, 2].mean() > 0.8


def test_random_loss_alike_vetoes_nobody() -> None:
    copies = Copies(CongestionThompson, Truth((2000, 1000), (0.01, 0.01), spread=0.5))
    copies.run(30)
    assert (copies.decision.chosen == 1).mean() > 0.97
    assert copies.run(100)[:, 1].mean() > 0.9


def test_a_sooner_ack_that_helps_is_kept() -> None:
    copies = Copies(AckThompson, Truth((240, 200), (0.0, 0.0), spread=0.3))
    assert 10 * copies.steps_until([1], most=40) <= 400
    assert copies.run(100)[:, 1].mean() > 0.85
