"""When data is acknowledged: sooner, less often, as the sender of the data asks, and told to the peer."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import mean, quantiles
from typing import Any

import pytest
from running import RunningAgent, attached, configuration, require_root, until
from test_extensions import CLIENTS, QUIET, Segment, both_sides, capture

from agent.lab.lab import Lab
from agent.lab.spec import LinkSpec, PathSpec
from agent.lab.workload import Transfer

PATHS = [
    PathSpec.symmetric("long", rate_mbps=50, delay_ms=50, queue_packets=400),
    PathSpec.symmetric("lossy", rate_mbps=50, delay_ms=20, queue_packets=200, loss=0.01),
    PathSpec.symmetric("path", rate_mbps=100, delay_ms=10),
]
SERVERS = ["10.78.0.0/16", "fd78::/16"]
ASK_10 = {"ack_request": {"send": {"segments": 10, "rtt_divisor": 4}}}
ON_REQUEST = {"ack": {"enabled": True, "delay": False, "thinning": True, "thinning_max": 20}}


@pytest.fixture
def lab() -> Iterator[Lab]:
    require_root()
    with Lab(PATHS) as opened:
        yield opened


def acks_per_segment(lab: Lab, path: str, seconds: float, congestion: str) -> tuple[float, float]:
    """A bulk download: packets that way back for one this way, and its goodput in Mb/s."""
    before = lab.counters().paths[path]
    [done] = lab.bulk(path, seconds, server={"congestion": congestion})
    after = lab.counters().paths[path]
    back = after.up.packets_delivered - before.up.packets_delivered
    there = after.down.packets_delivered - before.down.packets_delivered
    return back / there, done.mbps


def tail(lab: Lab, path: str, count: int) -> float:
    """The 95th percentile of the time of 100 KB objects."""
    times = [each.seconds for each in lab.fetch(path, size=100_000, count=count, concurrency=4)]
    return quantiles(times, n=20)[-1]


@pytest.mark.long
@pytest.mark.parametrize("path", ["long", "lossy"])
def test_half_of_the_acks_go_and_nothing_gets_slower(lab: Lab, tmp_path: Path, path: str) -> None:
    """The server asks for an ACK every 10 segments or quarter of the RTT.

    With 1 % loss by bbr, as cubic's goodput there is a matter of luck; most ACKs say then that something is missing,
    and pass.
    """
    sides = {False: {}, True: ASK_10}
    congestion = "cubic" if path == "long" else "bbr"
    acks: dict[bool, list[float]] = {False: [], True: []}
    goodput: dict[bool, list[float]] = {False: [], True: []}
    tails: dict[bool, list[float]] = {False: [], True: []}
    for turn, asks in enumerate([False, True, True, False]):
        folder = tmp_path / str(turn)
        folder.mkdir()
        client = {"honour_from": SERVERS}
        with both_sides(lab, folder, asks=client, grants=sides[asks], client=ON_REQUEST):
            share, mbps = acks_per_segment(lab, path, 5.0, congestion)
            acks[asks].append(share)
            goodput[asks].append(mbps)
            if path == "long":
                tails[asks].append(tail(lab, path, 48))
    kept = mean(acks[True]) / mean(acks[False])
    speed = mean(goodput[True]) / mean(goodput[False])
    print(f"{path}: {kept:.3f} of the ACKs, goodput {speed:.3f} of the kernel's own")
    if path == "long":
        late = mean(tails[True]) / mean(tails[False])
        print(f"p95 of 100 KB {late:.3f} of the kernel's own")
        assert kept <= 0.5
        assert late <= 1.1
    assert speed >= 0.98


def test_requests_of_both_kinds_are_on_the_wire(lab: Lab, tmp_path: Path) -> None:
    """A client that uploads asks in its SYN: our own option, and the IETF draft's, answered and repeated later."""
    asks = {"ack_request": {"send": {"segments": 12, "rtt_divisor": 6}}}
    with both_sides(lab, tmp_path, asks=asks, **ON_REQUEST) as (client, server):
        with capture(lab) as lines:
            lab.upload("path", size=3_000_000)
        assert client.settled("extension_sent_total", 2, extension="ack_request") == 2
        assert server.settled("extension_granted_total", 2, extension="ack_request") == 2
        assert server.settled("connections_out_of_comparison_total", 1, dimension="ack") == 1
        until(lambda: server.value("acks_thinned_total") > 50, 5.0, "no ACK was dropped")
    syn, *later = [segment.options for segment in lines if segment.from_client]
    # kind 254, length 10, ExID, version 1, subtype 1, no algorithm, no window, 12 segments, RTT / 6
    assert bytes.fromhex("fe0a e7c9 01 01 00 00 0c 06") in syn
    assert bytes.fromhex("fe04 00ac") in syn
    assert bytes.fromhex("fe05 00ac 18") in later[0]  # 12 << 1
    assert not [options for options in later[1:] if b"\xfe\x05" in options]
    synack, *_ = [segment.options for segment in lines if not segment.from_client]
    assert bytes.fromhex("fe04 00ac") in synack


def test_the_drafts_option_alone_is_enough(lab: Lab, tmp_path: Path) -> None:
    """With another ExID our own option is a stranger's; the draft's is understood all the same."""
    asks = {"exid": 0x1234, **ASK_10}
    with both_sides(lab, tmp_path, asks=asks, **ON_REQUEST) as (_, server):
        lab.upload("path", size=3_000_000)
        assert server.settled("extension_granted_total", 1, extension="ack_request") == 1
        until(lambda: server.value("acks_thinned_total") > 50, 5.0, "no ACK was dropped")


def test_a_server_asks_in_its_syn_ack(lab: Lab, tmp_path: Path) -> None:
    with both_sides(lab, tmp_path, asks={"honour_from": SERVERS}, grants=ASK_10, client=ON_REQUEST) as (client, _):
        with capture(lab) as lines:
            lab.fetch("path", size=3_000_000)
        assert client.settled("extension_granted_total", 1, extension="ack_request") == 1
        until(lambda: client.value("acks_thinned_total") > 50, 5.0, "no ACK was dropped")
    synack, *_ = [segment.options for segment in lines if not segment.from_client]
    assert bytes.fromhex("fe0a e7c9 01 01 00 00 0a 04") in synack
    # The SYN did not say that the draft's requests are understood.
    assert not [segment for segment in lines if b"\x00\xac" in segment.options]


@pytest.mark.parametrize(
    ("section", "honoured", "reason"),
    [
        ({"ack": {"enabled": True, "thinning": False}}, CLIENTS, "off"),
        (ON_REQUEST, ["192.0.2.0/24"], "network"),
    ],
)
def test_refused_requests_change_nothing(
    lab: Lab, tmp_path: Path, section: dict[str, Any], honoured: list[str], reason: str
) -> None:
    grants = {"honour_from": honoured}
    with both_sides(lab, tmp_path, asks=ASK_10, grants=grants, **section) as (_, server):
        lab.upload("path", size=1_000_000)
        labels = {"extension": "ack_request", "reason": reason}
        assert server.settled("extension_rejected_total", 1, **labels) >= 1
        assert server.value("extension_granted_total", extension="ack_request") == 0
        assert server.value("acks_thinned_total") == 0


def test_packets_are_watched_only_where_acks_may_be_thinned(lab: Lab, tmp_path: Path) -> None:
    base = ["cgroup_setsockopt", "cgroup_sock_ops"]
    config = configuration(lab, tmp_path, **QUIET)
    with RunningAgent(lab, config) as agent:
        assert attached(lab.server_cgroup) == base
        configuration(lab, tmp_path, **{**QUIET, **ON_REQUEST})
        agent.process.send_signal(signal.SIGHUP)
        assert agent.settled("config_last_reload_successful", 1) == 1
        deadline = time.monotonic() + 5
        watched = sorted([*base, "cgroup_inet_egress", "cgroup_inet_ingress"])
        while attached(lab.server_cgroup) != watched and time.monotonic() < deadline:
            time.sleep(0.1)
        assert attached(lab.server_cgroup) == watched
        agent.process.kill()
        agent.process.wait(5)
        assert attached(lab.server_cgroup) == []


def test_a_hung_agent_thins_nothing(lab: Lab, tmp_path: Path) -> None:
    """The lease rules what is dropped on open connections too."""
    sections: dict[str, Any] = {**ON_REQUEST, "control": {"holdout": 0, "lease": "1s"}}
    client = {"honour_from": SERVERS}
    with both_sides(lab, tmp_path, asks=client, grants=ASK_10, client=sections) as (agent, _):
        job = lab.start(Transfer(path="path", size=1 << 40, seconds=8.0, cut=True))
        time.sleep(1.0)
        agent.process.send_signal(signal.SIGSTOP)
        time.sleep(2.0)
        before = lab.counters().paths["path"]
        time.sleep(3.0)
        after = lab.counters().paths["path"]
        job.wait(30.0)
    back = after.up.packets_delivered - before.up.packets_delivered
    there = after.down.packets_delivered - before.down.packets_delivered
    print(f"with a lapsed lease {back / there:.3f} ACKs a data segment")
    assert back / there > 0.4


def announced(segments: list[Segment]) -> list[int]:
    """The ACK delays that the client announced, in milliseconds."""
    sign = bytes.fromhex("fe08 e7c9 01 02")
    found = [segment.options.partition(sign)[2][:2] for segment in segments if segment.from_client]
    return [int.from_bytes(value) for value in found if value]


def test_the_delay_follows_the_rtt_and_the_peer_is_told(lab: Lab, tmp_path: Path) -> None:
    """A client that delays its ACKs by RTT / 4 says so, again when the RTT moved; the server times out sooner."""
    asks = {"ack_announcement": {"send": True}, "honour_from": SERVERS}
    grants = {"honour_from": CLIENTS, "ack_request": {"send": {"segments": 2, "rtt_divisor": 4}}}
    with both_sides(lab, tmp_path, asks=asks, grants=grants) as (_, server):
        with capture(lab) as lines:
            [done] = lab.fetch("path", size=500_000, state=True)
        # 20 ms of RTT / 4, but not below what the kernel takes: two ticks
        [delay] = announced(lines)
        assert 5 <= delay <= 21
        assert server.settled("extension_granted_total", 1, extension="ack_announcement") == 1
        assert done.state is not None
        info = done.state["tcp_info"]
        # The kernel's own least is 200 ms above the RTT.
        assert info["rto"] - info["rtt"] < 100_000

        with capture(lab) as lines:
            job = lab.start(Transfer(path="path", size=3_000, count=40, keep=True))
            time.sleep(0.3)
            lab.change("path", down=LinkSpec(delay_ms=80), up=LinkSpec(delay_ms=80))
            job.wait(60.0)
        first, *later = announced(lines)
        assert first == delay
        assert later == sorted(later)
        assert 30 <= later[-1] <= 50
