"""Where commands print: plain text, in colours where somebody looks."""

from __future__ import annotations

from rich.console import Console

__all__ = ["open_console"]


def open_console(*, plain_width: int = 200, stderr: bool = False) -> Console:
    """Standard output or error: as wide as the terminal; for a file or a pipe `plain_width` columns, so that no line is
    broken."""
    found = Console(markup=False, highlight=False, emoji=False, stderr=stderr)
    if not found.is_terminal:
        found.width = plain_width
    return found
