"""Runs the bench: all contenders on their own copies of the same paths, taking turns at random within one run.

First comes learning: the agents meet their networks and every static contender makes the connections from which the
best of them is chosen. Then all contenders make the connections that are compared.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from ipaddress import IPv4Network
from typing import Any

from agent.errors import LabError
from agent.lab.agent_process import AgentProcess
from agent.lab.bench_contenders import CONTENDERS, RFC9040, TCPTUNED, WINDOWS, Contender, networks_of, path_name
from agent.lab.bench_kernel import FixedArms
from agent.lab.lab import Lab
from agent.lab.spec import PathSpec
from agent.lab.workload import Transfer

__all__ = ["Cell", "Plan", "Run", "run_cells"]

_SETTLE = 2.5  # seconds until the last rows have been read
_PORTS = {TCPTUNED.name: 9877, RFC9040.name: 9878}
_RIPTIDE_SHARE = 0.3  # of the newest window in the mean
_TIMEOUT = 120.0  # seconds for one object
# The longest a connection stays on these paths keeps a worker busy; more workers than this and the emulator is late.
_AT_ONCE_PER_PROCESSOR = 8


@dataclass(frozen=True)
class Plan:
    """How many connections of `size` bytes: `rounds` of learning, in each of which every static contender makes one and
    tcptuned `learning`; then `compared` rounds in which everybody makes one."""

    size: int = 100_000
    rounds: int = 20
    learning: int = 10
    compared: int = 24
    seed: int = 1


@dataclass
class Run:
    """One contender on one path: seconds of every object in order, those of learning first; counts of both parts."""

    learned: list[float] = field(default_factory=list)
    compared: list[float] = field(default_factory=list)
    failures: int = 0
    counts_learned: dict[str, int] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)


@dataclass
class Cell:
    """One path with one workload: the contenders' runs by name, and what the agent says of the path at the end."""

    path: int
    plan: dict[str, Any]
    runs: dict[str, Run]
    explained: dict[str, Any]
    uplift: dict[str, Any]
    late: float  # seconds that the emulator was behind at worst

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def run_cells(
    paths: dict[int, PathSpec], plan: Plan, *, processors: int, progress: Callable[[str], None]
) -> list[Cell]:
    """All paths side by side. Raises LabError."""
    stage = _Stage(paths, plan, progress)
    with ExitStack() as stack:
        stage.open(stack)
        stage.play(stage.learning_tickets(), processors * _AT_ONCE_PER_PROCESSOR)
        stage.note_learned()
        stage.play(stage.compared_tickets(), processors * _AT_ONCE_PER_PROCESSOR)
        return stage.cells()


@dataclass(frozen=True)
class _Ticket:
    path: int
    contender: Contender
    compared: bool


class _Stage:
    def __init__(self, paths: dict[int, PathSpec], plan: Plan, progress: Callable[[str], None]) -> None:
        self._paths = paths
        self._plan = plan
        self._progress = progress
        self._random = random.Random(plan.seed)
        self._runs = {(number, each.name): Run() for number in paths for each in CONTENDERS}
        self._windows: dict[int, float] = dict.fromkeys(paths, 10.0)
        self._lock = threading.Lock()

    def open(self, stack: ExitStack) -> None:
        self._lab = stack.enter_context(Lab(networks_of(self._paths), seed=self._plan.seed))
        self._agents = {
            each.name: stack.enter_context(
                AgentProcess(self._lab, self._settings(each), port=_PORTS[each.name])
            )
            for each in (TCPTUNED, RFC9040)
        }  # fmt: skip
        # After the agents, so that it sees the windows that they set.
        self._fixed = stack.enter_context(FixedArms(self._lab.server_cgroup))
        for number in self._paths:
            for each in CONTENDERS:
                self._fixed.choose(self._network(number, each), each.window, each.algorithm)

    def _settings(self, agent: Contender) -> dict[str, Any]:
        mine = [each for each in CONTENDERS if each.kind == "agent" and each.law == agent.law]
        rules: list[dict[str, Any]] = [{"match": ["0.0.0.0/0", "::/0"], "exclude": True}]
        rules += [
            {"match": [str(self._network(number, each)) for each in mine], "group": f"path{number}"}
            for number in self._paths
        ]
        settings: dict[str, Any] = {"paths": {"rules": rules}, "initial_window": {"law": agent.law}}
        if agent is RFC9040:
            settings |= {"congestion": {"enabled": False}, "ack": {"enabled": False}}
        return settings

    def _network(self, number: int, contender: Contender) -> IPv4Network:
        return self._lab.network(path_name(number, contender))  # type: ignore[return-value]

    def learning_tickets(self) -> Iterator[_Ticket]:
        agents = Counter({TCPTUNED.name: self._plan.learning, RFC9040.name: 3})
        for _ in range(self._plan.rounds):
            yield from self._shuffled(
                _Ticket(number, each, compared=False)
                for number in self._paths
                for each in CONTENDERS
                if not each.sibling
                for _ in range(agents[each.name] or 1)
            )

    def compared_tickets(self) -> Iterator[_Ticket]:
        for _ in range(self._plan.compared):
            yield from self._shuffled(
                _Ticket(number, each, compared=True) for number in self._paths for each in CONTENDERS
            )

    def _shuffled(self, tickets: Iterator[_Ticket]) -> list[_Ticket]:
        found = list(tickets)
        self._random.shuffle(found)
        return found

    def play(self, tickets: Iterator[_Ticket], workers: int) -> None:
        """Hands out the tickets in order; one contender makes one connection at a time on a path."""
        waiting = _Queue(tickets)
        threads = [threading.Thread(target=self._work, args=(waiting,), daemon=True) for _ in range(workers)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        if waiting.error is not None:
            raise waiting.error

    def _work(self, waiting: _Queue) -> None:
        while (ticket := waiting.take()) is not None:
            try:
                self._connect(ticket)
            except LabError as error:
                waiting.fail(error)
            finally:
                waiting.give_back(ticket)
            self._progress(f"path {ticket.path}")

    def _connect(self, ticket: _Ticket) -> None:
        run = self._runs[ticket.path, ticket.contender.name]
        riptide = ticket.contender.kind == "riptide"
        name = path_name(ticket.path, ticket.contender)
        [done] = self._lab.run(
            [Transfer(path=name, size=self._plan.size, state=riptide, timeout=_TIMEOUT)], timeout=_TIMEOUT + 10
        )[0]
        with self._lock:
            if done.error is not None:
                run.failures += 1
                return
            (run.compared if ticket.compared else run.learned).append(done.seconds)
        if riptide and done.state:
            self._follow(ticket, done.state["tcp_info"]["snd_cwnd"])

    def _follow(self, ticket: _Ticket, seen: int) -> None:
        """Riptide (ICDCS 2016): the next initial window is the mean of the windows that connections reached."""
        mean = self._windows[ticket.path] * (1 - _RIPTIDE_SHARE) + seen * _RIPTIDE_SHARE
        self._windows[ticket.path] = mean
        nearest = min(WINDOWS, key=lambda window: abs(window - mean))
        self._fixed.choose(self._network(ticket.path, ticket.contender), nearest, ticket.contender.algorithm)

    def note_learned(self) -> None:
        threading.Event().wait(_SETTLE)
        for key, counts in self._counts().items():
            self._runs[key].counts_learned = counts

    def _counts(self) -> dict[tuple[int, str], dict[str, int]]:
        found = self._fixed.counts()
        keys = {
            b"\0" * 10 + b"\xff\xff" + self._network(number, each).network_address.packed: (number, each.name)
            for number in self._paths
            for each in CONTENDERS
        }
        return {keys[address]: counts for address, counts in found.items() if address in keys}

    def cells(self) -> list[Cell]:
        threading.Event().wait(_SETTLE)
        for key, counts in self._counts().items():
            run = self._runs[key]
            run.counts = {name: value - run.counts_learned.get(name, 0) for name, value in counts.items()}
        late = self._lab.counters().late_max
        groups = self._agents[TCPTUNED.name].status()["groups"]
        uplifts = {group["name"]: group["uplift"] for group in groups}
        return [
            Cell(
                path=number,
                plan=asdict(self._plan),
                runs={each.name: self._runs[number, each.name] for each in CONTENDERS},
                explained=self._agents[TCPTUNED.name].explain(self._lab.address(path_name(number, TCPTUNED))) or {},
                uplift=uplifts.get(f"path{number}", {}),
                late=late,
            )
            for number in self._paths
        ]


class _Queue:
    """Tickets in order, but never two of one contender on one path at a time."""

    def __init__(self, tickets: Iterator[_Ticket]) -> None:
        self._tickets = tickets
        self._passed: list[_Ticket] = []
        self._busy: set[tuple[int, str]] = set()
        self._free = threading.Condition()
        self.error: LabError | None = None

    def take(self) -> _Ticket | None:
        """The next ticket whose contender is idle; None at the end."""
        with self._free:
            while self.error is None:
                ticket = self._next()
                if ticket is not None:
                    self._busy.add((ticket.path, ticket.contender.name))
                    return ticket
                if not self._passed:
                    return None
                self._free.wait()
            return None

    def _next(self) -> _Ticket | None:
        for position, ticket in enumerate(self._passed):
            if (ticket.path, ticket.contender.name) not in self._busy:
                return self._passed.pop(position)
        for ticket in self._tickets:
            if (ticket.path, ticket.contender.name) not in self._busy:
                return ticket
            self._passed.append(ticket)
        return None

    def give_back(self, ticket: _Ticket) -> None:
        """The contender is idle again."""
        with self._free:
            self._busy.discard((ticket.path, ticket.contender.name))
            self._free.notify_all()

    def fail(self, error: LabError) -> None:
        """Nobody takes another ticket."""
        with self._free:
            self.error = self.error or error
            self._free.notify_all()
