"""What people see of the demo: a live table while it runs, and the result."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from agent.display import NOTHING, percent, whole
from agent.lab.demo_result import DemoResult, PathResult
from agent.terminal import open_console

__all__ = ["Progress", "progress_view", "show_result"]

_PLAIN_WIDTH = 160  # columns of output that goes into a file or a pipe
_NO_CHANGE = 0.05  # ratios this close to 1 are called alike
_LONG_ENOUGH = 45.0  # seconds
_LATE_MS = 20.0  # a busier machine than this spoils the figures


class Progress(Protocol):
    """Told how far the demo is."""

    def phase(self, title: str, seconds: float) -> None:
        """A phase begins that lasts about `seconds`; 0: as long as it takes, but not long."""
        ...

    def path(self, name: str, objects: int, recent_ms: float | None, chosen: Mapping[str, str]) -> None:
        """A path in this phase: objects done, the median time of the last of them, what the agent chose."""
        ...


class _Silent:
    def phase(self, title: str, seconds: float) -> None:
        pass

    def path(self, name: str, objects: int, recent_ms: float | None, chosen: Mapping[str, str]) -> None:
        pass


class _Plain(_Silent):
    """For a file or a pipe: a line a phase."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def phase(self, title: str, seconds: float) -> None:
        self._console.print(f"{title} ({seconds:.0f} s)" if seconds else title)


@dataclass
class _Row:
    text: str
    objects: int = 0
    recent_ms: float | None = None
    chosen: Mapping[str, str] = field(default_factory=dict)


class _Live:
    """For a terminal; `__rich__` is called by rich's own thread several times a second."""

    def __init__(self, paths: Mapping[str, str], total: float) -> None:
        self._rows = {name: _Row(text) for name, text in paths.items()}
        self._total = total
        self._before = 0.0  # seconds of all phases that are over
        self._title, self._seconds, self._began = "", 0.0, time.monotonic()

    def phase(self, title: str, seconds: float) -> None:
        self._before += self._seconds
        self._title, self._seconds, self._began = title, seconds, time.monotonic()
        for row in self._rows.values():
            row.objects, row.recent_ms = 0, None

    def path(self, name: str, objects: int, recent_ms: float | None, chosen: Mapping[str, str]) -> None:
        row = self._rows[name]
        row.objects, row.recent_ms = objects, recent_ms
        row.chosen = chosen or row.chosen

    def __rich__(self) -> Group:
        spent = min(time.monotonic() - self._began, self._seconds)
        rest = f"  {self._seconds - spent:.0f} s left" if spent < self._seconds else "  ..."
        table = Table(box=None, pad_edge=False)
        for name in ("path", "what it is", "objects", "recent median", "agent's choice"):
            table.add_column(name, justify="right" if name in {"objects", "recent median"} else "left")
        for name, row in self._rows.items():
            chosen = ", ".join(arm for arm in row.chosen.values() if arm != "default")
            table.add_row(
                name, Text(row.text, style="dim"), whole(row.objects), _ms(row.recent_ms),
                chosen or ("kernel's defaults" if row.chosen else NOTHING),
            )  # fmt: skip
        bar = ProgressBar(total=self._total, completed=self._before + spent, width=60)
        return Group(Text(self._title, style="bold") + Text(rest, style="dim"), bar, Text(), table)


@contextmanager
def progress_view(paths: Mapping[str, str] | None, total: float) -> Iterator[Progress]:
    """Shows progress until the block ends; `paths` are descriptions by name, None: show nothing. `total` in seconds."""
    if paths is None:
        yield _Silent()
        return
    console = open_console(plain_width=_PLAIN_WIDTH)
    if not console.is_terminal:
        yield _Plain(console)
        return
    view = _Live(paths, total)
    with Live(get_renderable=view.__rich__, console=console, refresh_per_second=4, transient=True):
        yield view


def show_result(result: DemoResult) -> None:
    """Prints the tables."""
    console = open_console(plain_width=_PLAIN_WIDTH)
    times = _table(
        "Time of an object: the kernel's defaults -> with the agent",
        ("path", "", ">median ms", ">ratio", ">mean ms", ">ratio", ">lost"),
    )
    for path in result.paths:
        before, after = path.before, path.after
        times.add_row(
            path.name, _verdict(path),
            _pair(before.median_ms, after.median_ms), _ratio(path.median_ratio),
            _pair(before.mean_ms, after.mean_ms), _ratio(path.mean_ratio),
            f"{percent(before.lost)} -> {percent(after.lost)}",
        )  # fmt: skip
    console.print(times)
    for path in result.paths:
        console.print(
            f"\n{path.name}: {path.description}; objects: {path.before.objects} before, {path.after.objects} after"
        )
        title = f"decided from what {path.learnt_from:,.0f} connections did"
        policy = _table(title, ("dimension", "choice", ">share", "why"))
        for entry in path.policy:
            policy.add_row(entry["dimension"], entry["chosen"], f"{entry['probability']:.0%}", entry["reason"])
        console.print(policy)
    console.print(
        "\nWith the agent: all connections of that time, also those it holds out or tries other arms on. Share: of the "
        "connections that are not held out. Lost: of the packets to the clients; a lost one is sent again."
    )
    if result.seconds < _LONG_ENOUGH:
        console.print("So short a demo is over before the agent has learnt all it can: --seconds 60 shows more.")
    if result.late_ms > _LATE_MS:
        console.print(f"This machine is busy: packets came up to {result.late_ms:.0f} ms late; try again later.")
    if failed := sum(path.before.errors + path.after.errors for path in result.paths):
        console.print(f"{failed} objects failed and are not in the times.", style="red")
    for text in result.errors:
        console.print(f"  {text}", style="red")


def _table(title: str, columns: Sequence[str]) -> Table:
    """A table without rows; a column whose name begins with > holds numbers."""
    table = Table(title=title, title_justify="left", title_style="bold", box=None, pad_edge=False)
    for name in columns:
        number = name.startswith(">")
        table.add_column(name.removeprefix(">"), justify="right" if number else "left", no_wrap=number)
    return table


def _ms(value: float | None) -> str:
    return NOTHING if value is None else f"{value:,.0f} ms"


def _pair(before: float | None, after: float | None) -> str:
    return " -> ".join(NOTHING if value is None else whole(value) for value in (before, after))


def _ratio(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.2f}"


def _verdict(path: PathResult) -> str:
    """By the mean, which forgets no connection."""
    if path.mean_ratio is None:
        return "nothing to compare"
    if abs(path.mean_ratio - 1) <= _NO_CHANGE:
        return "alike"
    return f"{1 - path.mean_ratio:.0%} faster" if path.mean_ratio < 1 else f"{path.mean_ratio - 1:.0%} slower"
