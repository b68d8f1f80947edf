"""Who asks for fewer ACKs paces what it sends once it has lost something."""

from __future__ import annotations

from pathlib import Path
from statistics import mean

import pytest
from running import require_root
from test_acks import ASK_10, ON_REQUEST, SERVERS
from test_extensions import both_sides

from agent.lab.lab import Lab
from agent.lab.spec import PathSpec
from agent.lab.workload import ServerOptions

# A tenth of the bandwidth-delay product: ten segments at once do not fit.
SHORT_QUEUE = PathSpec.symmetric("short queue", rate_mbps=12, delay_ms=30, queue_packets=6)
FAST = PathSpec.symmetric("fast", rate_mbps=80, delay_ms=5)


def goodput(lab: Lab) -> float:
    """Of three downloads, in Mb/s."""
    found = []
    for _ in range(3):
        lab.flush_metrics()
        found.append(lab.fetch("short queue", 3_000_000, server={"congestion": "cubic"})[0].mbps)
    return mean(found)


@pytest.mark.long
def test_fewer_acks_do_not_overflow_a_short_queue(tmp_path: Path) -> None:
    require_root()
    with Lab([SHORT_QUEUE]) as lab:
        own = goodput(lab)
        with both_sides(lab, tmp_path, asks={"honour_from": SERVERS}, grants=ASK_10, client=ON_REQUEST) as (client, _):
            asked = goodput(lab)
            assert client.settled("extension_granted_total", 3, extension="ack_request") == 3
    print(f"goodput {asked / own:.2f} of the kernel's own")
    # 0.91 on a quiet machine; half of the goodput without pacing.
    assert asked > 0.75 * own


def test_an_applications_own_rate_stays(tmp_path: Path) -> None:
    require_root()
    with (
        Lab([FAST]) as lab,
        both_sides(lab, tmp_path, asks={"honour_from": SERVERS}, grants=ASK_10, client=ON_REQUEST) as (client, _),
    ):
        lab.listen(ServerOptions(listener={"max_pacing_rate": 1_000_000}))
        [limited] = lab.fetch("fast", 2_000_000)
        lab.listen(ServerOptions())
        [free] = lab.fetch("fast", 2_000_000)
        assert client.settled("extension_granted_total", 2, extension="ack_request") == 2
    assert limited.mbps < 9
    assert free.mbps > 25
