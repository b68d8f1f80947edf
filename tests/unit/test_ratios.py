"""Ratios and their intervals."""

from __future__ import annotations

import numpy as np
import pytest

from agent.lab.ratios import Ratio, paired_ratio, quantile_ratio


def test_a_constant_ratio_is_certain() -> None:
    assert paired_ratio([2.0, 4.0, 8.0], [1.0, 2.0, 4.0]) == Ratio(2.0, 2.0, 2.0)


def test_what_disturbs_a_round_cancels_out() -> None:
    rounds = np.random.default_rng(7).lognormal(0, 1, 40)
    ratio = paired_ratio((1.1 * rounds).tolist(), rounds.tolist())
    assert ratio.value == pytest.approx(1.1)
    assert ratio.high - ratio.low < 1e-9


def test_one_disturbed_run_is_not_followed() -> None:
    baseline = [1.0] * 20
    assert paired_ratio([1.05] * 19 + [50.0], baseline).value == pytest.approx(1.05)


def test_about_95_of_100_intervals_hold_the_truth() -> None:
    rng = np.random.default_rng(3)
    held = 0
    for _ in range(100):
        ratio = paired_ratio(rng.lognormal(np.log(1.2), 0.3, 40).tolist(), [1.0] * 40)
        held += ratio.low <= 1.2 <= ratio.high
    assert 88 <= held <= 100


def test_a_quantile_of_independent_samples() -> None:
    rng = np.random.default_rng(5)
    ratio = quantile_ratio((2 * rng.lognormal(0, 0.2, 900)).tolist(), rng.lognormal(0, 0.2, 500).tolist(), 0.99)
    assert ratio.low < 2 < ratio.high
    assert ratio.low > 1
    assert ratio.high < 4


def test_the_same_measurements_give_the_same_interval() -> None:
    samples = np.random.default_rng(5).lognormal(0, 1, 30).tolist()
    assert quantile_ratio(samples, samples[::2], 0.5) == quantile_ratio(samples, samples[::2], 0.5)
