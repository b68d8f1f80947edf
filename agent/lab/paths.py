"""Files of paths, such as paths.yaml, as paths for a laboratory."""

from __future__ import annotations

from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

import yaml

from agent.errors import LabError, UsageError
from agent.lab.service import read_trace
from agent.lab.spec import AckBurst, PathSpec

__all__ = ["load_paths"]


def load_paths(file: Path | None = None) -> dict[str, PathSpec]:
    """All paths of a file, by id and in its order, each a `PathSpec.symmetric` called "path-ID".

    Without a file: the eighteen published scenarios. Raises UsageError naming the file and the row.
    """
    if file is None:
        with as_file(files("agent.lab").joinpath("paths.yaml")) as own:
            return load_paths(own)
    try:
        rows = yaml.safe_load(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{file}: not a file of paths: {error}") from error
    if not isinstance(rows, list) or not rows:
        raise UsageError(f"{file}: a file of paths is a list, such as agent/lab/paths.yaml")
    found: dict[str, PathSpec] = {}
    for row in rows:
        try:
            name, path = _path(row, file.parent)
        except (AttributeError, KeyError, TypeError, ValueError, LabError) as error:
            missing = isinstance(error, KeyError)
            raise UsageError(f"{file}: {row}: {f'{error} is missing' if missing else error}") from error
        if name in found:
            raise UsageError(f"{file}: id {name} is there twice")
        found[name] = path
    return found


def _path(row: Any, folder: Path) -> tuple[str, PathSpec]:
    values = dict(row)
    name = str(values.pop("id"))
    burst, trace = values.pop("ack_burst", None), values.pop("trace", None)
    if trace is not None:
        # Read here to refuse a bad one at once; absolute, because another process reads it.
        trace = {direction: str((folder / trace[direction]).resolve()) for direction in ("down", "up")}
        for each in trace.values():
            read_trace(Path(each))
    path = PathSpec.symmetric(f"path-{name}", ack_burst=AckBurst(**burst) if burst else None, trace=trace, **values)
    return name, path
