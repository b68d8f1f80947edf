"""What was learnt survives the process: the first connections after a restart get it, however the agent ended."""

from __future__ import annotations

import json
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running import RunningAgent, configuration, require_root, until

from agent.lab.lab import Lab
from agent.lab.spec import PathSpec
from agent.lab.workload import Transfer
from agent.state import FILE, INTERVAL

FIRST = 20  # connections
A_MINUTE = 60  # seconds: what a row of the history is of


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    require_root()
    with Lab([PathSpec.symmetric("long", rate_mbps=100, delay_ms=25, queue_packets=1000)]) as opened:
        yield opened


def first_windows(lab: Lab) -> list[int]:
    """The initial windows of FIRST connections, one after the other, from the server's own sockets."""
    found = lab.fetch("long", size=1_000, count=FIRST, state=True)
    assert [each.error for each in found] == [None] * FIRST
    return [each.state["tcp_info"]["snd_cwnd"] for each in found if each.state]


def learn(lab: Lab, agent: RunningAgent, address: str, seconds: float) -> str:
    """Lets objects be fetched until a larger window is chosen, for `seconds` at least; returns the chosen one.

    Windows of 56 and more take an object of 60 kB in one round, one after the handshake, smaller ones in two.
    """
    until_then = time.monotonic() + seconds
    load = lab.start(Transfer(path="long", size=60_000, count=None, concurrency=8, seconds=120))
    until(lambda: agent.chosen(address, "initial_window") in {"iw56", "iw80"}, 60, "nothing was learnt")
    time.sleep(max(0.0, until_then - time.monotonic()))
    load.stop()
    load.wait(30)
    return agent.chosen(address, "initial_window")


def report(lab: Lab, config: Path) -> dict[str, Any]:
    """The facts of `tcptuned report` on the server, which also writes the page."""
    page = config.parent / "report.html"
    for arguments in (["--output", str(page)], ["--json"]):
        command = [sys.executable, "-m", "agent", "report", "--config", str(config), *arguments]
        with lab.run_in("server", command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            out, error = process.communicate(timeout=30)
        assert (process.returncode, error) == (0, "")
    assert page.read_text(encoding="utf-8").count("<svg") > 0
    facts: dict[str, Any] = json.loads(out)
    return facts


def told_by_both(running: dict[str, Any], saved: dict[str, Any], *, minutes: bool) -> None:
    """The running agent and the file it left tell of the same path and decisions; the agent, of the last minute too."""
    assert (running["source"], saved["source"]) == ("agent", "file")
    assert running["journal"]
    assert saved["journal"][-len(running["journal"]) :] == running["journal"]
    assert [path["path"] for path in running["paths"]["shown"]] == [path["path"] for path in saved["paths"]["shown"]]
    history = running["history"]["groups"]
    assert bool(history) == minutes
    assert not minutes or sum(history["default"]["treated"]) > 50


@pytest.mark.parametrize(
    "number",
    [
        pytest.param(signal.SIGTERM, id="SIGTERM"),
        pytest.param(signal.SIGKILL, id="SIGKILL", marks=pytest.mark.long),
    ],
)
def test_the_first_connections_after_a_restart_get_what_was_learnt(
    lab: Lab, tmp_path: Path, number: signal.Signals
) -> None:
    config = configuration(lab, tmp_path, control={"holdout": 0})
    address = str(lab.address("long"))
    file = tmp_path / "state" / FILE
    with RunningAgent(lab, config) as agent:
        assert set(first_windows(lab)) == {10}
        # A killed agent has what it saved in time; one that is asked to end saves by itself.
        chosen = learn(lab, agent, address, max(INTERVAL, A_MINUTE) + 5 if number == signal.SIGKILL else 0)
        assert file.exists() or number == signal.SIGTERM
        running = report(lab, config)
        asked = time.time()
        agent.process.send_signal(number)
        agent.process.wait(10)
    assert (file.stat().st_mtime > asked) == (number == signal.SIGTERM)
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    told_by_both(running, report(lab, config), minutes=number == signal.SIGKILL)

    with RunningAgent(lab, config) as agent:
        assert agent.value("state_restored_paths") == 1
        known = agent.explain(address)
        assert known["known"]
        window = known["dimensions"][0]
        if number == signal.SIGTERM:
            assert window["chosen"] == chosen
        default = next(arm["probability"] for arm in window["arms"] if arm["name"] == "default")
        windows = first_windows(lab)
        print(f"chosen {window['chosen']}, the default's share {default}, first windows {windows}")
        assert default < 0.25
        assert sum(each > 10 for each in windows) >= FIRST / 2  # by chance fewer: once in 100,000 times
        assert "Traceback" not in agent.log()

    # The counter-proof: without the file nothing is known.
    file.unlink()
    with RunningAgent(lab, config) as agent:
        assert agent.value("state_restored_paths") == 0
        assert set(first_windows(lab)) == {10}


def test_a_damaged_file_costs_what_was_learnt_and_nothing_else(lab: Lab, tmp_path: Path) -> None:
    config = configuration(lab, tmp_path)
    folder = tmp_path / "state"
    with RunningAgent(lab, config):
        lab.fetch("long", size=60_000, count=20, concurrency=4)
        time.sleep(1.0)
    content = bytearray((folder / FILE).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / FILE).write_bytes(content)
    with RunningAgent(lab, config) as agent:
        assert agent.value("state_restored_paths") == 0
        assert agent.log().count("learning begins anew") == 1
        assert "Traceback" not in agent.log()
        (aside,) = folder.glob(f"{FILE}.damaged-*")
        assert aside.read_bytes() == bytes(content)
    assert (folder / FILE).exists()


@pytest.mark.long
def test_a_dry_run_keeps_and_restores(lab: Lab, tmp_path: Path) -> None:
    config = configuration(lab, tmp_path, control={"holdout": 0})
    address = str(lab.address("long"))
    with RunningAgent(lab, config) as agent:
        learn(lab, agent, address, 0)
    for _ in range(2):
        with RunningAgent(lab, config, arguments=["--dry-run"]) as agent:
            assert agent.value("state_restored_paths") == 1
            assert agent.chosen(address, "initial_window") != "default"
            assert set(first_windows(lab)) == {10}


def test_a_reload_keeps_what_still_means_the_same(lab: Lab, tmp_path: Path) -> None:
    """The path comes into another group, and the ladder of windows gets other steps: the numbers of all arms change."""
    config = configuration(lab, tmp_path, control={"holdout": 0})
    address = str(lab.address("long"))
    rules = [
        {"match": ["192.0.2.0/24"], "group": "elsewhere"},
        {"match": [str(lab.network("long"))], "group": "branch"},
    ]
    with RunningAgent(lab, config) as agent:
        learn(lab, agent, address, 0)

        def connections() -> dict[str, float]:
            return {arm["name"]: arm["connections"] for arm in agent.explain(address)["dimensions"][0]["arms"]}

        def settled() -> bool:
            earlier = connections()
            time.sleep(1.5)
            return sum(connections().values()) <= sum(earlier.values())

        until(settled, 15, "connections keep coming in")
        before = connections()
        configuration(lab, tmp_path, control={"holdout": 0}, paths={"rules": rules}, initial_window={"min": 20})
        agent.process.send_signal(signal.SIGHUP)
        until(lambda: agent.explain(address)["group"] == "branch", 5, "not reloaded")
        known = agent.explain(address)
        assert known["known"]
        after = connections()
        assert list(after) == ["default", "iw20", "iw28", "iw40", "iw56", "iw80"]
        assert after == pytest.approx({name: before[name] for name in after}, rel=0.05, abs=0.2)
        assert known["dimensions"][0]["chosen"] != "default"
        assert sum(each > 10 for each in first_windows(lab)) >= FIRST / 2
        assert agent.value("rtt_seconds_count", group="elsewhere") == 0
