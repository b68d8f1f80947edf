"""What the bench's cells say: every contender against the kernel's default, the best static arm, and what was lost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agent.lab.bench_contenders import DEFAULT, NULL, SIBLING, STATIC, TCPTUNED
from agent.lab.ratios import Ratio, mean_ratio

__all__ = ["Measured", "geometric_mean", "measured"]

# An arm whose loss is more than this above the default's is not decent, however fast.
DECENT = 0.01
NEAR = 1.10  # of the best arm's time: learnt
_WINDOW = 25  # connections whose mean says where a contender is

Cell = Mapping[str, Any]


@dataclass(frozen=True)
class Measured:
    """One path with one workload. Ratios are of time to the default's (of goodput for transfers without end).

    `oracle` is the best static arm that is decent, chosen by the connections of learning and measured by the others, as
    every contender is; None where the workload has no static arms. `learnt` is after how many connections tcptuned was
    within 10 % of it, None if it never was; `sibling` the same for a network beside one that is known.
    """

    path: str
    workload: str
    default: float
    ratios: dict[str, Ratio]
    first_window_loss: dict[str, float]
    retransmission: dict[str, float]
    oracle: str | None
    learnt: int | None
    sibling: int | None
    chosen: str
    covered: bool | None  # whether the agent's interval has what the clients saw
    ranked: bool | None  # whether the agent's measure ranks the static arms as the clients do
    failures: int


def measured(cell: Cell) -> Measured:
    """What a cell (`bench_run.Cell` as JSON) says."""
    runs = cell["runs"]
    loss = {name: _share(run, "first_window_losses", "first_window_segments") for name, run in runs.items()}
    again = {name: _share(run, "retransmitted_segments", "sent_segments") for name, run in runs.items()}
    values = {name: _by_size(run["compared"]) for name, run in runs.items() if run["compared"]}
    ratios = {name: mean_ratio(_kinds(each, values[DEFAULT.name]), list(values[DEFAULT.name].values()))
              for name, each in values.items()}  # fmt: skip
    oracle = _oracle(cell, loss, again)
    best = float(np.mean([value for _, value in runs[oracle]["compared"]])) if oracle else 0.0
    changed = bool(cell["changes"])
    way = "compared" if changed else "learned"
    return Measured(
        path=cell["path"],
        workload=cell["workload"],
        default=float(np.mean([value for _, value in runs[DEFAULT.name]["compared"]])),
        ratios=ratios,
        first_window_loss=loss,
        retransmission=again,
        oracle=oracle,
        learnt=_learnt(runs[TCPTUNED.name][way], best) if oracle else None,
        sibling=_learnt(runs[SIBLING.name]["compared"], best) if oracle and not changed else None,
        chosen=" ".join(each["chosen"] for each in cell["explained"].get("dimensions", [])),
        covered=None if changed or cell["plan"]["seconds"] else _covered(cell),
        ranked=None if changed or not oracle else _ranked(cell),
        failures=sum(run["failures"] for run in runs.values()),
    )


def geometric_mean(values: Sequence[float]) -> float:
    """nan of nothing."""
    return float(np.exp(np.mean(np.log(values)))) if values else float("nan")


def _by_size(samples: Sequence[Sequence[float]]) -> dict[int, list[float]]:
    found: dict[int, list[float]] = {}
    for size, value in samples:
        found.setdefault(int(size), []).append(value)
    return found


def _kinds(values: Mapping[int, list[float]], like: Mapping[int, list[float]]) -> list[list[float]]:
    return [values.get(size, []) for size in like]


def _share(run: Mapping[str, Any], part: str, whole: str) -> float:
    """Of the connections compared: learning is judged apart."""
    counts = run["counts"]
    return float(counts.get(part, 0.0) / max(counts.get(whole, 0.0), 1.0))


def _static(runs: Mapping[str, Any]) -> list[str]:
    return [each.name for each in (DEFAULT, *STATIC) if each.name in runs]


def _oracle(cell: Cell, loss: Mapping[str, float], again: Mapping[str, float]) -> str | None:
    runs = cell["runs"]
    names = _static(runs)
    if len(names) <= len(STATIC):
        return None
    decent = [
        name for name in names
        if loss[name] <= loss[DEFAULT.name] + DECENT and again[name] <= again[DEFAULT.name] + DECENT
    ]  # fmt: skip
    # After a change what was learnt before says nothing: half of what came after it chooses.
    half = {name: runs[name]["compared"][::2] if cell["changes"] else runs[name]["learned"] for name in decent}
    return min(decent, key=lambda name: float(np.mean([value for _, value in half[name]])))


def _learnt(samples: Sequence[Sequence[float]], best: float) -> int | None:
    """After how many connections the mean of the next ones is near the best, for good or bad luck."""
    times = np.array([value for _, value in samples])
    window = min(_WINDOW, len(times))
    if not window:
        return None
    means = np.convolve(times, np.ones(window) / window, mode="valid")
    near = np.flatnonzero(means <= NEAR * best)
    return int(near[0]) if len(near) else None


def _covered(cell: Cell) -> bool | None:
    """The agent compares its treated connections with its own holdout, without the handshake; so do we with the
    default's."""
    uplift = (cell["uplift"] or {}).get("all")
    if not uplift:
        return None
    logs = [
        np.mean([np.log(max(value - cell["round_trip"], 1e-4)) for _, value in run["learned"] + run["compared"]])
        for run in (cell["runs"][TCPTUNED.name], cell["runs"][DEFAULT.name])
    ]
    truth = 1.0 - float(np.exp(logs[0] - logs[1]))
    return bool(uplift["lower"] <= truth <= uplift["upper"])


def _ranked(cell: Cell) -> bool:
    """Pairs of static arms that differ by more than 5 % for the clients have the same order for the agent."""
    seen, told = [], []
    for name in _static(cell["runs"]):
        run = cell["runs"][name]
        counts, before = run["counts"], run["counts_learned"]
        transfers = counts["transfers"] + before.get("transfers", 0.0)
        if name == NULL.name or not transfers:
            continue
        seen.append(np.mean([np.log2(value) for _, value in run["learned"] + run["compared"]]))
        told.append((counts["log_time"] + before.get("log_time", 0.0)) / transfers)
    clients, agent = np.subtract.outer(seen, seen), np.subtract.outer(told, told)
    clear = np.abs(clients) > np.log2(1.05)
    return bool((np.sign(clients[clear]) == np.sign(agent[clear])).all())
