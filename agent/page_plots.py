"""The status page's plots as inline SVG. What they show is beside them in words, so screen readers leave them out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

__all__ = ["Scale", "bar", "interval", "scale"]

_LEAST = 0.1  # a scale shows at least this to either side of 0
_MOST = 1.0  # more than all of the time cannot be saved; twice as slow and more is drawn at the edge


@dataclass(frozen=True)
class Scale:
    """From `low` (negative) to `high`, in shares of the time."""

    low: float
    high: float

    def place(self, value: float) -> float:
        """Where `value` is, in percent of the width; what lies outside is at the edge."""
        return 100 * (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)


def scale(found: Iterable[Mapping[str, float]]) -> Scale:
    """One that holds all these intervals, rounded out to tenths."""
    values = [value for each in found for value in (each["lower"], each["upper"]) if math.isfinite(value)]
    low = math.floor(10 * max(min([-_LEAST, *values]), -_MOST)) / 10
    high = math.ceil(10 * min(max([_LEAST, *values]), _MOST)) / 10
    return Scale(low, high)


def interval(found: Mapping[str, float], on: Scale) -> str:
    """A share with its bounds, and a line at 0: the colour tells on which side of it the whole interval is."""
    kind = "faster" if found["lower"] > 0 else "slower" if found["upper"] < 0 else "unsure"
    low, high, value, zero = (on.place(each) for each in (found["lower"], found["upper"], found["ratio"], 0.0))
    return (
        '<svg aria-hidden="true" focusable="false">'
        '<rect class="track" y="7" width="100%" height="2"/>'
        f'<rect class="{kind}" x="{low:.2f}%" y="5" width="{max(high - low, 0.5):.2f}%" height="6" rx="2"/>'
        f'<rect class="{kind}" x="{min(value, 99.0):.2f}%" y="1" width="4" height="14"/>'
        f'<rect class="zero" x="{min(zero, 99.5):.2f}%" width="1" height="16"/></svg>'
    )


def bar(share: float) -> str:
    """A share of the width, 0 to 1."""
    return (
        '<svg aria-hidden="true" focusable="false"><rect class="track" y="7" width="100%" height="2"/>'
        f'<rect class="unsure" y="3" width="{100 * share:.2f}%" height="10" rx="2"/></svg>'
    )
