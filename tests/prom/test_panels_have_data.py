"""Every expression of the dashboards, rules and alerts finds data in a real Prometheus that scraped a real agent."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from running import REPOSITORY, RunningAgent, configuration, require_root, until
from scraping import Prometheus, prometheus

from agent.lab.lab import Lab
from agent.lab.spec import PathSpec
from agent.lab.workload import Transfer

RULES, ALERTS = (REPOSITORY / "config" / "prometheus" / f"{name}.yml" for name in ("rules", "alerts"))
DASHBOARDS = {
    name: json.loads((REPOSITORY / "grafana" / "dashboards" / f"tcptuned-{name}.json").read_text(encoding="utf-8"))
    for name in ("host", "fleet")
}
VARIABLES = {"$__rate_interval": "10s", "$job": "tcptuned", "$instance": ".+"}
STATS = Path("/proc/sys/kernel/bpf_stats_enabled")


# Panels with numbers above zero under traffic: one that looked at the wrong thing would be content with zero.
MOVING = (
    "Time saved C", "Round-trip time A", "Round-trip time over its least A", "Speed while transferring A",
    "Connections by treatment A",
    "Connections by side A", "Traffic A", "Traffic B", "Initial windows A", "Congestion controls A", "ACK policies A",
    "Mean initial window A", "Paths A", "Transfers by arm A", "Time of a megabyte by arm A", "ACKs sent A",
    "Answering A", "Cgroups A", "Time of the jobs A", "Time of the jobs B", "Options set A",
    "Room in the kernel's tables A", "Programs attached A", "Processor A", "Processor B", "Runs of the programs A",
    "Memory A",
)  # fmt: skip


def _rules(path: Path) -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"] for rule in group["rules"]]


def _queries() -> Iterator[tuple[str, str]]:
    """Where an expression stands, and the expression."""
    for name, dashboard in DASHBOARDS.items():
        for panel in dashboard["panels"]:
            for target in panel.get("targets", ()):
                expression = target["expr"]
                for variable, value in VARIABLES.items():
                    expression = expression.replace(variable, value)
                yield f"{name}: {panel['title']} {target['refId']}", expression
    for rule in _rules(RULES):
        yield rule["record"], rule["record"]
    for rule in _rules(ALERTS):
        # The comparisons of a healthy agent find nothing; what they compare has to be there.
        yield rule["alert"], re.sub(r"(==|>=|<=|!=|>|<)", r"\1 bool", rule["expr"])


@dataclass(frozen=True)
class Scraped:
    """What Prometheus and the agent said after some seconds of traffic."""

    found: dict[str, list[float]]
    firing: list[str]
    samples: float  # of one scrape
    metrics: frozenset[str]  # names of the agent's families


@pytest.fixture(scope="module")
def scraped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    require_root()
    folder = tmp_path_factory.mktemp("prometheus")
    before = STATS.read_text(encoding="ascii")
    STATS.write_text("1", encoding="ascii")
    try:
        with (
            Lab([PathSpec.symmetric("path", rate_mbps=100, delay_ms=5, queue_packets=50, loss=0.001)]) as lab,
            RunningAgent(lab, configuration(lab, folder, control={"holdout": 0.3})) as agent,
            prometheus(lab, folder, rules=[RULES, ALERTS]) as asked,
        ):
            yield _after_traffic(lab, agent, asked)
    finally:
        STATS.write_text(before, encoding="ascii")


def _after_traffic(lab: Lab, agent: RunningAgent, asked: Prometheus) -> Scraped:
    jobs = [
        lab.start(Transfer(path="path", size=100_000, count=None, concurrency=4, seconds=120, upload=upload))
        for upload in (False, True)
    ]
    queries = dict(_queries())
    found: dict[str, list[float]] = {}

    def missing() -> list[str]:
        moving = {f"host: {title}" for title in MOVING}
        return [
            place for place in queries
            if not found.get(place) or (place in moving and max(found[place]) <= 0)
        ]  # fmt: skip

    deadline = time.monotonic() + 60
    while (places := missing()) and time.monotonic() < deadline:
        for place in places:
            found[place] = [value for value in asked.values(queries[place]) if math.isfinite(value)]
        time.sleep(0.5)
    firing = [entry["labels"]["alertname"] for entry in asked.series('ALERTS{alertstate="firing"}')]
    until(lambda: bool(asked.values("scrape_samples_scraped")), 5, "Prometheus does not count samples")
    [samples] = asked.values("scrape_samples_scraped")
    for job in jobs:
        job.stop()
    text = agent.get("/metrics").decode()
    metrics = frozenset(re.findall(r"^# TYPE (tcptuned_\w+)", text, re.MULTILINE))
    return Scraped(found, firing, samples, metrics)


def test_every_expression_finds_data(scraped: Scraped) -> None:
    assert [place for place, values in scraped.found.items() if not values] == []


def test_traffic_shows_where_it_should(scraped: Scraped) -> None:
    assert [title for title in MOVING if max(scraped.found[f"host: {title}"]) <= 0] == []


def test_a_healthy_agent_raises_no_alarm(scraped: Scraped) -> None:
    assert scraped.firing == []


def test_few_series(scraped: Scraped) -> None:
    assert 100 < scraped.samples <= 1000


# Metrics that no panel shows, and why.
NOT_SHOWN = {
    "tcptuned_connections_closed_total": "opened is shown",
    "tcptuned_state_file_bytes": "it grows with the paths, which are shown",
    "tcptuned_rounds_total": "the histogram of round-trip times counts them, too",
    "tcptuned_first_windows_total": "lost segments of first windows are shown",
    "tcptuned_first_windows_lossy_total": "lost segments of first windows are shown",
    "tcptuned_delivered_segments_total": "the speed while transferring is shown",
    "tcptuned_delivery_seconds_total": "the speed while transferring is shown",
    "tcptuned_fleet_last_read_timestamp_seconds": "arms fall to 0 when the last reading is too old",
    "tcptuned_arm_safe_paths": "for other agents; the gain that goes with it is shown",
    "tcptuned_arm_unsafe_paths": "for other agents; the gain that goes with it is shown",
}


def test_every_metric_is_shown_or_known_not_to_be(scraped: Scraped) -> None:
    """A new metric belongs in a panel, or in the list above with the reason why not."""
    expressions = [expression for place, expression in _queries() if place.startswith(tuple(DASHBOARDS))]
    shown = set(re.findall(r"tcptuned_\w+", " ".join(expressions)))
    shown |= {name.removesuffix("_bucket") for name in shown}
    assert scraped.metrics - shown - NOT_SHOWN.keys() == set()
