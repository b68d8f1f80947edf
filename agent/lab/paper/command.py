"""The command `bench paper`: the experiments of "Beyond socket options: making the Linux TCP stack truly extensible"
(Tran and Bonaventure, IFIP Networking 2019), repeated with the agent on this kernel.

Each experiment is a module of its own that returns what it found; here they are chosen, run and written.
"""

from __future__ import annotations

import json
import signal
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Protocol

from agent.errors import UsageError
from agent.lab.findings.folder import make_folder, write_findings
from agent.lab.findings.model import Found, Progress
from agent.lab.findings.terminal import progress_view, show_found
from agent.lab.paper.ack import measure_ack
from agent.lab.paper.congestion import measure_congestion
from agent.lab.paper.overhead import measure_overhead
from agent.lab.paper.window import measure_window
from agent.preflight import require_system

__all__ = ["EXPERIMENTS", "show_paper"]

_TITLE = "Beyond socket options, on an unmodified kernel"
_ABOUT = (
    "The experiments of Tran and Bonaventure, Beyond socket options: making the Linux TCP stack truly extensible (IFIP "
    "Networking 2019), repeated with tcptuned in its laboratory: real TCP of this kernel between namespaces. Ratios "
    "compare runs on one machine; its absolute speed says nothing."
)


class _Experiment(Protocol):
    def __call__(self, progress: Progress, *, quick: bool) -> Found: ...


EXPERIMENTS: dict[str, _Experiment] = {
    "overhead": measure_overhead,
    "window": measure_window,
    "congestion": measure_congestion,
    "ack": measure_ack,
}


def show_paper(*, only: Sequence[str], quick: bool, output: Path | None, as_json: bool) -> int:
    """Runs the experiments named, or all of them, shows what they found, and returns the exit code.

    With `output`, the folder (made if missing) gets results.json, an SVG file a figure, and index.html. Raises
    UsageError for an unknown experiment or without root, LabError if the laboratory or an agent fails.
    """
    if unknown := [name for name in only if name not in EXPERIMENTS]:
        raise UsageError(f"no experiment {unknown[0]}; there are {', '.join(EXPERIMENTS)}")
    require_system()
    if output is not None:
        make_folder(output)
    # A bench that is told to end cleans up as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    found = []
    with progress_view(silent=as_json) as progress:
        for name, measure in EXPERIMENTS.items():
            if not only or name in only:
                found.append(measure(progress, quick=quick))
    result = json.dumps({"quick": quick, "experiments": [asdict(each) for each in found]}, allow_nan=False)
    if as_json:
        print(result)
    else:
        for each in found:
            show_found(each)
    if output is not None:
        write_findings(output, _TITLE, _ABOUT, found, result)
        if not as_json:
            print(f"\n{output / 'index.html'} has tables and figures")
    return 0
