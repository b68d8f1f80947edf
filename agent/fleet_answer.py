"""What a Prometheus server is asked about the fleet, and what is taken out of its answer.

The answer is a stranger's: whatever has not the one shape that it must have is refused as a whole. Names that this host
does not know are other hosts' affair, and left out. Which numbers can be, controllers/fleet.py judges.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from agent.dimensions import Dimension, against
from agent.errors import FleetError
from agent.libbpf import Array
from controllers.fleet import Total

__all__ = ["Key", "Totals", "arrays", "expression", "keys", "parse"]

Key = tuple[str, str, str, str]  # group, dimension, arm, and what it is compared with
Totals = tuple[tuple[Key, tuple[float, ...]], ...]  # by Total

# The recording rules of config/prometheus/rules.yml.
RULES = {
    "group_dimension_arm:tcptuned_arm_gain_precision:count": Total.HOSTS,
    "group_dimension_arm:tcptuned_arm_gain_precision:sum": Total.PRECISION,
    "group_dimension_arm:tcptuned_arm_gain:weighted_sum": Total.GAIN,
    "group_dimension_arm:tcptuned_arm_gain:weighted_square_sum": Total.GAIN_SQUARED,
    "group_dimension_arm:tcptuned_arm_safe_paths:sum": Total.SAFE,
    "group_dimension_arm:tcptuned_arm_unsafe_paths:sum": Total.UNSAFE,
}
_LABELS = ("group", "dimension", "arm", "against")
MOST_AGE = 600.0  # seconds between the answer's time and ours, and what it serves afterwards
_WINDOW = 300  # seconds: the rules recorded every sum so recently; Prometheus has the times of the samples
_MOST_DIGITS = 64  # of a number as text


def keys(groups: Sequence[str], dimensions: Sequence[Dimension], host_congestion: str) -> frozenset[Key]:
    """Everything that a fleet can tell this host."""
    return frozenset(
        (group, dimension.name, arm.name, against(dimension, host_congestion))
        for group in groups
        for dimension in dimensions
        for arm in dimension.arms[1:]
    )


def expression(groups: Iterable[str]) -> str:
    """PromQL for all sums of these groups. What else tells the series apart (a job, a region) is added up."""
    names, some = "|".join(RULES), "|".join(sorted(groups))
    return (
        f"sum by (__name__, {', '.join(_LABELS)}) "
        f'(last_over_time({{__name__=~"{names}", group=~"{some}"}}[{_WINDOW}s]))'
    )


def parse(body: bytes, wanted: frozenset[Key], *, now: float) -> Totals:
    """The sums of `wanted` arms of which all are there; `now` is in seconds since 1970. Raises FleetError."""
    found: dict[Key, dict[Total, float]] = {}
    for labels, time, value in _samples(body):
        if abs(now - time) > MOST_AGE:
            raise FleetError("stale", f"the answer is of another time: {now - time:.3g} s ago by this host's clock")
        key = tuple(labels.get(name, "") for name in _LABELS)
        rule = RULES.get(labels.get("__name__", ""))
        if rule is None or key not in wanted:
            continue
        sums = found.setdefault(key, {})
        _require(rule not in sums)
        sums[rule] = value
    complete = ((key, tuple(sums.get(total, math.nan) for total in Total)) for key, sums in sorted(found.items()))
    return tuple((key, sums) for key, sums in complete if all(map(math.isfinite, sums)))


def arrays(
    totals: Totals, groups: Sequence[str], dimensions: Sequence[Dimension], host_congestion: str
) -> list[Array | None]:
    """The same by dimension, (groups, arms, len(Total)); None where nothing is known."""
    known, result = dict(totals), []
    for dimension in dimensions:
        sums = np.zeros((len(groups), len(dimension.arms), len(Total)))
        for number, group in enumerate(groups):
            for position, arm in enumerate(dimension.arms):
                key = (group, dimension.name, arm.name, against(dimension, host_congestion))
                sums[number, position] = known.get(key, 0.0)
        result.append(sums if sums.any() else None)
    return result


def _samples(body: bytes) -> Iterator[tuple[dict[str, str], float, float]]:
    """Labels, time and value of every sample of an instant vector."""
    try:
        answer = json.loads(body, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise FleetError("malformed", "the answer is not JSON") from None
    _require(isinstance(answer, dict) and answer.get("status") == "success")
    data = answer.get("data")
    _require(isinstance(data, dict) and data.get("resultType") == "vector" and isinstance(data.get("result"), list))
    for sample in data["result"]:
        _require(isinstance(sample, dict))
        labels, value = sample.get("metric"), sample.get("value")
        _require(isinstance(labels, dict) and all(isinstance(text, str) for text in labels.values()))
        _require(isinstance(value, list) and len(value) == 2)
        time, text = value
        _require(type(time) in (int, float) and isinstance(text, str) and len(text) <= _MOST_DIGITS)
        try:
            yield labels, float(time), float(text)
        except (ValueError, OverflowError):
            _require(False)


def _refuse(constant: str) -> Any:
    raise ValueError(constant)


def _require(condition: object) -> None:
    if not condition:
        raise FleetError("malformed", "the answer is not an instant vector as Prometheus gives it")
