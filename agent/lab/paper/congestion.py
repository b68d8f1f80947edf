"""Experiment `congestion`: the RTT over time of a download, by the congestion control that the client asked for.

The queue is deep: algorithms that fill queues and algorithms that do not are told apart by the RTT that the sender's
socket measures.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent.errors import LabError
from agent.lab.findings.model import Cell, Column, Figure, Found, Progress, Series, Table
from agent.lab.lab import Lab
from agent.lab.paper.agents import both_agents
from agent.lab.ratios import Ratio, paired_ratio
from agent.lab.spec import PathSpec

__all__ = ["measure_congestion"]

_PATH = PathSpec.symmetric("deep", rate_mbps=20, delay_ms=20, queue_packets=400)
_BASE_RTT_MS = 40.0
_ALGORITHMS = ("reno", "cubic", "bbr")
_COMPARED_WITH = "cubic"  # the laboratory's default, which the server would use by itself
_SAMPLE_MS = 25.0
_SLOW_START = 1.0  # seconds, not counted in the medians


@dataclass(frozen=True)
class _Download:
    """One download: the algorithm the server's socket had, its goodput, and what was sampled."""

    algorithm: str
    mbps: float
    retransmitted: float  # share of segments
    times: Sequence[float]  # seconds
    rtts: Sequence[float]  # milliseconds


def measure_congestion(progress: Progress, *, quick: bool) -> Found:
    """Runs it: about 20 s when `quick`, else four minutes. Raises LabError."""
    began = time.monotonic()
    rounds, seconds = (1, 5.0) if quick else (4, 20.0)
    progress.begin("congestion", rounds * len(_ALGORITHMS))
    found: dict[str, list[_Download]] = {name: [] for name in _ALGORITHMS}
    with Lab([_PATH], server_congestion=_COMPARED_WITH) as lab, both_agents(lab) as agents:
        for number in range(rounds):
            for name in _ALGORITHMS[number % 3 :] + _ALGORITHMS[: number % 3]:
                progress.step(f"{name} asked for")
                agents.set(client={"extensions": {"congestion_request": {"send": name}}})
                found[name].append(_download(lab, seconds))
    for name, downloads in found.items():
        if others := {each.algorithm for each in downloads} - {name}:
            raise LabError(f"{name} was asked for and {others.pop()} was given: does this kernel have {name}?")
    link = _PATH.down
    return Found(
        name="congestion",
        title="RTT over time by the congestion control asked for",
        setting=f"Downloads of about {seconds:g} s, {rounds} for each algorithm in turn, over {link.rate_mbps:g} Mb/s "
        f"and {_BASE_RTT_MS:g} ms with a queue of {link.queue_packets} packets "
        f"({(link.queue_packets or 0) * 12 / (link.rate_mbps or 1):.0f} ms). The RTT is the smoothed one of the "
        f"server's socket, every {_SAMPLE_MS:g} ms.",
        tables=[_table(found)],
        figures=[_figure(found)],
        notes=[
            "The server's own choice is cubic; each connection runs what its client's SYN asked for, as its socket "
            "confirms. Goodput is a ratio to cubic, with a 95 % interval.",
            f"The first {_SLOW_START:g} s of each download are in the picture and not in the medians.",
        ],
        seconds=round(time.monotonic() - began, 1),
    )


def _download(lab: Lab, seconds: float) -> _Download:
    lab.flush_metrics()  # no download starts with another one's ssthresh
    size = round((_PATH.down.rate_mbps or 0) * 125_000 * seconds)
    [done] = lab.fetch(_PATH.name, size, state=True, watch_ms=_SAMPLE_MS)
    if done.error or done.state is None:
        raise LabError(f"the download failed: {done.error}")
    info = done.state["tcp_info"]
    samples = [(at, sample["rtt"] / 1000) for at, sample in done.state["samples"]]
    return _Download(
        done.state["congestion"], done.mbps, info["total_retrans"] / info["data_segs_out"],
        [at for at, _ in samples], [rtt for _, rtt in samples],
    )  # fmt: skip


def _settled(download: _Download) -> list[float]:
    return [rtt for at, rtt in zip(download.times, download.rtts, strict=True) if at > _SLOW_START]


def _goodput(found: Mapping[str, Sequence[_Download]], name: str) -> Ratio:
    return paired_ratio([each.mbps for each in found[name]], [each.mbps for each in found[_COMPARED_WITH]])


def _table(found: Mapping[str, Sequence[_Download]]) -> Table:
    columns = [
        Column("asked for"), Column("median RTT ms", 0), Column("p95 RTT ms", 0), Column("over the path's own"),
        Column("goodput, ratio"), Column("sent again %"),
    ]  # fmt: skip
    rows: list[list[Cell]] = []
    for name, downloads in found.items():
        rtts = [rtt for each in downloads for rtt in _settled(each)]
        median, p95 = statistics.median(rtts), statistics.quantiles(rtts, n=20)[-1]
        rows.append(
            [
                name, median, p95, median / _BASE_RTT_MS,
                None if name == _COMPARED_WITH else _goodput(found, name),
                statistics.fmean(each.retransmitted for each in downloads) * 100,
            ]
        )  # fmt: skip
    return Table("", columns, rows)


def _figure(found: Mapping[str, Sequence[_Download]]) -> Figure:
    series = [Series(name, downloads[0].times, downloads[0].rtts) for name, downloads in found.items()]
    return Figure(
        "congestion", "RTT of a download by the congestion control asked for", "seconds", "ms", series,
        kind="lines", reference=_BASE_RTT_MS,
    )  # fmt: skip
