"""What this host can do, for the status page: the doctor's findings that are read without changing anything, cached."""

from __future__ import annotations

import threading
import time

from agent.config import Config
from agent.finding import Finding, examine
from agent.host_findings import HOST_CHECKS

__all__ = ["Abilities"]

_WORTH = 300.0  # seconds; modules and settings change seldom, and the page is asked for every few seconds


class Abilities:
    """Safe for threads. What needs a compiler or a cgroup to try is left to `tcptuned doctor`."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._config: Config | None = None
        self._findings: tuple[Finding, ...] = ()
        self._until = 0.0  # monotonic seconds

    def findings(self, config: Config) -> tuple[Finding, ...]:
        """In the doctor's order; looked at again after some minutes, or for another configuration."""
        with self._lock:
            if config is not self._config or time.monotonic() >= self._until:
                self._findings = tuple(examine(config, HOST_CHECKS))
                self._config, self._until = config, time.monotonic() + _WORTH
            return self._findings
