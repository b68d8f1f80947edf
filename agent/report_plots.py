"""The report's plots as inline SVG (matplotlib): text stays text, colours and letters are the page's."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import import_module
from typing import Any

import matplotlib as mpl
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

__all__ = ["COLOURS", "Interval", "bars", "changes", "intervals", "over_time"]

_WIDTH = 4.6  # inches: narrow, so that letters are still readable when a phone shows the whole width
_HEIGHT = 2.4
_ROW_HEIGHT = 0.24
_LONGEST = 44  # letters of a label
_GAP = 2.5  # intervals without a row: the agent was away, and the line ends

# What the page's style sheet calls its colours. matplotlib draws with stand-ins that nobody else uses.
COLOURS = ("text", "grid", "first", "second", "third", "fourth")
_STAND_INS = {name: f"#0{number}0{number}0{number}" for number, name in enumerate(COLOURS, 1)}
_SERIES = COLOURS[2:]
_SETTINGS: dict[Any, Any] = {
    "svg.hashsalt": "tcptuned",  # the same plot is the same text
    "svg.fonttype": "none",
    "text.parse_math": False,  # a $ in a name is a $
    "font.size": 9.0,
    "text.color": _STAND_INS["text"],
    "axes.labelcolor": _STAND_INS["text"],
    "axes.edgecolor": _STAND_INS["grid"],
    "xtick.color": _STAND_INS["grid"],
    "ytick.color": _STAND_INS["grid"],
    "xtick.labelcolor": _STAND_INS["text"],
    "ytick.labelcolor": _STAND_INS["text"],
    "grid.color": _STAND_INS["grid"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "timezone": "UTC",
}


@dataclass(frozen=True)
class Interval:
    """A value and its bounds, under a label."""

    label: str
    value: float
    low: float
    high: float


def over_time(
    end: Sequence[float], lines: Mapping[str, Sequence[float | None]], *, unit: str, step: float,
    band: tuple[Sequence[float | None], Sequence[float | None]] | None = None,
) -> str:  # fmt: skip
    """Lines by label over time (`end`, seconds since 1970), from 0 upwards; or, with a `band` around the first of them,
    on both sides of 0. Values of None are left out. `step` is the usual distance of two points in seconds.
    """

    def draw(axes: Any) -> None:
        times, columns = _broken(end, [*lines.values(), *(band or ())], _GAP * step)
        for number, label in enumerate(lines):
            axes.plot(times, columns[number], label=_clean(label), color=_STAND_INS[_SERIES[number]], linewidth=1.3)
        if band:
            axes.fill_between(times, columns[-2], columns[-1], color=_STAND_INS[_SERIES[0]], alpha=0.2, linewidth=0)
            axes.axhline(0, color=_STAND_INS["text"], linewidth=0.8, linestyle="--")
        else:
            axes.set_ylim(bottom=0)
        _time_axis(axes)
        axes.set_ylabel(unit)
        _legend(axes, len(lines))

    return _svg(draw, _HEIGHT)


def intervals(rows: Sequence[Interval], *, unit: str, reference: float) -> str:
    """One row for each interval, from top to bottom; `reference` is marked."""

    def draw(axes: Any) -> None:
        places = range(len(rows))
        values = [row.value for row in rows]
        below = [max(row.value - row.low, 0.0) for row in rows]
        above = [max(row.high - row.value, 0.0) for row in rows]
        axes.errorbar(values, places, xerr=[below, above], fmt="o", markersize=4, capsize=2.5, linewidth=1.3,
                      color=_STAND_INS["first"])  # fmt: skip
        axes.axvline(reference, color=_STAND_INS["text"], linewidth=0.8, linestyle="--")
        _rows(axes, [row.label for row in rows])
        axes.set_xlabel(unit)

    return _svg(draw, 0.7 + _ROW_HEIGHT * len(rows))


def bars(values: Mapping[str, float], *, unit: str) -> str:
    """One bar for each label, from top to bottom."""

    def draw(axes: Any) -> None:
        axes.barh(range(len(values)), list(values.values()), height=0.6, color=_STAND_INS["first"])
        _rows(axes, list(values))
        axes.set_xlabel(unit)

    return _svg(draw, 0.7 + _ROW_HEIGHT * len(values))


def changes(times: Mapping[str, Sequence[float]], *, unit: str) -> str:
    """How often something happened, by label (at most four) and time (seconds since 1970)."""

    def draw(axes: Any) -> None:
        moments = [[datetime.fromtimestamp(time, UTC) for time in each] for each in times.values()]
        colours = [_STAND_INS[name] for name in _SERIES[: len(times)]]
        axes.yaxis.get_major_locator().set_params(integer=True)
        axes.hist(moments, bins=48, stacked=True, color=colours, label=[_clean(label) for label in times])
        _time_axis(axes)
        axes.set_ylabel(unit)
        _legend(axes, len(times))

    return _svg(draw, _HEIGHT)


def _broken(
    end: Sequence[float], columns: Sequence[Sequence[float | None]], most: float
) -> tuple[list[datetime], list[list[float]]]:
    """Times, and columns without None; where more than `most` seconds lie between two points, one that is no number."""
    nan = float("nan")
    times: list[datetime] = []
    found: list[list[float]] = [[] for _ in columns]
    last = None
    for position, moment in enumerate(end):
        if last is not None and moment - last > most:
            times.append(datetime.fromtimestamp(last, UTC))
            for column in found:
                column.append(nan)
        times.append(datetime.fromtimestamp(moment, UTC))
        for column, values in zip(found, columns, strict=True):
            value = values[position]
            column.append(nan if value is None else value)
        last = moment
    return times, found


def _time_axis(axes: Any) -> None:
    dates: Any = import_module("matplotlib.dates")  # typed in some versions, in parts
    locator = dates.AutoDateLocator(minticks=3, maxticks=6)
    axes.xaxis.set_major_locator(locator)
    axes.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))


def _legend(axes: Any, labels: int) -> None:
    """Above the plot, where it hides nothing."""
    if labels > 1:
        axes.legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=2, borderpad=0, borderaxespad=0.3)


def _rows(axes: Any, labels: Sequence[str]) -> None:
    axes.set_yticks(range(len(labels)), [_clean(label) for label in labels])
    axes.set_ylim(len(labels) - 0.5, -0.5)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="y", visible=False)


def _clean(label: str) -> str:
    """A label of letters that can be seen, and not too many of them."""
    shown = "".join(letter if letter.isprintable() else "?" for letter in label)
    # matplotlib leaves out of legends what begins with an underscore.
    shown = shown.lstrip("_") or "?"
    return shown if len(shown) <= _LONGEST else f"{shown[: _LONGEST - 1]}…"


def _svg(draw: Callable[[Any], None], height: float) -> str:
    # Without pyplot there is neither a display nor global state.
    text = io.StringIO()
    with mpl.rc_context(_SETTINGS), warnings.catch_warnings():
        # A letter that the font does not have is the browser's matter.
        warnings.simplefilter("ignore", UserWarning)
        figure = Figure(figsize=(_WIDTH, height), layout="constrained")
        FigureCanvasSVG(figure)
        draw(figure.add_subplot())
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    return _inline(text.getvalue())


def _inline(svg: str) -> str:
    """A file of its own as a part of the page: no prologue, no addresses, the page's letters and colours."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", "", svg, flags=re.DOTALL)
    svg = re.sub(r' xmlns(:xlink)?="[^"]*"', "", svg).replace("xlink:href=", "href=")
    svg = re.sub(r'<svg [^>]*?viewBox="([^"]*)"[^>]*>', r'<svg viewBox="\1" aria-hidden="true">', svg, count=1)
    svg = re.sub(r'font: ((?:\w+ )*[0-9.]+px) [^;"]*', r"font: \1 system-ui, sans-serif", svg)  # matplotlib before 3.10
    svg = re.sub(r'font-family: [^;"]*(; )?', "", svg)
    # Names of parts would be there twice with two plots on a page; the others stand for what they name.
    used = set(re.findall(r'(?:url\(|href=")#([^")]*)', svg))
    svg = re.sub(r' id="([^"]*)"', lambda found: found[0] if found[1] in used else "", svg)
    for name, stand_in in _STAND_INS.items():
        svg = svg.replace(f": {stand_in}", f": var(--{name})")
    return svg
