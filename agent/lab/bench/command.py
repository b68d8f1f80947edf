"""The command `bench`: contenders over paths and workloads, with tables, figures and JSON; it can be resumed."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from agent.errors import UsageError
from agent.lab.bench.bars import bars
from agent.lab.bench.competing import COMPETING, compete, competing_found, contested
from agent.lab.bench.contenders import ALL, DEFAULT, TCPTUNED
from agent.lab.bench.result import Measured, measured
from agent.lab.bench.run import Cell, Run, connections, run_cells
from agent.lab.bench.view import found
from agent.lab.bench.workloads import WORKLOADS, Workload, changed
from agent.lab.findings.folder import make_folder, write_findings
from agent.lab.findings.model import Found, Progress
from agent.lab.findings.terminal import progress_view, show_found
from agent.lab.paths import load_paths
from agent.lab.ratios import Ratio
from agent.lab.spec import PathSpec
from agent.preflight import require_system

__all__ = ["show_bench"]

_TITLE = "tcptuned against fixed settings, on emulated paths"
_ABOUT = (
    "Real TCP of this kernel between namespaces, over the emulated paths of Pantheon (Yan et al., USENIX ATC 2018). "
    "Every contender has links of its own on every path, and all take turns at random. Times are the clients'."
)
_BUDGET = 150.0  # seconds for one contender on one path
_QUICK_BUDGET = 18.0
_QUICK_PATHS = ("4", "15", "18")
# It tunes the whole host, so it cannot take turns with others; no comparison with it is made up.
_BPFTUNE = (
    "bpftune: installed, but not measured: it tunes every connection of the host, those of the others too."
    if shutil.which("bpftune")
    else "bpftune: not installed, so not measured."
)
_EVERYTHING = "all"
_NAMES = [each.name for each in ALL]
_SEED = 1


def show_bench(
    *, only: Sequence[str], workloads: Sequence[str], paths: Path | None, quick: bool, output: Path | None,
    as_json: bool, contenders: Sequence[str] = (),
) -> int:  # fmt: skip
    """Runs what is asked for and shows it; returns the exit code.

    `only` are names of paths (none: all), `workloads` names (none: 100KB; "all": every one), `contenders` names (none:
    the workload's own; the default and tcptuned always take part), `paths` a file like paths.yaml. With `output`, the
    cells of a workload are kept there and not measured again, and the folder gets results.json, a figure a workload
    and index.html. Raises UsageError, LabError.
    """
    every = load_paths(paths)
    if unknown := [path for path in only if path not in every]:
        raise UsageError(f"--only {unknown[0]}: no such path; there are {', '.join(every)}")
    every_workload = (*WORKLOADS, COMPETING)
    if strange := [name for name in workloads if name not in (*every_workload, _EVERYTHING)]:
        known = ", ".join((*every_workload, _EVERYTHING))
        raise UsageError(f"--workloads {strange[0]}: no such workload; there are {known}")
    if _EVERYTHING in workloads:
        workloads = every_workload
    if strange := [name for name in contenders if name not in _NAMES]:
        raise UsageError(f"--contenders {strange[0]}: no such contender; there are {', '.join(_NAMES)}")
    names = list(only) or list(_QUICK_PATHS if quick and paths is None else every)
    require_system()
    # A bench that is told to end cleans up as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    results: list[Found] = []
    said: dict[str, Sequence[Measured]] = {}
    beside: Ratio | None = None
    with progress_view(silent=as_json) as progress:
        for name in workloads or ("100KB",):
            if name == COMPETING:
                table, beside = _competing({path: every[path] for path in names}, quick, output, progress)
                results.append(table)
                continue
            workload = _with(WORKLOADS[name], contenders)
            chosen = {path: every[path] for path in names if _differs(every[path], workload)}
            if not chosen:
                raise UsageError(f"{name}: none of these paths has anything to change; name others with --only")
            cells, seconds, setting = _measure(workload, chosen, quick, output, progress)
            said[name] = [measured(each) for each in cells]
            notes = [_BPFTUNE] if len(chosen) == len(names) else [_BPFTUNE, _unchanged(names, chosen)]
            results.append(found(name, setting, said[name], seconds, notes))
    summary = _summary(said, beside)
    facts = {"quick": quick, "summary": asdict(summary), "workloads": [asdict(each) for each in results]}
    text = json.dumps(facts, allow_nan=False)
    if as_json:
        print(text)
    else:
        for each in (*results, summary):
            show_found(each)
    if output is not None:
        write_findings(output, _TITLE, _ABOUT, [summary, *results], text)
        if not as_json:
            print(f"\n{output / 'index.html'} has tables and figures")
    return 0


def _with(workload: Workload, contenders: Sequence[str]) -> Workload:
    """The workload with these contenders, and those without whom there is nothing to compare."""
    if not contenders:
        return workload
    always = (DEFAULT.name, TCPTUNED.name)
    return replace(workload, contenders=tuple(each for each in ALL if each.name in (*always, *contenders)))


def _differs(path: PathSpec, workload: Workload) -> bool:
    """Whether the path is another after the workload's change, if it has one."""
    return workload.change is None or changed(path.down, workload.change) != path.down


def _unchanged(names: Sequence[str], chosen: Collection[str]) -> str:
    left = ", ".join(name for name in names if name not in chosen)
    return f"Left out, because the change would change nothing there: {left}."


def _summary(said: Mapping[str, Sequence[Measured]], beside: Ratio | None) -> Found:
    """What is promised, over everything that was measured."""
    return Found(
        name="summary", title="tcptuned's promises", setting="Over the paths and workloads below.",
        tables=[bars(said, beside)], figures=[],
        notes=["Ratios with 95 % intervals; open: the interval is on both sides of the bar."], seconds=0.0,
    )  # fmt: skip


def _measure(
    workload: Workload, paths: dict[str, PathSpec], quick: bool, output: Path | None, progress: Progress
) -> tuple[list[dict[str, Any]], float, str]:
    """The cells of all paths, how long that took, and how."""
    if quick:
        workload = replace(workload, rounds=min(workload.rounds, 6), compared=min(workload.compared, 6))
    began = time.monotonic()
    budget = _QUICK_BUDGET if quick else _BUDGET
    folder = _folder(output)
    cells = {path: cell for path in paths if (cell := _kept(folder, workload, path, quick)) is not None}
    missing = [path for path in paths if path not in cells]
    if missing:
        share = {path: paths[path] for path in missing}
        progress.begin(f"{workload.name}, {len(share)} paths", connections(workload, share, budget))
        fresh = run_cells(
            share, workload, budget=budget, processors=os.cpu_count() or 1, seed=_SEED, progress=progress.step
        )
        for each in fresh:
            cells[each.path] = _keep(folder, {**each.to_json(), "quick": quick})
    late = max(cells[path]["late"] for path in paths)
    setting = f"{len(paths)} paths, side by side; the emulator was at most {1000 * late:.1f} ms late"
    return [cells[path] for path in paths], time.monotonic() - began, setting


def _competing(paths: dict[str, PathSpec], quick: bool, output: Path | None, progress: Progress) -> tuple[Found, Ratio]:
    """The table of `competing`, and what the flow that lost most kept."""
    began = time.monotonic()
    chosen = contested(paths)
    if not chosen:
        raise UsageError(f"{COMPETING}: these paths are too fast to be filled to the brim; name others with --only")
    folder = _folder(output)
    cells = {
        path: cell for path in chosen
        if (cell := _read(folder, COMPETING, path)) is not None and cell.get("quick") == quick
    }  # fmt: skip
    missing = {path: spec for path, spec in chosen.items() if path not in cells}
    for cell in compete(missing, quick=quick, seed=_SEED, progress=progress) if missing else ():
        cells[cell["path"]] = _keep(folder, {**cell, "quick": quick})
    return competing_found([cells[path] for path in chosen], chosen, time.monotonic() - began)


def _kept(folder: Path | None, workload: Workload, path: str, quick: bool) -> dict[str, Any] | None:
    """A cell measured before, of the same kind."""
    values = _read(folder, workload.name, path)
    if values is None:
        return None
    parts = [(Cell, values), *((Run, run) for run in values.get("runs", {}).values())]
    if any(each.name not in part for kind, part in parts for each in fields(kind)):  # of an older version
        return None
    same = values.get("quick") == quick and set(values["runs"]) == {each.name for each in workload.contenders}
    return values if same else None


def _read(folder: Path | None, workload: str, path: str) -> dict[str, Any] | None:
    """None also for what an interrupted run left half written."""
    if folder is None or not (file := _file(folder, workload, path)).exists():
        return None
    try:
        values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    except ValueError:
        return None
    return values


def _keep(folder: Path | None, cell: Mapping[str, Any]) -> dict[str, Any]:
    """The cell as JSON gives it back, so that kept cells and fresh ones are alike."""
    text = json.dumps(cell)
    if folder is not None:
        _file(folder, cell["workload"], cell["path"]).write_text(text, encoding="utf-8")
    values: dict[str, Any] = json.loads(text)
    return values


def _folder(output: Path | None) -> Path | None:
    """Where cells are kept, if anywhere."""
    if output is None:
        return None
    make_folder(output / "cells")
    return output / "cells"


def _file(folder: Path, workload: str, path: str) -> Path:
    return folder / f"{workload}-{quote(path, safe='')}.json"
