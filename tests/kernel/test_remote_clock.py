"""A transfer ends when its last byte arrives, which only the client's clock tells where ACKs come back late."""

from __future__ import annotations

import time
from math import log2
from statistics import fmean

import pytest
from running import require_root

from agent.lab.bench.kernel import FixedArms
from agent.lab.lab import Lab
from agent.lab.spec import AckBurst, LinkSpec, PathSpec
from agent.lab.workload import Transfer

COUNT = 8
WINDOWS = (10, 40)
DOWN = LinkSpec(rate_mbps=12, delay_ms=10, queue_packets=1000)
BACK = {"plain": LinkSpec(delay_ms=10), "bunched": LinkSpec(delay_ms=10, ack_burst=AckBurst(packets=10, period_ms=200))}
PATHS = {f"{name}-{window}": (PathSpec(name=f"{name}-{window}", down=DOWN, up=up), window)
         for name, up in BACK.items() for window in WINDOWS}  # fmt: skip


@pytest.mark.parametrize("timestamps", [True, False], ids=["timestamps", "none"])
def test_times_are_the_clients(timestamps: bool) -> None:
    """With timestamps to a fortieth; without, bunches of ACKs make more of a difference."""
    require_root()
    with (
        Lab([path for path, _ in PATHS.values()], client_sysctls={"ipv4/tcp_timestamps": str(int(timestamps))}) as lab,
        FixedArms(lab.server_cgroup) as fixed,
    ):
        for name, (_, window) in PATHS.items():
            fixed.choose(lab.network(name), window, "cubic")
        objects = [Transfer(path=name, size=100_000, count=COUNT) for name in PATHS]
        seen = dict(zip(PATHS, lab.run(objects), strict=True))
        time.sleep(2.5)  # until the last rows have been read
        counts = fixed.counts()
        keys = {name: b"\0" * 10 + b"\xff\xff" + lab.network(name).network_address.packed for name in PATHS}
    told = {}
    for name, completions in seen.items():
        found = counts[keys[name]]
        assert found["transfers"] == COUNT
        clients = fmean(log2(each.seconds - (each.connect or 0.0)) for each in completions)
        told[name] = 2 ** (found["log_time"] / COUNT - log2(1e6) - clients)
    print(f"by what clients saw: {told}")
    for name, ratio in told.items():
        assert (ratio == pytest.approx(1.0, abs=0.025)) == (timestamps or name.startswith("plain")), name
