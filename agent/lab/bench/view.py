"""The bench's tables and figures, from what its cells say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agent.lab.bench.contenders import DEFAULT, NULL, RFC9040, RIPTIDE, SIBLING, TCPTUNED
from agent.lab.bench.result import Measured
from agent.lab.findings.model import Cell, Column, Figure, Found, Series, Table
from agent.lab.ratios import Ratio, geometric_mean

__all__ = ["found"]

_ORACLE, _COLD = "best static", "tcptuned cold"
_SHOWN = (NULL.name, "cubic-iw24", "cubic-iw40", "bbr-iw10", RIPTIDE.name, RFC9040.name, SIBLING.name, TCPTUNED.name)


def found(workload: str, setting: str, cells: Sequence[Measured], seconds: float, more: Sequence[str] = ()) -> Found:
    """One workload: tables of times, losses and learning, and a figure; `more` notes go below."""
    names = [name for name in _SHOWN if any(name in cell.ratios for cell in cells)]
    oracles = any(cell.oracle for cell in cells)
    goodput = workload == "bulk"
    kinds = (("Mean", "ratios"), ("Median", "medians"))
    losses = (("First-window loss", "first_window_loss"), ("Retransmission", "retransmission"))
    tables = [_ratios(cells, names, oracles, *kind) for kind in kinds]
    tables += [_losses(cells, names, oracles, *each) for each in losses]
    return Found(
        name=workload,
        title=f"{workload}: {'goodput' if goodput else 'completion time'} against the kernel's default",
        setting=setting,
        tables=[*tables, _learning(cells, oracles)],
        figures=[_figure(workload, cells, names, oracles, goodput)],
        notes=[*_notes(cells), *more],
        seconds=seconds,
    )


def oracle_of(cell: Measured) -> Ratio | None:
    """The best static arm's ratio."""
    return cell.ratios[cell.oracle] if cell.oracle else None


def _ratios(cells: Sequence[Measured], names: Sequence[str], oracles: bool, title: str, field: str) -> Table:
    means = field == "ratios"
    columns = [Column("path"), *([Column(DEFAULT.name, 3)] if means else []), *(Column(name) for name in names)]
    columns += [Column(_COLD)] if means else []
    columns += [Column(_ORACLE), Column("which")] if oracles else []

    def row(cell: Measured) -> list[Cell]:
        ratios: Mapping[str, Ratio] = getattr(cell, field)
        values: list[Cell] = [cell.path, *([cell.default] if means else []), *(ratios.get(name) for name in names)]
        values += [cell.cold] if means else []
        return values + ([ratios[cell.oracle] if cell.oracle else None, cell.oracle] if oracles else [])

    rows = [row(cell) for cell in cells]
    last: list[Cell] = ["geometric mean"]
    for column in range(1, len(columns)):
        ratios = [each for each in (values[column] for values in rows) if isinstance(each, Ratio)]
        last.append(geometric_mean(ratios) if ratios else None)
    return Table(f"{title} of each contender by the kernel's default's, 95 % interval", columns, [*rows, last])


def _losses(cells: Sequence[Measured], names: Sequence[str], oracles: bool, title: str, field: str) -> Table:
    shown = [DEFAULT.name, *names]
    columns = [Column("path"), *(Column(name, 1) for name in shown), *([Column(_ORACLE, 1)] if oracles else [])]
    rows: list[list[Cell]] = []
    for cell in cells:
        shares: Mapping[str, float] = getattr(cell, field)
        some = [*shown, *([cell.oracle or ""] if oracles else [])]
        rows.append([cell.path, *(100 * shares[name] if name in shares else None for name in some)])
    return Table(f"{title}, % of the segments", columns, rows)


def _learning(cells: Sequence[Measured], oracles: bool) -> Table:
    columns = [Column("path"), Column("tcptuned chose")]
    if oracles:
        columns += [Column("within 10 % after", 0), Column("as a sibling", 0)]
        columns += [Column("within 10 % (median)", 0), Column("as a sibling (median)", 0)]
        columns.append(Column("pairs ranked alike"))
    columns.append(Column("interval covers"))
    rows: list[list[Cell]] = []
    for cell in cells:
        row: list[Cell] = [cell.path, cell.chosen]
        if oracles:
            row += [_number(cell.learnt), _number(cell.sibling), _number(cell.learnt_median)]
            row += [_number(cell.sibling_median), cell.ranked]
        row.append(_word(cell.covered))
        rows.append(row)
    return Table("What was learnt", columns, rows)


def _number(value: int | None) -> float | None:
    return None if value is None else float(value)


def _word(value: bool | None) -> str | None:
    return None if value is None else "yes" if value else "no"


def _notes(cells: Sequence[Measured]) -> list[str]:
    notes = ["Losses of tcptuned are of the connections compared, its holdout and its trials among them."]
    if failures := sum(cell.failures for cell in cells):
        notes.append(f"{failures} objects failed")
    return notes


def _figure(workload: str, cells: Sequence[Measured], names: Sequence[str], oracles: bool, goodput: bool) -> Figure:
    def series(label: str, ratios: Sequence[Ratio | None]) -> Series:
        there = [(float(place), each) for place, each in enumerate(ratios) if each]
        return Series(
            label, [place for place, _ in there], [each.value for _, each in there],
            [each.low for _, each in there], [each.high for _, each in there],
        )  # fmt: skip

    drawn = [series(name, [cell.ratios.get(name) for cell in cells]) for name in names if name != NULL.name]
    if oracles:
        drawn.append(series(_ORACLE, [oracle_of(cell) for cell in cells]))
    return Figure(
        name=f"bench-{workload}",
        title=f"{workload}: every contender by the kernel's default",
        x_label="path",
        y_label="goodput, relative" if goodput else "completion time, relative",
        series=drawn,
        ticks=[cell.path for cell in cells],
        reference=1.0,
    )
