"""A transfer ends when its last byte arrives, which only the client's clock tells where ACKs come back late."""

from __future__ import annotations

import time
from collections.abc import Iterator
from math import log2
from statistics import fmean

import pytest
from running import require_root

from agent.lab.bench.kernel import FixedArms
from agent.lab.lab import Lab
from agent.lab.spec import AckBurst, LinkSpec, PathSpec

COUNT = 12
DOWN = LinkSpec(rate_mbps=12, delay_ms=10, queue_packets=1000)
BUNCHED = PathSpec(name="bunched", down=DOWN, up=LinkSpec(delay_ms=10, ack_burst=AckBurst(packets=10, period_ms=200)))
PLAIN = PathSpec(name="plain", down=DOWN, up=LinkSpec(delay_ms=10))


@pytest.fixture(params=[True, False], ids=["timestamps", "none"])
def lab(request: pytest.FixtureRequest) -> Iterator[tuple[Lab, bool]]:
    """Clients with and without timestamps."""
    require_root()
    with Lab([BUNCHED, PLAIN], client_sysctls={"ipv4/tcp_timestamps": str(int(request.param))}) as opened:
        yield opened, request.param


@pytest.mark.parametrize("window", [10, 40])
def test_times_are_the_clients(lab: tuple[Lab, bool], window: int) -> None:
    """With timestamps to a fortieth; without, bunches of ACKs make more of a difference."""
    opened, timestamps = lab
    told = {}
    with FixedArms(opened.server_cgroup) as fixed:
        for path in ("bunched", "plain"):
            fixed.choose(opened.network(path), window, "cubic")
        seen = {path: opened.fetch(path, size=100_000, count=COUNT) for path in ("bunched", "plain")}
        time.sleep(2.5)  # until the last rows have been read
        counts = fixed.counts()
    for path, completions in seen.items():
        found = counts[b"\0" * 10 + b"\xff\xff" + opened.network(path).network_address.packed]
        assert found["transfers"] == COUNT
        clients = fmean(log2(each.seconds - (each.connect or 0.0)) for each in completions)
        told[path] = 2 ** (found["log_time"] / COUNT - log2(1e6) - clients)
    print(f"by what clients saw: {told}")
    assert told["plain"] == pytest.approx(1.0, abs=0.025)
    assert (told["bunched"] == pytest.approx(1.0, abs=0.025)) == timestamps
