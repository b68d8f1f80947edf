"""What every controller owes its callers, whatever the evidence."""

from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numbers
from many_paths import reference

from controllers import LAWS, Arm, Decision, Evidence, Field
from controllers.base import Floats
from controllers.thompson import likely_best

EVERY_LAW = pytest.mark.parametrize("law", LAWS.values(), ids=[f"{dimension}-{law}" for dimension, law in LAWS])
# Logarithms may be negative; everything else is a count or a sum of times.
SIGNED = (Field.LOG_TIME, Field.LOG_BYTES, Field.LOG_TIME_BYTES)


def evidence(sums: Floats) -> Evidence:
    return Evidence(tuple(Arm(f"arm{number}", number) for number in range(sums.shape[1])), sums)


def sound(decision: Decision, given_to: Evidence) -> None:
    """Raises if a decision is out of its bounds."""
    paths, arms = given_to.sums.shape[:2]
    assert decision.probabilities.shape == (paths, arms)
    assert np.isfinite(decision.probabilities).all()
    assert (decision.probabilities >= 0).all()
    assert (decision.probabilities <= 1).all()
    np.testing.assert_allclose(decision.probabilities.sum(axis=1), 1, atol=1e-6)
    for numbers_of, names in ((decision.chosen, given_to.arms), (decision.reason, decision.reasons)):
        assert numbers_of.shape == (paths,)
        assert np.issubdtype(numbers_of.dtype, np.integer)
        assert ((numbers_of >= 0) & (numbers_of < len(names))).all()


@st.composite
def any_sums(draw: st.DrawFn) -> Floats:
    """Sums without NaN that need not fit each other: many zeros, small ones, huge ones."""
    shape = (draw(st.integers(0, 4)), draw(st.integers(1, 8)), len(Field))
    values = st.one_of(st.just(0.0), st.floats(0, 50, width=32), st.floats(0, 2.0**100, width=32))
    sums = draw(numbers.arrays(np.float32, shape, elements=values, fill=st.just(0.0)))
    for field in SIGNED:
        sums[:, :, field] *= draw(st.sampled_from([1, -1]))
    return sums


@EVERY_LAW
@settings(max_examples=300, deadline=None)
@given(sums=any_sums())
def test_a_decision_is_sound_whatever_the_evidence(law: type, sums: Floats) -> None:
    before = sums.copy()
    decision = law().step(0.0, evidence(sums))
    sound(decision, evidence(sums))
    np.testing.assert_array_equal(sums, before)


@EVERY_LAW
@settings(max_examples=50, deadline=None)
@given(sums=any_sums(), now=st.floats(0, 1e9))
def test_the_same_evidence_gives_the_same_decision(law: type, sums: Floats, now: float) -> None:
    one = law()
    first = one.step(0.0, evidence(sums))
    # Neither the clock, nor what was decided before, nor the other paths count.
    one.step(1.0, evidence(sums[::-1] * np.float32(2)))
    for again in (one.step(now, evidence(sums)), law().step(now, evidence(sums))):
        np.testing.assert_array_equal(first.probabilities, again.probabilities)
        np.testing.assert_array_equal(first.chosen, again.chosen)
        np.testing.assert_array_equal(first.reason, again.reason)
    for path in range(len(sums)):
        alone = law().step(now, evidence(sums[path : path + 1]))
        np.testing.assert_allclose(alone.probabilities[0], first.probabilities[path], atol=1e-6)
        assert alone.chosen[0] == first.chosen[path]


@EVERY_LAW
@pytest.mark.parametrize("arms", [1, 2, 7, 8])
def test_without_evidence_it_is_the_default(law: type, arms: int) -> None:
    nothing = evidence(np.zeros((3, arms, len(Field)), np.float32))
    decision = law().step(0.0, nothing)
    sound(decision, nothing)
    assert (decision.probabilities[:, 0] == 1).all()
    assert (decision.chosen == 0).all()
    assert {decision.reasons[reason] for reason in decision.reason} == {"no evidence yet: the kernel's default"}


@EVERY_LAW
def test_without_paths_there_is_nothing_to_decide(law: type) -> None:
    nobody = evidence(np.zeros((0, 7, len(Field)), np.float32))
    sound(law().step(0.0, nobody), nobody)


@EVERY_LAW
def test_a_dimension_that_is_off_has_only_the_default(law: type) -> None:
    sums = np.full((5, 1, len(Field)), 40, np.float32)
    decision = law().step(0.0, evidence(sums))
    sound(decision, evidence(sums))
    assert (decision.probabilities == 1).all()


@pytest.fixture(scope="module")
def many_sums() -> Floats:
    """Anything, of a hundred thousand paths."""
    return np.random.default_rng(5).gamma(2, 10, (100_000, 13, len(Field))).astype(np.float32)


@EVERY_LAW
@pytest.mark.parametrize("arms", [2, 8])
def test_a_hundred_thousand_paths_are_decided_at_once(law: type, arms: int, many_sums: Floats) -> None:
    many = evidence(many_sums[:, :arms])  # a part of a larger array, as the agent has it
    fastest = float("inf")
    for _ in range(3):
        times = reference()
        began = time.process_time()
        decision = law().step(0.0, many)
        took = 1000 * (time.process_time() - began)
        fastest = min(fastest, 2 * took / (times + reference()))
    sound(decision, many)
    print(f"{fastest:.1f} times the reference")  # 0.2 to 7 were measured
    assert fastest < 12


def test_likely_best_is_close_to_the_true_probability() -> None:
    random = np.random.default_rng(6)
    centre, spread = random.normal(0, 0.3, (40, 4)), random.uniform(0.02, 0.5, (40, 4))
    drawn = (centre + spread * random.standard_normal((20_000, 40, 4))).argmax(axis=2)
    truth = (drawn[:, :, None] == np.arange(4)).mean(axis=0)
    found = likely_best(centre, spread, np.ones((40, 4), np.bool_))
    np.testing.assert_allclose(found.sum(axis=1), 1)
    assert np.abs(found - truth).mean() < 0.03
    assert np.abs(found - truth).max() < 0.2
    two = likely_best(centre[:, :2], spread[:, :2], np.ones((40, 2), np.bool_))
    drawn = (centre[:, :2] + spread[:, :2] * random.standard_normal((20_000, 40, 2))).argmax(axis=2)
    np.testing.assert_allclose(two[:, 1], drawn.mean(axis=0), atol=0.02)
    np.testing.assert_allclose(likely_best(np.zeros((1, 8)), np.ones((1, 8)), np.ones((1, 8), np.bool_)), 1 / 8)


def test_what_is_not_allowed_is_never_likely_best() -> None:
    allowed = np.array([[True, False, True]])
    found = likely_best(np.array([[0.0, 5.0, 0.1]]), np.full((1, 3), 0.1), allowed)
    assert found[0, 1] == 0
    assert found[0, 2] > found[0, 0] > 0
