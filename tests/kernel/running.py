"""A real agent process on the server's side of a laboratory, and what it says."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

import yaml
from prometheus_client.parser import text_string_to_metric_families

from agent.lab.enter import in_namespace
from agent.lab.lab import Lab

PORT = 9877
QUICK = {"sampling": {"interval": "200ms"}, "control": {"interval": "1s"}}

Samples = Mapping[tuple[str, frozenset[tuple[str, str]]], float]


def configuration(lab: Lab, folder: Path, *, side: str = "server", **sections: Any) -> Path:
    """Writes a configuration for one side of the laboratory; sections are merged over quick intervals."""
    values: dict[str, Any] = {
        "attach": {"cgroups": [str(lab.server_cgroup if side == "server" else lab.client_cgroup)]},
        "state_dir": str(folder / "state"),
        **QUICK,
    }
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section}
    path = folder / "tcptuned.yaml"
    path.write_text(yaml.safe_dump(values), encoding="utf-8")
    return path


class RunningAgent:
    """`tcptuned run` from `with` to the end of its block; ready when the block begins."""

    def __init__(
        self,
        lab: Lab,
        config: Path,
        *,
        side: str = "server",
        before: Sequence[str] = (),
        arguments: Sequence[str] = (),
        program: Sequence[str] = ("-m", "agent"),
        interpreter: str = sys.executable,
        **options: Any,
    ) -> None:
        self._namespace = lab.server_namespace if side == "server" else lab.client_namespace
        self._log: IO[bytes] = (config.parent / "agent.log").open("w+b")
        command = [*before, interpreter, *program, "run", "--config", str(config), *arguments]
        self.began = time.monotonic()
        self.process: subprocess.Popen[Any] = lab.run_in(side, command, stderr=self._log, **options)

    def __enter__(self) -> Self:
        try:
            self.wait()
        except BaseException:  # or it would answer in the place of the next one
            self.__exit__(None, None, None)
            raise
        return self

    def wait(self) -> None:
        """Returns when the agent is ready; it starts with the object, so that several can start side by side."""
        until(lambda: self.process.poll() is not None or self._is_ready(), 30.0, "the agent is not ready")
        self.ready_after = time.monotonic() - self.began
        assert self.process.poll() is None, self.log()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self._log:
            if self.process.poll() is None:
                self.process.send_signal(signal.SIGCONT)
                self.process.terminate()
                try:
                    self.process.wait(20)
                finally:
                    self.process.kill()

    def log(self) -> str:
        """What the agent wrote to stderr."""
        self._log.seek(0)
        return self._log.read().decode()

    def get(self, path: str) -> bytes:
        """The body of an answer."""

        def fetch() -> bytes:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}{path}", timeout=5) as answer:
                body: bytes = answer.read()
            return body

        return in_namespace(self._namespace, fetch)

    def explain(self, address: str) -> dict[str, Any]:
        """What the agent knows of an address."""
        found: dict[str, Any] = json.loads(self.get(f"/api/v1/paths?address={address}"))
        return found

    def chosen(self, address: str, dimension: str) -> str:
        """The arm held to be best for an address."""
        return next(str(each["chosen"]) for each in self.explain(address)["dimensions"] if each["name"] == dimension)

    def samples(self) -> Samples:
        """Every sample of /metrics by name and labels."""
        return {
            (sample.name, frozenset(sample.labels.items())): sample.value
            for family in text_string_to_metric_families(self.get("/metrics").decode())
            for sample in family.samples
        }

    def value(self, name: str, **labels: str) -> float:
        """The sum of all samples of `tcptuned_NAME` that have these labels."""
        wanted = set(labels.items())
        return sum(
            value for (found, has), value in self.samples().items() if found == f"tcptuned_{name}" and wanted <= has
        )

    def settled(self, name: str, expected: float, **labels: str) -> float:
        """The value once it is `expected`, or after 5 s; counts appear within two samples."""
        deadline = time.monotonic() + 5.0
        while (found := self.value(name, **labels)) != expected and time.monotonic() < deadline:
            time.sleep(0.1)
        return found

    def uplift(self, dimension: str) -> tuple[float, float, float]:
        """Lower bound, uplift and upper bound, for the default group."""
        shown = json.loads(self.get("/api/v1/status"))["groups"][0]["uplift"][dimension]
        return shown["lower"], shown["ratio"], shown["upper"]

    def rss_kb(self) -> int:
        """Resident memory of the agent, in KiB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text(encoding="ascii")
        return int(next(line for line in status.splitlines() if line.startswith("VmRSS:")).split()[1])

    def _is_ready(self) -> bool:
        try:
            return self.get("/-/healthy") is not None
        except urllib.error.HTTPError as answer:
            answer.close()
            return False
        except OSError:
            return False


REPOSITORY = Path(__file__).resolve().parents[2]


@contextmanager
def readable_by_all() -> Iterator[tuple[Path, str]]:
    """The repository where every user can read it, and its interpreter there.

    A checkout may lie in a folder that only root enters; a bind mount shows it elsewhere.
    """
    place = Path(tempfile.mkdtemp(prefix="tcptuned-readable-", dir="/tmp"))
    place.chmod(0o755)
    subprocess.run(["mount", "--bind", str(REPOSITORY), str(place)], check=True)
    try:
        interpreter = Path(sys.executable)
        inside = interpreter.is_relative_to(REPOSITORY)
        yield place, str(place / interpreter.relative_to(REPOSITORY)) if inside else str(interpreter)
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)
        place.rmdir()


def until(condition: Callable[[], bool], seconds: float, failure: str) -> None:
    """Waits until `condition` holds; fails the test after `seconds`."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, failure
        time.sleep(0.01)


def attached(cgroup: Path) -> list[str]:
    """The kinds of our programs on a cgroup, as bpftool shows them."""
    out = subprocess.run(
        ["bpftool", "--json", "cgroup", "show", str(cgroup)], capture_output=True, text=True, check=True
    )
    return sorted(
        entry["attach_type"] for entry in json.loads(out.stdout.strip() or "[]") if entry["name"].startswith("tcptuned")
    )


def require_root() -> None:
    """Tests on the real kernel are not skipped without root, so that nobody misses them."""
    assert os.geteuid() == 0, "these tests need root: sudo ./test"
