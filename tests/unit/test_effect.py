"""The proof as the agent makes it: which evidence is compared with which, and how people read it."""

from __future__ import annotations

import math

import pytest
from handmade import StillAgent, absorb, still_tuner

from agent.display import NOTHING, uplift
from agent.effect import COMPARED
from agent.page import render
from agent.status import status
from agent.tuner import Tuner


@pytest.fixture
def tuner() -> Tuner:
    """Holdout 2^18 us, default window 2^17, larger windows 2^16 and 2^15: 12 transfers each; on a second path alike,
    everything four times as slow."""
    made = still_tuner()
    for network, slower in (("203.0.113.0/24", 0), ("203.0.114.0/24", 2)):
        absorb(made, network, treatment="HOLDOUT", log_time=18 + slower, closed=12)
        for arm in range(3):
            absorb(made, network, arm=arm, log_time=17 + slower - arm, closed=12)
    absorb(made, "198.51.100.0/24", group=1, closed=12)
    for turn in range(len(COMPARED)):
        made.decide(float(turn))
    return made


def test_all_is_against_the_holdout_and_a_dimension_against_its_default(tuner: Tuner) -> None:
    found = tuner.effect.uplifts
    assert tuple(found) == COMPARED
    # log2: 18 against the mean of 17, 16 and 15; the window's default 17 against the mean of 16 and 15.
    assert found["all"].ratio[0] == pytest.approx(1 - 2**-2)
    assert found["initial_window"].ratio[0] == pytest.approx(1 - 2**-1.5)
    assert math.isnan(found["congestion"].ratio[0])  # everybody had the default
    assert math.isnan(found["all"].ratio[1])  # a group without holdout


def test_received_transfers_are_what_the_ack_policy_is_judged_by(tuner: Tuner) -> None:
    row = tuner.store.groups
    ack = tuner.store.of(2).sums[row]
    ack[:] = 0.0
    ack[:, 0] = 10  # transfers
    ack[1, 1] = -10 * 1.0  # log2 of the time
    ack[:, 3] = [0, 10]
    ack[:, 6] = 10  # connections
    for turn in range(len(COMPARED)):
        tuner.decide(10.0 + turn)
    assert tuner.effect.uplifts["ack"].ratio[0] == pytest.approx(0.5)


def test_one_comparison_a_step_all_of_them_in_turn() -> None:
    made = still_tuner()  # decided once already
    seen = [tuple(made.effect.uplifts)]
    for turn in range(4):
        made.decide(float(turn))
        seen.append(tuple(made.effect.uplifts))
    assert seen == [COMPARED[:1], COMPARED[:2], COMPARED[:3], COMPARED, COMPARED]


def test_status_and_page(tuner: Tuner) -> None:
    facts = status(StillAgent(tuner).snapshot)
    default, cdn = facts["groups"]
    shown = default["uplift"]["all"]
    assert shown["ratio"] == pytest.approx(0.75)
    assert shown["lower"] < 0.75 < shown["upper"]
    assert cdn["uplift"] == dict.fromkeys(COMPARED)
    assert f">{uplift(shown)}<" in render(facts, ready=True, paths=None, findings=(), refresh=False)


@pytest.mark.parametrize(
    ("ratio", "lower", "upper", "text"),
    [
        (0.21, 0.17, 0.25, "21 % faster (95 %: 17 to 25 %)"),
        (0.02, -0.031, 0.07, "2 % faster (95 %: -3 to 7 %)"),
        (-0.4, -0.61, -0.2, "40 % slower (95 %: 20 to 61 %)"),
        (-0.001, -0.004, 0.002, "0 % faster (95 %: 0 to 0 %)"),
    ],
)
def test_as_people_read_it(ratio: float, lower: float, upper: float, text: str) -> None:
    assert uplift({"ratio": ratio, "lower": lower, "upper": upper}) == text


def test_unknown_is_a_dash() -> None:
    assert uplift(None) == NOTHING
