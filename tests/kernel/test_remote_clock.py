"""A transfer ends when its last byte arrives, which only the client's clock tells where ACKs come back late."""

from __future__ import annotations

import time
from math import log2
from statistics import fmean

from running import require_root

from agent.config import Config
from agent.lab.bench.kernel import FixedArms
from agent.lab.lab import Lab
from agent.lab.spec import AckBurst, LinkSpec, PathSpec
from agent.lab.workload import Transfer
from agent.loader import Loader, map_sizes
from agent.rules import packed

COUNT = 8
SIZE = 50_000  # bytes: a window of 40 segments holds it
WINDOWS = (10, 40)
DOWN = LinkSpec(rate_mbps=12, delay_ms=10, queue_packets=1000)
BACK = {"plain": LinkSpec(delay_ms=10), "bunched": LinkSpec(delay_ms=10, ack_burst=AckBurst(packets=10, period_ms=200))}
PATHS = {f"{name}-{window}": (PathSpec(name=f"{name}-{window}", down=DOWN, up=up), window)
         for name, up in BACK.items() for window in WINDOWS}  # fmt: skip


def test_times_are_the_clients() -> None:
    """Without timestamps, bunches of ACKs make more of a difference than all else that a busy machine does."""
    require_root()
    with_timestamps, without = (compared(timestamps) for timestamps in (True, False))
    assert max(with_timestamps.values()) < 0.1
    assert with_timestamps["bunched-40"] < 0.5 * without["bunched-40"]


def compared(timestamps: bool) -> dict[str, float]:
    """By path, how far from what clients see the agent's times are on average; 0.1 is a tenth."""
    with (
        Lab([path for path, _ in PATHS.values()], client_sysctls={"ipv4/tcp_timestamps": str(int(timestamps))}) as lab,
        FixedArms(lab.server_cgroup) as fixed,
    ):
        for name, (_, window) in PATHS.items():
            fixed.choose(lab.network(name), window, "cubic")
        objects = [Transfer(path=name, size=SIZE, count=COUNT) for name in PATHS]
        seen = dict(zip(PATHS, lab.run(objects), strict=True))
        time.sleep(2.5)  # until the last rows have been read
        counts = fixed.counts()
        keys = {name: packed(lab.network(name).network_address) for name in PATHS}
    apart = {}
    for name, completions in seen.items():
        found = counts[keys[name]]
        assert found["transfers"] == COUNT
        clients = fmean(log2(each.seconds - (each.connect or 0.0)) for each in completions)
        apart[name] = abs(2 ** (found["log_time"] / COUNT - log2(1e6) - clients) - 1)
    print(f"with{'' if timestamps else 'out'} timestamps off by {apart}")
    return apart


def test_old_verifiers_get_programs_without_it() -> None:
    require_root()
    objects = Loader({**map_sizes(Config()), "REMOTE_CLOCK": 0}).finish()
    assert not objects.remote_clock
    objects.close()
