"""Three hosts and one Prometheus: what two of them learnt, the third begins with."""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import fmean
from typing import Any

import pytest
from running import PORT, REPOSITORY, RunningAgent, configuration, require_root, until
from scraping import PROMETHEUS_PORT, prometheus

from agent.lab.lab import Lab
from agent.lab.spec import PathSpec
from agent.lab.workload import Transfer

RULES = REPOSITORY / "config" / "prometheus" / "rules.yml"
HUB = "10.99.{host}.1"  # in the first host's namespace, where Prometheus runs
SPOKE = "10.99.{host}.2"

GROUP = "long"
# On such a path these are within a few percent of each other; the default takes 40 % longer.
GOOD = {"iw28", "iw40", "iw56", "iw80"}
SHARE = 0.6  # of a new connection's chances
ENOUGH = 100  # connections, after which a host knows


def paths(count: int) -> list[PathSpec]:
    names = [f"long-{number}" for number in range(count)]
    return [PathSpec.symmetric(name, rate_mbps=50, delay_ms=50, queue_packets=400) for name in names]


class Host:
    """A laboratory whose server side is a host of the fleet."""

    def __init__(self, lab: Lab, number: int, folder: Path, count: int) -> None:
        self.lab, self.number, self.folder, self.count = lab, number, folder, count
        folder.mkdir()

    @property
    def target(self) -> str:
        """Where Prometheus finds its agent."""
        return f"{'127.0.0.1' if self.number == 1 else SPOKE.format(host=self.number)}:{PORT}"

    def agent(self, name: str, url: str | None = None) -> RunningAgent:
        """One that knows nothing yet."""
        networks = [str(self.lab.network(f"long-{number}")) for number in range(self.count)]
        rules = [{"match": ["10.99.0.0/16"], "exclude": True}, {"match": networks, "group": GROUP}]
        folder = self.folder / name
        folder.mkdir()
        config = configuration(
            self.lab, folder, web={"listen": f"0.0.0.0:{PORT}"}, paths={"rules": rules}, fleet={"prometheus_url": url}
        )
        return RunningAgent(self.lab, config)

    @contextmanager
    def loaded(self) -> Iterator[None]:
        """Two objects at a time on every path."""
        jobs = [
            self.lab.start(Transfer(path=f"long-{number}", size=100_000, count=None, concurrency=2, seconds=120))
            for number in range(self.count)
        ]
        yield
        for job in jobs:
            job.stop()
        for job in jobs:
            job.wait(30)

    def window(self, agent: RunningAgent) -> dict[str, Any]:
        """What its agent knows and decided about the initial window on its first path."""
        found: dict[str, Any] = agent.explain(str(self.lab.address("long-0")))["dimensions"][0]
        return found

    def share(self, agent: RunningAgent) -> float:
        """The chance of a new connection to get one of the good arms."""
        return float(sum(arm["probability"] for arm in self.window(agent)["arms"] if arm["name"] in GOOD))


@pytest.fixture
def hosts(tmp_path: Path) -> Iterator[list[Host]]:
    require_root()
    with ExitStack() as stack:
        made = []
        for number, count in ((1, 2), (2, 2), (3, 1)):
            lab = stack.enter_context(Lab(paths(count)))
            made.append(Host(lab, number, tmp_path / f"host-{number}", count))
        for host in made[1:]:
            _join(made[0].lab.server_namespace, host)
        yield made


def _join(hub: str, host: Host) -> None:
    """A plain link; it goes with the namespaces."""
    spoke, name = host.lab.server_namespace, f"fleet{host.number}"
    for command in (
        f"link add {name} netns {hub} type veth peer name {name} netns {spoke}",
        f"-n {hub} addr add {HUB.format(host=host.number)}/24 dev {name}",
        f"-n {spoke} addr add {SPOKE.format(host=host.number)}/24 dev {name}",
        f"-n {hub} link set {name} up",
        f"-n {spoke} link set {name} up",
    ):
        subprocess.run(["ip", *command.split()], check=True)


def converged(host: Host, agent: RunningAgent) -> int:
    """After how many connections the good arms had their share, and from then on had it in the mean."""
    course = [(0, host.share(agent))]
    with host.loaded():
        deadline = time.monotonic() + 60
        while course[-1][0] < ENOUGH:
            assert time.monotonic() < deadline, course
            # In this order: what the share rests on is at most what is counted.
            share = host.share(agent)
            course.append((int(agent.value("connections_closed_total", group=GROUP)), share))
            time.sleep(0.1)
    print([(count, round(share, 2)) for count, share in course])
    return next(
        count for number, (count, share) in enumerate(course)
        if share >= SHARE and fmean(later for _, later in course[number:]) >= SHARE
    )  # fmt: skip


@pytest.mark.long
def test_the_third_host_needs_a_quarter_of_the_connections(hosts: list[Host], tmp_path: Path) -> None:
    first, second, third = hosts
    url = f"http://{HUB.format(host=3)}:{PROMETHEUS_PORT}"
    with ExitStack() as stack:
        for teacher in (first, second):
            stack.enter_context(teacher.agent("teacher"))
        with third.agent("alone") as agent:
            asked = stack.enter_context(
                prometheus(first.lab, tmp_path, rules=[RULES], targets=[host.target for host in hosts])
            )
            with first.loaded(), second.loaded():
                alone = converged(third, agent)
            until(lambda: asked.values(f'up{{instance="{third.target}"}}') == [1.0], 10, "the third is not scraped")

        def told(total: str) -> float:
            return sum(asked.values(f'group_dimension_arm:tcptuned_arm_{total}{{group="{GROUP}", arm="iw28"}}'))

        # Of the third nothing is left.
        until(lambda: asked.values(f'up{{instance="{third.target}"}}') == [0.0], 10, "the third is still scraped")
        until(
            lambda: told("gain_precision:count") == 2.0 and told("safe_paths:sum") >= 3.0, 15,
            "the teachers have nothing to tell",
        )  # fmt: skip
        with third.agent("taught", url) as agent:
            until(lambda: agent.value("fleet_arms") > 0, 15, "the fleet was not read")
            window = third.window(agent)
            assert window["prior"] == {"network": 0.0, "group": 0.0, "fleet": 1.0}
            assert window["reason"] == "no evidence of its own yet: as others found"
            assert agent.value("fleet_read_failures_total") == 0
            taught = converged(third, agent)
            health = json.loads(agent.get("/api/v1/status"))["health"]
        assert (health["fleet"]["url"], health["fleet"]["problem"]) == (url, "")
    print(f"connections until converged: alone {alone}, with the fleet {taught}")
    assert alone >= 8
    assert taught <= alone / 4
