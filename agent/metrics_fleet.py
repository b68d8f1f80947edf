"""The metrics that hosts teach each other by: what the paths of a group found out about every arm; and how reading
what others found out goes.

The recording rules of config/prometheus/rules.yml add them up over hosts, within the bounds of controllers/fleet.py.
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.metrics_core import Metric

from agent.families import counter, gauge
from agent.snapshot import Snapshot

__all__ = ["experience", "reading"]

_LABELS = ("group", "dimension", "arm", "against")
_TEXTS = {
    "gain": ("arm_gain", "How much better the arm does on a path of the group than what it is compared with, as log2."),
    "precision": ("arm_gain_precision", "One over the variance of arm_gain, for a path that was not seen yet."),
    "safe": ("arm_safe_paths", "Paths that tried the arm and lost no more by it."),
    "unsafe": ("arm_unsafe_paths", "Paths that tried the arm and lost more by it."),
}


def experience(snapshot: Snapshot) -> Iterator[Metric]:
    """Arms other than 0 of which anything is known; what other hosts told is not in it."""
    for field, (name, text) in _TEXTS.items():
        family = gauge(name, text, _LABELS)
        for dimension, arms, against, known in zip(
            snapshot.dimensions, snapshot.arms, snapshot.against, snapshot.experience, strict=True
        ):
            values, precision = getattr(known, field), known.precision
            for number, group in enumerate(snapshot.groups):
                for arm in range(1, len(arms)):
                    if precision[number, arm] > 0:
                        family.add_metric((group, dimension, arms[arm], against), float(values[number, arm]))
        yield family


def reading(snapshot: Snapshot) -> Iterator[Metric]:
    """How it goes to read from Prometheus what other hosts found out (fleet.prometheus_url)."""
    state = snapshot.health.fleet
    reads = counter("fleet_reads", "Questions to Prometheus about other hosts' experience.")
    reads.add_metric((), float(state.reads))
    yield reads
    failures = counter("fleet_read_failures", "Those of them without an answer that can be used.", ("reason",))
    for reason, count in state.failures.items():
        failures.add_metric((reason,), float(count))
    yield failures
    for name, text, value in (
        ("fleet_last_read_timestamp_seconds", "When other hosts' experience was read last; 0 is never.", state.read),
        ("fleet_arms", "Arms of groups that begin with what other hosts told.", snapshot.fleet_arms),
    ):
        family = gauge(name, text)
        family.add_metric((), float(value))
        yield family
