"""The laboratory on this kernel: real namespaces, real TCP, figures within stated bounds."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import pytest

from agent.cgroups import mount_point
from agent.errors import LabError
from agent.lab.lab import Lab, PathCounters
from agent.lab.spec import LinkSpec, PathSpec
from agent.lab.workload import Completion, ServerOptions, Transfer

ALLOWED = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control")
PAYLOAD = 1448 / 1500  # share of a packet that is TCP payload, with timestamps, IPv4

PATHS = [
    PathSpec.symmetric("near", rate_mbps=50, delay_ms=10, queue_packets=300, addresses=3),
    PathSpec.symmetric("far", rate_mbps=50, delay_ms=75, queue_packets=600),
    PathSpec.symmetric("fast", rate_mbps=100, delay_ms=20, queue_packets=700),
    PathSpec(name="lossy", down=LinkSpec(delay_ms=2, loss=0.02), up=LinkSpec(delay_ms=2)),
    PathSpec(name="torn", down=LinkSpec(delay_ms=60, loss=0.2), up=LinkSpec(delay_ms=60)),
]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    assert os.geteuid() == 0, "the laboratory's tests need root; they are not skipped, so that nobody misses them"
    with Lab(PATHS) as opened:
        yield opened


def connect_ms(completions: list[Completion]) -> float:
    assert [each.error for each in completions] == [None] * len(completions)
    return median([1000 * (each.connect or 0.0) for each in completions])


def steady_mbps(lab: Lab, path: str, *, warm_up: float, seconds: float) -> float:
    """Rate of delivered packets on a path's data direction, after slow start."""
    job = lab.start(Transfer(path=path, size=1 << 40, seconds=warm_up + seconds + 1.0, cut=True))
    time.sleep(warm_up)
    marks = []
    for pause in (seconds, 0.0):
        marks.append((time.monotonic(), lab.counters().paths[path].down.bytes_delivered))
        time.sleep(pause)
    job.stop()
    assert job.wait(10.0)[0].error is None
    (began, first), (ended, last) = marks
    return (last - first) * 8e-6 / (ended - began)


@pytest.mark.parametrize("family", [4, 6])
def test_connecting_takes_one_round_trip_of_the_path(lab: Lab, family: int) -> None:
    near, far = lab.run([Transfer(path=path, size=1000, count=5, family=family) for path in ("near", "far")])
    assert abs(connect_ms(near) - 20) < 5
    assert abs(connect_ms(far) - 150) < 5
    assert {each.address for each in near} <= {str(address) for address in lab.addresses("near", family)}


def test_objects_arrive_whole_over_all_addresses_of_a_path(lab: Lab) -> None:
    seen = []
    completions = lab.fetch("near", size=100_003, count=13, concurrency=4, progress=seen.append)
    assert [each.bytes for each in completions] == [100_003] * 13
    assert seen == completions
    assert {each.address for each in completions} == {str(address) for address in lab.addresses("near")}
    assert min(each.seconds for each in completions) > 0.06  # connection, first flight, at least one more


def test_a_kept_connection_connects_once(lab: Lab) -> None:
    completions = lab.fetch("near", size=5000, count=5, keep=True)
    assert [each.connect is None for each in completions] == [False, True, True, True, True]
    assert len({each.port for each in completions}) == 1
    assert abs(median(each.seconds for each in completions[1:]) - 0.02) < 0.005


def test_thinking_and_uploading(lab: Lab) -> None:
    (slow,) = lab.fetch("near", size=100, think_ms=100)
    assert 0.135 < slow.seconds < 0.2
    (up,) = lab.upload("near", size=1_000_003)
    assert (up.bytes, up.error) == (1_000_003, None)
    assert up.seconds > 1_000_003 * 8e-6 / 50


def test_fifty_megabits_are_reached(lab: Lab) -> None:
    assert steady_mbps(lab, "near", warm_up=1.5, seconds=3.0) >= 0.93 * 50


def test_a_hundred_megabits_over_forty_milliseconds_are_reached(lab: Lab) -> None:
    completions = lab.bulk("fast", 5.0)
    assert completions[0].error is None
    assert completions[0].mbps >= 0.85 * 100 * PAYLOAD
    counters = lab.counters()
    assert counters.unrouted == counters.refused == 0


def test_random_loss_is_at_its_ratio(lab: Lab) -> None:
    # one fixed sequence of random numbers: the same verdict in every run but for how many packets there are
    lab.fetch("lossy", size=1_500_000, count=10, concurrency=5)
    down = lab.counters().paths["lossy"].down
    expected = 0.02 * down.packets_offered
    assert down.packets_offered > 10_000
    assert abs(down.packets_dropped_loss - expected) < 4 * (expected * 0.98) ** 0.5
    assert down.packets_dropped_queue == 0


def test_an_object_that_came_is_no_failure_though_the_servers_fin_is_lost(lab: Lab) -> None:
    completions = lab.fetch("torn", size=1000, count=60, concurrency=20)
    assert [(each.bytes, each.error) for each in completions] == [(1000, None)] * 60


def test_a_path_changes_while_it_runs(lab: Lab) -> None:
    spec = PATHS[0].down
    lab.change("near", down=LinkSpec(rate_mbps=50, delay_ms=90))
    try:
        assert abs(connect_ms(lab.fetch("near", size=10, count=3)) - 100) < 5
    finally:
        lab.change("near", down=spec)
    assert abs(connect_ms(lab.fetch("near", size=10, count=3)) - 20) < 5
    with pytest.raises(LabError, match="no path"):
        lab.change("nowhere", down=spec)


def test_counters_agree_with_the_kernel(lab: Lab) -> None:
    def device() -> int:
        script = "import re; print(re.search(r'wan:(.*)', open('/proc/self/net/dev').read())[1].split()[9])"
        done = lab.run_in("server", [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
        return int(done.communicate(timeout=20)[0])

    def offered(counters: PathCounters) -> int:
        return counters.down.packets_offered

    lab.fetch("fast", size=300_000, count=7)
    time.sleep(0.2)  # the last acknowledgements
    assert sum(map(offered, lab.counters().paths.values())) + lab.counters().unrouted == device()


def test_the_server_tells_the_state_of_its_socket(lab: Lab) -> None:
    (plain,) = lab.fetch("near", size=30_000, state=True)
    (chosen,) = lab.fetch("near", size=30_000, state=True, server={"congestion": "reno"})
    assert plain.state is not None
    assert chosen.state is not None
    assert (plain.state["congestion"], chosen.state["congestion"]) == ("cubic", "reno")
    info = plain.state["tcp_info"]
    assert info["data_segs_out"] == -(-30_000 // 1448)
    assert info["bytes_sent"] == 30_000
    assert info["snd_mss"] == 1448
    assert 20_000 <= info["min_rtt"] < 25_000


def test_a_middlebox_changes_what_the_ends_agree_on(lab: Lab) -> None:
    name = "agent.lab.middlebox:strip_timestamps"
    lab.change("near", up=LinkSpec(delay_ms=10, middlebox=name))
    try:
        (done,) = lab.fetch("near", size=30_000, state=True)
    finally:
        lab.change("near", up=PATHS[0].up)
    assert done.error is None
    assert done.state is not None
    assert done.state["tcp_info"]["snd_mss"] == 1460  # 12 bytes of timestamps fewer
    with pytest.raises(LabError, match="nothing_here"):
        lab.change("near", down=LinkSpec(), up=LinkSpec(middlebox="agent.lab.middlebox:nothing_here"))
    assert abs(connect_ms(lab.fetch("near", size=10)) - 20) < 5  # a refused change changes nothing


def test_the_application_may_choose_on_its_listener_and_ipv4_may_be_mapped(lab: Lab) -> None:
    lab.listen(ServerOptions(dual_stack=True, listener={"congestion": "reno"}))
    try:
        for options in ({"mapped": True}, {"family": 6}, {"client": {"congestion": "reno"}}):
            (done,) = lab.fetch("near", size=1000, state=True, **options)
            assert done.error is None
            assert done.state is not None
            assert done.state["congestion"] == "reno"
    finally:
        lab.listen(ServerOptions())


def test_programs_run_inside_a_side(lab: Lab) -> None:
    script = "import socket; print(socket.create_server(('10.78.0.1', 9)), open('/proc/self/cgroup').read())"
    process = lab.run_in("server", [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    output = process.communicate(timeout=20)[0]
    assert "10.78.0.1" in output
    assert str(lab.server_cgroup.relative_to(mount_point())) in output


def test_nothing_is_left_behind() -> None:
    before = threading.active_count()
    allowed = ALLOWED.read_text()
    lab = Lab([PathSpec.symmetric("p", delay_ms=5)])
    with pytest.raises(RuntimeError), lab:
        pids = [int(pid) for pid in (lab.server_cgroup / "cgroup.procs").read_text().split()]
        pids += [int(pid) for pid in (lab.client_cgroup / "cgroup.procs").read_text().split()]
        endless = lab.start(Transfer(path="p", size=1 << 40))
        sleeper = lab.run_in("client", ["sleep", "1000"])
        assert len(pids) == 2
        raise RuntimeError("a test fails")
    assert not endless.completions() or endless.done
    assert sleeper.returncode is not None
    assert not [pid for pid in pids if Path("/proc", str(pid)).exists()]
    assert not list(Path("/run/netns").glob(f"{lab.name}*"))
    assert not lab.server_cgroup.parent.exists()
    assert threading.active_count() == before
    assert ALLOWED.read_text() == allowed


def test_a_killed_laboratory_is_swept_away_by_the_next() -> None:
    script = (
        "import os, signal; from agent.lab.lab import Lab; from agent.lab.spec import PathSpec\n"
        "lab = Lab([PathSpec(name='p')]); lab.open(); print(lab.name, flush=True)\n"
        "print((lab.server_cgroup / 'cgroup.procs').read_text(), (lab.client_cgroup / 'cgroup.procs').read_text())\n"
        "print(open(f'/proc/{os.getpid()}/task/{os.getpid()}/children').read(), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", script], cwd=root, stdout=subprocess.PIPE, text=True, check=False)
    name, *pids = done.stdout.split()
    assert len(set(pids)) == 3
    deadline = time.monotonic() + 3.0
    while any(Path("/proc", pid, "fd").exists() for pid in pids) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not [pid for pid in pids if Path("/proc", pid, "fd").exists()]
    assert Path("/run/netns", f"{name}-server").exists()
    with Lab([PathSpec(name="p")]) as lab:
        assert lab.fetch("p", size=10)[0].error is None
        assert not list(Path("/run/netns").glob(f"{name}*"))
        assert not list(mount_point().glob(f"{name.replace('tcptuned', 'tcptuned-lab')}*"))


def test_a_wrong_choice_is_one_clear_error() -> None:
    with pytest.raises(LabError, match="nosuch"):
        Lab([PathSpec(name="p")], server_congestion="nosuch").open()
    with pytest.raises(LabError, match="same network"):
        Lab([PathSpec(name="a"), PathSpec(name="b", ipv4="10.77.1.0/24")])
