"""The HTTP server: a thread for each connection, and bounds on everything a client could use up.

At most CONNECTIONS at once, DEADLINE seconds for each from accept to the last byte; for the request's own bounds see
agent/web_request.py. A silent client costs one of the connections for the deadline and delays nobody: TLS too shakes
hands in the connection's own thread. There is nothing to write to: GET and HEAD only.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import math
import socket
import socketserver
import ssl
import threading
import time
from http.server import BaseHTTPRequestHandler
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from agent.config import Web
from agent.errors import ListenError
from agent.routes import Agent, Routes
from agent.web_request import Handler, linger, say_goodbye
from agent.web_security import LiveSecurity

__all__ = ["CONNECTIONS", "DEADLINE", "WebServer"]

logger = logging.getLogger(__name__)

CONNECTIONS = 32
DEADLINE = 5.0  # seconds
_LOCAL_CONNECTIONS = 8
_CURES = {
    errno.EADDRINUSE: "choose another web.listen, or stop what listens there (ss -ltnp shows it)",
    errno.EADDRNOTAVAIL: "this host has no such address (ip address lists them): choose another web.listen",
    errno.EACCES: "choose a port above 1023 in web.listen",
}
_POLL = 0.25  # seconds: how often deadlines are looked at, and how fast `stop` is noticed


def _whole(status: str, text: str, *headers: str) -> bytes:
    """An answer for where no handler runs."""
    kind, length = "Content-Type: text/plain; charset=utf-8", f"Content-Length: {len(text) + 1}"
    return "\r\n".join((f"HTTP/1.1 {status}", kind, length, *headers, "Connection: close", "", f"{text}\n")).encode()


_FULL = _whole("503 Service Unavailable", "too many connections at once.", "Retry-After: 5")
_NOT_TLS = _whole("400 Bad Request", "this port speaks TLS: write https://.")


class WebServer:
    """The agent's pages on `config.listen`. Bound when it is made, so that a taken port is known before all else.

    `local` is a socket for commands on this host, beside the port. Raises ListenError, and ConfigurationError for what
    `config.config_file` says.
    """

    def __init__(
        self, config: Web, agent: Agent, *, local: Path | None = None, connections: int = CONNECTIONS,
        deadline: float = DEADLINE,
    ) -> None:  # fmt: skip
        self.security = LiveSecurity(config.config_file)
        routes = Routes(agent)
        try:
            family, _, _, _, address = socket.getaddrinfo(
                config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            port = _Server(family, address, routes, self.security, connections=connections, deadline=deadline)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            cure = _CURES.get(error.errno or 0, "choose another web.listen")
            raise ListenError(f"cannot listen on {config.listen}: {reason}; {cure}") from error
        self._servers = [port]
        host, number = port.socket.getsockname()[:2]
        scheme = "https" if self.security.tls else "http"
        self.url = f"{scheme}://[{host}]:{number}" if family == socket.AF_INET6 else f"{scheme}://{host}:{number}"
        if self.security.users and not self.security.tls and not ip_address(host.partition("%")[0]).is_loopback:
            logger.warning("passwords cross the network in clear on %s: add tls_server_config to the file", self.url)
        if local is not None:
            try:
                self._servers.append(_LocalServer(local, routes, deadline))
            except OSError as error:
                logger.warning("commands such as `tcptuned status` cannot ask this agent: %s: %s", local, error)
        self._threads = [
            threading.Thread(target=server.serve_forever, args=(_POLL,), name="web", daemon=True)
            for server in self._servers
        ]

    def start(self) -> None:
        """Answers from now on; clients that came before waited."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Closes the port and every connection."""
        for server, thread in zip(self._servers, self._threads, strict=True):
            if thread.is_alive():
                server.shutdown()
            server.server_close()
            server.cut(math.inf)


class _Server(socketserver.TCPServer):
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(
        self, family: int, address: Any, routes: Routes, security: LiveSecurity, *, connections: int, deadline: float
    ) -> None:
        self.address_family = family
        self._routes = routes
        self._security = security
        self._connections = connections
        self._deadline = deadline
        self._open: dict[socket.socket, float] = {}  # deadline, monotonic seconds
        self._lock = threading.Lock()
        super().__init__(address, BaseHTTPRequestHandler)  # never made: `_work` makes a Handler

    def process_request(self, request: Any, client_address: Any) -> None:
        """Hands a new connection to a thread of its own; called in the accept loop, so nothing here may wait."""
        with self._lock:
            full = len(self._open) >= self._connections
            if not full:
                self._open[request] = time.monotonic() + self._deadline
        if full:
            if not self._security.tls:
                request.setblocking(False)
                with contextlib.suppress(OSError):  # it may have left
                    request.send(_FULL)  # fits into the empty send buffer of a new connection
            self.shutdown_request(request)
            return
        threading.Thread(target=self._work, args=(request, client_address), name="web-client", daemon=True).start()

    def _work(self, request: socket.socket, client_address: Any) -> None:
        try:
            security = self._security.current()
            if security.tls is not None:
                request = self._wrap(request, security.tls)
                _shake_hands(request)
            Handler(request, client_address, self, routes=self._routes, security=security)
            if isinstance(request, ssl.SSLSocket):
                say_goodbye(request)
        except (OSError, ValueError) as error:  # ValueError: a stream closed under a reader or writer
            logger.debug("a client went away: %s", error)
        except Exception:
            logger.exception("a request failed")
        finally:
            self.shutdown_request(request)

    def _wrap(self, request: socket.socket, context: ssl.SSLContext) -> ssl.SSLSocket:
        """The connection as TLS, before the handshake; it takes over the deadline."""
        with self._lock:
            deadline = self._open.pop(request)
            wrapped = context.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
            self._open[wrapped] = deadline
        return wrapped

    def shutdown_request(self, request: Any) -> None:
        """Ends a connection, whoever ends it."""
        with self._lock:
            self._open.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A connection could not be handed over; the socket server's own version prints to stderr."""
        del request, client_address
        logger.warning("a connection was dropped", exc_info=True)

    def service_actions(self) -> None:
        """Called by the accept loop after every wait."""
        self.cut(time.monotonic())

    def cut(self, now: float) -> None:
        """Cuts connections whose deadline is over; their threads wake up from whatever they wait for."""
        with self._lock:
            for connection, deadline in self._open.items():
                if deadline <= now:
                    try:
                        # Not that of TLS, after which its owner could go on in plain text.
                        socket.socket.shutdown(connection, socket.SHUT_RDWR)
                    except OSError:  # the client was faster
                        logger.debug("a connection past its deadline was closed already")


class _LocalServer(_Server):
    """Without TLS and passwords, on a socket that only its owner and root may open."""

    def __init__(self, path: Path, routes: Routes, deadline: float) -> None:
        self._path = path
        nobody_else = LiveSecurity(None)
        super().__init__(
            socket.AF_UNIX, str(path), routes, nobody_else, connections=_LOCAL_CONNECTIONS, deadline=deadline
        )

    def server_bind(self) -> None:
        """Binds, and closes to others before anybody can connect."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        if self._path.is_socket():  # of an agent that was killed
            self._path.unlink()
        self.socket.bind(str(self._path))
        self._path.chmod(0o600)

    def server_close(self) -> None:
        """Closes, and leaves nothing behind."""
        super().server_close()
        with contextlib.suppress(OSError):
            self._path.unlink()


def _shake_hands(connection: ssl.SSLSocket) -> None:
    try:
        connection.do_handshake()
    except ssl.SSLError as error:
        if error.reason == "HTTP_REQUEST":
            socket.socket.send(connection, _NOT_TLS)
            linger(connection)
        raise
