"""Tells systemd how the service is: the protocol of sd_notify(3).

    notifier = Notifier.from_environment(os.environ)
    notifier.ready("tuning 3 cgroups")

Outside systemd every call does nothing. A failing socket is never an error of the agent: systemd then acts by itself.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass

__all__ = ["Notifier"]


@dataclass(frozen=True)
class Notifier:
    """The service manager's socket; None without one."""

    address: str | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Notifier:
        """The notifier that systemd asks for in `environment`."""
        address = environment.get("NOTIFY_SOCKET", "")
        # vsock: and the like are for virtual machines' own service managers.
        return cls(address) if address.startswith(("/", "@")) else cls()

    def ready(self, status: str = "") -> bool:
        """Started, or done with reloading; all methods return whether systemd took the message."""
        return self._send("READY=1", status)

    def reloading(self) -> bool:
        """The configuration is read anew; `ready` must follow."""
        # With Type=notify-reload (systemd 253) the time is needed; older ones ignore it.
        return self._send("RELOADING=1", monotonic_usec=time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000)

    def stopping(self, status: str = "") -> bool:
        """The agent is about to end."""
        return self._send("STOPPING=1", status)

    def ping(self) -> bool:
        """The agent is alive: to be called more often than the watchdog asks for, while all its jobs are on time."""
        return self._send("WATCHDOG=1")

    def _send(self, state: str, status: str = "", monotonic_usec: int | None = None) -> bool:
        if self.address is None:
            return False
        lines = [state]
        if status:
            lines.append("STATUS=" + " ".join(status.splitlines()))
        if monotonic_usec is not None:
            lines.append(f"MONOTONIC_USEC={monotonic_usec}")
        # A leading @ stands for the zero byte of an abstract address.
        address = "\0" + self.address[1:] if self.address.startswith("@") else self.address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender:
                # A full queue must not stop the agent; systemd notices missing pings.
                sender.setblocking(False)
                sender.sendto("\n".join(lines).encode(), address)
        except OSError:
            return False
        return True
