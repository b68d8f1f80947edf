"""The 17 rules of Grafana's dashboard-linter, under their names there, for dashboards over Prometheus.

Stricter than the original where that is simpler: units and descriptions are asked of every panel, whatever its type.
A rule takes a dashboard and yields findings: the panel's title or "", and what is wrong.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import yaml

Json = dict[str, Any]
Finding = tuple[str, str]
Rule = Callable[[Json], Iterator[Finding]]

# The ids of Grafana's units (packages/grafana-data/src/valueFormats) that these dashboards may need.
UNITS = {
    "none", "short", "percent", "percentunit", "bytes", "decbytes", "bits", "Bps", "binBps", "bps", "pps", "ns", "µs",
    "ms", "s", "m", "h", "d", "cps", "ops", "reqps", "rps", "dateTimeFromNow", "bool", "bool_yes_no", "bool_on_off",
}  # fmt: skip
SAMPLES = {
    "$__rate_interval": "4m", "$__interval": "1m", "$__range": "6h", "$job": "tcptuned", "$instance": ".+",
}  # fmt: skip
_WORDS = {"and", "or", "unless", "bool", "offset", "inf", "nan"}
_SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)\s*(\{[^}]*\})?\s*(\[[^\]]*\])?")


def panels(dashboard: Json) -> Iterator[Json]:
    """Every panel that is no row, also those inside rows."""
    for panel in dashboard["panels"]:
        yield from (inner for inner in (panel, *panel.get("panels", ())) if inner["type"] != "row")


def targets(dashboard: Json) -> Iterator[tuple[str, Json]]:
    """Every query with the title of its panel."""
    for panel in panels(dashboard):
        for target in panel.get("targets", ()):
            yield panel.get("title", ""), target


def variables(dashboard: Json, kind: str) -> list[Json]:
    """The template variables of a type."""
    return [each for each in dashboard["templating"]["list"] if each["type"] == kind]


def selectors(expression: str) -> Iterator[tuple[str, str, str, str]]:
    """Every vector selector: metric, matchers and range with their brackets, and the function right around it."""
    plain = re.sub(r"\b(by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)", "", expression)
    for match in _SELECTOR.finditer(re.sub(r'"[^"]*"', lambda text: text[0].replace("{", "").replace("}", ""), plain)):
        name, matchers, window = (group or "" for group in match.groups())
        before, after = plain[: match.start()], plain[match.end() :]
        is_call = after.lstrip().startswith("(")
        is_number = re.search(r"[\w.]$", before) is not None  # the e of 1e6
        if not is_call and not is_number and name.lower() not in _WORDS:
            around = re.search(r"(\w+)\s*\(\s*$", before)
            yield name, matchers, window, around[1] if around else ""


def sampled(expression: str) -> str:
    """The expression with a value for every variable."""
    for name, sample in SAMPLES.items():
        expression = expression.replace(name, sample)
    return expression


def promql_fault(expression: str) -> str:
    """What Prometheus' own parser has to say against an expression; "" if nothing."""
    assert shutil.which("promtool"), "promtool is missing; Debian's package prometheus has it"
    rules = {"groups": [{"name": "lint", "rules": [{"record": "lint", "expr": sampled(expression)}]}]}
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
        yaml.safe_dump(rules, file)
        file.flush()
        done = subprocess.run(["promtool", "check", "rules", file.name], capture_output=True, text=True, check=False)
    return "" if done.returncode == 0 else done.stderr.strip()


# --- the dashboard ----------------------------------------------------------------------------------------------------


def template_datasource(dashboard: Json) -> Iterator[Finding]:
    """One variable chooses the data source."""
    found = [(each["name"], each["label"], each["query"]) for each in variables(dashboard, "datasource")]
    if found != [("datasource", "Data source", "prometheus")]:
        yield "", f"the variables for the data source are {found}"


def _template_label(name: str) -> Rule:
    def rule(dashboard: Json) -> Iterator[Finding]:
        found = [each for each in variables(dashboard, "query") if each["name"] == name]
        if not found:
            yield "", f"no variable {name}"
        for variable in found:
            for key, wanted in (("label", name.capitalize()), ("multi", True), ("allValue", ".+")):
                if variable.get(key) != wanted:
                    yield "", f"variable {name}: {key} is {variable.get(key)}"
            if variable.get("datasource", {}).get("uid") not in ("$datasource", "${datasource}"):
                yield "", f"variable {name}: the data source is not the chosen one"

    return rule


def template_label_promql(dashboard: Json) -> Iterator[Finding]:
    """Variables ask for label values of selectors that parse."""
    for variable in variables(dashboard, "query"):
        query = re.fullmatch(r"label_values\((.+), \w+\)", variable["query"])
        if query is None or promql_fault(query[1]):
            yield "", f"variable {variable['name']}: {variable['query']}"


def template_on_time_change_reload(dashboard: Json) -> Iterator[Finding]:
    """Variables follow the time range (2)."""
    for variable in variables(dashboard, "query"):
        if variable.get("refresh") != 2:
            yield "", f"variable {variable['name']}: refresh is {variable.get('refresh')}"


def uneditable(dashboard: Json) -> Iterator[Finding]:
    """The source is the place to change it."""
    if dashboard.get("editable", True):
        yield "", "editable"


# --- panels -----------------------------------------------------------------------------------------------------------


def panel_datasource(dashboard: Json) -> Iterator[Finding]:
    """Panels and their queries go to the chosen data source."""
    for panel in panels(dashboard):
        for each in (panel, *panel.get("targets", ())):
            if each.get("datasource", {}).get("uid") not in ("$datasource", "${datasource}"):
                yield panel.get("title", ""), "another data source"


def panel_title_description(dashboard: Json) -> Iterator[Finding]:
    """Panels explain themselves."""
    for panel in panels(dashboard):
        if not panel.get("title") or not panel.get("description"):
            yield panel.get("title", ""), "no title or no description"


def panel_units(dashboard: Json) -> Iterator[Finding]:
    """Panels, and columns with a unit of their own, have one that Grafana knows."""
    for panel in panels(dashboard):
        config = panel.get("fieldConfig", {})
        found = [config.get("defaults", {}).get("unit")]
        for override in config.get("overrides", ()):
            found += [each["value"] for each in override["properties"] if each["id"] == "unit"]
        if not set(found) <= UNITS:
            yield panel.get("title", ""), f"units {found}"


def panel_no_targets(dashboard: Json) -> Iterator[Finding]:
    """Panels ask for something."""
    for panel in panels(dashboard):
        if not panel.get("targets"):
            yield panel.get("title", ""), "no query"


# --- queries ----------------------------------------------------------------------------------------------------------


def target_logql(dashboard: Json) -> Iterator[Finding]:
    """Nothing here could parse LogQL, so there is none."""
    for title, target in targets(dashboard):
        if target.get("datasource", {}).get("type") == "loki":
            yield title, "LogQL"


def target_logql_auto(dashboard: Json) -> Iterator[Finding]:
    """Ranges of LogQL are `$__auto`."""
    for title, target in targets(dashboard):
        is_loki = target.get("datasource", {}).get("type") == "loki"
        if is_loki and set(re.findall(r"\[([^\]]*)\]", target["expr"])) - {"$__auto"}:
            yield title, "LogQL with a fixed range"


def target_promql(dashboard: Json) -> Iterator[Finding]:
    """Prometheus can parse every query."""
    for title, target in targets(dashboard):
        if fault := promql_fault(target["expr"]):
            yield title, fault


def target_rate_interval(dashboard: Json) -> Iterator[Finding]:
    """Rates are over `$__rate_interval`, which always holds enough scrapes."""
    for title, target in targets(dashboard):
        for name, _, window, function in selectors(target["expr"]):
            if function in ("rate", "irate") and window != "[$__rate_interval]":
                yield title, f"{function} of {name} over {window}"


def _target_label(label: str) -> Rule:
    def rule(dashboard: Json) -> Iterator[Finding]:
        for title, target in targets(dashboard):
            for name, matchers, _, _ in selectors(target["expr"]):
                if f'{label}=~"${label}"' not in re.split(r"[{},]\s*", matchers):
                    yield title, f"{name} is not chosen by {label}"

    return rule


def target_counter_agg(dashboard: Json) -> Iterator[Finding]:
    """Counters are only ever asked how fast they grow."""
    for title, target in targets(dashboard):
        for name, _, window, function in selectors(target["expr"]):
            if name.endswith("_total") and not (window and function in ("rate", "irate", "increase")):
                yield title, f"counter {name} as it is"


RULES: dict[str, Rule] = {
    "template-datasource-rule": template_datasource,
    "template-job-rule": _template_label("job"),
    "template-instance-rule": _template_label("instance"),
    "template-label-promql-rule": template_label_promql,
    "template-on-time-change-reload-rule": template_on_time_change_reload,
    "panel-datasource-rule": panel_datasource,
    "panel-title-description-rule": panel_title_description,
    "panel-units-rule": panel_units,
    "panel-no-targets-rule": panel_no_targets,
    "target-logql-rule": target_logql,
    "target-logql-auto-rule": target_logql_auto,
    "target-promql-rule": target_promql,
    "target-rate-interval-rule": target_rate_interval,
    "target-job-rule": _target_label("job"),
    "target-instance-rule": _target_label("instance"),
    "target-counter-agg-rule": target_counter_agg,
    "uneditable-dashboard": uneditable,
}
