"""The Prometheus collector: turns the last snapshot into metrics, anew for every scrape.

An exception out of a collector makes the whole scrape a 500, which hides everything just when something is wrong. So
each section of the metrics stands alone: one that fails is left out, logged and counted.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.metrics_core import CounterMetricFamily, Metric

from agent.metrics import PREFIX, SECTIONS
from agent.snapshot import Snapshot

__all__ = ["Exporter", "registry"]

logger = logging.getLogger(__name__)


class Exporter:
    """A collector over what `snapshot` returns; scraped by many threads at once."""

    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot
        self._lock = threading.Lock()
        self._failures = 0

    def collect(self) -> Iterator[Metric]:
        """All metrics; never raises."""
        try:
            snapshot = self._snapshot()
        except Exception:
            self._failed("the snapshot")
        else:
            for section in SECTIONS:
                try:
                    # The whole section first: half of one would look complete.
                    families = list(section(snapshot))
                except Exception:
                    self._failed(section.__name__)
                else:
                    yield from families
        failures = CounterMetricFamily(
            f"{PREFIX}exporter_failures_total", "Parts of scrapes left out because computing them failed."
        )
        failures.add_metric((), self._failures)
        yield failures

    def _failed(self, what: str) -> None:
        logger.exception("metrics left out of a scrape: %s", what)
        with self._lock:
            self._failures += 1


def registry(snapshot: Callable[[], Snapshot]) -> CollectorRegistry:
    """A registry with the agent's metrics and those of its process."""
    # Names are known only after a scrape; this lets `name[]=` in the query select among all the same.
    result = CollectorRegistry(support_collectors_without_names=True)
    result.register(Exporter(snapshot))
    ProcessCollector(registry=result)
    PlatformCollector(registry=result)
    return result
