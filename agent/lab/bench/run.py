"""Runs the bench: all contenders on their own copies of the same paths, taking turns at random within one run.

First comes learning: the agents meet their networks and every static contender makes the connections from which the
best of them is chosen. Then all contenders make the connections that are compared.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from ipaddress import IPv4Network
from typing import Any

from agent.errors import LabError
from agent.lab.agent_process import AgentProcess
from agent.lab.bench.contenders import RFC9040, TCPTUNED, WINDOWS, Contender, networks_of, path_name
from agent.lab.bench.kernel import FixedArms
from agent.lab.bench.tickets import Ticket, TicketQueue
from agent.lab.bench.workloads import Plan, Workload, changed, plan_for
from agent.lab.lab import Lab
from agent.lab.spec import PathSpec
from agent.lab.workload import Transfer
from agent.rules import packed

__all__ = ["Cell", "Run", "connections", "run_cells"]

_SETTLE = 2.5  # seconds until the last rows have been read
_PORTS = {TCPTUNED.name: 9877, RFC9040.name: 9878}
_RIPTIDE_SHARE = 0.3  # of the newest window in the mean
_RFC9040_LEARNING = 3
_LEAST = 2  # turns of everybody, however long they take
_DRAWN = 4  # connections in a round of comparing, of those who draw
_TIMEOUT = 120.0  # seconds for one object
_NOTHING = 1e-3  # Mb/s
# Seconds before a connection at most, drawn at random: one that follows its contender's last one at once meets what
# that left on its way, and falls into step with a path that lets ACKs through every 200 ms.
_PAUSE = 0.2
# Connections at once: most of them wait for slow paths.
_AT_ONCE_PER_PROCESSOR = 100


@dataclass
class Run:
    """One contender on one path: bytes and seconds of every object in order, or 0 and Mb/s of a transfer without end;
    learning first. `handshakes`: the seconds until each was established, of both parts in order, or until it failed.
    Counts of both parts."""

    learned: list[tuple[int, float]] = field(default_factory=list)
    compared: list[tuple[int, float]] = field(default_factory=list)
    handshakes: list[float] = field(default_factory=list)
    failures: int = 0
    counts_learned: dict[str, float] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)


@dataclass
class Cell:
    """One path with one workload: the contenders' runs by name, and what the agent says of the path at the end."""

    path: str
    workload: str
    changes: bool  # the path became another after learning
    plan: dict[str, Any]
    runs: dict[str, Run]
    explained: dict[str, Any]
    uplift: dict[str, Any]
    holdout: float  # the share of tcptuned's connections that were left alone
    late: float  # seconds that the emulator was behind at worst

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)


def connections(workload: Workload, paths: dict[str, PathSpec], budget: float) -> int:
    """How many objects `run_cells` moves."""
    stage = _Stage(paths, workload, budget, 0, lambda _: None)
    return sum(1 for tickets in (stage.learning_tickets(), stage.compared_tickets()) for _ in tickets)


def run_cells(
    paths: dict[str, PathSpec], workload: Workload, *, budget: float, processors: int, seed: int,
    progress: Callable[[str], None],
) -> list[Cell]:  # fmt: skip
    """One workload on all paths side by side, each in about `budget` seconds. Comparing stops after as long, learning
    after the workload's `patience` times as long, but for the slowest contenders' first connections. Raises LabError.
    """
    stage = _Stage(paths, workload, budget, seed, progress)
    with ExitStack() as stack:
        stage.open(stack)
        workers = processors * _AT_ONCE_PER_PROCESSOR
        patience = budget * workload.patience
        stage.play(stage.learning_tickets(), workers, patience, least=dict.fromkeys(paths, _LEAST))
        stage.note_learned()
        stage.change()
        stage.play(stage.compared_tickets(), workers, budget, least=stage.every_size())
        return stage.cells()


class _Stage:
    def __init__(
        self, paths: dict[str, PathSpec], workload: Workload, budget: float, seed: int, progress: Callable[[str], None]
    ) -> None:
        self._paths = paths
        self._workload = workload
        self._contenders = workload.contenders
        self._budget = budget
        self._plans = {name: plan_for(workload, path, budget=budget) for name, path in paths.items()}
        self._progress = progress
        self._seed = seed
        self._random = random.Random(seed)
        self._runs = {(name, each.name): Run() for name in paths for each in self._contenders}
        self._windows: dict[str, float] = dict.fromkeys(paths, 10.0)
        self._lock = threading.Lock()

    def open(self, stack: ExitStack) -> None:
        self._lab = stack.enter_context(Lab(networks_of(self._paths, self._contenders), seed=self._seed))
        self._agents = {
            each.name: stack.enter_context(
                AgentProcess(self._lab, self._settings(each), port=_PORTS[each.name])
            )
            for each in (TCPTUNED, RFC9040)
            if each in self._contenders
        }  # fmt: skip
        # After the agents, so that it sees the windows that they set.
        self._fixed = stack.enter_context(FixedArms(self._lab.server_cgroup))
        for name in self._paths:
            for each in self._contenders:
                self._fixed.choose(self._network(name, each), each.window, each.algorithm)

    def _settings(self, agent: Contender) -> dict[str, Any]:
        mine = [each for each in self._contenders if each.kind == "agent" and each.law == agent.law]
        rules: list[dict[str, Any]] = [{"match": ["0.0.0.0/0", "::/0"], "exclude": True}]
        rules += [
            {"match": [str(self._network(name, each)) for each in mine], "group": _group(position)}
            for position, name in enumerate(self._paths)
        ]
        settings: dict[str, Any] = {"paths": {"rules": rules}, "initial_window": {"law": agent.law}}
        if agent is RFC9040:
            settings |= {"congestion": {"enabled": False}, "ack": {"enabled": False}}
        return settings

    def _network(self, name: str, contender: Contender) -> IPv4Network:
        return self._lab.network(path_name(name, contender))

    def learning_tickets(self) -> Iterator[Ticket]:
        """In each round everybody once, the agents more often: they have to find out what the static ones are told."""
        for turn in range(max(plan.rounds for plan in self._plans.values())):
            yield from self._shuffled(
                self._ticket(name, each, turn, compared=False, again=again > 0)
                for name, plan in self._plans.items()
                if turn < plan.rounds
                for each in self._contenders
                if not each.sibling
                for again in range({TCPTUNED.name: plan.learning, RFC9040.name: _RFC9040_LEARNING}.get(each.name, 1))
            )

    def compared_tickets(self) -> Iterator[Ticket]:
        for turn in range(max(plan.compared for plan in self._plans.values())):
            yield from self._shuffled(
                self._ticket(name, each, turn, compared=True, again=again > 0)
                for name, plan in self._plans.items()
                if turn < plan.compared
                for each in self._contenders
                for again in range(self._more(each, plan))
            )

    def _ticket(self, path: str, contender: Contender, turn: int, *, compared: bool, again: bool) -> Ticket:
        return Ticket(path, contender, turn, compared, again, self._random.uniform(0.0, _PAUSE))

    def _more(self, contender: Contender, plan: Plan) -> int:
        """Connections of a contender in a round of comparing: agents draw, which takes more of them to see."""
        if self._workload.change and contender is TCPTUNED:
            return plan.learning
        return _DRAWN if contender.kind == "agent" and self._workload.seconds is None else 1

    def change(self) -> None:
        """The path becomes another for everybody, if that is the workload."""
        if self._workload.change is None:
            return
        for name, path in self._paths.items():
            for each in self._contenders:
                self._lab.change(path_name(name, each), down=changed(path.down, self._workload.change))

    def _shuffled(self, tickets: Iterator[Ticket]) -> list[Ticket]:
        found = list(tickets)
        self._random.shuffle(found)
        return found

    def every_size(self) -> dict[str, int]:
        """How many turns of each path it takes until everybody carried an object of every size."""
        return {name: max(_LEAST, len(plan.sizes)) for name, plan in self._plans.items()}

    def play(self, tickets: Iterator[Ticket], workers: int, seconds: float, *, least: Mapping[str, int]) -> None:
        """Hands out the tickets in order for so many seconds; one contender makes one connection at a time on a path.
        `least`: turns of every path that take place however long they take."""
        waiting = TicketQueue(
            tickets, {name: (plan.load_mbps, plan.load_seconds) for name, plan in self._plans.items()},
            seconds=seconds, least=least, left_out=self._left_out,
        )  # fmt: skip
        threads = [threading.Thread(target=self._work, args=(waiting,), daemon=True) for _ in range(workers)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        if waiting.error is not None:
            raise waiting.error

    def _work(self, waiting: TicketQueue) -> None:
        while (ticket := waiting.take()) is not None:
            carried = None
            try:
                carried = self._connect(ticket)
            except LabError as error:
                waiting.fail(error)
            finally:
                waiting.give_back(ticket, carried)
            self._progress(f"path {ticket.path}")

    def _left_out(self, ticket: Ticket) -> None:
        self._progress(f"path {ticket.path}")

    def _connect(self, ticket: Ticket) -> float | None:
        """Returns the Mb/s that it had."""
        run = self._runs[ticket.path, ticket.contender.name]
        riptide = ticket.contender.kind == "riptide"
        plan = self._plans[ticket.path]
        # The sizes in turn, so that all contenders carry the same ones.
        sizes = plan.sizes if ticket.compared else plan.learning_sizes
        size = sizes[ticket.turn % len(sizes)] if sizes else 0
        seconds = plan.seconds if ticket.compared else plan.learning_seconds
        transfer = Transfer(
            path=path_name(ticket.path, ticket.contender), size=size or 1 << 40,
            seconds=seconds, cut=seconds is not None, state=riptide and seconds is None,
            timeout=_TIMEOUT,
        )  # fmt: skip
        time.sleep(ticket.pause)
        [done] = self._lab.run([transfer], timeout=_TIMEOUT + 10)[0]
        with self._lock:
            if done.error is not None:
                run.failures += 1
            # An object that never came took as long as it was waited for, and a download that broke carried nothing.
            value = _NOTHING if plan.seconds is not None else _TIMEOUT
            if done.error is None:
                value = done.seconds if plan.seconds is None else done.mbps
            (run.compared if ticket.compared else run.learned).append((size, value))
            run.handshakes.append(done.connect or done.seconds)
        if riptide and done.state:
            self._follow(ticket, done.state["tcp_info"]["snd_cwnd"])
        return done.mbps if done.error is None else None

    def _follow(self, ticket: Ticket, seen: int) -> None:
        """Riptide (ICDCS 2016): the next initial window is the mean of the windows that connections reached."""
        mean = self._windows[ticket.path] * (1 - _RIPTIDE_SHARE) + seen * _RIPTIDE_SHARE
        self._windows[ticket.path] = mean
        nearest = min(WINDOWS, key=lambda window: abs(window - mean))
        self._fixed.choose(self._network(ticket.path, ticket.contender), nearest, ticket.contender.algorithm)

    def note_learned(self) -> None:
        time.sleep(_SETTLE)
        for key, counts in self._counts().items():
            self._runs[key].counts_learned = counts

    def _counts(self) -> dict[tuple[str, str], dict[str, float]]:
        found = self._fixed.counts()
        keys = {
            packed(self._network(name, each).network_address): (name, each.name)
            for name in self._paths
            for each in self._contenders
        }
        return {keys[address]: counts for address, counts in found.items() if address in keys}

    def cells(self) -> list[Cell]:
        time.sleep(_SETTLE)
        for key, counts in self._counts().items():
            run = self._runs[key]
            run.counts = {name: value - run.counts_learned.get(name, 0) for name, value in counts.items()}
        late = self._lab.counters().late_max
        groups = {group["name"]: group for group in self._agents[TCPTUNED.name].status()["groups"]}
        return [
            Cell(
                path=name,
                workload=self._workload.name,
                changes=self._workload.change is not None,
                plan=asdict(self._plans[name]),
                runs={each.name: self._runs[name, each.name] for each in self._contenders},
                explained=self._agents[TCPTUNED.name].explain(self._lab.address(path_name(name, TCPTUNED))) or {},
                uplift=groups.get(_group(position), {}).get("uplift", {}),
                holdout=_holdout(groups.get(_group(position), {})),
                late=late,
            )
            for position, name in enumerate(self._paths)
        ]


def _group(position: int) -> str:
    """The agent's group of a path; paths may be called anything."""
    return f"path{position}"


def _holdout(group: Mapping[str, Any]) -> float:
    """The holdout's share of a group's connections that were drawn."""
    drawn = group.get("connections", {})
    return float(drawn.get("holdout", 0) / max(drawn.get("holdout", 0) + drawn.get("treated", 0), 1))
