"""The scenarios of scenarios.yaml as paths for a laboratory."""

from __future__ import annotations

from importlib.resources import files

import yaml

from agent.errors import LabError
from agent.lab.spec import AckBurst, PathSpec

__all__ = ["load_scenarios"]


def load_scenarios() -> dict[int, PathSpec]:
    """All scenarios by number, each a `PathSpec.symmetric` called "scenario-N". Raises LabError."""
    rows = yaml.safe_load(files("agent.lab").joinpath("scenarios.yaml").read_text(encoding="utf-8"))
    found: dict[int, PathSpec] = {}
    for row in rows:
        values = dict(row)
        try:
            number = values.pop("id")
            burst = values.pop("ack_burst", None)
            path = PathSpec.symmetric(f"scenario-{number}", ack_burst=AckBurst(**burst) if burst else None, **values)
        except (KeyError, TypeError) as error:
            raise LabError(f"scenarios.yaml: {row}: {error}") from error
        if number in found:
            raise LabError(f"scenarios.yaml: scenario {number} is there twice")
        found[number] = path
    return found
