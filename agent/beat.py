"""When a job is due: every so many seconds, whatever the wall clock does."""

from __future__ import annotations

from datetime import datetime

from apscheduler.triggers.interval import IntervalTrigger

__all__ = ["Beat"]


class Beat(IntervalTrigger):  # type: ignore[misc]  # APScheduler 3 has no types
    """An interval that lets times go by which were missed.

    APScheduler puts every missed time into a list before it runs one for all of them: where a clock is set right by a
    year, as on a board without a battery, that list would take more memory than the systemd unit allows.
    """

    def get_next_fire_time(self, previous_fire_time: datetime | None, now: datetime) -> datetime | None:
        """The time after `previous_fire_time`, at most one interval before `now`."""
        if previous_fire_time is not None:
            previous_fire_time = max(previous_fire_time, now - self.interval)
        after: datetime | None = super().get_next_fire_time(previous_fire_time, now)
        return after
