"""What an experiment found: tables and figures as plain values, for the terminal, JSON and the page alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from agent.display import NOTHING
from agent.lab.ratios import Ratio

__all__ = ["Cell", "Column", "Figure", "Found", "Progress", "Series", "Table", "shown"]

Cell = str | float | Ratio | None


@dataclass(frozen=True)
class Column:
    """A table's column: its heading, and the digits its numbers are shown with."""

    name: str
    digits: int = 2


@dataclass(frozen=True)
class Table:
    """Rows of text, numbers and ratios, one cell for each column; None: not measured."""

    title: str
    columns: Sequence[Column]
    rows: Sequence[Sequence[Cell]]


@dataclass(frozen=True)
class Series:
    """Points of a figure; `low` and `high` are the ends of their intervals, of the same length, or empty."""

    label: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()


@dataclass(frozen=True)
class Figure:
    """A picture: lines over a number, or points with intervals over named places (`ticks`, at x = 0, 1, ...)."""

    name: str
    title: str
    x_label: str
    y_label: str
    series: Sequence[Series]
    kind: Literal["lines", "points"] = "points"
    ticks: Sequence[str] = ()
    reference: float | None = None  # a line across, where nothing differs


@dataclass(frozen=True)
class Found:
    """One experiment's outcome. `setting` says what was run; `notes` what the figures do and do not show."""

    name: str
    title: str
    setting: str
    tables: Sequence[Table]
    figures: Sequence[Figure]
    notes: Sequence[str]
    seconds: float


class Progress(Protocol):
    """Told how far the experiments are."""

    def begin(self, title: str, steps: int) -> None:
        """An experiment begins that has so many steps."""
        ...

    def step(self, text: str) -> None:
        """The next step begins."""
        ...


def shown(cell: Cell, column: Column) -> str:
    """A cell as people read it."""
    match cell:
        case None:
            return NOTHING
        case str():
            return cell
        case Ratio():
            value, low, high = (f"{each:.{column.digits}f}" for each in (cell.value, cell.low, cell.high))
            return f"{value} ({low} to {high})"
    return f"{cell:,.{column.digits}f}"
