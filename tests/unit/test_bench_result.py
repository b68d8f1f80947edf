"""The bench's arithmetic: what a path gets to do, and what is made of what was measured."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import pytest

from agent.lab.bench_contenders import ALL, DEFAULT, SIBLING, TCPTUNED, networks_of
from agent.lab.bench_result import measured
from agent.lab.bench_run import Cell, Run, connections
from agent.lab.bench_view import found
from agent.lab.bench_workloads import WORKLOADS, plan_for
from agent.lab.paths import load_paths

COUNTS = {
    "sent_segments": 1000.0, "retransmitted_segments": 0.0, "first_window_segments": 100.0, "first_window_losses": 0.0,
    "transfers": 10.0, "log_time": 180.0,
}  # fmt: skip


def cell(**times: float) -> dict[str, Any]:
    """A cell in which everybody takes 1 s, but those named."""
    runs = {}
    for each in ALL:
        seconds = times.get(each.name.replace("-", "_"), 1.0)
        learned = [] if each is SIBLING else [(0, seconds)] * 12
        runs[each.name] = Run(learned, [(0, seconds)] * 12, 0, {}, dict(COUNTS))
    made = Cell("7", "100KB", 0.1, False, asdict(plan_for(WORKLOADS["100KB"], load_paths()["7"], budget=60.0)), runs,
                {"dimensions": [{"name": "initial_window", "chosen": "iw28"}]}, {}, 0.001)  # fmt: skip
    return made.to_json()


def test_the_best_arm_must_be_decent() -> None:
    values = cell(cubic_iw80=0.5, cubic_iw40=0.6, tcptuned=0.63, tcptuned_sibling=0.9)
    values["runs"]["cubic-iw80"]["counts"]["first_window_losses"] = 2.0
    said = measured(values)
    assert said.oracle == "cubic-iw40"
    assert said.ratios[TCPTUNED.name].value == pytest.approx(0.63)
    assert said.learnt == 0
    assert said.sibling is None
    assert said.chosen == "iw28"


def test_learnt_is_when_the_next_ones_are_near_the_best() -> None:
    values = cell(cubic_iw40=0.5)
    values["runs"][TCPTUNED.name]["learned"] = [(0, 1.0)] * 50 + [(0, 0.5)] * 50
    # 25 in a row may hold two that are twice as long: 0.5 (1 + 2 / 25) < 1.1 * 0.5
    assert measured(values).learnt == 48


def test_sizes_count_alike() -> None:
    values = cell()
    for name, times in ((DEFAULT.name, (0.1, 10.0)), (TCPTUNED.name, (0.05, 10.0))):
        values["runs"][name]["compared"] = [(0, times[0]), (1, times[1])] * 6
    assert measured(values).ratios[TCPTUNED.name].value == pytest.approx(0.75)


def test_a_truth_outside_the_interval_is_told() -> None:
    values = cell(tcptuned=0.5)
    for upper, covered in ((0.9, True), (0.5, False)):
        values["uplift"] = {"all": {"ratio": 0.4, "lower": 0.3, "upper": upper}}
        # without the handshake of 0.1 s: 1 - 0.4 / 0.9
        assert measured(values).covered is covered


def test_everybody_is_in_the_table() -> None:
    [ratios, losses] = found("100KB", "", [measured(cell())], 1.0).tables
    assert {"null", "riptide-like", "rfc9040", "tcptuned", "best static"} <= {column.name for column in ratios.columns}
    assert all(len(row) == len(table.columns) for table in (ratios, losses) for row in table.rows)
    assert [row[0] for row in ratios.rows] == ["7", "geometric mean"]


def test_slow_paths_get_what_fits_into_their_time() -> None:
    paths = load_paths()
    for workload in WORKLOADS.values():
        for number, path in paths.items():
            plan = plan_for(workload, path, budget=100.0)
            assert plan.rounds >= 2
            assert plan.compared >= len(plan.sizes), (workload.name, number)
    fast, slow = (plan_for(WORKLOADS["1MB"], paths[number], budget=100.0) for number in ("6", "1"))
    assert fast.rounds > slow.rounds
    assert slow.sizes[0] < 1_000_000
    few, many = (connections(WORKLOADS["1MB"], {name: paths[name]}, 100.0) for name in ("1", "6"))
    assert few < many


def test_every_contender_has_a_network_of_its_own() -> None:
    specs = networks_of(load_paths(), ALL)
    assert len({spec.ipv4 for spec in specs}) == len({spec.ipv6 for spec in specs}) == len(specs) == 18 * len(ALL)
