"""The dashboards are what their source says, keep to the rules of Grafana's linter, and are found by Grafana."""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from dashboard_lint import RULES, Json, panels, promql_fault, selectors, targets

from grafana.build import FOLDER, dashboards

HOST, FLEET = (json.loads((FOLDER / f"tcptuned-{name}.json").read_text(encoding="utf-8")) for name in ("host", "fleet"))
EXCEPTIONS = yaml.safe_load((FOLDER / ".lint").read_text(encoding="utf-8"))["exclusions"]


def _excused(rule: str, dashboard: Json) -> set[str]:
    entries = EXCEPTIONS.get(rule, {"entries": []})["entries"]
    return {entry["panel"] for entry in entries if entry["dashboard"] == dashboard["title"]}


def test_the_files_are_what_the_source_makes() -> None:
    """If they differ: python -m grafana.build."""
    assert {path.name: path.read_text(encoding="utf-8") for path in FOLDER.glob("*.json")} == dashboards()


@pytest.mark.parametrize("dashboard", [HOST, FLEET], ids=["host", "fleet"])
@pytest.mark.parametrize("rule", RULES)
def test_the_rules_of_the_linter(rule: str, dashboard: Json) -> None:
    found = list(RULES[rule](dashboard))
    excused = _excused(rule, dashboard)
    assert [finding for finding in found if finding[0] not in excused] == []
    # An exception that is not needed would hide the next mistake.
    assert excused == {title for title, _ in found}


def test_all_exceptions_are_of_rules_and_dashboards_that_exist_and_have_a_reason() -> None:
    for rule, exception in EXCEPTIONS.items():
        assert rule in RULES
        assert exception["reason"]
        assert {entry["dashboard"] for entry in exception["entries"]} <= {HOST["title"], FLEET["title"]}


def _set(key: str, value: Any) -> Callable[[Json], None]:
    def change(place: Json) -> None:
        place[key] = value

    return change


def _variable(name: str, key: str, value: Any) -> Callable[[Json], None]:
    def change(dashboard: Json) -> None:
        next(each for each in dashboard["templating"]["list"] if each["name"] == name)[key] = value

    return change


def _panel(key: str, value: Any) -> Callable[[Json], None]:
    return lambda dashboard: _set(key, value)(next(panels(dashboard)))


def _target(key: str, value: Any) -> Callable[[Json], None]:
    return lambda dashboard: _set(key, value)(next(targets(dashboard))[1])


CHOSEN = '{job=~"$job", instance=~"$instance"}'


@pytest.mark.parametrize(
    ("rule", "spoil"),
    [
        ("template-datasource-rule", _variable("datasource", "label", "Source")),
        ("template-job-rule", _variable("job", "multi", False)),
        ("template-instance-rule", _variable("instance", "allValue", None)),
        ("template-label-promql-rule", _variable("instance", "query", "label_values(up{job=}, instance)")),
        ("template-on-time-change-reload-rule", _variable("job", "refresh", 1)),
        ("panel-datasource-rule", _panel("datasource", {"type": "prometheus", "uid": "mine"})),
        ("panel-datasource-rule", _target("datasource", {"type": "prometheus", "uid": "mine"})),
        ("panel-title-description-rule", _panel("description", "")),
        ("panel-units-rule", _panel("fieldConfig", {"defaults": {"unit": "parsecs"}, "overrides": []})),
        ("panel-no-targets-rule", _panel("targets", [])),
        ("target-logql-rule", _target("datasource", {"type": "loki", "uid": "$datasource"})),
        ("target-promql-rule", _target("expr", f"sum by (group (up{CHOSEN})")),
        ("target-rate-interval-rule", _target("expr", f"rate(x_total{CHOSEN}[5m])")),
        ("target-job-rule", _target("expr", '1e6 * up{instance=~"$instance"}')),
        ("target-instance-rule", _target("expr", 'sum by (instance) (up{job=~"$job", instance="$instance"})')),
        ("target-instance-rule", _target("expr", f"up{CHOSEN} + on (instance) tcptuned_paths")),
        ("target-counter-agg-rule", _target("expr", f"sum(x_total{CHOSEN})")),
        ("uneditable-dashboard", _set("editable", True)),
    ],
)
def test_each_rule_sees_what_it_is_for(rule: str, spoil: Callable[[Json], None]) -> None:
    spoilt = deepcopy(HOST)
    spoil(spoilt)
    assert list(RULES[rule](spoilt))


def test_a_fixed_range_of_logql_is_seen() -> None:
    spoilt = deepcopy(HOST)
    _target("datasource", {"type": "loki", "uid": "$datasource"})(spoilt)
    for window, found in (("$__auto", 0), ("5m", 1)):
        _target("expr", f'count_over_time({{job="x"}}[{window}])')(spoilt)
        assert len(list(RULES["target-logql-auto-rule"](spoilt))) == found


def test_selectors_are_found_wherever_they_stand() -> None:
    expression = (
        '1e6 * sum by (arm) (rate(a:b:c{x="{"}[5m])) / on (job) group_left (d) up > bool 0 and time() - e{} > 3'
    )
    assert [(name, window, function) for name, _, window, function in selectors(expression)] == [
        ("a:b:c", "[5m]", "rate"), ("up", "", ""), ("e", "", ""),
    ]  # fmt: skip


def test_promql_is_judged_by_prometheus_itself() -> None:
    assert promql_fault("sum by (a) (rate(b[$__rate_interval]))") == ""
    assert "parse error" in promql_fault("sum by (a (b)")


@pytest.mark.parametrize(("dashboard", "other"), [(HOST, FLEET), (FLEET, HOST)], ids=["host", "fleet"])
def test_three_rows_stable_names_and_a_link_to_the_other(dashboard: Json, other: Json) -> None:
    rows = [panel["title"] for panel in dashboard["panels"] if panel["type"] == "row"]
    assert [rows[0], rows[1], rows[2].split()[-1]] == ["Effect", "Decisions", "health"]
    assert [link["url"].split("?")[0] for link in dashboard["links"]] == [f"/d/{other['uid']}"]
    titles = [panel["title"] for panel in panels(dashboard)]
    assert len(set(titles)) == len(titles)


@pytest.mark.parametrize("dashboard", [HOST, FLEET], ids=["host", "fleet"])
def test_panels_fill_the_grid_without_overlap(dashboard: Json) -> None:
    cells = [
        (x, y)
        for place in (panel["gridPos"] for panel in dashboard["panels"])
        for x in range(place["x"], place["x"] + place["w"])
        for y in range(place["y"], place["y"] + place["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert {x for x, _ in cells} == set(range(24))
    numbers = [panel["id"] for panel in dashboard["panels"]]
    assert len(set(numbers)) == len(numbers)


def test_grafana_finds_the_dashboards_in_the_mounted_folder() -> None:
    mounted = Path("/etc/grafana/provisioning")
    [provider] = yaml.safe_load((FOLDER / "tcptuned.yaml").read_text(encoding="utf-8"))["providers"]
    assert mounted / FOLDER.relative_to(FOLDER.parent) == Path(provider["options"]["path"])
    # Grafana reads these folders of its provisioning folder, and in them the files that end so.
    assert (FOLDER.name, FOLDER.parent.name) == ("dashboards", "grafana")
    [source] = yaml.safe_load((FOLDER.parent / "datasources" / "prometheus.yaml").read_text(encoding="utf-8"))[
        "datasources"
    ]
    scrape = yaml.safe_load((FOLDER.parents[1] / "config" / "prometheus" / "prometheus.yml").read_text("utf-8"))
    assert source["type"] == "prometheus"
    assert source["jsonData"]["timeInterval"] == scrape["global"]["scrape_interval"]
