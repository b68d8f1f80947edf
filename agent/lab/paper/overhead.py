"""Experiment `overhead`: what it costs to insert, parse and obey a TCP option, against no program at all.

The programs are bpf/bench_options.c. Client and server share one processor, so that the processor time of both, the
kernel's work for them included, is all there is. A round runs every variant once, in random order, and is compared
within itself.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from agent.lab.findings.model import Cell, Column, Figure, Found, Progress, Series, Table
from agent.lab.paper.rig import BUNDLE, Load, Rig, Sample, rig
from agent.lab.ratios import Ratio, paired_ratio

__all__ = ["measure_overhead"]

_BASELINE = "no program"
_PROGRAMS = {
    _BASELINE: None,
    "SYN: insert": "syn_insert",
    "SYN: insert, parse": "syn_parse",
    "SYN: insert, parse, set": "syn_set",
    "every segment: insert": "every_insert",
    "every segment: insert, parse": "every_parse",
    "every segment: insert, parse, set": "every_set",
}
_EVERY = (_BASELINE, *(name for name in _PROGRAMS if name.startswith("every")))


@dataclass(frozen=True)
class _Place:
    """A load, the way between the ends, and the variants compared there. `size`: units of the load in the table's."""

    title: str
    load: Load
    unit: str
    size: float
    variants: Sequence[str]
    loopback: bool = False
    segments: int = BUNDLE


_PLACES = (
    _Place("short connections, veth", "short", "connection", 1, tuple(_PROGRAMS)),
    _Place("bulk, veth", "bulk", "MB", 1e6, _EVERY),
    _Place("bulk, veth, a packet a segment", "bulk", "MB", 1e6, _EVERY, segments=1),
    _Place("bulk, loopback", "bulk", "MB", 1e6, _EVERY, loopback=True),
)

_Samples = Mapping[str, Sequence[Sample]]  # by variant, one a round


def measure_overhead(progress: Progress, *, quick: bool) -> Found:
    """Runs it: about 20 s when `quick`, else three minutes. Raises LabError, KernelError."""
    began = time.monotonic()
    rounds, seconds = (4, 0.15) if quick else (40, 0.2)
    progress.begin("overhead", rounds * sum(len(place.variants) for place in _PLACES))
    with rig() as stand:
        found = {place: _measure(stand, place, rounds, seconds, progress) for place in _PLACES}
    return Found(
        name="overhead",
        title="Overhead of inserting, parsing and obeying an option",
        setting=f"Both ends on one processor; {rounds} rounds of {seconds:g} s a variant, in random order. The option "
        "has 4 bytes and is in the client's SYN, where the agent puts it, or on every segment of both ends but the "
        "SYN-ACK. 'Set' calls bpf_setsockopt(TCP_USER_TIMEOUT) for every option parsed. A short connection carries "
        "1 KB.",
        tables=[_table(place, samples) for place, samples in found.items()],
        figures=[_figure(found)],
        notes=[
            "Time is the processor time of both processes, with the kernel's work done in their name; rate is what got "
            "through in a second. Both are ratios to no program at all, with 95 % intervals.",
            "A packet of many segments (GSO) carries its options through the stack once; 'a packet a segment' is what "
            "it costs where nothing bundles segments.",
        ],
        seconds=round(time.monotonic() - began, 1),
    )


def _measure(stand: Rig, place: _Place, rounds: int, seconds: float, progress: Progress) -> _Samples:
    shuffle = random.Random(place.title).shuffle
    order = list(place.variants)
    found: dict[str, list[Sample]] = {name: [] for name in order}
    stand.bundle(place.segments)
    stand.run(place.load, None, seconds, loopback=place.loopback)  # warms caches up
    for _ in range(rounds):
        shuffle(order)
        for name in order:
            progress.step(f"{place.title}: {name}")
            found[name].append(stand.run(place.load, _PROGRAMS[name], seconds, loopback=place.loopback))
    return found


def _cost(samples: _Samples, name: str) -> Ratio:
    return paired_ratio([each.cost for each in samples[name]], [each.cost for each in samples[_BASELINE]])


def _rate(samples: _Samples, name: str) -> Ratio:
    return paired_ratio([each.rate for each in samples[name]], [each.rate for each in samples[_BASELINE]])


def _table(place: _Place, samples: _Samples) -> Table:
    columns = [
        Column("variant"), Column("time", 3), Column("rate", 3), Column("us", 1), Column("more us", 1),
        Column("inserted", 1), Column("parsed", 1), Column("set", 1),
    ]  # fmt: skip
    cost = {name: float(np.median([each.cost for each in samples[name]])) * place.size * 1e6 for name in samples}
    rows: list[list[Cell]] = []
    for name in place.variants:
        done = np.mean([each.done for each in samples[name]], axis=0) * place.size
        if name == _BASELINE:
            rows.append([name, None, None, cost[name], None, *done.tolist()])
            continue
        ratio = _cost(samples, name)
        rows.append(
            [name, ratio, _rate(samples, name), cost[name], (ratio.value - 1) * cost[_BASELINE], *done.tolist()]
        )
    return Table(f"{place.title}: for each {place.unit}", columns, rows)


def _figure(found: Mapping[_Place, _Samples]) -> Figure:
    names = [name for name in _PROGRAMS if name != _BASELINE]
    series = []
    for place, samples in found.items():
        here = [(x, _cost(samples, name)) for x, name in enumerate(names) if name in samples]
        points = ([x for x, _ in here], [r.value for _, r in here], [r.low for _, r in here], [r.high for _, r in here])
        series.append(Series(place.title, *points))
    return Figure(
        "overhead", "Processor time against no program", "", "ratio", series, ticks=names, reference=1.0,
    )  # fmt: skip
