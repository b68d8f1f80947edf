"""Sockets older than the agent: adopted where that is possible and ours to do, counted and left alone where not."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from running import RunningAgent, configuration, readable_by_all, require_root, until

from agent import features
from agent.cgroups import mount_point
from agent.lab.enter import in_namespace
from agent.lab.lab import Lab
from agent.lab.spec import PathSpec
from agent.lab.workload import Completion, ServerOptions, Transfer
from agent.sockets import tcp_sockets

CLIENTS = ["10.77.0.0/16", "fd77::/16"]
ASKS = {"window_request": {"send": 40}, "congestion_request": {"send": "reno"}}
GRANTS = {"honour_from": CLIENTS}
QUIET = {
    "initial_window": {"enabled": False},
    "congestion": {"allowed": ["cubic", "bbr", "reno"]},
    "ack": {"enabled": False},
    "control": {"holdout": 0},
}
CALLBACKS_ON_OPEN = features.kernel_version() >= (6, 12)


@pytest.fixture
def lab() -> Iterator[Lab]:
    require_root()
    with Lab([PathSpec.symmetric("path", rate_mbps=100, delay_ms=5)]) as opened:
        yield opened


@contextmanager
def asking_client(lab: Lab, folder: Path) -> Iterator[None]:
    (folder / "client").mkdir()
    config = configuration(lab, folder / "client", side="client", **QUIET, extensions=ASKS)
    with RunningAgent(lab, config, side="client"):
        yield


@contextmanager
def serving_agent(lab: Lab, folder: Path, **options: Any) -> Iterator[RunningAgent]:
    sections = {**QUIET, "extensions": GRANTS, **options.pop("sections", {})}
    with RunningAgent(lab, configuration(lab, folder, **sections), **options) as agent:
        yield agent


def granted(lab: Lab, **options: Any) -> set[str]:
    """The congestion controls of three connections whose client asks for reno."""
    done = lab.fetch("path", size=50_000, count=3, state=True, **options)
    assert [each.error for each in done] == [None] * 3
    return {(each.state or {})["congestion"] for each in done}


@pytest.mark.parametrize("dual_stack", [False, True], ids=["v4 and v6", "dual stack"])
def test_an_older_listener_keeps_syns_from_now_on(lab: Lab, tmp_path: Path, dual_stack: bool) -> None:
    lab.listen(ServerOptions(dual_stack=dual_stack))
    with asking_client(lab, tmp_path), serving_agent(lab, tmp_path) as agent:
        count = 1 if dual_stack else 2
        assert agent.settled("sockets_adopted_total", count, kind="listener") == count
        assert agent.value("adoption_obstacle") == 0
        for family in (4, 6):
            assert granted(lab, family=family) == {"reno"}
        assert agent.settled("extension_granted_total", 6, extension="window_request") == 6


def test_listeners_are_adopted_when_a_reload_brings_options(lab: Lab, tmp_path: Path) -> None:
    with asking_client(lab, tmp_path), serving_agent(lab, tmp_path, sections={"extensions": {}}) as agent:
        # Younger than the agent, but without options nobody had it keep SYNs.
        lab.listen(ServerOptions())
        time.sleep(0.5)
        assert agent.value("sockets_adopted_total", kind="listener") == 0
        assert granted(lab) == {"cubic"}
        for number in (1, 2):  # a second reload finds nothing new
            configuration(lab, tmp_path, **QUIET, extensions=GRANTS)
            agent.process.send_signal(signal.SIGHUP)
            until(lambda number=number: agent.log().count("is reloaded") == number, 5.0, "no reload")
            assert agent.settled("sockets_adopted_total", 2, kind="listener") == 2
            assert granted(lab) == {"reno"}


LISTENER = """
import socket, sys
keep = int(sys.argv[1])
listener = socket.create_server(("10.78.0.1", 9000))
if keep:
    listener.setsockopt(socket.IPPROTO_TCP, 27, keep)
print("listening", flush=True)
while sys.stdin.readline():
    print(listener.getsockopt(socket.IPPROTO_TCP, 27), flush=True)
"""


def saves_syns(process: subprocess.Popen[Any]) -> int:
    """TCP_SAVE_SYN of that process's listener."""
    process.stdin.write("tell\n")
    process.stdin.flush()
    return int(process.stdout.readline())


@contextmanager
def listener(lab: Lab, *, keep: int = 0, cgroup: Path | None = None) -> Iterator[subprocess.Popen[Any]]:
    command = [sys.executable, "-c", LISTENER, str(keep)]
    if cgroup:
        command = [sys.executable, "-m", "agent.lab.enter", "--cgroup", str(cgroup), "--", *command]
    with lab.run_in("server", command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "listening\n"
        yield process
        process.stdin.close()


def test_an_application_that_keeps_more_of_syns_is_not_overruled(lab: Lab, tmp_path: Path) -> None:
    with listener(lab, keep=2) as process, serving_agent(lab, tmp_path) as agent:
        assert agent.settled("sockets_adopted_total", 3, kind="listener") == 3
        assert agent.value("sockets_unadopted_total", reason="loopback") == 1  # the agent's own
        assert saves_syns(process) == 2


def test_other_cgroups_of_the_namespace_are_not_touched(lab: Lab, tmp_path: Path) -> None:
    other = mount_point() / f"tcptuned-adopt-{os.getpid()}"
    other.mkdir()
    try:
        with listener(lab, cgroup=other) as outside, serving_agent(lab, tmp_path) as agent:
            assert agent.settled("sockets_adopted_total", 2, kind="listener") == 2
            assert agent.value("sockets_unadopted_total", reason="other_cgroup") == 1
            assert saves_syns(outside) == 0
    finally:
        until(lambda: not (other / "cgroup.procs").read_text(), 5.0, "the cgroup is still in use")
        other.rmdir()


def test_a_dry_run_touches_no_listener(lab: Lab, tmp_path: Path) -> None:
    with listener(lab) as process, serving_agent(lab, tmp_path, arguments=["--dry-run"]) as agent:
        time.sleep(1.0)
        assert saves_syns(process) == 0
        assert agent.value("sockets_adopted_total", kind="listener") == 0


@pytest.mark.parametrize("perfmon", [False, True], ids=["two capabilities", "with CAP_PERFMON"])
def test_adoption_takes_a_third_capability(lab: Lab, tmp_path: Path, perfmon: bool) -> None:
    tmp_path.chmod(0o755)
    (tmp_path / "state").mkdir()
    os.chown(tmp_path / "state", 65534, 65534)
    for folder in tmp_path.parents[:3]:
        if folder != Path("/tmp"):
            folder.chmod(0o755)
    only = "-all,+bpf,+net_admin" + ",+perfmon" * perfmon
    before = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", "--no-new-privs"]
    before += ["--bounding-set", only, "--inh-caps", only, "--ambient-caps", only]
    with readable_by_all() as (place, interpreter), asking_client(lab, tmp_path):
        options = {"before": before, "interpreter": interpreter, "cwd": place}
        with serving_agent(lab, tmp_path, **options) as agent:
            count = 2 if perfmon else 0
            assert agent.settled("sockets_adopted_total", count, kind="listener") == count
            assert agent.value("adoption_obstacle", reason="capability") == (not perfmon)
            assert granted(lab) == ({"reno"} if perfmon else {"cubic"})
            sentence = "adopted" if perfmon else "CAP_PERFMON"
            until(lambda: sentence in agent.log(), 5.0, "nothing in the log")


@pytest.mark.skipif(not CALLBACKS_ON_OPEN, reason="callbacks cannot be switched on for open sockets before 6.12")
@pytest.mark.parametrize("family", [pytest.param(4, marks=pytest.mark.long), 6])
def test_open_connections_are_counted_and_never_compared(lab: Lab, tmp_path: Path, family: int) -> None:
    size = 300_007
    transfer = Transfer(path="path", size=size, count=3, gap_ms=3500.0, keep=True, family=family)
    finished: list[Completion] = []
    job = lab.start(transfer, progress=finished.append)
    until(lambda: len(finished) == 1, 10.0, "nothing is transferred")
    # Everything may be applied, to younger ones.
    sections = {"initial_window": {"enabled": True}, "ack": {"enabled": True}}
    with serving_agent(lab, tmp_path, sections=sections) as agent:
        assert agent.settled("sockets_adopted_total", 1, kind="connection") == 1
        assert len(finished) == 1, "too busy: the next transfer began before the adoption"
        assert agent.value("sent_bytes_total") == 0
        done = job.wait(30.0)
        assert [each.error for each in done] == [None] * 3
        # All but what the first callback found acknowledged, and received, already.
        until(lambda: agent.value("sent_bytes_total") > 2 * size - 20 * 1448, 5.0, "bytes are missing")
        assert agent.value("sent_bytes_total") < 2 * size
        assert agent.value("received_bytes_total") == len(f"GET {size} keep\n")
        assert agent.value("rounds_total") > 0
        for name in ("connections_opened_total", "connections_closed_total", "connections_observed_total",
                     "option_sets_total", "transfers_total", "first_windows_total"):  # fmt: skip
            assert agent.value(name) == 0, name
        assert agent.value("paths") == 0
        # A younger one is compared as ever.
        lab.fetch("path", size=50_000, family=family)
        assert agent.settled("connections_closed_total", 1) == 1
        assert agent.value("connections_treated_total") == 1


def test_the_list_of_sockets_names_cgroups_and_loopback(lab: Lab) -> None:
    number = lab.server_cgroup.stat().st_ino
    found = in_namespace(lab.server_namespace, lambda: list(tcp_sockets(listening=True, connected=True)))
    assert [(each.listening, each.cgroup, each.loopback) for each in found] == [(True, number, False)] * 2
    assert len({each.cookie for each in found}) == 2
    script = "import socket; s = socket.create_server(('::1', 0), family=socket.AF_INET6)\n"
    script += "c = socket.create_connection(s.getsockname()[:2]); print(1, flush=True); input()"
    command = [sys.executable, "-c", script]
    with lab.run_in("client", command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        process.stdout.readline()
        found = in_namespace(lab.client_namespace, lambda: list(tcp_sockets(listening=False, connected=True)))
        assert [each.loopback for each in found] == [True, True]
        process.communicate("\n")
