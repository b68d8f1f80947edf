"""The experiments' figures as SVG (matplotlib), each a file of its own."""

from __future__ import annotations

import io
from typing import Any

from agent.lab.findings.model import Figure, Series

__all__ = ["draw"]

_SIZE = (9.0, 4.2)  # inches
_SPREAD = 0.6  # of the room between two ticks, shared by the series
_ROOM = 90  # letters beside each other below the axis
_SETTINGS: dict[Any, Any] = {
    "svg.hashsalt": "tcptuned",  # the same figure is the same file
    "svg.fonttype": "none",  # text stays text
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e0e0e0",
    "axes.axisbelow": True,
}


def draw(figure: Figure) -> str:
    """The figure as SVG text."""
    # Takes half a second to import; most commands draw nothing. Without pyplot there is no display and no global state.
    import matplotlib as mpl
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure as Canvas

    with mpl.rc_context(_SETTINGS):
        canvas = Canvas(figsize=_SIZE, layout="constrained")
        axes = canvas.add_subplot()
        for index, series in enumerate(figure.series):
            if figure.kind == "lines":
                axes.plot(series.x, series.y, label=series.label, linewidth=1.2)
            else:
                shift = ((index + 0.5) / len(figure.series) - 0.5) * _SPREAD
                axes.errorbar(
                    [x + shift for x in series.x], series.y, yerr=_errors(series), label=series.label,
                    fmt="o", markersize=4, capsize=2, linewidth=1,
                )  # fmt: skip
        if figure.reference is not None:
            axes.axhline(figure.reference, color="#606060", linewidth=0.8, linestyle="--")
        if figure.ticks:
            axes.set_xticks(range(len(figure.ticks)), figure.ticks)
            if sum(map(len, figure.ticks)) > _ROOM:
                for label in axes.get_xticklabels():
                    label.set(rotation=20, ha="right")
        axes.set_title(figure.title, loc="left", fontweight="bold")
        axes.set_xlabel(figure.x_label)
        axes.set_ylabel(figure.y_label)
        axes.legend(frameon=False, loc="upper left", bbox_to_anchor=(1.0, 1.0))
        text = io.StringIO()
        FigureCanvasSVG(canvas)
        canvas.savefig(text, format="svg", metadata={"Date": None})
    return text.getvalue()


def _errors(series: Series) -> list[list[float]] | None:
    """Lengths of the bars below and above each point."""
    if not series.low:
        return None
    below = [max(y - low, 0.0) for y, low in zip(series.y, series.low, strict=True)]
    above = [max(high - y, 0.0) for y, high in zip(series.y, series.high, strict=True)]
    return [below, above]
