"""The bench's arithmetic: what a path gets to do, and what is made of what was measured."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from agent.lab.bench.bars import bars
from agent.lab.bench.competing import competing_found, contested
from agent.lab.bench.contenders import ALL, DEFAULT, SIBLING, TCPTUNED, networks_of
from agent.lab.bench.result import measured
from agent.lab.bench.run import Cell, Run, connections
from agent.lab.bench.view import found
from agent.lab.bench.workloads import WORKLOADS, changed, plan_for
from agent.lab.paths import load_paths
from agent.lab.ratios import Ratio, geometric_mean
from agent.lab.spec import LinkSpec, PathSpec

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
        runs[each.name] = Run(learned, [(0, seconds)] * 12, [0.1] * (len(learned) + 12), 0, {}, dict(COUNTS))
    made = Cell("7", "100KB", False, asdict(plan_for(WORKLOADS["100KB"], load_paths()["7"], budget=60.0)), runs,
                {"dimensions": [{"name": "initial_window", "chosen": "iw28"}]}, {}, 0.0, 0.001)  # fmt: skip
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


def test_after_a_change_the_best_arm_is_not_measured_by_what_chose_it() -> None:
    values = cell(cubic_iw40=0.9, tcptuned=0.9) | {"changes": True}
    values["runs"]["cubic-iw40"]["compared"] = [(0, 0.8), (0, 0.9)] * 6
    said = measured(values)
    assert said.oracle == "cubic-iw40"
    assert said.against is not None
    assert said.against.value == pytest.approx(1.0)


def test_learnt_is_when_the_next_ones_are_near_the_best() -> None:
    values = cell(cubic_iw40=0.5)
    run = values["runs"][TCPTUNED.name]
    run["learned"], run["compared"] = [(0, 1.0)] * 50 + [(0, 0.5)] * 38, [(0, 0.5)] * 12
    # 25 in a row may hold three that are twice as long: 2 to the power of 3 / 25 is below 1.1
    assert measured(values).learnt == 47
    run["compared"] += [(0, 1.0)] * 50
    assert measured(values).learnt is None, "near for a while only"


def test_the_holdout_does_not_hide_what_most_connections_see() -> None:
    values = cell(cubic_iw40=0.1)
    values["runs"][SIBLING.name]["compared"] = [(0, 1.0), *[(0, 0.1)] * 4] * 10
    said = measured(values)
    assert said.sibling is None, "by the mean of logarithms: ten times the time in every fifth"
    assert said.sibling_median == 0
    run = values["runs"][TCPTUNED.name]
    run["learned"], run["compared"] = [(0, 1.0)] * 50 + [(0, 0.1)] * 50, [(0, 0.1)] * 12
    assert measured(values).learnt_median == 38, "13 of the next 25"


def test_what_fixed_arms_lose_is_counted_over_both_parts() -> None:
    values = cell()
    for name in (DEFAULT.name, TCPTUNED.name):
        values["runs"][name]["counts"]["first_window_losses"] = 2.0
        values["runs"][name]["counts_learned"] = {"first_window_segments": 300.0, "first_window_losses": 18.0}
    said = measured(values)
    assert said.first_window_loss[DEFAULT.name] == pytest.approx(0.05)
    assert said.first_window_loss[TCPTUNED.name] == pytest.approx(0.02), "what it lost while learning is apart"
    values["changes"] = True
    assert measured(values).first_window_loss[DEFAULT.name] == pytest.approx(0.02), "of the path as it is now"


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


def test_the_holdout_is_not_among_the_treated() -> None:
    values = cell(tcptuned=0.5)
    values["uplift"] = {"all": {"ratio": 0.64, "lower": 0.62, "upper": 0.66}}
    for holdout, covered in ((0.0, False), (0.2, True)):
        assert measured({**values, "holdout": holdout}).covered is covered


def test_sizes_of_which_we_had_more_do_not_count_as_slowness() -> None:
    values = cell(tcptuned=0.5)
    for name, run in values["runs"].items():
        once, small = (0.5, 9) if name == TCPTUNED.name else (1.0, 3)
        run["learned"], run["compared"] = [(1, once)] * small, [(8, 8 * once)] * (12 - small)
        run["handshakes"] = [0.1] * 12
    for ratio, covered in ((0.5, True), (0.9, False), (0.1, False)):
        values["uplift"] = {"all": {"ratio": ratio, "lower": ratio - 0.06, "upper": ratio + 0.06}}
        assert measured(values).covered is covered


def test_objects_that_the_agent_does_not_time_say_nothing_of_it() -> None:
    """Those of 10 KB took as long as ever, those of 100 KB half; where there are only small ones, these are timed."""
    for sizes, ratio in (((10_000, 100_000), 0.556), ((10_000, 12_000), 0.333)):
        values = cell()
        for name, run in values["runs"].items():
            times = (1.0, 0.5) if name == TCPTUNED.name else (1.0, 1.0)
            run["learned"] = run["compared"] = list(zip(sizes, times, strict=True)) * 6
        values["uplift"] = {"all": {"ratio": ratio, "lower": ratio - 0.01, "upper": ratio + 0.01}}
        assert measured(values).covered


def test_what_the_clients_saw_may_be_off_too() -> None:
    values = cell()
    # A tenth of the connections take ten times as long: the mean of 24 logarithms is known to about 0.3.
    values["runs"][TCPTUNED.name]["learned"] = ([(0, 0.5)] * 9 + [(0, 5.0)]) * 2
    values["runs"][TCPTUNED.name]["handshakes"] = [0.1] * 32
    values["uplift"] = {"all": {"ratio": 0.2, "lower": 0.15, "upper": 0.25}}
    assert measured(values).covered
    values["uplift"] = {"all": {"ratio": 0.8, "lower": 0.75, "upper": 0.85}}
    assert not measured(values).covered


def test_arms_are_ranked_by_pairs_that_differ() -> None:
    values = cell(cubic_iw40=0.5, cubic_iw56=0.51)
    for name, told in (("cubic-iw40", 170.0), ("cubic-iw56", 165.0)):
        values["runs"][name]["counts"]["log_time"] = told
    assert measured(values).ranked == 1.0, "2 % apart is no difference"
    values["runs"]["bbr-iw10"]["counts"]["log_time"] = 160.0
    # That arm is slower than two and told to be faster: 2 of the 28 pairs that differ.
    assert measured(values).ranked == pytest.approx(1 - 2 / 28)


def test_everybody_is_in_the_tables() -> None:
    shown = found("100KB", "", [measured(cell())], 1.0)
    names = {"null", "riptide-like", "rfc9040", "tcptuned", "best static"}
    for table in shown.tables[:4]:
        assert names <= {column.name for column in table.columns}
    assert all(len(row) == len(table.columns) for table in shown.tables for row in table.rows)
    assert [row[0] for row in shown.tables[0].rows] == ["7", "geometric mean"]


def test_promises_are_judged_by_their_intervals() -> None:
    far = measured({**cell(cubic_iw40=0.5, tcptuned=0.7), "path": "8"})
    near = measured(cell(cubic_iw40=0.5, tcptuned=0.5, tcptuned_sibling=0.5))
    rows = {str(row[0]): row for row in bars({"100KB": [near, far]}).rows}
    against = rows["100KB: tcptuned by the best static arm, mean"]
    assert against[1].value == pytest.approx(1.4**0.5)  # type: ignore[union-attr]
    assert against[3] == "no"
    assert rows["100KB: worst path by the default, mean: path 8 (by chance: 1.00)"][3] == "yes"
    for kind in ("mean", "median"):
        found = rows[f"100KB: connections until within 10 % when cold, {kind}"]
        assert found[1] == "at most 0 on 1 of 2 paths; not on 8"
    assert rows["100KB: the same where a sibling is known, mean"][3] == "no"
    assert rows["100KB: retransmission above the default's, worst path"][3] == "yes"


def test_without_static_arms_nothing_is_said_of_the_best() -> None:
    values = cell(tcptuned=0.9)
    values["runs"] = {name: run for name, run in values["runs"].items() if not name.startswith(("cubic", "bbr"))}
    promises = [str(row[0]) for row in bars({"30KB": [measured(values)]}).rows]
    assert "30KB: worst path by the default, median: path 7 (by chance: 1.00)" in promises
    assert not any("best static arm" in each or "10 %" in each for each in promises)


def test_goodput_is_held_against_the_better_algorithm() -> None:
    rows = bars({"bulk": [measured(cell(bbr_iw10=2.0, tcptuned=1.8))]}).rows
    assert [row[3] for row in rows] == ["no", "no"]
    assert rows[0][1].value == pytest.approx(0.9)  # type: ignore[union-attr]


def test_the_other_flow_is_judged_on_its_worst_path() -> None:
    chosen = contested(load_paths())
    assert "18" in chosen
    assert "4" not in chosen, "100 Mb/s twice is more than the emulator carries"
    cells = [
        {"path": path, "late": 0.001, "mbps": {"default": [8.0] * 6, "tcptuned": [mbps] * 6}}
        for path, mbps in (("17", 8.0), ("18", 6.0))
    ]
    shown, worst = competing_found(cells, chosen, 1.0)
    assert worst.value == pytest.approx(0.75)
    assert [row[0] for row in shown.tables[0].rows] == ["17", "18", "geometric mean"]
    [line] = bars({}, worst).rows
    assert line[3] == "no"


def test_ratios_pool_like_independent_measurements() -> None:
    pooled = geometric_mean([Ratio(0.5, 0.4, 0.625), Ratio(2.0, 1.6, 2.5)])
    assert pooled.value == pytest.approx(1.0)
    assert pooled.high == pytest.approx(1.25 ** (2**0.5 / 2))
    assert pooled.low == pytest.approx(1 / pooled.high)


def test_a_trace_is_as_fast_as_its_opportunities(tmp_path: Path) -> None:
    file = tmp_path / "trace"
    file.write_text("".join(f"{each}\n" for each in range(2, 1001, 2)), encoding="ascii")
    link = LinkSpec(trace=str(file), delay_ms=10, queue_packets=100)
    plan = plan_for(WORKLOADS["100KB"], PathSpec(name="lte", down=link, up=link), budget=100.0)
    assert plan.load_mbps == pytest.approx(0.8 / (0.08 + 0.8 / 6))
    after = changed(link, "rate")
    assert (after.rate_mbps, after.trace) == (pytest.approx(1.2), None)
    assert changed(link, "queue").queue_packets == 10
    policer = load_paths()["7"].down
    assert changed(policer, "queue") == policer


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
