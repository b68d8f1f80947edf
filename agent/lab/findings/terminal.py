"""What the terminal shows of the experiments: progress while they run, then their tables."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table as RichTable

from agent.lab.findings.model import Found, Progress, shown
from agent.terminal import open_console

__all__ = ["progress_view", "show_found"]

_PLAIN_WIDTH = 250  # columns of output that goes into a file or a pipe: room for a dozen ratios with intervals


class _Silent:
    def begin(self, title: str, steps: int) -> None:
        pass

    def step(self, text: str) -> None:
        pass


class _Plain(_Silent):
    """For a file or a pipe: a line an experiment."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def begin(self, title: str, steps: int) -> None:
        self._console.print(f"{title}: {steps} steps")


class _Bars:
    """For a terminal: a bar an experiment."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._task = bars.add_task("", total=None, visible=False)
        self._title = ""
        self._done = 0

    def begin(self, title: str, steps: int) -> None:
        self._title, self._done = title, 0
        self._task = self._bars.add_task(title, total=steps)

    def step(self, text: str) -> None:
        # A step is done when the next one begins.
        self._bars.update(self._task, completed=self._done, description=f"{self._title}: {text}")
        self._done += 1


@contextmanager
def progress_view(*, silent: bool) -> Iterator[Progress]:
    """Shows progress on stderr until the block ends."""
    console = open_console(plain_width=_PLAIN_WIDTH, stderr=True)
    if silent or not console.is_terminal:
        yield _Silent() if silent else _Plain(console)
        return
    columns = (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Bars(*columns, console=console, transient=True) as bars:
        yield _Bars(bars)


def show_found(found: Found) -> None:
    """Prints an experiment's tables."""
    console = open_console(plain_width=_PLAIN_WIDTH)
    console.print(f"\n{found.title}", style="bold")
    console.print(f"{found.setting} ({found.seconds:.0f} s)\n")
    for table in found.tables:
        if table.title:
            console.print(table.title, style="bold")
        view = RichTable(box=None, pad_edge=False)
        for index, column in enumerate(table.columns):
            view.add_column(column.name, justify="right" if index else "left", no_wrap=True)
        for row in table.rows:
            view.add_row(*(shown(cell, column) for cell, column in zip(row, table.columns, strict=True)))
        console.print(view, "")
    for note in found.notes:
        console.print(f"- {note}")
