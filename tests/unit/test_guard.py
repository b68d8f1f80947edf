"""The guard: harm is stopped soon, false alarms are rare, quarantines grow and are forgiven; time is driven by hand."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from simulated_harm import HOLDOUT, NOISES, Paths, Truth

from controllers import Decision, Field
from controllers.guard import ALL, BEYOND_DOUBT, MOST_JUDGED, WIDESPREAD, WIDESPREAD_PATHS, Event, Guard
from controllers.harm import HARMS, Harm, Seen, evidence_of_each, measure
from controllers.holdout import probation_holdout
from controllers.trials import FORGIVEN, QUARANTINE, QUARANTINE_MOST

HARMFUL = {
    "twice as slow": (Truth(slower=1.0), Harm.TIME),
    "half as slow again": (Truth(slower=0.585), Harm.TIME),
    "thirteen times as slow": (Truth(slower=3.7, noise="student"), Harm.TIME),
    "a sixth of the first window lost": (Truth(first_window=(0.0, 0.17), burst=0.0), Harm.FIRST_WINDOW),
    "a third of it where others lose a tenth": (Truth(first_window=(0.1, 0.35), burst=0.0), Harm.FIRST_WINDOW),
    "a tenth sent again": (Truth(again=(0.01, 0.12)), Harm.RETRANSMISSION),
    "most of the first window lost, so sent again": (
        Truth(slower=0.4, first_window=(0.0, 0.6), burst=0.8, again=(0.05, 0.4)),
        Harm.FIRST_WINDOW,
    ),
}


def began(events: list[Event]) -> list[Event]:
    return [event for event in events if event.until is not None]


# --- harm is found ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", HARMFUL)
def test_a_sabotaged_path_is_caught_within_150_connections(name: str) -> None:
    """Paths one by one, so that what is found on others does not help."""
    truth, kind = HARMFUL[name]
    caught = []
    for seed in range(60):
        one = Paths(1, seed=seed)
        events = began(one.run(truth, looks=30, connections=5))
        caught.append(one.caught[0])
        assert {event.kind for event in events} <= {kind}
        assert all(event.row == 0 and event.worse > 0 for event in events)
    assert np.mean(np.array(caught) <= 150) >= 0.95


def test_harm_spread_over_paths_of_a_few_connections_is_found_too() -> None:
    """No path has enough to be judged by; all together have."""
    for truth, kind in HARMFUL.values():
        many = Paths(300)
        (event,) = began(many.run(truth, looks=6, connections=1))
        assert (event.row, event.kind) == (ALL, kind)
        assert many.guard.off


def test_harm_that_comes_late_is_found() -> None:
    """After a long time without harm, and after a long time of gain."""
    for before in (Truth(), Truth(slower=-0.5)):
        for seed in range(10):
            one = Paths(1, seed=seed)
            assert began(one.run(before, looks=150, connections=20)) == []
            (event,) = began(one.run(Truth(slower=1.0), looks=90, connections=10))
            assert event.row == 0
            assert one.caught[0] <= 3000 + 900


def test_after_a_quarantine_harm_is_found_as_fast_as_before() -> None:
    one = Paths(1)
    (first,) = began(one.run(Truth(slower=1.0), looks=30, connections=5))
    assert one.guard.quarantined[0]
    assert first.until is not None
    one.run(Truth(), looks=int((first.until - one.now) / 5), connections=5)
    assert not one.guard.quarantined[0]
    assert one.guard.on_probation(0)
    before = one.connections[0]
    one.caught[0] = np.inf
    one.run(Truth(slower=1.0), looks=30, connections=5)
    assert one.guard.quarantined[0]
    assert one.caught[0] - before <= 150


# --- and nothing else -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("noise", "paths", "looks", "connections", "every"),
    [
        *((noise, 400, 432, 20, 200.0) for noise in NOISES),
        *((noise, 400, 1440, 1, 60.0) for noise in ("normal", "student")),
        *(pytest.param(noise, 60, 1440, 60, 60.0, marks=pytest.mark.long) for noise in ("normal", "near")),
    ],
)
def test_false_alarms_are_rarer_than_one_in_a_hundred_days(
    noise: str, paths: int, looks: int, connections: int, every: float
) -> None:
    """A day of many paths without harm: heavy tails, bursts of loss, hours that are twice as slow as others."""
    day = Paths(paths, look=every)
    events = began(day.run(Truth(noise=noise, daily=0.5), looks=looks, connections=connections))
    assert sum(event.row != ALL for event in events) <= 0.01 * paths
    assert not [event for event in events if event.row == ALL]


def test_looking_after_every_connection_makes_no_false_alarms() -> None:
    often = Paths(300, look=1.0)
    assert began(often.run(Truth(), looks=2000, connections=1)) == []


def test_what_costs_less_than_is_tolerated_is_no_harm() -> None:
    """One percent of the time, and half a percentage point."""
    truth = Truth(slower=np.log2(1.01), first_window=(0.03, 0.035), again=(0.01, 0.015))
    assert began(Paths(100, look=60.0).run(truth, looks=300, connections=60)) == []


def test_a_gain_is_no_harm() -> None:
    truth = Truth(slower=-1.0, first_window=(0.05, 0.01), again=(0.05, 0.02))
    assert began(Paths(50, look=60.0).run(truth, looks=300, connections=60)) == []


def test_retransmissions_are_the_price_of_being_four_times_as_fast() -> None:
    """As the congestion control's veto; without the gain it is harm."""
    price = Truth(again=(0.01, 0.05), first_window=(0.0, 0.0))
    assert began(Paths(50).run(price.but(slower=-3.0), looks=100, connections=5)) == []
    assert began(Paths(50).run(price.but(slower=-1.0), looks=100, connections=5))


@pytest.mark.parametrize(("variance", "excused"), [(1e-6, True), (1.0, False)])
def test_a_gain_by_chance_is_no_excuse_for_retransmissions(variance: float, excused: bool) -> None:
    """More than four times as fast, beyond doubt or by a handful of connections that differ by as much."""
    found = replace(
        measure(np.zeros((1, 2, len(Seen)), np.float32)),
        worse=np.array([[-2.5], [0.0], [0.05]]), least=np.array([[variance], [1e-6], [1e-6]]),
        enough=np.ones((3, 1), np.bool_),
    )  # fmt: skip
    assert (evidence_of_each(found)[Harm.RETRANSMISSION, 0] > BEYOND_DOUBT) == (not excused)


def test_a_holdout_that_varies_more_than_the_treated_makes_no_false_alarms() -> None:
    """As where pacing or another algorithm makes times even."""
    day = Paths(400, look=200.0)
    assert began(day.run(Truth(noise="student", calm=0.3), looks=432, connections=20)) == []


def test_bursts_on_busy_paths_make_no_false_alarms() -> None:
    """Where a sample of the treated is many connections, and of the holdout one."""
    busy = Paths(40, look=1.0, together=True)
    assert began(busy.run(Truth(first_window=(0.1, 0.1), burst=0.9), looks=1500, connections=20)) == []


def test_many_transfers_of_one_connection_are_one_draw() -> None:
    """Two hosts with one connection each, open for hours; the slower one happens to be treated."""
    guard = Guard()
    random = np.random.default_rng(3)
    for step in range(500):
        samples = np.zeros((10, len(Field)))
        treated = np.arange(10) % 2 == 0
        log_time = random.normal(0, 0.1, 10) + 2.0 * treated
        samples[:, Field.TRANSFERS] = 1
        samples[:, Field.LOG_TIME], samples[:, Field.LOG_TIME_SQUARED] = log_time, log_time**2
        samples[:, Field.SEGMENTS], samples[:, Field.RETRANSMITTED] = 100, 20 * treated
        guard.absorb(np.zeros(10, np.intp), treated, samples)
        assert guard.step(float(step)) == []


@pytest.mark.parametrize("treated", [True, False])
def test_without_one_of_the_sides_nothing_is_judged(treated: bool) -> None:
    guard = Guard()
    samples = np.ones((200, len(Field)))
    guard.absorb(np.zeros(200, np.intp), np.full(200, treated), samples)
    assert guard.step(0.0) == []


# --- quarantine -------------------------------------------------------------------------------------------------------


def quarantined_again(guard: Guard, now: float, *, seed: int = 0) -> tuple[float, float]:
    """Harms path 0 until it goes into quarantine; returns when, and until when."""
    random = np.random.default_rng(seed)
    while True:
        treated = random.random(20) >= 0.2
        samples = np.zeros((20, len(Field)))
        samples[:, Field.TRANSFERS] = samples[:, Field.CLOSED] = 1
        log_time = random.normal(0, 0.2, 20) + treated
        samples[:, Field.LOG_TIME], samples[:, Field.LOG_TIME_SQUARED] = log_time, log_time**2
        guard.absorb(np.zeros(20, np.intp), treated, samples)
        now += 1.0
        for event in guard.step(now):
            if event.until is not None:
                return now, event.until


def test_quarantines_double_up_to_a_day() -> None:
    guard = Guard()
    guard.resize(2)
    now, lengths = 0.0, []
    for number in range(10):
        began_at, until = quarantined_again(guard, now, seed=number)
        lengths.append(until - began_at)
        assert guard.step(until - 1.0) == []
        (ended,) = guard.step(until)
        assert (ended.row, ended.until) == (0, None)
        now = until
    expected = [min(QUARANTINE * 2**number, QUARANTINE_MOST) for number in range(10)]
    assert lengths == pytest.approx(expected, rel=0.02)


def test_what_was_long_ago_is_forgiven_by_half_and_half_again() -> None:
    guard = Guard()
    now = 0.0
    for number in range(4):
        _, now = quarantined_again(guard, now, seed=number)
        guard.step(now)
    began_at, until = quarantined_again(guard, now + 2 * FORGIVEN, seed=9)
    # Four quarantines, of which one is left.
    assert until - began_at == pytest.approx(2 * QUARANTINE, rel=0.02)


def test_in_quarantine_nothing_counts_but_the_traffic() -> None:
    guard = Guard()
    now, until = quarantined_again(guard, 0.0)
    samples = np.ones((1000, len(Field)))
    samples[:500, Field.LOG_TIME] = 50.0
    guard.absorb(np.zeros(1000, np.intp), np.arange(1000) < 500, samples)
    assert guard.step(now + 1.0) == []
    (ended,) = guard.step(until)
    assert ended.until is None
    guard.absorb(np.zeros(1, np.intp), np.ones(1, np.bool_), samples[:1])
    assert guard.step(until + 1.0) == []


def test_when_paths_with_much_of_the_traffic_fail_all_is_switched_off() -> None:
    many = Paths(10)
    busy = np.zeros((200, len(Field)))
    busy[:, Field.CLOSED] = 1
    for row in range(WIDESPREAD_PATHS, 10):
        many.guard.absorb(np.full(200, row), np.arange(200) % 5 > 0, busy)
    many.guard.step(0.0)
    rows = many.guard._rows
    for row in range(WIDESPREAD_PATHS):
        assert not many.guard.off
        rows.quarantine(np.array([row]), 0.0, np.array([Harm.TIME]), np.array([1.0]))
        many.guard.absorb(np.full(400, row), np.arange(400) % 5 > 0, np.repeat(busy, 2, axis=0))
        events = many.guard.step(1.0 + row)
    (event,) = events
    assert (event.row, event.kind) == (ALL, WIDESPREAD)
    assert event.worse == pytest.approx(1200 / 2600, rel=0.01)


def test_quarantines_that_switched_all_off_do_not_do_it_again() -> None:
    """Though they outlast it."""
    guard = Guard()
    guard.resize(10)
    guard.step(0.0)
    guard._rows.level[:3], guard._rows.until[:3] = 3.0, 0.0
    guard._rows.quarantine(np.arange(3), 0.0, np.full(3, Harm.TIME), np.ones(3))
    busy = np.zeros((10, len(Field)))
    busy[:, Field.CLOSED] = 5
    begun = []
    for now in range(1, 4 * 3600, 5):
        guard.absorb(np.arange(10), np.ones(10, np.bool_), busy)
        begun += began(guard.step(float(now)))
    assert [(event.row, event.kind) for event in begun] == [(ALL, WIDESPREAD)]


def test_a_single_path_does_not_switch_off_the_others() -> None:
    """Even one that has nearly all of the traffic."""
    some = Paths(3)
    some.run(Truth(), looks=40, connections=2)
    now, _ = quarantined_again(some.guard, some.now)
    assert not some.guard.off
    assert some.guard.quarantined.tolist() == [True, False, False]
    assert some.guard.step(now + 1.0) == []


def test_a_path_that_goes_leaves_nothing_in_what_all_told() -> None:
    """It was faster for hours, most of which had faded there, before it began to lose first windows."""
    both, other = Guard(), Guard()
    random, now = np.random.default_rng(1), 0.0
    for look in range(2000):
        now += 5.0
        treated, samples = downloads(random, slower=-0.15)
        both.absorb(np.zeros(5, np.intp), treated, samples)
        if look > 1800:
            treated, samples = downloads(random)
            for guard in (both, other):
                guard.absorb(np.ones(5, np.intp), treated, samples)
        for guard in (both, other):
            guard.step(now)
    while not both.quarantined[0]:
        now += 1.0
        both.absorb(np.zeros(5, np.intp), *downloads(random, slower=-0.15, lost=10))
        for guard in (both, other):
            guard.step(now)
    assert not both.off
    np.testing.assert_allclose(both._pool[:2], other._pool[:2], atol=0.02)


def downloads(random: Any, *, slower: float = 0.0, lost: int = 0) -> tuple[Any, Any]:
    """Five connections, a fifth of them not treated: who is treated, and their samples."""
    treated = random.random(5) >= 0.2
    samples = np.zeros((5, len(Field)))
    samples[:, Field.TRANSFERS] = samples[:, Field.CLOSED] = 1
    log_time = random.normal(0, 0.3, 5) + slower * treated
    samples[:, Field.LOG_TIME], samples[:, Field.LOG_TIME_SQUARED] = log_time, log_time**2
    samples[:, Field.FIRST_WINDOW_SEGMENTS], samples[:, Field.FIRST_WINDOW_LOSSES] = 40, lost * treated
    return treated, samples


def test_everything_comes_back_after_its_time_on_probation() -> None:
    many = Paths(50)
    (event,) = began(many.run(Truth(slower=1.0), looks=4, connections=5))
    assert event.row == ALL
    assert event.until is not None
    assert (many.shares() == HOLDOUT).all()
    assert began(many.run(Truth(), looks=int((event.until - many.now) // 5), connections=5)) == []
    many.run(Truth(), looks=1, connections=5)
    assert not many.guard.off
    assert (many.shares() > HOLDOUT).all()


# --- the holdout ------------------------------------------------------------------------------------------------------


def test_probation_has_four_times_the_holdout_and_ends_after_200_connections() -> None:
    one = Paths(1)
    assert one.shares() == pytest.approx([0.2])
    one.run(Truth(), looks=39, connections=5)
    assert one.guard.on_probation(0)
    one.run(Truth(), looks=5, connections=5)
    assert not one.guard.on_probation(0)
    assert one.shares() == pytest.approx([0.05])


@pytest.mark.parametrize(("usual", "larger"), [(0.0, 0.0), (0.05, 0.2), (0.1, 0.4), (0.2, 0.5), (0.5, 0.5)])
def test_the_holdout_is_never_above_a_half_and_none_where_none_is_wanted(usual: float, larger: float) -> None:
    assert probation_holdout(usual) == pytest.approx(larger)


@pytest.mark.parametrize(
    ("times", "share"), [(1.0, 1.0), (1.5, 1.0), (1.9, 1.0), (3.3, 0.5), (6.0, 0.25), (13.0, 0.125), (1000.0, 0.125)]
)
def test_where_the_treated_are_much_faster_the_holdout_is_smaller(times: float, share: float) -> None:
    many = Paths(100)
    many.run(Truth(slower=-float(np.log2(times))), looks=120, connections=5)
    shares = many.shares()
    assert not many.guard.off
    assert np.median(shares) == pytest.approx(share * HOLDOUT)


def test_a_path_that_was_proven_and_turns_slow_has_its_holdout_again() -> None:
    some = Paths(20)
    some.run(Truth(slower=-3.7), looks=60, connections=5)
    assert (some.shares() < HOLDOUT / 4).all()
    some.run(Truth(slower=0.6), looks=5, connections=5)
    assert (some.shares() >= HOLDOUT / 2).mean() > 0.9


def test_a_path_that_was_in_quarantine_is_watched_as_closely_as_a_new_one() -> None:
    """Faster, but harmful by its losses: the speed it had is no reason for a smaller holdout afterwards."""
    one = Paths(1)
    one.run(Truth(slower=-3.7), looks=60, connections=5)
    assert one.shares()[0] < HOLDOUT / 4
    harmful = Truth(slower=-3.7, first_window=(0.0, 0.9), burst=0.0)
    while not (events := began(one.run(harmful, looks=1, connections=5))):
        assert one.connections[0] < 10_000
    assert {event.kind for event in events} == {Harm.FIRST_WINDOW}
    one.guard.step(max(event.until or 0.0 for event in events))
    assert not one.guard.off
    assert one.shares() == pytest.approx([4 * HOLDOUT])


def test_siblings_vouch_for_a_path_that_cannot_tell_yet() -> None:
    """By what the one of them gains least; not where there was harm, nor once the path itself can tell."""
    some = Paths(5)
    some.run(Truth(slower=-3.7), looks=60, connections=5)
    slow = Paths(5)
    slow.run(Truth(), looks=60, connections=5)
    guard = some.guard
    guard._rows.lately[4] = slow.guard._rows.lately[4]
    guard.resize(9)
    networks = np.array([0, 0, 1, 2, 2])
    vouched = guard.vouched(np.arange(5), networks, 4)
    assert vouched.tolist() == [3, 3, 0, 0]
    new, network = np.arange(5, 9), np.arange(4)
    assert guard.holdout(0.05, new, vouched[network]) == pytest.approx([0.025, 0.025, 0.2, 0.2])
    guard._rows.level[5], guard._rows.until[5] = 1.0, some.now
    guard._rows.lately[6] = slow.guard._rows.lately[3]
    assert guard.holdout(0.05, new, vouched[network]) == pytest.approx([0.2, 0.2, 0.2, 0.2])
    guard._rows.level[0], guard._rows.until[0] = 1.0, some.now
    assert guard.vouched(np.arange(5), networks, 4).tolist() == [0, 3, 0, 0]
    assert guard.remembered.tolist() == [0, 5]
    guard._rows.until[[0, 5]] -= 4 * FORGIVEN  # forgiven to a sixteenth
    assert guard.vouched(np.arange(5), networks, 4).tolist() == [3, 3, 0, 0]
    assert guard.remembered.tolist() == []


@pytest.mark.parametrize("noise", NOISES)
def test_a_gain_that_is_none_takes_no_holdout_away(noise: str) -> None:
    many = Paths(2000)
    for _ in range(10):
        many.run(Truth(noise=noise), looks=10, connections=5)
        assert (many.shares() < HOLDOUT).mean() <= 0.005


# --- what it does to decisions ----------------------------------------------------------------------------------------


def decision(paths: int, *, limit: bool = True) -> Decision:
    probabilities = np.tile([0.1, 0.2, 0.7], (paths, 1))
    return Decision(
        probabilities, np.full(paths, 2), np.zeros(paths, np.intp), ("because",), np.full(paths, 3) if limit else None
    )


@pytest.mark.parametrize("limit", [True, False])
def test_only_what_is_in_quarantine_gets_the_defaults(limit: bool) -> None:
    guard = Guard()
    quarantined_again(guard, 0.0)
    found = guard.restrained(decision(3, limit=limit), np.array([0, 1, 2]), everything=False)
    assert found.probabilities.tolist() == [[1, 0, 0], [0.1, 0.2, 0.7], [0.1, 0.2, 0.7]]
    assert found.chosen.tolist() == [0, 2, 2]
    assert [found.reasons[reason] for reason in found.reason] == [
        f"quarantined by the guard: {HARMS[Harm.TIME]}", "because", "because",
    ]  # fmt: skip
    assert found.limit is not None
    assert found.limit.tolist() == [1, 3, 3]
    some = guard.restrained(decision(2, limit=limit), np.array([2, 0]), everything=False)
    assert some.chosen.tolist() == [2, 0]
    assert (guard.restrained(decision(4), None, everything=False).chosen == 2).all()


def test_when_all_is_off_everybody_gets_the_defaults() -> None:
    guard = Guard()
    for rows in (np.arange(50), None):
        found = guard.restrained(decision(50), rows, everything=True)
        assert (found.probabilities == [1, 0, 0]).all()
        assert (found.chosen == 0).all()
        assert {found.reasons[reason] for reason in found.reason} == {
            "switched off by the guard: harm is widespread"
        }  # fmt: skip


@pytest.mark.parametrize("rows", [None, np.array([7, 3, 5])])
def test_without_quarantine_decisions_stand_as_they_are(rows: Any) -> None:
    """But for the reasons: their numbers must mean the same for all rows that are decided in parts."""
    given = decision(3)
    found = Guard().restrained(given, rows, everything=False)
    for name in ("probabilities", "chosen", "reason", "limit"):
        assert (getattr(found, name) == getattr(given, name)).all()
    assert found.reasons[:1] == given.reasons
    assert len(found.reasons) == 1 + len(HARMS) + 1


def test_rows_whose_treatment_changes_are_told() -> None:
    guard = Guard()
    guard.resize(3)
    now, until = quarantined_again(guard, 0.0)
    assert guard.touched.tolist() == [0]
    guard.step(now + 1.0)
    assert guard.touched.tolist() == []
    guard.step(until)
    assert guard.touched.tolist() == [0]
    one = Paths(2)
    one.run(Truth(), looks=35, connections=5)
    told: list[int] = []
    for _ in range(20):
        one.run(Truth(), looks=1, connections=5)
        told += one.guard.touched.tolist()
    assert sorted(told) == [0, 1]  # probation ended


# --- what outlives the process, and what paths are forgotten ----------------------------------------------------------


def test_what_is_saved_is_restored_wherever_the_path_is_now() -> None:
    guard = Guard()
    now, until = quarantined_again(guard, 1000.0)
    guard.resize(3)
    state = guard.dump(np.array([2, 0, 1]))
    reborn = Guard()
    reborn.load(state, np.array([-1, 4, 2]))
    reborn.resize(5)
    assert reborn.step(5.0) == []
    assert reborn.quarantined.tolist() == [False, False, False, False, True]
    why = reborn.why(4)
    assert why is not None
    assert why.until == pytest.approx(5.0 + until - now)
    assert (why.kind, reborn.remembered.tolist()) == (Harm.TIME, [4])
    assert reborn.why(0) is None


def test_a_switch_off_survives_too() -> None:
    many = Paths(50)
    many.run(Truth(slower=1.0), looks=4, connections=5)
    reborn = Guard()
    reborn.load(many.guard.dump(np.arange(50)), np.arange(50))
    reborn.step(77.0)
    assert reborn.off
    why = reborn.why(ALL)
    assert why is not None
    assert 0 < why.until - 77.0 <= QUARANTINE


def test_a_state_that_cannot_be_changes_nothing() -> None:
    good = Guard().dump(np.arange(3))
    rows = np.arange(3)
    for name in good:
        shape = good[name].shape
        for broken in (np.zeros(2), np.zeros((3, 3)), np.full(shape, np.nan), np.full(shape, 1e300)):
            guard = Guard()
            guard.load(good | {name: broken}, rows)
            guard.load({key: value for key, value in good.items() if key != name}, rows)
            guard.resize(3)
            for event in guard.step(1e9):
                assert event.until is None
            assert len(guard.restrained(decision(3), rows, everything=guard.off).chosen) == 3
            limit = guard.why(ALL)
            assert limit is None or limit.until <= 1e9 + QUARANTINE_MOST


def test_forgotten_paths_take_their_quarantine_with_them() -> None:
    guard = Guard()
    guard.resize(3)
    now, _ = quarantined_again(guard, 0.0)
    guard.keep(np.array([1, 0]))
    assert guard.quarantined.tolist() == [False, True]
    guard.keep(np.array([0]))
    assert guard.quarantined.tolist() == [False]
    assert guard.step(now + 1) == []


# --- many paths -------------------------------------------------------------------------------------------------------


def test_a_hundred_thousand_paths_take_turns() -> None:
    """All of them are judged in the end, and no step takes long."""
    guard = Guard()
    paths = 100_000
    random = np.random.default_rng(5)
    samples = random.random((paths, len(Field))) + 1
    for field in (Field.FIRST_WINDOW_LOSSES, Field.RETRANSMITTED):
        samples[:, field] = 0.0
    guard.absorb(np.arange(paths), random.random(paths) > 0.2, samples)
    longest = 0.0
    for turn in range(paths // MOST_JUDGED):
        assert guard._rows.changed.sum() == paths - turn * MOST_JUDGED
        began_at = time.perf_counter()
        guard.step(float(turn))
        longest = max(longest, time.perf_counter() - began_at)
    assert not guard._rows.changed.any()
    # 6 to 8 ms were measured on a slow core; the margin is for a busy machine.
    assert longest < 0.08
