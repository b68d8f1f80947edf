"""Writes the dashboards' JSON from their source: `python -m grafana.build`, with the project's dev packages."""

from __future__ import annotations

import json
from pathlib import Path

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as model

from grafana import fleet
from grafana.host_decisions import DECISIONS
from grafana.host_effect import EFFECT
from grafana.host_health import HEALTH
from grafana.panels import DATASOURCE, Row, rows

__all__ = ["FOLDER", "dashboards"]

FOLDER = Path(__file__).resolve().parent / "dashboards"

HOST, FLEET = "tcptuned-host", "tcptuned-fleet"
ALL = model.VariableOption(selected=True, text=["All"], value=["$__all"])


def dashboards() -> dict[str, str]:
    """The text of each file in `FOLDER`, by name."""
    built = (
        _dashboard(
            HOST, "tcptuned host", "What tcptuned does on a host: effect, decisions and health.",
            (EFFECT, DECISIONS, HEALTH), all_hosts=False, other=(FLEET, "Fleet", "All hosts"),
        ),
        _dashboard(
            FLEET, "tcptuned fleet", "What tcptuned does on all hosts: effect, decisions and health.", fleet.ROWS,
            all_hosts=True, other=(HOST, "Host", "One host"),
        ),
    )  # fmt: skip
    return {f"{each.uid}.json": json.dumps(each, cls=JSONEncoder, indent=2) + "\n" for each in built}


def _dashboard(
    uid: str, title: str, description: str, contents: tuple[Row, ...], *, all_hosts: bool, other: tuple[str, str, str]
) -> model.Dashboard:
    other_uid, other_title, tooltip = other
    builder = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["tcptuned"])
        .readonly()
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .time("now-6h", "now")
        .refresh("1m")
        .timezone("browser")
        .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        .with_variable(_variable("job", "Job", "label_values(tcptuned_build_info, job)", everything=False))
        .with_variable(
            _variable(
                "instance", "Instance", 'label_values(tcptuned_build_info{job=~"$job"}, instance)', everything=all_hosts
            )
        )
        .link(
            dashboard.DashboardLink(other_title)
            .type(model.DashboardLinkType.LINK)
            .url(f"/d/{other_uid}?${{job:queryparam}}&${{datasource:queryparam}}")
            .tooltip(tooltip)
            .keep_time(True)
        )
    )
    for each in rows(contents):
        if isinstance(each, dashboard.Row):
            builder.with_row(each)
        else:
            builder.with_panel(each)
    return builder.build()


def _variable(name: str, label: str, query: str, *, everything: bool) -> dashboard.QueryVariable:
    """Chosen from label values. Without `everything` a visit begins with the first of them.

    Everything is a pattern that any value matches: of jobs it would be those of other programs, too.
    """
    variable = (
        dashboard.QueryVariable(name)
        .label(label)
        .query(query)
        .datasource(DATASOURCE)
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(everything)
        .all_value(".+")
    )
    return variable.current(ALL) if everything else variable


if __name__ == "__main__":
    for name, text in dashboards().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
