"""The scenarios of scenarios.yaml as paths for a laboratory."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import yaml

from agent.errors import LabError
from agent.lab.spec import AckBurst, PathSpec

__all__ = ["load_scenarios"]


def load_scenarios(file: Path | None = None) -> dict[int, PathSpec]:
    """All scenarios by number, each a `PathSpec.symmetric` called "scenario-N", of this file or another of its form.

    A row may have `trace` instead of `rate_mbps`: a packet-delivery file as of mahimahi, beside the scenarios' file.
    Raises LabError.
    """
    source = file.name if file else "scenarios.yaml"
    try:
        text = (file or files("agent.lab").joinpath("scenarios.yaml")).read_text(encoding="utf-8")
        rows = yaml.safe_load(text)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise LabError(f"{source}: {error}") from error
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise LabError(f"{source}: must be a list of paths, each like {{id: 1, rate_mbps: 12, delay_ms: 30}}")
    found: dict[int, PathSpec] = {}
    for row in rows:
        values = dict(row)
        try:
            number = values.pop("id")
            burst = values.pop("ack_burst", None)
            trace = values.pop("trace", None)
            path = PathSpec.symmetric(f"scenario-{number}", ack_burst=AckBurst(**burst) if burst else None, **values)
            if trace is not None:
                beside = (file.parent if file else Path()) / str(trace)
                path = replace(path, down=replace(path.down, trace=str(beside.absolute())))
        except (KeyError, TypeError) as error:
            raise LabError(f"{source}: {row}: {error}") from error
        if number in found:
            raise LabError(f"{source}: scenario {number} is there twice")
        found[number] = path
    return found
