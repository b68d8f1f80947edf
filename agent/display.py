"""Numbers as people read them, on the status page and in the terminal."""

from __future__ import annotations

import time
from collections.abc import Mapping

__all__ = ["NOTHING", "moment", "percent", "seconds", "size", "uplift", "whole"]

NOTHING = "-"


def whole(value: float) -> str:
    """A count: 12,345."""
    return f"{value:,.0f}"


def moment(value: float) -> str:
    """Seconds since 1970 as date and time in UTC."""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(value)) if value else "never"


def percent(share: float | None) -> str:
    """A share between 0 and 1."""
    return NOTHING if share is None else f"{share:.2%}"


def uplift(found: Mapping[str, float] | None) -> str:
    """A share of time saved and its interval: 21 % faster (95 %: 17 to 25 %)."""
    if found is None:
        return NOTHING
    ratio, low, high = (100 * found[name] for name in ("ratio", "lower", "upper"))
    word = "faster"
    if round(ratio) < 0:
        ratio, low, high, word = -ratio, -high, -low, "slower"
    # Adding 0.0 turns -0 into 0.
    return f"{round(ratio) + 0.0:,.0f} % {word} (95 %: {round(low) + 0.0:,.0f} to {round(high) + 0.0:,.0f} %)"


def seconds(value: float | None) -> str:
    """A time, in milliseconds below one second."""
    if value is None:
        return NOTHING
    return f"{value * 1000:.1f} ms" if value < 1 else f"{value:.2f} s"


def size(value: float) -> str:
    """Bytes, in the largest decimal unit that fits."""
    for unit, digits in (("B", 0), ("kB", 1), ("MB", 1), ("GB", 1)):
        if value < 1000:
            return f"{value:.{digits}f} {unit}"
        value /= 1000
    return f"{value:,.1f} TB"
