"""`tcptuned status --watch`: the status again and again, until Ctrl-C.

On a terminal it is redrawn in place; in a pipe the text, or a line of JSON, comes once an interval.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from io import StringIO
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.text import Text

from agent.config import Config
from agent.errors import UnreachableError
from agent.show import ask_status, draw, draw_status
from agent.terminal import open_console

__all__ = ["watch_status"]


def watch_status(config: Config, every: float, *, as_json: bool) -> None:
    """Shows what the agent does every `every` seconds; ends at KeyboardInterrupt.

    An agent that cannot be reached in between, such as during a restart, is waited for; at first it is an error.
    """
    facts = ask_status(config)
    with suppress(KeyboardInterrupt):
        if as_json:
            _repeat(config, every, facts, lambda facts: print(json.dumps(facts, ensure_ascii=False), flush=True), _warn)
        elif (screen := open_console()).is_terminal and not screen.is_dumb_terminal:
            _on_terminal(config, every, facts)
        else:
            _repeat(config, every, facts, _print, _warn)


def _repeat(
    config: Config, every: float, facts: Mapping[str, Any], show: Callable[[Mapping[str, Any]], None],
    missing: Callable[[UnreachableError], None],
) -> None:  # fmt: skip
    show(facts)
    while True:
        time.sleep(every)
        try:
            show(ask_status(config))
        except UnreachableError as error:
            missing(error)


def _warn(error: UnreachableError) -> None:
    print(error, file=sys.stderr, flush=True)


def _print(facts: Mapping[str, Any]) -> None:
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime())} UTC")
    draw(open_console(), facts, draw_status)
    print(flush=True)


def _on_terminal(config: Config, every: float, facts: Mapping[str, Any]) -> None:
    with Live(console=open_console(), auto_refresh=False) as live:
        latest = Text()

        def show(facts: Mapping[str, Any]) -> None:
            nonlocal latest
            latest = _picture(live.console.width, facts)
            live.update(latest + _foot(f"every {every:g} s; Ctrl-C ends"), refresh=True)

        def missing(error: UnreachableError) -> None:
            live.update(latest + _foot(str(error)), refresh=True)

        _repeat(config, every, facts, show, missing)


def _foot(text: str) -> Text:
    return Text(f"\n{time.strftime('%H:%M:%S', time.gmtime())} UTC: {text}")


def _picture(width: int, facts: Mapping[str, Any]) -> Text:
    """The status drawn beside the screen, so that it can replace the one before it in one go."""
    paper = StringIO()
    draw(
        Console(file=paper, width=width, force_terminal=True, markup=False, highlight=False, emoji=False),
        facts, draw_status,
    )  # fmt: skip
    return Text.from_ansi(paper.getvalue())
