"""Which paths are measured at the same time: as many as the emulator carries."""

from __future__ import annotations

from collections.abc import Mapping

__all__ = ["MOST_MBPS", "batches"]

MOST_MBPS = 60.0  # of links filled to the brim; more is too much for the emulator beside everything else


def batches(mbps: Mapping[str, float]) -> list[list[str]]:
    """The names in their order, in as few batches as that allows; `mbps` is the load of each."""
    found: list[list[str]] = []
    left = 0.0
    for name, load in mbps.items():
        if not found or load > left:
            found.append([])
            left = MOST_MBPS
        found[-1].append(name)
        left -= load
    return found
