"""Durations as people write them (`250ms`, `1h30m`) and as the program counts them (seconds)."""

from __future__ import annotations

import re

__all__ = ["format_duration", "parse_duration"]

# Largest first: the parts of a duration must come in this order. Milliseconds are divided, not multiplied by 0.001,
# so that 100ms is exactly the float 0.1.
_PER_SECOND = {"d": 86400.0, "h": 3600.0, "m": 60.0, "s": 1.0}
_NUMBER = r"([0-9]{1,9}(?:\.[0-9]{1,6})?)"
_DURATION = re.compile("".join(rf"(?:{_NUMBER}{unit})?" for unit in ("d", "h", "m", "s", "ms")))


def parse_duration(text: str) -> float:
    """Seconds in a duration such as `250ms`, `1s`, `10m`, `1h30m` or `2d`.

    Raises ValueError with the cure when `text` is anything else; a bare number has no unit and is refused.
    """
    found = _DURATION.fullmatch(text)
    if not text or found is None:
        raise ValueError("must be a duration such as 250ms, 1s, 10m or 1h30m")
    *whole, milliseconds = found.groups()
    seconds = sum(float(part) * scale for part, scale in zip(whole, _PER_SECOND.values(), strict=True) if part)
    return seconds + (float(milliseconds) / 1000 if milliseconds else 0.0)


def format_duration(seconds: float) -> str:
    """The shortest text that `parse_duration` reads back as `seconds` (rounded to a microsecond); `seconds` >= 0."""
    left = round(seconds * 1_000_000)
    parts: list[str] = []
    for unit, scale in _PER_SECOND.items():
        if unit == "s" and (parts or left >= 1_000_000):
            break
        count, left = divmod(left, round(scale * 1_000_000))
        if count:
            parts.append(f"{count}{unit}")
    else:
        return f"{left / 1000:g}ms" if left else "0s"
    if left:
        parts.append(f"{left // 1_000_000}.{left % 1_000_000:06d}".rstrip("0").rstrip(".") + "s")
    return "".join(parts)
