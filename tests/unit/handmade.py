"""A tuner without a kernel, with evidence made by hand, and an agent around it as the pages see it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import numpy as np

from agent.bpf_source import constants, counter_names, outcome_names
from agent.config import Config, PathRule, Paths
from agent.history import History
from agent.journal import Journal
from agent.kernel import EXTENSIONS
from agent.rules import MAPPED_BITS, packed
from agent.snapshot import Health, Snapshot, take
from agent.totals import ROW_FIELDS
from agent.tuner import Tuner

_TRANSFERS = [
    (name, "u8")
    for name in ("count", "bytes", "time_us", "log_time", "log_bytes", "log_time_squared", "log_bytes_squared",
                 "log_time_bytes")
]  # fmt: skip
ROW = np.dtype([*((name, "u8") for name in (*ROW_FIELDS, "rate")), ("sent", _TRANSFERS), ("received", _TRANSFERS)])
KEY = np.dtype(
    [("address", "u4", 4), *((name, "u1") for name in ("path_bits", "group", "generation", "treatment")),
     ("arms", "u1", 3), ("side", "u1")]
)  # fmt: skip

CONFIG = Config(
    paths=Paths(
        rules=(
            PathRule(match=(ip_network("198.51.100.0/24"),), group="cdn"),
            PathRule(match=(ip_network("192.0.2.0/24"),), exclude=True),
        )
    )
)


class StillKernel:
    """Takes whatever is published; nothing ever happens in it."""

    prefix_key = np.dtype([("bits", "u4"), ("address", "u4", 4)])
    policy = np.dtype(
        [("upto", "u2", 24), *((name, "u1") for name in ("path_bits", "group", "excluded", "safe_window")),
         ("holdout", "u2"), ("transfer_min", "u1"), ("paced_window", "u1"), ("rate", "u4")]
    )
    arm = np.dtype([("value", "u4"), ("congestion", "S16")])
    sends = np.dtype(
        [("user_timeout_ms", "u4"), ("user_timeout", "u2"),
         *((name, "u1") for name in ("congestion", "window", "ack_segments", "ack_divisor", "announces"))]
    )  # fmt: skip
    attached = (Path("/sys/fs/cgroup"),)
    no_iterator = "capability"

    def control(self, **fields: Any) -> None:
        del fields

    def publish(self, *arrays: Any) -> None:
        del arrays

    publish_arms = withdraw = publish_extensions = clear_rtt = publish

    def counters(self) -> dict[str, int]:
        return dict.fromkeys(counter_names(), 0)

    def extension_counts(self) -> dict[tuple[str, str], int]:
        return {(extension, outcome): 0 for extension in EXTENSIONS for outcome in outcome_names()}

    def rtt(self, group: int) -> tuple[Any, int]:
        del group
        return np.zeros(constants()["RTT_SLOTS"], np.uint64), 0

    def linked(self) -> frozenset[str]:
        return frozenset(["tcptuned_ops", "tcptuned_choice"] if self.attached else [])

    def program_costs(self) -> dict[str, tuple[int, int]]:
        return {"tcptuned_ops": (0, 0), "tcptuned_choice": (0, 0)}


def still_tuner(config: Config = CONFIG, *, dry_run: bool = False) -> Tuner:
    """A tuner that knows nothing yet."""
    return Tuner(config, StillKernel(), Journal(None), dry_run=dry_run)  # type: ignore[arg-type]


def absorb(
    tuner: Tuner, network: str, *, group: int = 0, arm: int = 0, transfers: int = 12, log_time: int = 17,
    treatment: str = "APPLIED", now: float = 0.0, **fields: int,
) -> None:  # fmt: skip
    """Lets transfers of 2^17 bytes happen on a path with one arm of the initial window, each of 2^`log_time` us."""
    limits = constants()
    key, row = np.zeros(1, KEY), np.zeros(1, ROW)
    where = ip_network(network)
    key["address"] = np.frombuffer(packed(where.network_address), np.uint32)
    key["path_bits"] = where.prefixlen + (MAPPED_BITS if where.version == 4 else 0)
    key["group"], key["generation"], key["treatment"] = group, tuner.generation, limits[f"TREATMENT_{treatment}"]
    key["arms"][0, 0] = arm
    one = 1 << limits["LOG_SHIFT"]
    time, size = log_time * one, 17 * one
    sums = {
        "count": 1, "bytes": 1 << 17, "time_us": 1 << log_time, "log_time": time, "log_bytes": size,
        "log_time_squared": time * time, "log_bytes_squared": size * size, "log_time_bytes": time * size,
    }  # fmt: skip
    for name, value in sums.items():
        row["sent"][name] = transfers * value
    for name, value in fields.items():
        row[name] = value
    tuner.totals.absorb(key, row, tuner.generation)
    samples = tuner.store.absorb(key, row, generation=tuner.generation, now=now)
    assert samples is not None
    tuner.guarding.absorb(samples)


class StillAgent:
    """What the pages need of the service; a test may put another snapshot in place."""

    def __init__(self, tuner: Tuner) -> None:
        self.tuner = tuner
        self.history = History()
        self.lock = threading.Lock()
        self.is_ready = self.is_healthy = True
        self.picture: Callable[[], Snapshot] = lambda: taken
        taken = take(tuner, Health(started=1e9, last_sample=1e9 + 5))

    @property
    def snapshot(self) -> Snapshot:
        return self.picture()

    def ready(self) -> bool:
        return self.is_ready

    def healthy(self) -> bool:
        return self.is_healthy
