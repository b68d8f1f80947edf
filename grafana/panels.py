"""How a panel looks: each kind is a function, so that all of a kind look alike."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from grafana_foundation_sdk.builders import common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.models import common as looks
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import prometheus as query_model

__all__ = ["DATASOURCE", "Panel", "Query", "Row", "graph", "hosts_table", "rows", "shares", "value"]

DATASOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")
WIDTH = 24  # columns of Grafana's grid

Builder = timeseries.Panel | stat.Panel | table.Panel
Plotted = TypeVar("Plotted", timeseries.Panel, stat.Panel)


@dataclass(frozen=True)
class Query:
    """A PromQL expression, and what its series are called."""

    expression: str
    legend: str


@dataclass(frozen=True)
class Panel:
    """A panel on the grid; `width` and `height` in the grid's units."""

    builder: Builder
    width: int
    height: int


@dataclass(frozen=True)
class Row:
    """A titled row of panels."""

    title: str
    panels: tuple[Panel, ...]


def graph(title: str, description: str, unit: str, *queries: Query, width: int = 8) -> Panel:
    """Lines over time."""
    builder = _described(timeseries.Panel(), title, description, unit, queries)
    return Panel(builder.line_width(1).fill_opacity(8).tooltip(_sorted_tooltip()).legend(_legend()), width, 8)


def shares(title: str, description: str, unit: str, *queries: Query, width: int = 8) -> Panel:
    """Parts of a whole over time, one on top of the other."""
    panel = graph(title, description, unit, *queries, width=width)
    assert isinstance(panel.builder, timeseries.Panel)
    panel.builder.fill_opacity(60).stacking(common.StackingConfig().mode(looks.StackingMode.NORMAL))
    return panel


def value(
    title: str, description: str, unit: str, *queries: Query, width: int = 3, bad_from: float | None = None,
    good_from: float | None = None,
) -> Panel:  # fmt: skip
    """One number, of now. It turns red from `bad_from` on, or below `good_from`."""
    builder = _described(stat.Panel(), title, description, unit, queries, instant=True)
    steps = [model.Threshold(value=None, color="green" if good_from is None else "red")]
    if bad_from is not None:
        steps.append(model.Threshold(value=bad_from, color="red"))
    if good_from is not None:
        steps.append(model.Threshold(value=good_from, color="green"))
    thresholds = dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps)
    builder.thresholds(thresholds).graph_mode(looks.BigValueGraphMode.NONE)
    return Panel(builder, width, 4)


def hosts_table(title: str, description: str, unit: str, columns: Mapping[str, tuple[str, str]], *, link: str) -> Panel:
    """A line a host.

    `columns` goes by title: an expression with one series an instance, and a unit. `link` is for a click on the host,
    whose name is `${__data.fields.Host}`.
    """
    references = dict(zip(columns, "ABCDEFGHIJ", strict=False))
    builder = table.Panel().title(title).description(description).unit(unit).datasource(DATASOURCE)
    for column, (expression, _) in columns.items():
        target = _target(Query(expression, ""), references[column], instant=True)
        builder.with_target(target.format(query_model.PromQueryFormat.TABLE))
    builder.with_transformation(model.DataTransformerConfig(id_val="merge", options={}))
    names = {f"Value #{reference}": column for column, reference in references.items()}
    organize = {"excludeByName": {"Time": True, "job": True}, "renameByName": {"instance": "Host", **names}}
    builder.with_transformation(model.DataTransformerConfig(id_val="organize", options=organize))
    links = [{"title": "Open the host's dashboard", "url": link}]
    builder.override_by_name("Host", [model.DynamicConfigValue("links", links)])
    for column, (_, column_unit) in columns.items():
        builder.override_by_name(column, [model.DynamicConfigValue("unit", column_unit)])
    return Panel(builder, WIDTH, 9)


def rows(contents: tuple[Row, ...]) -> Iterator[dashboard.Row | Builder]:
    """Rows and panels in order, each with its place and a number that stays."""
    top, number = 0, 0
    for row in contents:
        number += 1
        yield dashboard.Row(row.title).id(number).grid_pos(model.GridPos(x=0, y=top, w=WIDTH, h=1))
        top, left, height = top + 1, 0, 0
        for panel in row.panels:
            if left + panel.width > WIDTH:
                top, left, height = top + height, 0, 0
            number += 1
            place = model.GridPos(x=left, y=top, w=panel.width, h=panel.height)
            yield panel.builder.id(number).grid_pos(place)
            left, height = left + panel.width, max(height, panel.height)
        top += height


def _described(
    builder: Plotted, title: str, description: str, unit: str, queries: tuple[Query, ...], *, instant: bool = False
) -> Plotted:
    builder.title(title).description(description).unit(unit).datasource(DATASOURCE)
    for reference, query in zip("ABCDEFGHIJ", queries, strict=False):
        builder.with_target(_target(query, reference, instant=instant))
    return builder


def _target(query: Query, reference: str, *, instant: bool) -> prometheus.Dataquery:
    target = prometheus.Dataquery().expr(query.expression).ref_id(reference).datasource(DATASOURCE)
    target = target.instant() if instant else target.range()
    return target.legend_format(query.legend) if query.legend else target


def _sorted_tooltip() -> common.VizTooltipOptions:
    return common.VizTooltipOptions().mode(looks.TooltipDisplayMode.MULTI).sort(looks.SortOrder.DESCENDING)


def _legend() -> common.VizLegendOptions:
    return (
        common.VizLegendOptions()
        .show_legend(True)
        .display_mode(looks.LegendDisplayMode.LIST)
        .placement(looks.LegendPlacement.BOTTOM)
    )
