"""Experiment `ack`: its strategies, what a run measures, and what that says against the baseline."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from agent.lab.findings.model import Cell, Column, Figure, Series, Table
from agent.lab.ratios import Ratio, paired_ratio, quantile_ratio

__all__ = ["STRATEGIES", "Measured", "ack_figures", "ack_table", "pooled_table", "verdicts"]

BASELINE = "kernel's own"
# name: segments and divisor of the RTT asked for
STRATEGIES: Mapping[str, tuple[int, int] | None] = {
    BASELINE: None,
    "every segment, RTT/4": (1, 4),
    "10 segments, RTT/4": (10, 4),
    "100 segments, RTT/2": (100, 2),
}
_JUDGED = "10 segments, RTT/4"


@dataclass
class Measured:
    """What a strategy did on a link: a value a round, and the times of all objects in seconds."""

    mbps: list[float] = field(default_factory=list)
    acks: list[float] = field(default_factory=list)  # packets of the way back, for one of data
    times: list[float] = field(default_factory=list)
    overflow: list[float] = field(default_factory=list)  # share of the download's packets that found the queue full


_OfLink = Mapping[str, Measured]  # by strategy


@dataclass(frozen=True)
class _Target:
    """What thinning at 10 must reach on every link: a ratio to the kernel's own, at most or at least."""

    name: str
    bound: float
    at_least: bool = False

    def met(self, ratio: Ratio) -> bool:
        return ratio.value >= self.bound if self.at_least else ratio.value <= self.bound

    def missed(self, ratio: Ratio) -> bool:
        """For certain: the whole interval is on the wrong side."""
        return ratio.high < self.bound if self.at_least else ratio.low > self.bound


_TARGETS = (_Target("ACKs", 0.5), _Target("goodput", 0.98, at_least=True), _Target("p99", 1.1))


def _ratios(found: _OfLink, strategy: str) -> tuple[Ratio, Ratio, Ratio, Ratio]:
    """ACKs, goodput, median and 99th percentile of the objects' times, against the baseline."""
    ours, theirs = found[strategy], found[BASELINE]
    return (
        paired_ratio(ours.acks, theirs.acks), paired_ratio(ours.mbps, theirs.mbps),
        quantile_ratio(ours.times, theirs.times, 0.5), quantile_ratio(ours.times, theirs.times, 0.99),
    )  # fmt: skip


def ack_table(title: str, found: _OfLink) -> Table:
    """One link."""
    columns = [
        Column("strategy"), Column("ACKs a packet"), Column("ACKs"), Column("goodput"), Column("p50 of 100 KB"),
        Column("p99 of 100 KB"), Column("objects", 0), Column("overflow %"),
    ]  # fmt: skip
    rows: list[list[Cell]] = []
    for name, measured in found.items():
        compared: Sequence[Cell] = [None] * 4 if name == BASELINE else _ratios(found, name)
        overflow = statistics.fmean(measured.overflow) * 100
        rows.append([name, statistics.fmean(measured.acks), *compared, len(measured.times), overflow])
    return Table(title, columns, rows)


def pooled_table(found: Mapping[str, _OfLink]) -> Table:
    """All links together; an object's time counts as a multiple of the link's median with the kernel's own ACKs."""
    together: dict[str, Measured] = {name: Measured() for name in STRATEGIES}
    for of_link in found.values():
        median = statistics.median(of_link[BASELINE].times)
        for name, measured in of_link.items():
            together[name].mbps += measured.mbps
            together[name].acks += measured.acks
            together[name].overflow += measured.overflow
            together[name].times += [each / median for each in measured.times]
    return ack_table("all links", together)


def verdicts(found: Mapping[str, _OfLink]) -> list[str]:
    """How thinning at 10 does against its targets, in sentences."""
    met, missed = [], []
    for link, of_link in found.items():
        acks, goodput, _, p99 = _ratios(of_link, _JUDGED)
        pairs = list(zip(_TARGETS, (acks, goodput, p99), strict=True))
        if all(target.met(ratio) for target, ratio in pairs):
            met.append(link)
        for target, ratio in pairs:
            if target.missed(ratio):
                missed.append(f"{link}: {target.name} {ratio.value:.2f} ({ratio.low:.2f} to {ratio.high:.2f})")
    texts = [
        f"{_JUDGED}, against its targets (ACKs at most {_TARGETS[0].bound:g}, goodput at least {_TARGETS[1].bound:g}, "
        f"p99 at most {_TARGETS[2].bound:g} of the kernel's own): met on {len(met)} of {len(found)} links"
        + (f" ({', '.join(met)})." if met else ".")
    ]
    texts.append(f"Missed for certain: {'; '.join(missed)}." if missed else "Missed for certain nowhere.")
    return texts


def ack_figures(found: Mapping[str, _OfLink]) -> list[Figure]:
    """ACKs, goodput and the objects' 99th percentile, by link."""
    names = [name for name in STRATEGIES if name != BASELINE]
    compared = {name: [_ratios(of_link, name) for of_link in found.values()] for name in names}
    figures = []
    for index, name, title in (
        (0, "ack_share", "ACKs for a data packet of a download, against the kernel's own"),
        (1, "ack_goodput", "Goodput of a download, against the kernel's own ACKs"),
        (3, "ack_p99", "99th percentile of the time of 100 KB, against the kernel's own ACKs"),
    ):
        series = [
            Series(
                strategy, list(range(len(found))), [each[index].value for each in compared[strategy]],
                [each[index].low for each in compared[strategy]], [each[index].high for each in compared[strategy]],
            )
            for strategy in names
        ]  # fmt: skip
        figures.append(Figure(name, title, "", "ratio", series, ticks=list(found), reference=1.0))
    return figures
