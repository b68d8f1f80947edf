"""`tcptuned report`: one HTML file that needs nothing else, or the same facts as JSON."""

from __future__ import annotations

import json
from pathlib import Path

from agent.config import Config
from agent.display import size
from agent.errors import TcptunedError
from agent.report_facts import collect

__all__ = ["show_report"]

_FILE = Path("tcptuned-report.html")


def show_report(config: Config, output: Path | None, *, as_json: bool) -> None:
    """Writes the report to `output`; without one, JSON goes to stdout, and the page to a file in this folder."""
    facts = collect(config)
    if as_json:
        text = json.dumps(facts, ensure_ascii=False) + "\n"
        if output is None:
            print(text, end="")
            return
    else:
        from agent.report_page import render  # noqa: PLC0415  JSON does without the plots, whose library takes half a second to import

        try:
            text = render(facts)
        except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
            raise TcptunedError("what the agent tells is of another version than this command: restart it") from error
    path = output or _FILE
    try:
        path.write_text(text, encoding="utf-8", errors="replace")
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise TcptunedError(f"cannot write {path}: {reason}; name another file with --output") from error
    print(f"{path} ({size(path.stat().st_size)}): {facts['note']}")
