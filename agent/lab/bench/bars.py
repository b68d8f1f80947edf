"""What the agent promises, and whether a bench bears it out: one line a promise, over all paths of a workload."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from agent.lab.bench.competing import BAR, COMPETING
from agent.lab.bench.contenders import NULL, TCPTUNED
from agent.lab.bench.result import Measured
from agent.lab.findings.model import Cell, Column, Table
from agent.lab.ratios import Ratio, geometric_mean

__all__ = ["bars"]

_GAIN = 0.75  # paths where the best fixed arm reaches this are those with something to gain
_BULK_OTHER = "bbr-iw10"  # the default is cubic


@dataclass(frozen=True)
class _Line:
    """A promise, what was found, the bar and whether it holds."""

    text: str
    found: Cell
    bar: str
    verdict: str


def bars(workloads: Mapping[str, Sequence[Measured]], competing: Ratio | None = None) -> Table:
    """A table of all promises that the workloads measured say something about; `competing` is the worst path's ratio.

    "yes" and "no": the whole 95 % interval is on that side of the bar; otherwise what the value says, and "open".
    """
    lines: list[_Line] = []
    for name, cells in workloads.items():
        for more in (_bulk,) if name == "bulk" else (_times, _learnt, _honest):
            lines += [_Line(f"{name}: {each.text}", each.found, each.bar, each.verdict) for each in more(cells)]
    if competing:
        lines.append(_least(f"{COMPETING}: goodput of another's flow by that beside the default", competing, BAR))
    columns = [Column("promise"), Column("found", 3), Column("bar"), Column("kept")]
    return Table("What is promised", columns, [[each.text, each.found, each.bar, each.verdict] for each in lines])


def _most(text: str, found: Ratio, bar: float) -> _Line:
    return _Line(text, found, f"<= {bar:g}", _verdict(found.value <= bar, found.high <= bar, found.low > bar))


def _least(text: str, found: Ratio, bar: float) -> _Line:
    return _Line(text, found, f">= {bar:g}", _verdict(found.value >= bar, found.low >= bar, found.high < bar))


def _verdict(holds: bool, surely: bool, surely_not: bool) -> str:
    if surely or surely_not:
        return "yes" if surely else "no"
    return "open (yes so far)" if holds else "open (no so far)"


def _times(cells: Sequence[Measured]) -> list[_Line]:
    lines = []
    for text, against, ratios in (
        ("mean", _against, _means), ("median", _against_median, _medians),
    ):  # fmt: skip
        if known := [each for cell in cells if (each := against(cell))]:
            lines.append(_most(f"tcptuned by the best static arm, {text}", geometric_mean(known), 1.05))
        gains = [
            ratios(cell)[TCPTUNED.name]
            for cell in cells
            if cell.oracle and ratios(cell)[cell.oracle].value <= _GAIN
        ]  # fmt: skip
        if gains:
            many = f"the {len(gains)} paths where the best static arm reaches {_GAIN:g}"
            lines.append(_most(f"tcptuned by the default on {many}, {text}", geometric_mean(gains), 0.78))
        worst = max(cells, key=lambda cell: ratios(cell)[TCPTUNED.name].value)
        line = f"worst path by the default, {text}: path {worst.path}"
        if nulls := [ratios(cell)[NULL.name].value for cell in cells if NULL.name in cell.ratios]:
            line += f" (by chance: {max(nulls):.2f})"
        lines.append(_most(line, ratios(worst)[TCPTUNED.name], 1.03))
    return lines


def _against(cell: Measured) -> Ratio | None:
    return cell.against


def _against_median(cell: Measured) -> Ratio | None:
    return cell.against_median


def _means(cell: Measured) -> Mapping[str, Ratio]:
    return cell.ratios


def _medians(cell: Measured) -> Mapping[str, Ratio]:
    return cell.medians


def _learnt(cells: Sequence[Measured]) -> list[_Line]:
    cells = [cell for cell in cells if cell.oracle]
    if not cells:
        return []
    changed = any(cell.changed for cell in cells)
    text, bar = ("after the change until within 10 %", 300) if changed else ("until within 10 % when cold", 200)
    lines = [
        _count(f"connections {text}, mean", cells, lambda cell: cell.learnt, bar),
        _count(f"connections {text}, median", cells, lambda cell: cell.learnt_median, bar),
    ]
    if not changed:
        text = "the same where a sibling is known"
        lines += [
            _count(f"{text}, mean", cells, lambda cell: cell.sibling, 40),
            _count(f"{text}, median", cells, lambda cell: cell.sibling_median, 40),
        ]
    return lines


def _count(text: str, cells: Sequence[Measured], number: Callable[[Measured], int | None], bar: int) -> _Line:
    never = [cell.path for cell in cells if number(cell) is None]
    known = [each for cell in cells if (each := number(cell)) is not None]
    found = f"at most {max(known)} on {len(known)} of {len(cells)} paths" if known else "never"
    if never:
        found += f"; not on {', '.join(never)}"
    return _Line(text, found, f"<= {bar}", "no" if never or max(known) > bar else "yes")


def _honest(cells: Sequence[Measured]) -> list[_Line]:
    lines = []
    for name, field in (("first-window loss", "first_window_loss"), ("retransmission", "retransmission")):
        shares = {cell.path: getattr(cell, field) for cell in cells}
        apart = {path: 100 * (each[TCPTUNED.name] - each["default"]) for path, each in shares.items()}
        worst = max(apart, key=lambda path: apart[path])
        above = sum(each > 1.0 for each in apart.values())
        found = f"{apart[worst]:+.1f} points on path {worst}; more than 1 on {above} of {len(apart)}"
        lines.append(_Line(f"{name} above the default's, worst path", found, "<= 1 point", "no" if above else "yes"))
    if known := [cell.covered for cell in cells if cell.covered is not None]:
        found = f"{sum(known)} of {len(known)} paths"
        lines.append(_Line("the agent's interval covers what clients saw", found, ">= 90 %", _enough(known)))
    if ranks := [cell.ranked for cell in cells if cell.ranked is not None]:
        found = f"{100 * sum(ranks) / len(ranks):.0f} % of pairs; all on {sum(each == 1 for each in ranks)} paths"
        verdict = "yes" if min(ranks) == 1 else "no"
        lines.append(_Line("the agent's measure ranks static arms as clients do", found, "all pairs", verdict))
    return lines


def _enough(known: Sequence[bool]) -> str:
    return "yes" if sum(known) >= 0.9 * len(known) else "no"


def _bulk(cells: Sequence[Measured]) -> list[_Line]:
    """Goodput: more is better."""
    shares = {cell.path: _by_better(cell) for cell in cells}
    worst = min(shares, key=lambda path: shares[path].value)
    both = (("geometric mean", geometric_mean(list(shares.values()))), (f"path {worst}", shares[worst]))
    return [_least(f"goodput by the better of cubic and bbr, {text}", found, 0.95) for text, found in both]


def _by_better(cell: Measured) -> Ratio:
    ours, other = cell.ratios[TCPTUNED.name], cell.ratios.get(_BULK_OTHER)
    best = max(1.0, other.value if other else 1.0)
    return Ratio(ours.value / best, ours.low / best, ours.high / best)
