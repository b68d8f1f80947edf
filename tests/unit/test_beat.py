"""Jobs and the wall clock."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from apscheduler.job import Job
from apscheduler.schedulers.background import BackgroundScheduler

from agent.beat import Beat


def job(began: datetime) -> Job:
    scheduler = BackgroundScheduler(timezone=UTC)
    scheduler.start(paused=True)
    try:
        return scheduler.add_job(print, Beat(seconds=1, timezone=UTC), next_run_time=began)
    finally:
        scheduler.shutdown(wait=False)


def test_a_clock_set_right_by_a_year_is_no_year_of_runs() -> None:
    began = datetime.now(UTC)
    assert len(job(began)._get_run_times(began + timedelta(days=365))) <= 3


def test_short_delays_do_not_move_the_beat() -> None:
    began = datetime.now(UTC)
    times = job(began)._get_run_times(began + timedelta(seconds=0.7))
    assert times == [began]
    after = Beat(seconds=1, timezone=UTC).get_next_fire_time(began, began + timedelta(seconds=0.7))
    assert after == began + timedelta(seconds=1)
