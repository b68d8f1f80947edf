"""What a part of the agent remembers over restarts, beside the evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.libbpf import Array

__all__ = ["Section"]


@dataclass(frozen=True)
class Section:
    """Facts ready for JSON, and arrays. Where arrays go by path, by the rows of what was learnt (agent/learnt.py)."""

    facts: Mapping[str, Any]
    arrays: Mapping[str, Array]
