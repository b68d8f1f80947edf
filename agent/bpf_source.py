"""The C sources as one text.

BCC rewrites map calls such as `rows.lookup(&key)` only in the main text: in an included file they compile and then fail
to load. So the project's own includes are put in place here, with `#line` so that errors name the right file.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path

__all__ = ["FOLDER", "constants", "counter_names", "expand", "outcome_names"]

FOLDER = Path(__file__).resolve().parent.parent / "bpf"

_INCLUDE = re.compile(r'\s*#include "([a-z_]+\.h)"\s*$')
_DEFINE = re.compile(r"#define ([A-Z][A-Z0-9_]*) (\d+)(?:ULL)?\b")
_COUNTER = re.compile(r"\bCOUNTER_([A-Z_]+),")
_OUTCOME = re.compile(r"\bOUTCOME_([A-Z_]+),")


def expand(name: str, *, folder: Path = FOLDER) -> str:
    """The text of `name` with the project's own includes in place."""
    lines = [f'#line 1 "{name}"']
    for number, line in enumerate((folder / name).read_text(encoding="utf-8").splitlines(), 1):
        if match := _INCLUDE.match(line):
            lines += [expand(match[1], folder=folder), f'#line {number + 1} "{name}"']
        else:
            lines.append(line)
    return "\n".join(lines)


@cache
def constants() -> dict[str, int]:
    """Every plain number defined in consts.h, so that it is written down once."""
    return {name: int(value) for name, value in _DEFINE.findall((FOLDER / "consts.h").read_text(encoding="utf-8"))}


@cache
def counter_names() -> tuple[str, ...]:
    """The names of `enum counter` in order, in lower case without their prefix: `set_ack`, `lost_rows_full`, ..."""
    return tuple(name.lower() for name in _COUNTER.findall((FOLDER / "consts.h").read_text(encoding="utf-8")))


@cache
def outcome_names() -> tuple[str, ...]:
    """The names of `enum outcome` in order, in lower case without their prefix: `sent`, `granted`, ..."""
    return tuple(name.lower() for name in _OUTCOME.findall((FOLDER / "consts.h").read_text(encoding="utf-8")))
