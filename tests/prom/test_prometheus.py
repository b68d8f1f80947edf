"""A real Prometheus scrapes a real agent under real traffic."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import RunningAgent, configuration, require_root, until
from scraping import prometheus

from agent.lab.lab import Lab
from agent.lab.spec import PathSpec


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    require_root()
    with Lab([PathSpec.symmetric("path", rate_mbps=100, delay_ms=2)]) as opened:
        yield opened


def test_promtool_finds_nothing_to_say_about_the_metrics(lab: Lab, tmp_path: Path) -> None:
    with RunningAgent(lab, configuration(lab, tmp_path)) as agent:
        lab.fetch("path", size=100_000, count=31, concurrency=4)
        agent.settled("connections_closed_total", 31)
        exposition = agent.get("/metrics")
    checked = subprocess.run(["promtool", "check", "metrics"], input=exposition, capture_output=True, check=False)
    assert (checked.returncode, checked.stdout, checked.stderr) == (0, b"", b"")


def test_prometheus_scrapes_and_answers(lab: Lab, tmp_path: Path) -> None:
    with RunningAgent(lab, configuration(lab, tmp_path)) as agent, prometheus(lab, tmp_path) as asked:
        lab.fetch("path", size=100_000, count=41, concurrency=4)
        assert agent.settled("connections_closed_total", 41) == 41
        opened = 'tcptuned_connections_opened_total{group="default",side="passive"}'
        until(lambda: asked.values(opened) == [41.0], 10, "the connections did not reach Prometheus")
        # A percentile of the histogram, as a dashboard asks for it: the RTT of the path is 4 ms.
        [median] = asked.values("histogram_quantile(0.5, sum by (le) (tcptuned_rtt_seconds_bucket))")
        assert 0.002 < median < 0.02
        errors = asked.values("sum(tcptuned_sample_failures_total) + sum(tcptuned_exporter_failures_total)")
        assert errors == [0.0]
