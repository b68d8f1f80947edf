"""Workload `competing`: what a download without end of another host loses to objects, tcptuned's or the default's.

On each path there are two like pairs of links. On both runs a flow that nobody tunes (cubic, initial window 10, over
IPv6), and objects come at the same times: on one from a sender with the kernel's defaults, on the other from
tcptuned's. They come by the clock and not one after the other, or the faster sender would ask for more.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from typing import Any

from agent.lab.agent_process import AgentProcess
from agent.lab.bench.contenders import DEFAULT, TCPTUNED, networks_of, path_name
from agent.lab.findings.model import Column, Found, Progress, Table
from agent.lab.jobs import Job, wait_all
from agent.lab.lab import Lab
from agent.lab.ratios import Ratio, geometric_mean, paired_ratio
from agent.lab.side_by_side import MOST_MBPS, batches
from agent.lab.spec import PathSpec
from agent.lab.workload import Transfer

__all__ = ["BAR", "COMPETING", "compete", "competing_found", "contested"]

COMPETING = "competing"
BAR = 0.9  # of its goodput is left to the other flow at least
_CONTENDERS = (DEFAULT, TCPTUNED)
_OBJECT = 100_000  # bytes
_SHARE = 0.25  # of the path that the objects ask for
_SLOT = 8.0  # seconds: one life of the other flow
_LEARNING, _COUNTED = 6, 6  # slots
_QUICK_LEARNING, _QUICK_COUNTED = 2, 2
_ENDED = 60.0  # seconds an object may take

Cell = Mapping[str, Any]


def contested(paths: Mapping[str, PathSpec]) -> dict[str, PathSpec]:
    """The paths that can be filled to the brim twice without asking too much of the emulator."""
    return {name: spec for name, spec in paths.items() if 0 < _mbps(spec) <= MOST_MBPS / len(_CONTENDERS)}


def compete(paths: Mapping[str, PathSpec], *, quick: bool, seed: int, progress: Progress) -> list[dict[str, Any]]:
    """The other flow's Mb/s on every path, by contender, a number a slot. Raises LabError."""
    slots = _QUICK_LEARNING + _QUICK_COUNTED if quick else _LEARNING + _COUNTED
    together = batches({name: len(_CONTENDERS) * _mbps(spec) for name, spec in paths.items()})
    progress.begin(f"{COMPETING}, {len(paths)} paths", slots * len(together))
    cells = []
    for batch in together:
        chosen = {name: paths[name] for name in batch}
        with Lab(networks_of(chosen, _CONTENDERS), seed=seed) as lab, AgentProcess(lab, _settings(lab, chosen)):
            found: dict[str, dict[str, list[float]]] = {name: {each.name: [] for each in _CONTENDERS} for name in batch}
            for slot in range(slots):
                progress.step(f"paths {', '.join(batch)}")
                told = _slot(lab, chosen)
                if slot >= slots - (_QUICK_COUNTED if quick else _COUNTED):
                    for (name, contender), mbps in told.items():
                        found[name][contender].append(mbps)
            late = lab.counters().late_max
        cells += [{"path": name, "workload": COMPETING, "mbps": found[name], "late": late} for name in batch]
    return cells


def competing_found(cells: Sequence[Cell], paths: Mapping[str, PathSpec], seconds: float) -> tuple[Found, Ratio]:
    """As a table; and the worst path's ratio."""
    ratios = {cell["path"]: paired_ratio(*(cell["mbps"][each.name] for each in (TCPTUNED, DEFAULT))) for cell in cells}
    columns = [Column("path"), Column("Mb/s of the path", 1), *(Column(f"beside {each.name}") for each in _CONTENDERS)]
    rows = [
        [
            cell["path"], _mbps(paths[cell["path"]]),
            *(statistics.median(cell["mbps"][each.name]) for each in _CONTENDERS), ratios[cell["path"]],
        ]
        for cell in cells
    ]  # fmt: skip
    rows.append(["geometric mean", None, None, None, geometric_mean(list(ratios.values()))])
    late = max(cell["late"] for cell in cells)
    found = Found(
        name=COMPETING, title="competing: goodput of a flow that nobody tunes, beside the objects of others",
        setting=f"Objects of {_OBJECT // 1000} kB for {_SHARE:.0%} of the path; slots of {_SLOT:g} s on both links at "
        f"once; the emulator was at most {1000 * late:.1f} ms late.",
        tables=[Table("Median Mb/s of the other flow, and their ratio", [*columns, Column("ratio")], rows)],
        figures=[], notes=["Only paths slow enough to be filled to the brim twice."], seconds=seconds,
    )  # fmt: skip
    return found, min(ratios.values(), key=lambda each: each.value)


def _settings(lab: Lab, paths: Mapping[str, PathSpec]) -> dict[str, Any]:
    mine = [str(lab.network(path_name(name, TCPTUNED))) for name in paths]
    others = {"match": ["0.0.0.0/0", "::/0"], "exclude": True}
    return {"paths": {"rules": [others, {"match": mine, "group": "tuned"}]}}


def _slot(lab: Lab, paths: Mapping[str, PathSpec]) -> dict[tuple[str, str], float]:
    """One life of the other flows; their Mb/s."""
    keys = [(name, each.name) for name in paths for each in _CONTENDERS]
    links = {(name, each.name): path_name(name, each) for name in paths for each in _CONTENDERS}
    flows = {
        key: lab.start(
            Transfer(path=links[key], size=1 << 40, seconds=_SLOT, cut=True, family=6, timeout=_SLOT + _ENDED)
        )
        for key in keys
    }  # fmt: skip
    objects: list[Job] = []
    for at, key in _times(paths, keys):
        time.sleep(max(0.0, at - time.monotonic()))
        objects.append(lab.start(Transfer(path=links[key], size=_OBJECT, timeout=_ENDED)))
    ended = wait_all([*flows.values()], _SLOT + _ENDED)
    wait_all(objects, 2 * _ENDED)
    return {key: max(done.mbps, 1e-6) for key, [done] in zip(flows, ended, strict=True)}


def _times(paths: Mapping[str, PathSpec], keys: Sequence[tuple[str, str]]) -> list[tuple[float, tuple[str, str]]]:
    """When the objects of a slot begin, in monotonic seconds: by the clock, at the same moments for both senders."""
    now = time.monotonic()
    found = []
    for name, contender in keys:
        interval = _OBJECT * 8e-6 / (_SHARE * _mbps(paths[name]))
        found += [(now + interval * (turn + 0.5), (name, contender)) for turn in range(int(_SLOT / interval))]
    return sorted(found)


def _mbps(spec: PathSpec) -> float:
    """Of the data's direction; 0 where no number says it."""
    return spec.down.rate_mbps or 0.0
