"""The metrics of the proof and of the guard: what treatment did to the time of transfers, and where it is stopped."""

from __future__ import annotations

import math
from collections.abc import Iterator

from prometheus_client.metrics_core import Metric

from agent.dimensions import CONGESTION
from agent.families import counter, gauge
from agent.snapshot import Snapshot

__all__ = ["guard", "uplift"]

_BOUNDS = {
    "ratio": ("uplift_ratio", "Share of the transfer time that is saved: 1 - treated / control, compared path by path"),
    "lower": ("uplift_lower_ratio", "Lower bound of the 95 % interval of uplift_ratio"),
    "upper": ("uplift_upper_ratio", "Upper bound of the 95 % interval of uplift_ratio"),
}


def uplift(snapshot: Snapshot) -> Iterator[Metric]:
    """The uplift and its interval; no series where there is nothing to compare yet."""
    for bound, (name, text) in _BOUNDS.items():
        family = gauge(
            name,
            f"{text}; dimension all: against the holdout, others: against arm 0 among the treated.",
            ("group", "dimension"),
        )
        for dimension, found in snapshot.uplifts.items():
            for group, value in zip(snapshot.groups, getattr(found, bound), strict=True):
                if not math.isnan(value):  # nothing is known
                    family.add_metric((group, dimension), float(value))
        yield family


def guard(snapshot: Snapshot) -> Iterator[Metric]:
    """Where the guard keeps the kernel's defaults in force, or the administrator's setting."""
    watch = snapshot.watch
    trips = counter("guard_trips", "Quarantines that began on paths because treatment did harm there.", ("group",))
    held = gauge("paths_quarantined", "Paths that have the kernel's defaults because treatment did harm.", ("group",))
    for group, begun, now in zip(snapshot.groups, watch.trips, watch.quarantined, strict=True):
        trips.add_metric((group,), float(begun))
        held.add_metric((group,), float(now))
    yield trips
    yield held
    off = gauge("guard_off", "1 while the guard has switched everything off because harm was widespread.")
    off.add_metric((), float(watch.off is not None))
    yield off
    left = gauge(
        "administrator_override", "1 while a dimension is left alone because an administrator set it.", ("dimension",)
    )
    left.add_metric((CONGESTION,), float(snapshot.override is not None))
    yield left
