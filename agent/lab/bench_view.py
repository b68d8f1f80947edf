"""The bench's tables and figures, from what its cells say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from agent.lab.bench_contenders import DEFAULT, NULL, RFC9040, RIPTIDE, SIBLING, TCPTUNED
from agent.lab.bench_result import DECENT, Measured, geometric_mean
from agent.lab.paper_result import Cell, Column, Figure, Found, Series, Table
from agent.lab.ratios import Ratio

__all__ = ["found"]

_ORACLE = "best static"
_SHOWN = (NULL.name, "cubic-iw24", "cubic-iw40", "bbr-iw10", RIPTIDE.name, RFC9040.name, SIBLING.name, TCPTUNED.name)
_GAIN = 0.75  # paths where the best static arm reaches this are those with something to gain


def found(workload: str, setting: str, cells: Sequence[Measured], seconds: float) -> Found:
    """One workload: a table of ratios, a table of losses and learning, and a figure."""
    names = [name for name in _SHOWN if any(name in cell.ratios for cell in cells)]
    oracles = any(cell.oracle for cell in cells)
    goodput = workload == "bulk"
    return Found(
        name=workload,
        title=f"{workload}: {'goodput' if goodput else 'completion time'} against the kernel's default",
        setting=setting,
        tables=[_ratios(cells, names, oracles), _losses(cells, oracles)],
        figures=[_figure(workload, cells, names, oracles, goodput)],
        notes=_bulk_notes(cells) if goodput else _notes(cells),
        seconds=seconds,
    )


def oracle_of(cell: Measured) -> Ratio | None:
    """The best static arm's ratio."""
    return cell.ratios[cell.oracle] if cell.oracle else None


def _ratios(cells: Sequence[Measured], names: Sequence[str], oracles: bool) -> Table:
    columns = [Column("path"), Column(DEFAULT.name, 3), *(Column(name) for name in names)]
    if oracles:
        columns += [Column(_ORACLE), Column("which")]
    rows: list[list[Cell]] = []
    for cell in cells:
        row: list[Cell] = [cell.path, cell.default, *(cell.ratios.get(name) for name in names)]
        rows.append([*row, oracle_of(cell), cell.oracle] if oracles else row)
    means: list[Cell] = [geometric_mean([cell.ratios[name].value for cell in cells]) for name in names]
    last: list[Cell] = ["geometric mean", None, *means]
    if oracles:
        last += [geometric_mean([each.value for cell in cells if (each := oracle_of(cell))]), None]
    return Table("Mean of each contender by the kernel's default's, 95 % interval", columns, [*rows, last])


def _losses(cells: Sequence[Measured], oracles: bool) -> Table:
    columns = [
        Column("path"), Column("first-window loss %: default", 1), Column("tcptuned", 1),
        Column("retransmitted %: default", 1), Column("tcptuned", 1), Column("tcptuned chose"),
    ]  # fmt: skip
    if oracles:
        columns += [Column("within 10 % after", 0), Column("as a sibling", 0)]
        columns += [Column("interval covers"), Column("ranks")]
    rows: list[list[Cell]] = []
    for cell in cells:
        shares = [
            100 * each[name]
            for each in (cell.first_window_loss, cell.retransmission)
            for name in (DEFAULT.name, TCPTUNED.name)
        ]
        row: list[Cell] = [cell.path, *shares, cell.chosen]
        if oracles:
            row += [_number(cell.learnt), _number(cell.sibling), _word(cell.covered), _word(cell.ranked)]
        rows.append(row)
    return Table("What was lost, and what was learnt", columns, rows)


def _number(value: int | None) -> float | None:
    return None if value is None else float(value)


def _word(value: bool | None) -> str | None:
    return None if value is None else "yes" if value else "no"


def _notes(cells: Sequence[Measured]) -> list[str]:
    ours = {cell.path: cell.ratios[TCPTUNED.name].value for cell in cells}
    worst = max(ours, key=lambda path: ours[path])
    notes = [f"tcptuned's slowest path against the default: path {worst}, {ours[worst]:.3f}"]
    best = {cell.path: each.value for cell in cells if (each := oracle_of(cell))}
    if best:
        notes.append(
            f"tcptuned against the best static arm: {geometric_mean([ours[path] / best[path] for path in best]):.3f}"
        )
        gains = [path for path in best if best[path] <= _GAIN]
        notes.append(
            f"on the {len(gains)} paths where that reaches {_GAIN}: tcptuned "
            f"{geometric_mean([ours[path] for path in gains]):.3f} of the default"
        )
    for name, shares in (("first-window loss", _apart(cells, "first_window_loss")),
                         ("retransmission", _apart(cells, "retransmission"))):  # fmt: skip
        worst = max(shares, key=lambda path: shares[path])
        above = sum(share > DECENT for share in shares.values())
        notes.append(
            f"{name} above the default's: at most {100 * shares[worst]:.1f} points (path {worst}), more than one on "
            f"{above} of {len(shares)} paths"
        )
    for text, values in (("the agent's interval covers what the clients saw", [cell.covered for cell in cells]),
                         ("the agent's measure ranks static arms as the clients do", [cell.ranked for cell in cells])):
        if known := [value for value in values if value is not None]:
            notes.append(f"{text} on {sum(known)} of {len(known)} paths")
    if failures := sum(cell.failures for cell in cells):
        notes.append(f"{failures} objects failed")
    return notes


def _bulk_notes(cells: Sequence[Measured]) -> list[str]:
    shares = {
        cell.path: cell.ratios[TCPTUNED.name].value / max(1.0, cell.ratios["bbr-iw10"].value) for cell in cells
    }
    worst = min(shares, key=lambda path: shares[path])
    return [f"tcptuned against the better of cubic and bbr: least on path {worst}, {shares[worst]:.3f}", *_notes(cells)]


def _apart(cells: Sequence[Measured], field: str) -> Mapping[str, float]:
    shares = {cell.path: getattr(cell, field) for cell in cells}
    return {path: each[TCPTUNED.name] - each[DEFAULT.name] for path, each in shares.items()}


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
