"""The command `bench`: contenders over paths and workloads, with tables, figures and JSON; it can be resumed."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from urllib.parse import quote

from agent.errors import UsageError
from agent.lab.bench_result import Measured, measured
from agent.lab.bench_run import connections, run_cells
from agent.lab.bench_view import found
from agent.lab.bench_workloads import WORKLOADS, Workload
from agent.lab.paper_page import page
from agent.lab.paper_plots import draw
from agent.lab.paper_result import Found, Progress
from agent.lab.paper_view import progress_view, show_found
from agent.lab.paths import load_paths
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
_PARTS = 2  # what is measured is kept after each: slow and fast paths in both
_SEED = 1


def show_bench(
    *, only: Sequence[str], workloads: Sequence[str], paths: Path | None, quick: bool, output: Path | None,
    as_json: bool,
) -> int:  # fmt: skip
    """Runs what is asked for and shows it; returns the exit code.

    `only` are names of paths (none: all), `workloads` names (none: 100KB), `paths` a file like paths.yaml. With
    `output`, every cell is kept there as it is measured and not measured again, and the folder gets results.json, a
    figure a workload and index.html. Raises UsageError, LabError.
    """
    every = load_paths(paths)
    if unknown := [path for path in only if path not in every]:
        raise UsageError(f"--only {unknown[0]}: no such path; there are {', '.join(every)}")
    if strange := [name for name in workloads if name not in WORKLOADS]:
        raise UsageError(f"--workload {strange[0]}: no such workload; there are {', '.join(WORKLOADS)}")
    names = list(only) or list(_QUICK_PATHS if quick and paths is None else every)
    require_system()
    # A bench that is told to end cleans up as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    results = []
    with progress_view(silent=as_json) as progress:
        for name in workloads or ("100KB",):
            chosen = {path: every[path] for path in names}
            results.append(_workload(WORKLOADS[name], chosen, quick, output, progress))
    text = json.dumps({"quick": quick, "workloads": [asdict(each) for each in results]}, allow_nan=False)
    if as_json:
        print(text)
    else:
        for each in results:
            show_found(each)
    if output is not None:
        _write(output, text, results)
        if not as_json:
            print(f"\n{output / 'index.html'} has tables and figures")
    return 0


def _workload(
    workload: Workload, paths: dict[str, PathSpec], quick: bool, output: Path | None, progress: Progress
) -> Found:
    if quick:
        workload = replace(workload, rounds=min(workload.rounds, 6), compared=min(workload.compared, 6))
    began = time.monotonic()
    budget = _QUICK_BUDGET if quick else _BUDGET
    folder = output / "cells" if output is not None else None
    if folder is not None:
        _make(folder)
    cells = {path: cell for path in paths if (cell := _kept(folder, workload.name, path, quick)) is not None}
    missing = [path for path in paths if path not in cells]
    for some in (missing[start::_PARTS] for start in range(min(_PARTS, len(missing)))):
        share = {path: paths[path] for path in some}
        progress.begin(f"{workload.name}, {len(share)} paths", connections(workload, share, budget))
        fresh = run_cells(
            share, workload, budget=budget, processors=os.cpu_count() or 1, seed=_SEED,
            progress=progress.step,
        )  # fmt: skip
        for each in fresh:
            # As JSON gives it back, so that kept cells and fresh ones are alike.
            text = json.dumps({**each.to_json(), "quick": quick})
            cells[each.path] = json.loads(text)
            if folder is not None:
                _file(folder, workload.name, each.path).write_text(text, encoding="utf-8")
    said: list[Measured] = [measured(cells[path]) for path in paths]
    late = max(cells[path]["late"] for path in paths)
    setting = f"{len(paths)} paths, side by side; the emulator was at most {1000 * late:.1f} ms late"
    return found(workload.name, setting, said, time.monotonic() - began)


def _kept(folder: Path | None, workload: str, path: str, quick: bool) -> dict[str, Any] | None:
    """A cell measured before, of the same kind."""
    if folder is None or not _file(folder, workload, path).exists():
        return None
    values: dict[str, Any] = json.loads(_file(folder, workload, path).read_text(encoding="utf-8"))
    return values if values.get("quick") == quick else None


def _file(folder: Path, workload: str, path: str) -> Path:
    return folder / f"{workload}-{quote(path, safe='')}.json"


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"--output {folder}: {error.strerror}; name a folder that can be written") from error


def _write(folder: Path, result: str, results: Sequence[Found]) -> None:
    pictures = {figure.name: draw(figure) for each in results for figure in each.figures}
    for name, text in pictures.items():
        (folder / f"{name}.svg").write_text(text, encoding="utf-8")
    (folder / "results.json").write_text(result + "\n", encoding="utf-8")
    (folder / "index.html").write_text(page(_TITLE, _ABOUT, results, pictures), encoding="utf-8")
