"""Experiment `window`: the time of a page by the initial window that the client asked for.

A page is a document, then its objects over a few connections that stay open, as a browser fetches them. The client's
agent asks in every SYN, the server's agent grants up to `initial_window.max`.
"""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Mapping, Sequence

from agent.errors import LabError
from agent.lab.findings.model import Cell, Column, Figure, Found, Progress, Series, Table
from agent.lab.lab import Lab
from agent.lab.paper.agents import both_agents
from agent.lab.ratios import Ratio, paired_ratio
from agent.lab.spec import PathSpec

__all__ = ["OBJECTS", "measure_window"]

_PATHS = {
    "long, 100 ms": PathSpec.symmetric("long", rate_mbps=50, delay_ms=50, queue_packets=400),
    "near, 20 ms": PathSpec.symmetric("near", rate_mbps=50, delay_ms=10, queue_packets=100),
    # The eighteen scenarios' own: a third of the bandwidth-delay product (paths.yaml, 16).
    "short queue, 60 ms": PathSpec.symmetric("short queue", rate_mbps=12, delay_ms=30, queue_packets=20),
}
_WINDOWS = (2, 4, 10, 20, 40)
_DOCUMENT = 30_000  # bytes
_OBJECT_COUNT, _OBJECT_MEDIAN, _OBJECT_SPREAD = 50, 9_000, 1.4  # log-normal: most are small, a few make up the bytes
_CONNECTIONS = 6  # to one host, as browsers have it with HTTP/1.1

_GRANTED = 0.9  # of the connections that ask, at least: a SYN that is sent again goes without options


def _sizes() -> tuple[int, ...]:
    """The objects' sizes: the quantiles of their distribution, in a fixed mixed order."""
    normal = statistics.NormalDist(0, _OBJECT_SPREAD)
    factors = [2.718281828 ** normal.inv_cdf((index + 0.5) / _OBJECT_COUNT) for index in range(_OBJECT_COUNT)]
    sizes = [round(_OBJECT_MEDIAN * factor) for factor in factors]
    random.Random(1).shuffle(sizes)
    return tuple(sizes)


OBJECTS = _sizes()

_Times = Mapping[str, Mapping[int | None, Sequence[float]]]  # seconds, by path and window asked for, one a round


def measure_window(progress: Progress, *, quick: bool) -> Found:
    """Runs it: about half a minute when `quick`, else four. Raises LabError."""
    began = time.monotonic()
    rounds = 1 if quick else 10
    asked: list[int | None] = [None, *_WINDOWS]
    progress.begin("window", rounds * len(asked))
    times: dict[str, dict[int | None, list[float]]] = {name: {each: [] for each in asked} for name in _PATHS}
    lost: dict[str, dict[int | None, list[float]]] = {name: {each: [] for each in asked} for name in _PATHS}
    order = list(asked)
    shuffle = random.Random(1).shuffle
    with Lab(list(_PATHS.values())) as lab, both_agents(lab) as agents:
        for _ in range(rounds):
            shuffle(order)
            for window in order:
                progress.step("nothing asked for" if window is None else f"initial window {window}")
                agents.set(client={"extensions": {"window_request": {"send": window}}})
                for name, path in _PATHS.items():
                    seconds, share = _page(lab, path.name)
                    times[name][window].append(seconds)
                    lost[name][window].append(share)
        asking = rounds * len(_WINDOWS) * len(_PATHS) * (1 + _CONNECTIONS)
        agents.check_granted("window_request", round(_GRANTED * asking))
    shares = {name: {each: statistics.fmean(found) for each, found in of.items()} for name, of in lost.items()}
    return Found(
        name="window",
        title="Time of a page by the initial window asked for",
        setting=f"A document of {_DOCUMENT // 1000} kB, then {len(OBJECTS)} objects, {sum(OBJECTS) / 1e6:.1f} MB in "
        f"all (log-normal, median {_OBJECT_MEDIAN / 1000:g} kB), over {_CONNECTIONS} connections that stay open; "
        f"{rounds} pages a path and window, in random order. Agents on both sides; nothing else is tuned.",
        tables=[_table(name, times[name], shares[name]) for name in _PATHS],
        figures=[_figure(times)],
        notes=[
            "Ratios are to the same page with nothing asked for (the kernel's own window of 10), with 95 % intervals. "
            "Lost: of the packets to the client.",
            "The asking agent opens the client's receive window for what it asks for; a window below 10 only shows "
            "what the first flight is worth.",
            "The server grants at most initial_window.max (80 by default), and less on a path where larger windows "
            "were seen to lose; here nothing was learnt, so that only the bound counts.",
        ],
        seconds=round(time.monotonic() - began, 1),
    )


def _page(lab: Lab, path: str) -> tuple[float, float]:
    """Seconds of one page, the time between its two parts not counted, and the share of packets lost."""
    lab.flush_metrics()  # a page starts with nothing remembered of the one before
    before = lab.counters().paths[path].down
    document = lab.fetch(path, _DOCUMENT)
    objects = lab.fetch(path, 0, len(OBJECTS), _CONNECTIONS, sizes=OBJECTS, keep=True)
    if failed := [each.error for each in (*document, *objects) if each.error]:
        raise LabError(f"a page's object failed: {failed[0]}")
    after = lab.counters().paths[path].down
    rest = max(each.start + each.seconds for each in objects) - min(each.start for each in objects)
    lost = after.packets_dropped_queue - before.packets_dropped_queue
    return document[0].seconds + rest, lost / (after.packets_offered - before.packets_offered)


def _ratio(times: Mapping[int | None, Sequence[float]], window: int) -> Ratio:
    return paired_ratio(times[window], times[None])


def _table(name: str, times: Mapping[int | None, Sequence[float]], lost: Mapping[int | None, float]) -> Table:
    columns = [Column("asked for"), Column("median ms", 0), Column("ratio"), Column("lost %")]
    rows: list[list[Cell]] = [
        [
            "nothing" if window is None else f"{window} segments", statistics.median(found) * 1000,
            None if window is None else _ratio(times, window), lost[window] * 100,
        ]
        for window, found in times.items()
    ]  # fmt: skip
    return Table(f"{name}: {_text(_PATHS[name])}", columns, rows)


def _text(path: PathSpec) -> str:
    link = path.down
    return f"{link.rate_mbps:g} Mb/s, {2 * link.delay_ms:g} ms RTT, queue of {link.queue_packets} packets"


def _figure(times: _Times) -> Figure:
    series = []
    for name, found in times.items():
        ratios = [_ratio(found, window) for window in _WINDOWS]
        series.append(
            Series(name, list(range(len(_WINDOWS))), [each.value for each in ratios], [each.low for each in ratios],
                   [each.high for each in ratios])
        )  # fmt: skip
    return Figure(
        "window", "Time of a page against the kernel's own window of 10", "initial window asked for, segments", "ratio",
        series, ticks=[str(window) for window in _WINDOWS], reference=1.0,
    )  # fmt: skip
