"""The agent's kernel side without an agent: fixed arms for some networks, and what every connection did.

So static contenders set what they set exactly as the agent does, and losses are counted alike for all.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from ipaddress import IPv4Network
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np

from agent.bpf_source import constants
from agent.dimensions import CONGESTION, DIMENSIONS, INITIAL_WINDOW
from agent.kernel import Kernel
from agent.lab.bench.contenders import ALGORITHMS, WINDOWS
from agent.loader import Loader
from agent.rules import MAPPED_BITS, packed

__all__ = ["COUNTS", "TRANSFERS", "FixedArms"]

# What is kept of `struct row`.
COUNTS = (
    "closed", "sent_segments", "retransmitted_segments", "first_windows", "first_window_segments",
    "first_window_losses", "timeouts",
)  # fmt: skip
# And of its transfers sent: how many, and the sum of log2 of their microseconds, the agent's measure of an arm.
TRANSFERS = ("transfers", "log_time")
_SIZES = {"POLICY_ENTRIES": 4096, "ROW_ENTRIES": 16384, "HONOURED_ENTRIES": 16}
_INTERVAL = 1.0  # seconds between two readings
_LEASE = 6 * 3600.0  # seconds: nobody renews it


class FixedArms:
    """Attached to a cgroup from `with` to the end of its block. Raises TcptunedError as the agent's loader does."""

    def __init__(self, cgroup: Path) -> None:
        self._cgroup = cgroup
        self._kernel = Kernel(Loader(_SIZES).finish())
        self._counts: dict[bytes, np.ndarray[Any, Any]] = {}
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._read, name="bench rows", daemon=True)
        self._kernel.publish_arms(self._arms())
        self._kernel.control(
            lease_until_ns=time.monotonic_ns() + round(_LEASE * 1e9), initial_window_max=max(WINDOWS),
            host_congestion=ALGORITHMS[0].encode(), generation=1,
        )  # fmt: skip

    def __enter__(self) -> Self:
        self._kernel.attach([self._cgroup])
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._kernel.close()

    def choose(self, network: IPv4Network, window: int, algorithm: str) -> None:
        """All connections to this network get these from now on; 10 and cubic are the kernel's own, and not set."""
        arms = constants()["ARMS"]
        key, policy = np.zeros(1, self._kernel.prefix_key), np.zeros(1, self._kernel.policy)
        key["bits"] = policy["path_bits"] = MAPPED_BITS + network.prefixlen
        key["address"] = np.frombuffer(packed(network.network_address), np.uint32)
        chosen = {INITIAL_WINDOW: WINDOWS.index(window), CONGESTION: ALGORITHMS.index(algorithm)}
        for dimension, arm in chosen.items():
            first = DIMENSIONS.index(dimension) * arms
            policy["upto"][0, first + arm : first + arms] = 65535 if arm else 0
        with self._lock:
            self._kernel.publish(key, policy)

    def counts(self) -> Mapping[bytes, dict[str, float]]:
        """COUNTS and TRANSFERS of every network since the start, by its address as 16 bytes; complete two seconds after
        the end."""
        with self._lock:
            return {
                address: dict(zip((*COUNTS, *TRANSFERS), sums.tolist(), strict=True))
                for address, sums in self._counts.items()
            }

    def _read(self) -> None:
        scale = 1 << constants()["LOG_SHIFT"]
        while not self._stop.wait(_INTERVAL):
            with self._lock:
                keys, rows = self._kernel.drain()
                for key, row in zip(keys, rows, strict=True):
                    sums = self._counts.setdefault(key["address"].tobytes(), np.zeros(len(COUNTS) + len(TRANSFERS)))
                    sent = row["sent"]
                    sums[: len(COUNTS)] += [float(row[name]) for name in COUNTS]
                    sums[len(COUNTS) :] += [float(sent["count"]), float(sent["log_time"]) / scale]

    def _arms(self) -> np.ndarray[Any, Any]:
        arms = constants()["ARMS"]
        table = np.zeros(constants()["DIMENSIONS"] * arms, self._kernel.arm)
        first = DIMENSIONS.index(INITIAL_WINDOW) * arms
        table["value"][first + 1 : first + len(WINDOWS)] = WINDOWS[1:]
        table["congestion"][DIMENSIONS.index(CONGESTION) * arms + 1] = ALGORITHMS[1].encode()
        return table
