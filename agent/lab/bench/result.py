"""What the bench's cells say: every contender against the kernel's default, the best static arm, and what was lost."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agent.bpf_source import constants
from agent.lab.bench.contenders import DEFAULT, NULL, SIBLING, STATIC, TCPTUNED
from agent.lab.ratios import Ratio, mean_ratio, median_ratio
from agent.rates import SEGMENT

__all__ = ["Measured", "measured"]

# An arm whose loss is more than this above the default's is not decent, however fast.
DECENT = 0.01
NEAR = 1.10  # of the best arm's time: learnt
_WINDOW = 25  # connections whose mean says where a contender is

_FIRST_WINDOW = constants()["INITIAL_WINDOW_KERNEL"] * SEGMENT  # bytes: shorter transfers are not timed
_SURE = 1.96  # standard errors
_LOSSES = (("first_window_losses", "first_window_segments"), ("retransmitted_segments", "sent_segments"))

Cell = Mapping[str, Any]
_BySize = Mapping[int, list[float]]
_Logs = np.ndarray[Any, Any]
_Typical = Callable[[_Logs], tuple[_Logs, _Logs]]


@dataclass(frozen=True)
class Measured:
    """One path with one workload. Ratios are of time to the default's (of goodput for transfers without end).

    `cold` is tcptuned while it learnt, against the default of that time. `oracle` is the best static arm that is
    decent, chosen by the connections of learning and measured by the others, as every contender is; None where the
    workload has no static arms; `against` and `against_median` are tcptuned's ratios to it. `learnt` is after how many
    of all connections (of those after the change, if `changed`) tcptuned was within 10 % of it and stayed there, None
    if it never was; `sibling` the same for a network beside one that is known. Both by geometric means, in which the
    holdout is a part, and by medians: what most connections see. `first_window_loss` and `retransmission` are shares
    of segments: tcptuned's of the connections compared, those of fixed arms also of the ones before.
    """

    path: str
    workload: str
    changed: bool
    default: float
    ratios: dict[str, Ratio]
    medians: dict[str, Ratio]
    cold: Ratio | None
    against: Ratio | None
    against_median: Ratio | None
    first_window_loss: dict[str, float]
    retransmission: dict[str, float]
    oracle: str | None
    learnt: int | None
    sibling: int | None
    learnt_median: int | None
    sibling_median: int | None
    chosen: str
    covered: bool | None  # whether the agent's interval has what the clients saw
    ranked: float | None  # share of the pairs of static arms that clearly differ which its measure ranks as clients do
    failures: int


def measured(cell: Cell) -> Measured:
    """What a cell (`agent.lab.bench.run.Cell` as JSON) says."""
    runs = cell["runs"]
    changed = bool(cell["changes"])
    fixed = set() if changed else set(_static(runs))
    loss, again = ({name: _share(run, *each, learning=name in fixed) for name, run in runs.items()} for each in _LOSSES)
    values = {name: _by_size(run["compared"]) for name, run in runs.items() if run["compared"]}
    ratios, medians = (
        {name: _between(each, values[DEFAULT.name], ratio) for name, each in values.items()}
        for ratio in (mean_ratio, median_ratio)
    )
    oracle = _oracle(cell)
    ours, best = values[TCPTUNED.name], _best(cell, oracle) if oracle else {}
    cold, cold_default = (_by_size(runs[each.name]["learned"]) for each in (TCPTUNED, DEFAULT))
    # It goes on learning while it is compared.
    ways = ("compared",) if changed else ("learned", "compared")
    learnt, sibling = (
        (_near(samples, best, _means_from_on), _near(samples, best, _medians_from_on)) if samples else (None, None)
        for samples in (
            [each for way in ways for each in runs[TCPTUNED.name][way]] if oracle else [],
            runs[SIBLING.name]["compared"] if oracle and not changed else [],
        )
    )
    return Measured(
        path=cell["path"],
        workload=cell["workload"],
        changed=changed,
        default=float(np.mean([value for _, value in runs[DEFAULT.name]["compared"]])),
        ratios=ratios,
        medians=medians,
        cold=_between(cold, cold_default, mean_ratio) if cold and cold_default else None,
        against=_between(ours, best, mean_ratio) if oracle else None,
        against_median=_between(ours, best, median_ratio) if oracle else None,
        first_window_loss=loss,
        retransmission=again,
        oracle=oracle,
        learnt=learnt[0],
        sibling=sibling[0],
        learnt_median=learnt[1],
        sibling_median=sibling[1],
        chosen=" ".join(each["chosen"] for each in cell["explained"].get("dimensions", [])),
        covered=None if changed or cell["plan"]["seconds"] else _covered(cell),
        ranked=None if changed or not oracle else _ranked(cell),
        failures=sum(run["failures"] for run in runs.values()),
    )


def _by_size(samples: Sequence[Sequence[float]]) -> dict[int, list[float]]:
    found: dict[int, list[float]] = {}
    for size, value in samples:
        found.setdefault(int(size), []).append(value)
    return found


def _between(ours: _BySize, theirs: _BySize, ratio: Callable[..., Ratio]) -> Ratio:
    return ratio([ours.get(size, []) for size in theirs], list(theirs.values()))


def _share(run: Mapping[str, Any], part: str, whole: str, *, learning: bool = False) -> float:
    """Of the connections compared. With `learning` of all: what fixed arms do is the same in both parts."""
    parts = [run["counts"], run["counts_learned"]] if learning else [run["counts"]]
    return float(sum(each.get(part, 0.0) for each in parts) / max(sum(each.get(whole, 0.0) for each in parts), 1.0))


def _static(runs: Mapping[str, Any]) -> list[str]:
    return [each.name for each in (DEFAULT, *STATIC) if each.name in runs]


def _oracle(cell: Cell) -> str | None:
    """What fixed arms lose is the same in both parts, so both say who is decent, unless the path changed between."""
    runs = cell["runs"]
    names = _static(runs)
    if len(names) <= len(STATIC):
        return None
    shares = {
        name: [_share(runs[name], *each, learning=not cell["changes"]) for each in _LOSSES] for name in names
    }  # fmt: skip
    decent = [
        name for name, found in shares.items()
        if all(share <= default + DECENT for share, default in zip(found, shares[DEFAULT.name], strict=True))
    ]  # fmt: skip
    # After a change what was learnt before says nothing: half of what came after it chooses.
    half = {name: runs[name]["compared"][::2] if cell["changes"] else runs[name]["learned"] for name in decent}
    return min(decent, key=lambda name: float(np.mean([value for _, value in half[name]])))


def _best(cell: Cell, oracle: str) -> _BySize:
    """The oracle's connections, without those by which it was chosen: of many alike the luckiest looks fast by them."""
    compared = cell["runs"][oracle]["compared"]
    return _by_size(compared[1::2] if cell["changes"] else compared)


def _near(samples: Sequence[Sequence[float]], best: _BySize, typical: _Typical) -> int | None:
    """After how many connections what is typical of the next ones is near the best, and of all others too."""
    usual = {size: typical(np.log(values))[1][0] for size, values in best.items()}
    logs = np.array([math.log(value) - usual[int(size)] for size, value in samples if int(size) in usual])
    if not len(logs):
        return None
    next_ones, others = typical(logs)
    near = np.flatnonzero(np.maximum(next_ones, others[: len(next_ones)]) <= math.log(NEAR))
    return int(near[0]) if len(near) else None


def _means_from_on(logs: _Logs) -> tuple[_Logs, _Logs]:
    """Of the next connections and of all others, from every connection on. Means of logarithms: a single timeout would
    hide twenty connections in a mean of times."""
    window = min(_WINDOW, len(logs))
    next_ones = np.convolve(logs, np.ones(window) / window, mode="valid")
    return next_ones, np.cumsum(logs[::-1])[::-1] / np.arange(len(logs), 0, -1)


def _medians_from_on(logs: _Logs) -> tuple[_Logs, _Logs]:
    """The same by medians."""
    next_ones = np.lib.stride_tricks.sliding_window_view(logs, min(_WINDOW, len(logs)))
    others = [np.median(logs[first:]) for first in range(len(logs))]
    return np.median(next_ones, axis=1), np.array(others)


def _covered(cell: Cell) -> bool | None:
    """The agent compares its treated connections with its own holdout, without the handshake; so do we with the
    default's. A client does not know which it was, but the holdout's share is counted, and the mean of all follows it.
    Ours is a measurement too: what it may be off is added to the interval."""
    uplift = (cell["uplift"] or {}).get("all")
    if not uplift:
        return None
    ours, theirs = (
        {size: np.log(values) for size, values in _by_size(_after_handshake(run)).items()}
        for run in (cell["runs"][TCPTUNED.name], cell["runs"][DEFAULT.name])
    )
    # Every size that both had weighs what it did for us. The agent speaks of transfers that outlast the default's first
    # window, where there are such.
    both = {size: len(logs) for size, logs in ours.items() if size in theirs}
    both = {size: count for size, count in both.items() if size > _FIRST_WINDOW} or both
    weights = {size: count / sum(both.values()) for size, count in both.items()}
    treated = max(1.0 - float(cell["holdout"]), 1e-6)
    truth = sum(each * float(ours[size].mean() - theirs[size].mean()) for size, each in weights.items()) / treated
    doubt = sum(
        _spread(logs) * sum(each**2 / len(logs[size]) for size, each in weights.items()) for logs in (ours, theirs)
    ) * (_SURE / treated) ** 2
    shown, low, high = (math.log(max(1.0 - uplift[name], 1e-6)) for name in ("ratio", "upper", "lower"))
    room = low - shown if truth < shown else high - shown
    return (truth - shown) ** 2 <= room**2 + doubt


def _after_handshake(run: Mapping[str, Any]) -> list[tuple[int, float]]:
    """Size and seconds of all connections."""
    both = zip(run["learned"] + run["compared"], run["handshakes"], strict=True)
    return [(size, max(seconds - handshake, 1e-4)) for (size, seconds), handshake in both]


def _spread(logs: Mapping[int, _Logs]) -> float:
    """The variance of one connection's, around the mean of its size."""
    freedom = sum(len(each) - 1 for each in logs.values())
    return sum(float(np.sum((each - each.mean()) ** 2)) for each in logs.values()) / freedom if freedom else math.inf


def _variance(logs: np.ndarray[Any, Any]) -> float:
    """Of the mean."""
    return float(logs.var(ddof=1)) / len(logs) if len(logs) > 1 else math.inf


def _ranked(cell: Cell) -> float:
    """Pairs of static arms that differ for the clients, by more than 5 % and beyond doubt: those that the agent's
    measure puts in the same order."""
    seen, doubts, told = [], [], []
    for name in _static(cell["runs"]):
        run = cell["runs"][name]
        counts, before = run["counts"], run["counts_learned"]
        transfers = counts["transfers"] + before.get("transfers", 0.0)
        if name == NULL.name or not transfers:
            continue
        logs = np.log2([value for _, value in run["learned"] + run["compared"]])
        seen.append(logs.mean())
        doubts.append(_variance(logs))
        told.append((counts["log_time"] + before.get("log_time", 0.0)) / transfers)
    clients, agent = np.subtract.outer(seen, seen), np.subtract.outer(told, told)
    clear = np.abs(clients) > np.maximum(np.log2(1.05), _SURE * np.sqrt(np.add.outer(doubts, doubts)))
    return float(np.mean(np.sign(clients[clear]) == np.sign(agent[clear]))) if clear.any() else 1.0
