"""A law gone mad is stopped: by what real connections suffer, within 150 connections of a path."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from running import RunningAgent, configuration, require_root, until

from agent.lab.jobs import Job
from agent.lab.lab import Lab
from agent.lab.spec import PathSpec
from agent.lab.workload import Transfer

SABOTAGED = Path(__file__).with_name("sabotaged.py")
MOST_CONNECTIONS = 150
OPTIONS = ("initial_window", "congestion_control", "ack_policy")

SHALLOW = PathSpec.symmetric("shallow", rate_mbps=12, delay_ms=5, queue_packets=10)
LOSSY = PathSpec.symmetric("lossy", rate_mbps=50, delay_ms=40, queue_packets=200, loss=0.02)
LONG = PathSpec.symmetric("long", rate_mbps=50, delay_ms=50, queue_packets=400)


def caught_after(lab: Lab, agent: RunningAgent, path: str, job: Job) -> int:
    """Lets connections of `path` go on until the guard trips; returns how many had been opened by then."""
    address = str(lab.address(path))
    until(lambda: agent.explain(address)["guard"]["state"] == "quarantined", 120.0, "the guard never tripped")
    job.stop()
    opened = len(job.wait(60))
    print(f"{path}: caught within {opened} connections: {agent.explain(address)['guard']['because']}")
    return opened


@dataclass(frozen=True)
class Sabotage:
    """The last arm of a dimension, on a path where it harms; and what the guard says of it."""

    path: PathSpec
    dimension: str
    law: str
    host: str
    load: Transfer
    why: str


SABOTAGES = {
    "windows of 80 segments into a queue of 10 packets": Sabotage(
        SHALLOW, "initial_window", "trial", "cubic",
        Transfer(path="shallow", size=100_000, count=None, concurrency=1, seconds=120), "first windows lose",
    ),
    "cubic under random loss where the host has bbr": Sabotage(
        LOSSY, "congestion", "thompson", "bbr",
        Transfer(path="lossy", size=1_000_000, count=None, concurrency=8, seconds=120), "transfers take",
    ),
}  # fmt: skip


FIRST, *REST = SABOTAGES


@pytest.mark.parametrize("name", [FIRST, *(pytest.param(name, marks=pytest.mark.long) for name in REST)])
def test_sabotage_is_caught(tmp_path: Path, name: str) -> None:
    """And undone, on this path alone."""
    require_root()
    one = SABOTAGES[name]
    path, why = one.path, one.why
    with Lab([path, LONG], server_congestion=one.host) as lab:
        # Paced, such windows do no harm: the other law would save what this one spoils.
        config = configuration(lab, tmp_path, congestion={"pacing": False})
        with RunningAgent(lab, config, program=[str(SABOTAGED), one.dimension, one.law]) as agent:
            job = lab.start(one.load)
            assert agent.value("controller_failures_total") == 0
            opened = caught_after(lab, agent, path.name, job)
            assert opened <= MOST_CONNECTIONS
            facts = agent.explain(str(lab.address(path.name)))
            assert why in facts["guard"]["because"]
            assert facts["applied"].startswith("nothing: quarantined until")
            assert {one["chosen"] for one in facts["dimensions"]} == {"default"}
            assert agent.value("guard_trips_total", group="default") == 1
            assert agent.value("paths_quarantined", group="default") == 1
            assert agent.value("guard_off") == 0
            # Nothing is set on this path any more, and all goes on as before on the other.
            settings = [agent.value("option_sets_total", option=name) for name in OPTIONS]
            assert sum(settings) > 0
            lab.fetch(path.name, size=20_000, count=10)
            time.sleep(1.0)
            assert [agent.value("option_sets_total", option=name) for name in OPTIONS] == settings
            lab.fetch("long", size=20_000, count=10)
            until(
                lambda: sum(agent.value("option_sets_total", option=name) for name in OPTIONS) > sum(settings), 5.0,
                "the other path is not tuned any more",
            )  # fmt: skip
            assert agent.explain(str(lab.address("long")))["guard"]["state"] == "probation"
    lines = (tmp_path / "state" / "journal.jsonl").read_text(encoding="utf-8").splitlines()
    (entry,) = (each for each in map(json.loads, lines) if each["dimension"] == "guard")
    assert (entry["path"], entry["after"]) == (str(lab.network(path.name)), "default")
    assert entry["reason"].startswith("for 10m: ")
