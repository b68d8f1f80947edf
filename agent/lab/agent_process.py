"""The real agent as a program inside a laboratory: it tunes the connections of one side there, and nothing else."""

from __future__ import annotations

import http.client
import json
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import yaml

from agent.child import module_command
from agent.errors import LabError
from agent.lab.enter import in_namespace
from agent.lab.lab import Lab

__all__ = ["AgentProcess"]

Side = Literal["server", "client"]

_PORT = 9877  # free for certain: the namespace is new
_TIMEOUT = 3.0  # seconds for an answer of the agent
_START = 60.0  # seconds until it must be ready; compiling takes one or two on an idle machine
_RELOAD = 10.0  # seconds until new settings must be in force; they take one turn of its loop
_END = 5.0  # seconds to stop by itself
_LOG_LINES = 12  # of its log in an error


class AgentProcess:
    """`tcptuned run` from `with` to the end of its block, attached to one side of the laboratory alone.

    `settings` are sections of the configuration file, such as {"control": {"interval": "1s"}}; `attach`, `web` and
    `state_dir` are set here. `side` is "server" or "client"; the agent runs in that side's network namespace, because
    it reads the host's congestion control there, and because its web server must disturb nobody. Everything raises
    LabError with the end of the agent's log.
    """

    def __init__(self, lab: Lab, settings: Mapping[str, Any], *, side: Side = "server", port: int = _PORT) -> None:
        self._lab = lab
        self._settings = settings
        self._port = port
        self._side: Side = side
        self._cgroup = lab.server_cgroup if side == "server" else lab.client_cgroup
        self._namespace = lab.server_namespace if side == "server" else lab.client_namespace
        self._folder = tempfile.TemporaryDirectory(prefix="tcptuned-agent-")
        self._log = Path(self._folder.name, "log")
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Starts it and waits until it is attached and samples."""
        file = self._write(self._settings)
        with self._log.open("wb") as log:
            self._process = self._lab.run_in(
                self._side, module_command("agent", "run", "--config", str(file)),
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
                process_group=0,  # an interrupt from the terminal is for this process alone, which ends it in order
            )  # fmt: skip
        deadline = time.monotonic() + _START
        while self._get("/-/ready")[0] != 200:
            self.check()
            if time.monotonic() > deadline:
                raise LabError(f"the agent was not ready within {_START:g} s; its log ends:\n{self.log_end()}")
            time.sleep(0.1)

    def reload(self, settings: Mapping[str, Any]) -> None:
        """Puts other settings in force; returns when they are."""
        self.check()
        before = self._health()["reload_time"]
        self._write(settings)
        assert self._process is not None
        self._process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + _RELOAD
        while (health := self._health())["reload_time"] == before:
            self.check()
            if not health["reload_successful"] or time.monotonic() > deadline:
                raise LabError(f"the agent did not take its new settings; its log ends:\n{self.log_end()}")
            time.sleep(0.02)

    def check(self) -> None:
        """Raises LabError if it has ended."""
        if self._process is None or (code := self._process.poll()) is None:
            return
        raise LabError(f"the agent ended with exit code {code}; its log ends:\n{self.log_end()}")

    def explain(self, address: object) -> dict[str, Any] | None:
        """What it knows and decided for an address (`agent.path_facts.explain`); None if it did not answer in time."""
        self.check()
        code, body = self._get(f"/api/v1/paths?address={address}")
        if code != 200:
            return None
        facts: dict[str, Any] = json.loads(body)
        return facts

    def value(self, name: str, extension: str) -> float:
        """The metric `tcptuned_NAME` of an extension."""
        code, body = self._get("/metrics")
        if code != 200:
            raise LabError(f"the agent does not answer; its log ends:\n{self.log_end()}")
        start = f'tcptuned_{name}{{extension="{extension}"}} '
        return sum(float(line.removeprefix(start)) for line in body.decode().splitlines() if line.startswith(start))

    def log_end(self) -> str:
        """The last lines it said."""
        lines = self._log.read_text(encoding="utf-8", errors="replace").splitlines() if self._log.exists() else []
        return "\n".join(lines[-_LOG_LINES:]) or "(empty)"

    def stop(self) -> None:
        """Has it detach and end; kills it if it takes too long. Doing it twice does nothing."""
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(_END)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._folder.cleanup()

    def _write(self, settings: Mapping[str, Any]) -> Path:
        """The configuration file with these settings."""
        file = Path(self._folder.name, "tcptuned.yaml")
        own = {
            "attach": {"cgroups": [str(self._cgroup)]},
            "web": {"listen": f"127.0.0.1:{self._port}"},
            "state_dir": str(Path(self._folder.name, "state")),
        }
        file.write_text(yaml.safe_dump({**settings, **own}), encoding="utf-8")
        return file

    def status(self) -> dict[str, Any]:
        """What it does, as `tcptuned status --json`."""
        code, body = self._get("/api/v1/status")
        if code != 200:
            raise LabError(f"the agent does not answer; its log ends:\n{self.log_end()}")
        status: dict[str, Any] = json.loads(body)
        return status

    def _health(self) -> dict[str, Any]:
        health: dict[str, Any] = self.status()["health"]
        return health

    def _get(self, target: str) -> tuple[int, bytes]:
        """Status code and body; code 0 if nobody answered."""

        def ask() -> tuple[int, bytes]:
            connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=_TIMEOUT)
            try:
                connection.request("GET", target)
                response = connection.getresponse()
                return response.status, response.read()
            except (OSError, http.client.HTTPException):
                return 0, b""
            finally:
                connection.close()

        return in_namespace(self._namespace, ask)
