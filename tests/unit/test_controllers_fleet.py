"""What a fleet teaches: enough to begin with, and never more than a few connections are worth, whatever it says."""

from __future__ import annotations

import numpy as np
import pytest
from handmade import absorb, still_tuner
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from controllers import Arm, Evidence, Field
from controllers.base import Floats
from controllers.congestion import CongestionThompson
from controllers.fleet import MOST_GAIN, MOST_PRECISION, MOST_TRUST, Total, experience, of_fleet
from controllers.inheritance import GROUP, NETWORK, STATISTICS, Pooled, inherit, pooled
from controllers.initial_window import InitialWindowTrial

ARMS = (Arm("default"), Arm("one", 20), Arm("two", 40))
NOTHING = np.zeros((1, 3, len(Field)), np.float32)
NO_PATHS = np.zeros((1, 3, STATISTICS), np.float32)


def totals(*hosts: tuple[float, float, float, float]) -> Floats:
    """What recording rules give for hosts of (gain, precision, safe, unsafe), alike for both arms; one group."""
    result = np.zeros((1, 3, len(Total)))
    for gain, precision, safe, unsafe in hosts:
        result[0, 1:] += (1, precision, precision * gain, precision * gain**2, safe, unsafe)
    return result


def shares(law: InitialWindowTrial | CongestionThompson, sums: Floats, own: Floats = NOTHING) -> Floats:
    prior = inherit(NO_PATHS, (of_fleet(sums),))
    found: Floats = law.step(0.0, Evidence(ARMS, own, prior)).probabilities[0]
    return found


def test_the_mean_of_the_hosts_counts_each_by_its_precision() -> None:
    found = of_fleet(totals((0.5, 12.0, 0, 0), (-0.5, 4.0, 0, 0)))
    assert found.gain[0].tolist() == pytest.approx([0, 0.25, 0.25])


def test_hosts_that_differ_teach_less_than_hosts_that_agree() -> None:
    one, agree, differ = (
        of_fleet(totals(*((gain, 14.0, 0, 0) for gain in gains))).precision[0, 1]
        for gains in ([0.5], [0.5] * 6, [2.0, -1.0] * 3)
    )
    assert one < agree < MOST_PRECISION
    assert differ < 1.0 < one


def test_a_new_host_begins_with_the_algorithm_that_the_fleet_found() -> None:
    assert shares(CongestionThompson(), totals())[0] == 1
    assert shares(CongestionThompson(), totals((1.0, 13.0, 2, 0), (1.0, 13.0, 2, 0)))[1:].sum() > 0.6
    assert shares(CongestionThompson(), totals((-1.0, 13.0, 2, 0), (-1.0, 13.0, 2, 0)))[0] > 0.45


def test_windows_that_lost_nowhere_get_half_of_the_connections_at_most() -> None:
    safe = shares(InitialWindowTrial(), totals(*[(1.0, 13.0, 3, 0)] * 1000))
    assert 0.4 < safe[1:].sum() <= MOST_TRUST
    # Too few paths tried them, or too many lost by them.
    assert shares(InitialWindowTrial(), totals((1.0, 13.0, 2, 0)))[0] == 1
    assert shares(InitialWindowTrial(), totals(*[(1.0, 13.0, 3, 3)] * 1000))[0] > 0.7


def test_what_the_hosts_own_paths_found_out_outweighs_the_fleet() -> None:
    slower = np.zeros((1, 3, STATISTICS), np.float32)
    slower[0, 1:, :4] = (200, -120, 75, 2)
    for kinship in (NETWORK, GROUP):
        prior = inherit(NO_PATHS, (pooled(slower, kinship), of_fleet(totals(*[(0.6, 16.0, 3, 0)] * 50))))
        assert prior.gain[0, 1] < 0


def test_what_a_host_tells_is_what_its_own_paths_found_out() -> None:
    tuner = still_tuner()
    for number in range(4):
        for arm, log_time in ((0, 18), (1, 17)):
            absorb(tuner, f"198.51.{number}.0/24", arm=arm, log_time=log_time, transfers=20)
    tuner.decide(0.0)
    own = tuner.networks.experience(0)
    assert own.gain[0, 1] == pytest.approx(1, abs=0.05)
    assert own.precision[0, 1] > 10
    assert own.precision[0, 2:].tolist() == [0] * (own.precision.shape[1] - 2)
    assert (own.safe >= 0).all()
    assert (own.unsafe == 0).all()
    # No echo: what others tell is never handed on.
    arms = own.gain.shape[1]
    lie = np.zeros((2, arms, len(Total)))
    lie[:, 1:] = (9, 90, -90, 90, 9, 0)
    tuner.networks.fleet[0] = of_fleet(lie)
    tuner.decide(60.0)
    again = tuner.networks.experience(0)
    np.testing.assert_allclose(again.gain, own.gain, atol=1e-6)
    np.testing.assert_allclose(again.safe, own.safe)


def test_counts_of_paths_are_told_as_they_are() -> None:
    sums = np.zeros((1, 2, STATISTICS), np.float32)
    sums[0, 1, 10:12] = (5, 2)
    told = experience(pooled(sums, GROUP))
    assert (told.safe[0, 1], told.unsafe[0, 1]) == (5, 2)


@given(
    arrays.arrays(
        np.float64, (2, 3, len(Total)),
        elements=st.one_of(st.floats(), st.sampled_from([0.0, 1.0, 1e300, -1e300, 5e-324])),
    )
)  # fmt: skip
def test_whatever_the_sums_are_the_fleet_is_worth_a_few_connections(sums: Floats) -> None:
    found = of_fleet(sums)
    for name in Pooled.__dataclass_fields__:
        assert np.isfinite(getattr(found, name)).all(), name
    assert (np.abs(found.gain) <= MOST_GAIN).all()
    assert (found.precision >= 0).all()
    assert (found.precision <= MOST_PRECISION).all()
    assert (found.precision[:, 0] == 0).all()
    prior = inherit(np.zeros((2, 3, STATISTICS), np.float32), (found,))
    assert (prior.trust <= MOST_TRUST).all()
    assert (prior.segments == 0).all()
    for law in (InitialWindowTrial(), CongestionThompson()):
        given = law.step(0.0, Evidence(ARMS, np.zeros((2, 3, len(Field)), np.float32), prior)).probabilities
        assert np.isfinite(given).all()
        np.testing.assert_allclose(given.sum(axis=1), 1, atol=1e-5)
