"""A hundred thousand paths in one agent: what a control step costs. Run as a program it prints the figures as JSON."""

from __future__ import annotations

import gc
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from handmade import KEY, ROW, still_tuner

from agent.bpf_source import constants
from agent.config import Config, Paths
from agent.tuner import Tuner

LIMITS = constants()
BATCH = 10_000


def traffic(tuner: Tuner, first: int, random: np.random.Generator) -> tuple[Any, Any]:
    """Rows of BATCH paths of 10.0.0.0/8 and beyond, each with one to three connections on arms drawn at random."""
    keys, rows = np.zeros(BATCH, KEY), np.zeros(BATCH, ROW)
    keys["address"][:, 2] = np.uint32(0xFFFF0000)  # IPv4-mapped
    keys["address"][:, 3] = ((np.arange(first, first + BATCH, dtype=np.uint32) << 8) + (10 << 24)).byteswap()
    keys["path_bits"], keys["generation"], keys["treatment"] = 120, tuner.generation, LIMITS["TREATMENT_APPLIED"]
    for number, dimension in enumerate(tuner.dimensions):
        keys["arms"][:, number] = random.integers(0, len(dimension.arms), BATCH)
    count = random.integers(1, 4, BATCH)
    for name, times in (
        ("closed", 1), ("opened", 1), ("first_windows", 1), ("first_window_segments", 20), ("sent_segments", 70),
        ("received_segments", 70), ("pure_acks", 35), ("rtt_us", 10_000), ("base_rtt_us", 9_000),
    ):  # fmt: skip
        rows[name] = times * count
    rows["first_window_losses"], rows["retransmitted_segments"] = random.poisson(0.02, (2, BATCH))
    scale = 1 << LIMITS["LOG_SHIFT"]
    for direction in ("sent", "received"):
        speed = 0.1 * keys["arms"].sum(axis=1)
        log_time = (random.normal(18 - speed, 0.3) * scale).astype(np.uint64)
        log_bytes = (random.normal(17, 0.5, BATCH) * scale).astype(np.uint64)
        for name, value in (
            ("count", 1), ("log_time", log_time), ("log_bytes", log_bytes), ("log_time_squared", log_time**2),
            ("log_bytes_squared", log_bytes**2), ("log_time_bytes", log_time * log_bytes),
        ):  # fmt: skip
            rows[direction][name] = value * count.astype(np.uint64)
    return keys, rows


def reference() -> float:
    """Milliseconds of processor time that work of the same kind takes now: a machine's speed changes from second to
    second, so what is measured is told in these."""
    sums = np.ones((4096, 15, 15), np.float32)
    began = time.process_time()
    for _ in range(10):
        some = np.ascontiguousarray(sums.transpose(2, 1, 0))
        np.where(np.log2(some + 1.0) > 1.0, some, some * some).sum(axis=1)
    return 1000 * (time.process_time() - began)


def measure(paths: int) -> dict[str, float]:
    """Milliseconds of processor time of a control step with news of few or of all paths, and megabytes of memory."""
    tuner = still_tuner(Config(paths=Paths(max=paths)))
    random, now = np.random.default_rng(1), 0.0
    figures: dict[str, float] = {}
    gc.collect()
    before = _resident()

    def busy(share: float, seconds: int) -> None:
        nonlocal now
        for _ in range(seconds):
            now += 1.0
            for first in range(0, int(paths * share), BATCH):
                keys, rows = traffic(tuner, first, random)
                samples = tuner.store.absorb(keys, rows, generation=tuner.generation, now=now)
                assert samples is not None
                tuner.guarding.absorb(samples)

    def step(name: str) -> None:
        times = reference()
        began = time.process_time()
        tuner.decide(now)
        took = 1000 * (time.process_time() - began)
        times = (times + reference()) / 2
        figures[name] = min(figures.get(name, took), took)
        figures[f"{name}, times"] = min(figures.get(f"{name}, times", np.inf), took / times)

    for _ in range(6):
        busy(1.0, 5)
        step("all")
    for _ in range(4):
        busy(0.1, 5)
        step("tenth")
    for _ in range(3):
        now += 5.0
        step("none")
    assert len(tuner.store) == paths + tuner.store.groups
    figures["memory"] = _resident() - before
    return {name: round(value, 1) for name, value in figures.items()}


def _resident() -> float:
    """Megabytes."""
    return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * 4096 / 1e6


if __name__ == "__main__":
    print(json.dumps(measure(int(sys.argv[1]))))
