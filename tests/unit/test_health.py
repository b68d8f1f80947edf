"""Who is healthy: the main loop's verdict on its jobs, without an agent around it."""

from __future__ import annotations

import time
from types import SimpleNamespace
from unittest.mock import Mock

from agent.config import default
from agent.notify import Notifier
from agent.service import Service, _Job


def loop(*, silent: float) -> Service:
    """A service whose jobs were all on time `silent` seconds ago for the last time."""
    service = object.__new__(Service)
    service._notifier = Notifier()
    service._on_time = time.monotonic() - silent
    service.tuner = SimpleNamespace(config=default())  # type: ignore[assignment]
    return service


def test_a_job_that_hangs_for_a_lease_makes_it_unhealthy_and_one_that_goes_on_healthy() -> None:
    lease = default().control.lease
    now = time.monotonic()
    hung = _Job("sample", 1.0, lambda: None, now - 3600.0)
    fine = _Job("decide", 5.0, lambda: None, now)
    scheduler = Mock()

    service = loop(silent=lease + 1.0)
    service._tend(scheduler, [fine, hung])
    assert not service.healthy()
    scheduler.modify_job.assert_called_once()
    hung.last_run = time.monotonic()
    service._tend(scheduler, [fine, hung])
    assert service.healthy()


def test_a_job_that_is_late_for_less_is_none_of_it() -> None:
    service = loop(silent=default().control.lease - 5.0)
    service._tend(Mock(), [_Job("sample", 1.0, lambda: None, time.monotonic() - 3600.0)])
    assert service.healthy()
