"""Programs of this package, started as processes of their own."""

from __future__ import annotations

import os
import sys
from pathlib import Path

__all__ = ["environment", "module_command"]


def module_command(module: str, *arguments: str) -> list[str]:
    """Runs a module, with `environment`. By -P nothing is imported from the current directory, whoever put it there."""
    return [sys.executable, "-P", "-m", module, *arguments]


def environment() -> dict[str, str]:
    """This process's, with this package importable wherever the process was started."""
    root = str(Path(__file__).resolve().parents[1])
    known = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{known}" if known else root}
