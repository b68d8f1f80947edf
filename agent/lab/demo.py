"""The command `demo`: three contrasting paths, the kernel's defaults first, then the agent, and what that changed.

    | before: no agent | the agent learns | after: the agent goes on |      each with the same load, side by side

"After" is all connections of that time: those of the holdout and those the agent spends on trying are among them.
"""

from __future__ import annotations

import contextlib
import json
import math
import signal
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from agent.display import size
from agent.errors import LabError, UsageError
from agent.lab.agent_process import AgentProcess
from agent.lab.demo_result import DemoResult, PathResult, Phase
from agent.lab.demo_view import Progress, progress_view, show_result
from agent.lab.jobs import Job, wait_all
from agent.lab.lab import EmulatorCounters, Lab
from agent.lab.spec import PathSpec
from agent.lab.workload import Completion, Transfer
from agent.preflight import require_system

__all__ = ["PATHS", "DemoPath", "Phase", "check_attached", "run_demo", "show_demo"]

LEAST_SECONDS = 20.0
_HOST_CONGESTION = "cubic"
_SETTINGS = {"control": {"interval": "1s"}, "sampling": {"interval": "500ms"}}  # the rest is default
_SHARES = {"before": 0.24, "learning": 0.52, "after": 0.24}  # of the time that the set-up leaves
_OVERHEAD = 10.0  # seconds for set-up, the agent's start, and the objects under way at the end of each phase
_PATIENCE = 60.0  # seconds an object under way may take after its phase
_ERRORS_SHOWN = 5
_REFRESH = 0.5  # seconds
_MOST_SECONDS = 600.0  # after a half-life of the evidence it would not show any more that all were seen
_SEEN_AT_LEAST = 0.5  # of the last phase's connections; the rest allows for evidence fading and samples not drawn yet

_Policy = tuple[float, list[dict[str, Any]]]  # connections learnt from; by dimension: what was chosen and why


@dataclass(frozen=True)
class DemoPath:
    """A path and its load: objects of `size` bytes, each on its own connection, `concurrency` at a time."""

    spec: PathSpec
    size: int
    concurrency: int

    @property
    def name(self) -> str:
        return self.spec.name

    @property
    def text(self) -> str:
        """What people read."""
        link = self.spec.down
        parts = [size(self.size), f"{2 * link.delay_ms:g} ms RTT", f"{link.rate_mbps:g} Mb/s"]
        parts.append(f"{link.loss:.0%} loss" if link.loss else f"queue of {link.queue_packets} packets")
        return ", ".join(parts)


PATHS = (
    # Nothing is ever lost here: slow start from 10 segments is all that an object waits for.
    DemoPath(PathSpec.symmetric("long clean", rate_mbps=50, delay_ms=50, queue_packets=1000), 100_000, 8),
    # Larger windows overflow the queue: the agent must leave it alone.
    DemoPath(PathSpec.symmetric("short queue", rate_mbps=12, delay_ms=5, queue_packets=10), 100_000, 1),
    # Cubic takes every loss for congestion.
    DemoPath(PathSpec.symmetric("lossy", rate_mbps=50, delay_ms=20, queue_packets=500, loss=0.01), 1_500_000, 3),
)


def show_demo(*, seconds: float, as_json: bool) -> int:
    """Runs the demo in about `seconds`, shows it, and returns the exit code.

    Raises UsageError without root or for too short or long a time, LabError if the laboratory or the agent fails.
    """
    if not (math.isfinite(seconds) and seconds >= LEAST_SECONDS):
        raise UsageError(f"--seconds must be at least {LEAST_SECONDS:g}: the agent needs some time to learn")
    if seconds > _MOST_SECONDS:
        raise UsageError(f"--seconds must be at most {_MOST_SECONDS:g}: for longer there is the agent itself")
    require_system()
    # A demo that is told to end cleans up as after Ctrl-C.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    total = max(seconds - _OVERHEAD, LEAST_SECONDS / 3)
    with progress_view(None if as_json else {path.name: path.text for path in PATHS}, total) as progress:
        result = run_demo(total, progress)
    if as_json:
        print(json.dumps(asdict(result), allow_nan=False))
    else:
        show_result(result)
    return 0


def run_demo(seconds: float, progress: Progress) -> DemoResult:
    """Measures, learns and measures again, in `seconds` of load."""
    began = time.monotonic()
    progress.phase("building three paths between two network namespaces", 0.0)
    with Lab([path.spec for path in PATHS], server_congestion=_HOST_CONGESTION) as lab:
        run = _Run(lab, progress)
        progress.phase("before: the kernel's defaults", seconds * _SHARES["before"])
        before = run.phase(seconds * _SHARES["before"])
        progress.phase("starting the agent", 0.0)
        with AgentProcess(lab, _SETTINGS) as run.agent:
            progress.phase("the agent learns", seconds * _SHARES["learning"])
            run.phase(seconds * _SHARES["learning"])
            learnt = {path.name: run.policy(path) for path in PATHS}
            progress.phase("after: the agent goes on", seconds * _SHARES["after"])
            after = run.phase(seconds * _SHARES["after"])
            facts = {path.name: run.policy(path) for path in PATHS}
            check_attached(learnt, facts, after)
        paths = [
            PathResult(path.name, path.text, before[path.name], after[path.name], *facts[path.name]) for path in PATHS
        ]
    return DemoResult(round(time.monotonic() - began, 1), paths, round(run.late * 1000, 1), run.errors)


class _Run:
    """The load in an open laboratory."""

    def __init__(self, lab: Lab, progress: Progress) -> None:
        self._lab = lab
        self._progress = progress
        self.agent: AgentProcess | None = None
        self.errors: list[str] = []
        self.late = 0.0

    def phase(self, seconds: float) -> dict[str, Phase]:
        """The load on all paths for `seconds`; objects under way at the end are waited for."""
        self._lab.flush_metrics()  # so that no phase starts with what another one left in the cache of TCP metrics
        first = self._counters()
        with self._load(seconds) as jobs:
            until = time.monotonic() + seconds + _PATIENCE
            while not all(job.done for job in jobs) and time.monotonic() < until:
                self._show(jobs)
                time.sleep(_REFRESH)
            done = wait_all(jobs, 1.0)
        last = self._counters()
        for completions in done:
            self.errors += [f"{each.path}: {each.error}" for each in completions if each.error][:_ERRORS_SHOWN]
        return {
            path.name: _summary(completions, _lost(path.name, first, last))
            for path, completions in zip(PATHS, done, strict=True)
        }

    def policy(self, path: DemoPath) -> _Policy:
        """How many connections the agent learnt from, and what it chose by dimension."""
        facts = self.agent.explain(self._lab.address(path.name)) if self.agent else None
        if facts is None:
            raise LabError("the agent did not tell what it decided")
        policy = [
            {
                "dimension": dimension["name"],
                "chosen": dimension["chosen"],
                "reason": dimension["reason"],
                "probability": max(a["probability"] for a in dimension["arms"] if a["name"] == dimension["chosen"]),
            }
            for dimension in facts["dimensions"]
        ]
        return round(sum(side["connections"] for side in facts["comparison"]), 1), policy

    @contextmanager
    def _load(self, seconds: float) -> Iterator[list[Job]]:
        jobs: list[Job] = []
        try:
            for path in PATHS:
                transfer = Transfer(
                    path=path.name, size=path.size, count=None, concurrency=path.concurrency, seconds=seconds
                )
                jobs.append(self._lab.start(transfer))
            yield jobs
        finally:
            with contextlib.suppress(OSError):  # the client has gone
                for job in jobs:
                    job.stop()

    def _show(self, jobs: Sequence[Job]) -> None:
        for path, job in zip(PATHS, jobs, strict=True):
            good = [each.seconds for each in job.completions()[-20:] if not each.error]
            chosen = {}
            if self.agent and (facts := self.agent.explain(self._lab.address(path.name))):
                chosen = {dimension["name"]: dimension["chosen"] for dimension in facts["dimensions"]}
            recent = statistics.median(good) * 1000 if good else None
            self._progress.path(path.name, len(job.completions()), recent, chosen)

    def _counters(self) -> EmulatorCounters:
        counters = self._lab.counters()
        self.late = max(self.late, counters.late_max)
        return counters


def check_attached(before: Mapping[str, _Policy], after: Mapping[str, _Policy], phase: Mapping[str, Phase]) -> None:
    """Raises LabError if the agent did not see the connections of the last phase.

    It does not notice that its programs are taken off, and the result would be unfair to it.
    """
    seen = sum(connections for connections, _ in after.values()) - sum(
        connections for connections, _ in before.values()
    )
    if seen < _SEEN_AT_LEAST * sum(each.objects for each in phase.values()):
        raise LabError(
            "the agent's programs were taken off in the middle, as `tcptuned detach` does: run the demo again"
        )


def _summary(completions: Sequence[Completion], lost: float | None) -> Phase:
    times = [each.seconds * 1000 for each in completions if not each.error]
    return Phase(
        len(times), len(completions) - len(times),
        round(statistics.median(times), 1) if times else None, round(statistics.mean(times), 1) if times else None,
        lost,
    )  # fmt: skip


def _lost(path: str, first: EmulatorCounters, last: EmulatorCounters) -> float | None:
    before, after = first.paths[path].down, last.paths[path].down
    offered = after.packets_offered - before.packets_offered
    dropped = sum(
        getattr(after, name) - getattr(before, name) for name in ("packets_dropped_queue", "packets_dropped_loss")
    )
    return round(dropped / offered, 5) if offered else None
