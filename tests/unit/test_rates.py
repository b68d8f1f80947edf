"""How fast every path was seen to deliver and to answer: the greatest of late, whatever moves the rows about."""

from __future__ import annotations

import numpy as np
import pytest

from agent.rates import Rates
from agent.section import Section

PERIOD = 600.0


TRIPS = 20.0  # a second


def known(*rates: float) -> Rates:
    found = Rates(PERIOD)
    absorb(found, np.arange(len(rates)), np.array(rates), 0.0)
    return found


def absorb(found: Rates, rows: np.ndarray, rates: np.ndarray, now: float) -> None:
    found.absorb(rows, rates, np.full(len(rates), TRIPS), now)


def pipe(found: Rates, rows: np.ndarray) -> np.ndarray:
    return found.pipe(rows, found.of(rows))


def test_what_a_path_holds() -> None:
    """12 Mb/s for 50 ms are 75,000 bytes: 52 segments. Of the RTTs the least counts."""
    found, row = known(1.5e6), np.array([0])
    assert pipe(found, row) == pytest.approx([75_000 / 1448])
    found.absorb(row, np.array([0.0]), np.array([2 * TRIPS]), 1.0)
    found.absorb(row, np.array([0.0]), np.array([TRIPS]), 2.0)
    assert pipe(found, row) == pytest.approx([37_500 / 1448])


def test_of_what_nobody_saw_nothing_is_said() -> None:
    found = Rates(PERIOD)
    found.absorb(np.arange(2), np.array([0.0, 1e6]), np.array([TRIPS, 0.0]), 0.0)
    assert pipe(found, np.arange(3)).tolist() == [0.0, 0.0, 0.0]


def test_the_greatest_counts() -> None:
    found = known(0.0, 5e6)
    absorb(found, np.array([1, 0, 1, 0]), np.array([2e6, 1e6, 7e6, 3e6]), 1.0)
    assert found.of(np.array([1, 0, 2])).tolist() == [7e6, 3e6, 0.0]


def test_what_is_no_longer_seen_goes_after_two_periods_with_traffic() -> None:
    found, row = known(8e6), np.array([0])
    for now, expected in ((PERIOD, 8e6), (1.5 * PERIOD, 8e6), (2.4 * PERIOD, 8e6), (2.6 * PERIOD, 2e6)):
        absorb(found, row, np.array([2e6]), now)
        assert found.of(row) == pytest.approx(expected), now


def test_a_path_without_traffic_keeps_its_rate() -> None:
    found, row = known(8e6), np.array([0])
    absorb(found, row, np.array([0.0]), 100 * PERIOD)  # a connection that told none
    assert found.of(row) == 8e6
    absorb(found, row, np.array([1e6]), 101 * PERIOD)
    assert found.of(row) == 8e6


def test_another_path_begins_anew() -> None:
    found = known(8e6, 3e6)
    found.forget(np.array([0]))
    assert found.of(np.arange(2)).tolist() == [0.0, 3e6]


def test_rows_that_move_take_theirs_along() -> None:
    found = known(1e6, 2e6, 3e6)
    found.keep(np.array([0, 2]))
    absorb(found, np.array([2]), np.array([9e6]), 1.0)
    assert found.of(np.arange(4)).tolist() == [1e6, 3e6, 9e6, 0.0]


def test_they_outlive_the_process() -> None:
    sections = known(1e6, 2e6, 3e6).dump(np.array([2, 0]))
    found = Rates(PERIOD)
    found.load(sections, np.array([4, -1]))
    assert found.of(np.arange(5)).tolist() == [0.0, 0.0, 0.0, 0.0, 3e6]
    assert pipe(found, np.array([0, 4])).tolist() == pytest.approx([0.0, 3e6 / TRIPS / 1448])


@pytest.mark.parametrize(
    "rate",
    [
        np.array([1.0, 2.0]),
        np.ones((2, 2), np.float32),
        np.ones(3, np.float32),
        np.array([np.nan, np.inf], np.float32),
        np.array([-1.0, 1e30], np.float32),
    ],
)
def test_what_cannot_be_is_ignored(rate: np.ndarray) -> None:
    found = Rates(PERIOD)
    found.load({"rates": Section({}, {"rate": rate, "trips": rate * 1e6})}, np.arange(2))
    found.load({"rates": Section({}, {})}, np.arange(2))
    found.load({}, np.arange(2))
    assert found.of(np.arange(2)).tolist() == [0.0, 0.0]
    assert pipe(found, np.arange(2)).tolist() == [0.0, 0.0]
