"""A real Prometheus scrapes a real agent under real traffic."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent.parent / "kernel"))

from running import PORT, RunningAgent, configuration, require_root, until

from agent.lab.enter import in_namespace
from agent.lab.lab import Lab
from agent.lab.spec import PathSpec

PROMETHEUS_PORT = 9090


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
    config = tmp_path / "prometheus.yml"
    config.write_text(
        "global: {scrape_interval: 1s}\n"
        "scrape_configs:\n"
        f"  - {{job_name: tcptuned, static_configs: [{{targets: ['127.0.0.1:{PORT}']}}]}}\n",
        encoding="utf-8",
    )
    command = [
        "prometheus", f"--config.file={config}", f"--storage.tsdb.path={tmp_path / 'data'}",
        f"--web.listen-address=127.0.0.1:{PROMETHEUS_PORT}", "--log.level=warn",
    ]  # fmt: skip
    with RunningAgent(lab, configuration(lab, tmp_path)) as agent, lab.run_in("server", command) as prometheus:
        try:
            until(lambda: query(lab, 'up{job="tcptuned"}') == [1.0], 30, "Prometheus does not scrape the agent")
            lab.fetch("path", size=100_000, count=41, concurrency=4)
            assert agent.settled("connections_closed_total", 41) == 41
            opened = 'tcptuned_connections_opened_total{group="default",side="passive"}'
            until(lambda: query(lab, opened) == [41.0], 10, "the connections did not reach Prometheus")
            # A percentile of the histogram, as a dashboard asks for it: the RTT of the path is 4 ms.
            [median] = query(lab, "histogram_quantile(0.5, sum by (le) (tcptuned_rtt_seconds_bucket))")
            assert 0.002 < median < 0.02
            errors = query(lab, "sum(tcptuned_sample_failures_total) + sum(tcptuned_exporter_failures_total)")
            assert errors == [0.0]
        finally:
            prometheus.terminate()


def query(lab: Lab, expression: str) -> list[float]:
    """An instant query's values; none while Prometheus starts."""

    def ask() -> list[float]:
        url = f"http://127.0.0.1:{PROMETHEUS_PORT}/api/v1/query?query={urllib.parse.quote(expression)}"
        try:
            with urllib.request.urlopen(url, timeout=5) as answer:
                found = json.load(answer)["data"]["result"]
        except OSError:
            time.sleep(0.2)
            return []
        return [float(entry["value"][1]) for entry in found]

    return in_namespace(lab.server_namespace, ask)
