"""Metric families with the agent's prefix."""

from __future__ import annotations

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily

__all__ = ["PREFIX", "counter", "gauge"]

PREFIX = "tcptuned_"


def counter(name: str, text: str, labels: tuple[str, ...] = ()) -> CounterMetricFamily:
    """A counter called PREFIX name _total."""
    return CounterMetricFamily(f"{PREFIX}{name}_total", text, labels=labels)


def gauge(name: str, text: str, labels: tuple[str, ...] = ()) -> GaugeMetricFamily:
    """A gauge called PREFIX name."""
    return GaugeMetricFamily(f"{PREFIX}{name}", text, labels=labels)
