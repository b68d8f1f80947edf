"""What a demo found, for the display and as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

__all__ = ["DemoResult", "PathResult", "Phase"]


@dataclass(frozen=True)
class Phase:
    """What the clients of one path saw in one phase; times in milliseconds, None without objects.

    `lost` is the share of the path's packets towards the clients that it dropped, which the server sends again.
    """

    objects: int
    errors: int
    median_ms: float | None
    mean_ms: float | None
    lost: float | None


@dataclass
class PathResult:
    """Everything about one path. Ratios are after to before: 0.8 is a fifth less time."""

    name: str
    description: str
    before: Phase
    after: Phase
    learnt_from: float  # connections, faded with the evidence's half-life
    policy: list[dict[str, Any]]  # by dimension: name, chosen, reason, probability
    median_ratio: float | None = field(init=False)
    mean_ratio: float | None = field(init=False)

    def __post_init__(self) -> None:
        self.median_ratio = _ratio(self.after.median_ms, self.before.median_ms)
        self.mean_ratio = _ratio(self.after.mean_ms, self.before.mean_ms)


@dataclass
class DemoResult:
    """What the demo found. `late_ms`: how late the emulator delivered at worst; much more than 10 ms spoils figures."""

    seconds: float
    paths: list[PathResult]
    late_ms: float
    errors: list[str]


def _ratio(after: float | None, before: float | None) -> float | None:
    return round(after / before, 4) if after is not None and before else None
