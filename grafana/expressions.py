"""The pieces of PromQL that the dashboards' expressions are made of.

Every selector goes by the variables of the dashboard. A recording rule has lost its instance, so it goes by job alone.
"""

from __future__ import annotations

__all__ = ["BY_HOST", "EACH", "TOGETHER", "of", "quotient", "rate", "recorded"]

JOB = 'job=~"$job"'
HOSTS = f'{JOB}, instance=~"$instance"'
TOGETHER = 'dimension="all"'  # the treated against the holdout
EACH = 'dimension!="all"'  # each dimension's other arms against its default
BY_HOST = "sum by (job, instance)"


def of(metric: str, *matchers: str) -> str:
    """The series of a metric on the chosen hosts."""
    return f"{metric}{{{', '.join((HOSTS, *matchers))}}}"


def rate(counter: str, *matchers: str) -> str:
    """A counter's growth a second on the chosen hosts."""
    return f"rate({of(counter, *matchers)}[$__rate_interval])"


def recorded(rule: str, *matchers: str) -> str:
    """What a rule of config/prometheus/rules.yml recorded."""
    return f"{rule}{{{', '.join((JOB, *matchers))}}}"


def quotient(above: str, below: str, *labels: str) -> str:
    """The quotient of two sums by these labels."""
    by = f"sum by ({', '.join(labels)})"
    return f"{by} ({above}) / {by} ({below})"
