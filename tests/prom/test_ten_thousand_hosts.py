"""What 10,000 hosts cost one Prometheus: series, and the time of the rules that add up what hosts teach each other.

The series are those of a real exporter, for as many hosts, in a real TSDB; README.md has the figures.
"""

from __future__ import annotations

import json
import socket
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import pytest
import yaml
from handmade import absorb, still_tuner
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from running import REPOSITORY, until

from agent.config import Config
from agent.dimensions import dimensions
from agent.exporter import registry
from agent.fleet_answer import RULES, expression, keys
from agent.snapshot import Health, take

HOSTS = 10_000
PRIOR = "tcptuned_fleet_prior"
TAUGHT = {
    "tcptuned_arm_gain": 0.25, "tcptuned_arm_gain_precision": 8.0, "tcptuned_arm_safe_paths": 5.0,
    "tcptuned_arm_unsafe_paths": 1.0,
}  # fmt: skip
INTERVAL = 60  # seconds between evaluations of these rules
QUESTIONS = 200

Series = list[tuple[str, dict[str, str], float]]


def taught() -> Series:
    """What a host tells others that tried all arms of the default configuration."""
    every = keys(("default",), dimensions(Config(), algorithms=("cubic", "bbr"), host_congestion="cubic"), "cubic")
    labels = [dict(zip(("group", "dimension", "arm", "against"), key, strict=True)) for key in sorted(every)]
    return [(name, each, value) for name, value in TAUGHT.items() for each in labels]


def exported() -> Series:
    """All other series of an agent with 100 networks."""
    tuner = still_tuner(Config())
    for number in range(100):
        for arm in range(len(tuner.dimensions[0].arms)):
            absorb(tuner, f"10.0.{number}.0/24", arm=arm, opened=3, closed=2, rounds=5)
        absorb(tuner, f"10.0.{number}.0/24", treatment="HOLDOUT", opened=3, closed=2, rounds=5)
    for now in range(1, 5):  # each compares one dimension
        tuner.decide(now)
    found = registry(lambda: take(tuner, Health()))
    return [
        (sample.name, dict(sample.labels), sample.value)
        for family in text_string_to_metric_families(generate_latest(found).decode())
        for sample in family.samples
        if sample.name not in TAUGHT
    ]


def _write(file: TextIO, series: Series, hosts: int, moment: int) -> None:
    """OpenMetrics, two scrapes of every host; what hosts found out differs a little."""
    for name, labels, value in series:
        text = ",".join(f'{key}="{each}"' for key, each in labels.items())
        for host in range(hosts):
            place = f'{name}{{job="tcptuned",instance="host-{host}:9877",{text}}} {value + (host % 7) / 32!r}'
            file.write(f"{place} {moment - 15}\n{place} {moment}\n")


def _recorded(series: Series) -> Series:
    """What the rules leave for agents to read."""
    arms = [labels for name, labels, _ in series if name == "tcptuned_arm_gain"]
    return [(name, {"job": "tcptuned", **labels}, 1.0) for labels in arms for name in RULES]


@contextmanager
def _prometheus(folder: Path) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (folder / "prometheus.yml").write_text("{}", encoding="utf-8")
    command = [
        "prometheus", f"--config.file={folder / 'prometheus.yml'}", f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}", "--storage.tsdb.retention.time=1y", "--log.level=warn",
    ]  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    with subprocess.Popen(command) as process:
        try:
            until(lambda: _is_ready(url), 60, "Prometheus does not start")
            yield url, process
        finally:
            process.terminate()


def _is_ready(url: str) -> bool:
    try:
        with urllib.request.urlopen(f"{url}/-/ready", timeout=5):
            return True
    except OSError:
        return False


def _ask(url: str, text: str, moment: int) -> tuple[list[dict[str, Any]], float, int]:
    """The samples, the seconds it took, and the bytes of the answer."""
    begin = time.perf_counter()
    target = f"{url}/api/v1/query?query={urllib.parse.quote(text)}&time={moment}"
    with urllib.request.urlopen(target, timeout=300) as answer:
        body = answer.read()
    return json.loads(body)["data"]["result"], time.perf_counter() - begin, len(body)


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_rules_that_hosts_teach_each_other_by(tmp_path: Path) -> None:
    own, series = taught(), len(exported())
    moment = int(time.time()) // 7200 * 7200 - 3600  # within one block
    text = tmp_path / "hosts.om"
    with text.open("w", encoding="ascii") as file:
        _write(file, own, HOSTS, moment)
        for name, labels, value in _recorded(own):
            shown = ",".join(f'{key}="{each}"' for key, each in labels.items())
            file.write(f"{name}{{{shown}}} {value} {moment}\n")
        file.write("# EOF\n")
    command = ["promtool", "tsdb", "create-blocks-from", "openmetrics", str(text), str(tmp_path / "data")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    text.unlink()
    rules = yaml.safe_load((REPOSITORY / "config/prometheus/rules.yml").read_text(encoding="utf-8"))["groups"]
    [prior] = (group["rules"] for group in rules if group["name"] == PRIOR)
    with _prometheus(tmp_path) as (url, process):
        seconds = {}
        for rule in prior:
            _ask(url, rule["expr"], moment)  # once for the page cache
            result, seconds[rule["record"]], _ = _ask(url, rule["expr"], moment)
            assert len(result) == len(own) / 4, rule["record"]
        [hosts] = {one["value"][1] for one in _ask(url, prior[0]["expr"], moment)[0]}
        assert int(hosts) == HOSTS
        took = sorted(_ask(url, expression(("default",)), moment)[1] for _ in range(QUESTIONS))
        result, _, size = _ask(url, expression(("default",)), moment)
        assert len(result) == len(RULES) * len(own) / 4
        status = Path(f"/proc/{process.pid}/status").read_text(encoding="ascii")
        memory = int(next(line for line in status.splitlines() if line.startswith("VmHWM:")).split()[1]) / 1024
    together = sum(seconds.values())
    print(
        f"a host: {series} series and {len(own)} to teach; {HOSTS:,} hosts: {HOSTS * series:,} and "
        f"{HOSTS * len(own):,}; the six rules {together:.1f} s together, once in {INTERVAL} s; "
        f"an agent's question {took[QUESTIONS // 2] * 1e3:.1f} ms, {size:,} bytes; {memory:.0f} MB at most"
    )
    print({name: round(each, 2) for name, each in seconds.items()})
    assert series + len(own) <= 1000
    assert together < INTERVAL / 4
    # Once a minute from each of 10,000.
    assert took[QUESTIONS // 2] * HOSTS / INTERVAL < 1.0
