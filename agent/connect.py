"""How commands on this host reach the running agent.

Over its port; but where `web.config_file` keeps strangers from that, over a socket in the state folder, since commands
know no passwords and have no certificates. Only root and the agent's own user may open it.
"""

from __future__ import annotations

import http.client
import socket
from ipaddress import ip_address
from pathlib import Path

from agent.config import Config
from agent.errors import UsageError

__all__ = ["agent_url", "connect", "socket_path"]


def socket_path(config: Config) -> Path | None:
    """Where the agent of this configuration listens for commands; None: on its port."""
    return config.state_dir / "agent.sock" if config.web.config_file is not None else None


def agent_url(config: Config) -> str:
    """Where the agent of this configuration answers on this host, for people to read."""
    path = socket_path(config)
    return str(path) if path else "http://" + "{}:{}".format(*_port(config))


def connect(config: Config, timeout: float) -> http.client.HTTPConnection:
    """For one request, with a time limit in seconds; nothing is opened before that."""
    path = socket_path(config)
    return _LocalConnection(path, timeout) if path else http.client.HTTPConnection(*_port(config), timeout=timeout)


def _port(config: Config) -> tuple[str, int]:
    """Host, an IPv6 address in brackets, and port."""
    host, port = config.web.host, config.web.port
    if port == 0:
        raise UsageError("web.listen has port 0, so where the agent listens is not known: give it a port of its own")
    try:
        address = ip_address(host)
    except ValueError:
        return host, port
    if address.is_unspecified:  # all addresses
        address = ip_address("127.0.0.1" if address.version == 4 else "::1")
    return str(address) if address.version == 4 else f"[{address}]", port


class _LocalConnection(http.client.HTTPConnection):
    """HTTP over the socket at `path`."""

    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        """Called by the first request."""
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))
