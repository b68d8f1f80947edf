"""Numbers as people read them, on the status page and in the terminal."""

from __future__ import annotations

import time

__all__ = ["NOTHING", "moment", "percent", "seconds", "size", "whole"]

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
