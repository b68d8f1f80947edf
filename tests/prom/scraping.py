"""A real Prometheus beside a laboratory's server, with the agent as its target."""

from __future__ import annotations

import json
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from running import PORT, until

from agent.lab.enter import in_namespace
from agent.lab.lab import Lab

PROMETHEUS_PORT = 9090


class Prometheus:
    """Answers instant queries."""

    def __init__(self, lab: Lab) -> None:
        self._namespace = lab.server_namespace

    def series(self, expression: str) -> list[dict[str, Any]]:
        """Labels and value of what an expression finds; nothing while Prometheus starts. Fails for a bad expression."""

        def ask() -> list[dict[str, Any]]:
            url = f"http://127.0.0.1:{PROMETHEUS_PORT}/api/v1/query?query={urllib.parse.quote(expression)}"
            try:
                with urllib.request.urlopen(url, timeout=5) as answer:
                    found = json.load(answer)["data"]["result"]
            except urllib.error.HTTPError as error:
                raise AssertionError(f"{expression}: {error.read().decode()}") from error
            except OSError:
                time.sleep(0.2)
                return []
            return [{"labels": entry["metric"], "value": float(entry["value"][1])} for entry in found]

        return in_namespace(self._namespace, ask)

    def values(self, expression: str) -> list[float]:
        """The values alone."""
        return [entry["value"] for entry in self.series(expression)]


@contextmanager
def prometheus(
    lab: Lab, folder: Path, *, rules: Sequence[Path] = (), up: float = 1.0,
    targets: Sequence[str] = (f"127.0.0.1:{PORT}",), **job: Any,
) -> Iterator[Prometheus]:  # fmt: skip
    """Prometheus that scrapes the agent every second, and evaluates copies of rule files as often.

    `job` holds more keys of the scrape job, such as its scheme; `up` is what becomes of the first scrape of `targets`.
    """
    copies = []
    for path in rules:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        for group in content["groups"]:
            group["interval"] = "1s"
        copies.append(folder / path.name)
        copies[-1].write_text(yaml.safe_dump(content), encoding="utf-8")
    config = folder / "prometheus.yml"
    scrape = {"job_name": "tcptuned", "static_configs": [{"targets": list(targets)}], **job}
    content = {
        "global": {"scrape_interval": "1s"},
        "rule_files": [str(each) for each in copies],
        "scrape_configs": [scrape],
    }
    config.write_text(yaml.safe_dump(content), encoding="utf-8")
    command = [
        "prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=0.0.0.0:{PROMETHEUS_PORT}", "--log.level=warn",
    ]  # fmt: skip
    with (folder / "prometheus.log").open("wb") as log, lab.run_in("server", command, stderr=log) as process:
        try:
            asked = Prometheus(lab)
            until(
                lambda: process.poll() is not None or asked.values('up{job="tcptuned"}') == [up] * len(targets), 30,
                "Prometheus does not scrape the agent",
            )  # fmt: skip
            assert process.poll() is None, (folder / "prometheus.log").read_text(encoding="utf-8")
            yield asked
        finally:
            process.terminate()
            process.wait(10)
