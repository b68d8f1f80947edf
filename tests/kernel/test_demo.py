"""The demo for real, as short as it can be: what it prints, and that it leaves nothing behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.cgroups import mount_point
from agent.errors import LabError
from agent.lab.agent_process import AgentProcess
from agent.lab.demo import PATHS, check_attached
from agent.lab.demo_result import Phase
from agent.lab.lab import Lab
from agent.lab.spec import PathSpec

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _root() -> None:
    assert os.geteuid() == 0, "the demo needs root; its tests are not skipped, so that nobody misses them"


def start(tmp_path: Path, *arguments: str) -> subprocess.Popen[str]:
    """The command in a session of its own, by which all its processes are found, with its own temporary folder.

    A shell starts background jobs with SIGINT ignored, and children inherit that; here it means what it says.
    """
    return subprocess.Popen(
        ["env", "--default-signal=INT", sys.executable, "-m", "agent", "demo", *arguments],
        cwd=ROOT, env={**os.environ, "TMPDIR": str(tmp_path)}, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def processes(session: int) -> Iterator[str]:
    """The command lines of all processes of a session, dead ones that wait for their parent aside."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            # man 5 proc: after the name in brackets come state, parent, process group, session
            state, _, _, found = (folder / "stat").read_text().rpartition(")")[2].split()[:4]
            if int(found) == session and state != "Z":
                yield (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
        except OSError:
            continue


def assert_nothing_left(pid: int, folder: Path) -> None:
    assert not list(processes(pid))
    assert not list(Path("/run/netns").glob(f"tcptuned-{pid}-*"))
    assert not list(mount_point().glob(f"tcptuned-lab-{pid}-*"))
    assert not list(folder.iterdir())


def test_the_demo_measures_three_paths_and_leaves_nothing_behind(tmp_path: Path) -> None:
    demo = start(tmp_path, "--json", "--seconds", "25")
    output, complaints = demo.communicate(timeout=90)
    assert (demo.returncode, complaints) == (0, "")
    result = json.loads(output)
    assert 15 < result["seconds"] < 40
    assert result["errors"] == []
    assert [path["name"] for path in result["paths"]] == [path.name for path in PATHS]
    for path in result["paths"]:
        for phase in (path["before"], path["after"]):
            assert phase["objects"] > 0
            assert phase["errors"] == 0
            assert 0 < phase["median_ms"] < 60_000
            assert 0 < phase["mean_ms"] < 60_000
            assert 0 <= phase["lost"] < 0.3
        assert path["median_ratio"] == pytest.approx(path["after"]["median_ms"] / path["before"]["median_ms"], abs=1e-3)
        assert path["learnt_from"] > 0
        assert [entry["dimension"] for entry in path["policy"]] == ["initial_window", "congestion", "ack"]
        assert all(entry["chosen"] and entry["reason"] for entry in path["policy"])
    clean, short, lossy = result["paths"]
    # Four round trips and the last byte's way: what the default takes is known exactly.
    assert clean["before"]["median_ms"] == pytest.approx(411, abs=15)
    assert clean["before"]["lost"] == 0
    assert lossy["before"]["lost"] == pytest.approx(0.01, abs=0.003)
    # Nothing is to be gained on the short one but fewer losses, by pacing; a few seconds do not always show that.
    _, congestion, ack = (entry["chosen"] for entry in short["policy"])
    assert congestion in ("default", "paced", "bbr-paced")
    assert ack == "default"
    assert short["median_ratio"] < 1.3
    assert short["after"]["lost"] <= short["before"]["lost"] + 0.03
    assert_nothing_left(demo.pid, tmp_path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_cleans_up(tmp_path: Path, number: signal.Signals) -> None:
    demo = start(tmp_path, "--seconds", "20")
    deadline = time.monotonic() + 30.0
    while not any("agent run" in line for line in processes(demo.pid)):
        assert demo.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    demo.send_signal(number)
    output, complaints = demo.communicate(timeout=20)
    assert (demo.returncode, complaints) == (1, "")
    assert "before" in output
    assert_nothing_left(demo.pid, tmp_path)


@pytest.mark.parametrize(("seconds", "bound"), [("nan", "at least 20"), ("3600", "at most 600")])
def test_too_short_and_too_long_a_demo_is_refused(tmp_path: Path, seconds: str, bound: str) -> None:
    demo = start(tmp_path, "--seconds", seconds)
    assert bound in demo.communicate(timeout=30)[1]
    assert demo.returncode == 2


def test_an_agent_that_does_not_start_is_an_error_with_its_log() -> None:
    with (
        Lab([PathSpec(name="p")]) as lab,
        pytest.raises(LabError, match=r"exit code 2(.|\n)*control\.interval"),
        AgentProcess(lab, {"control": {"interval": "often"}}),
    ):
        raise AssertionError("it started")


def test_figures_of_an_agent_that_was_detached_are_refused() -> None:
    phase = {"p": Phase(objects=100, errors=0, median_ms=1.0, mean_ms=1.0, lost=0.0)}
    check_attached({"p": (500.0, [])}, {"p": (590.0, [])}, phase)
    with pytest.raises(LabError, match="detach"):
        check_attached({"p": (500.0, [])}, {"p": (493.0, [])}, phase)
