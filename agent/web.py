"""The HTTP server: a thread for each connection, and bounds on everything a client could use up.

At most CONNECTIONS at once, DEADLINE seconds for each from accept to the last byte, HEAD_BYTES of request. A silent
client costs one of the connections for the deadline and delays nobody. There is nothing to write to: GET and HEAD only.
"""

from __future__ import annotations

import contextlib
import io
import logging
import math
import socket
import socketserver
import threading
import time
from http.client import LineTooLong
from http.server import BaseHTTPRequestHandler
from typing import Any, cast

from agent.config import Web
from agent.errors import UsageError
from agent.routes import Agent, Response, Routes, plain

__all__ = ["CONNECTIONS", "DEADLINE", "HEAD_BYTES", "LINE_BYTES", "WebServer"]

logger = logging.getLogger(__name__)

CONNECTIONS = 32
DEADLINE = 5.0  # seconds
LINE_BYTES = 2048
HEAD_BYTES = 16_384  # request line and headers
_LINGER_BYTES = 65_536
_POLL = 0.25  # seconds: how often deadlines are looked at, and how fast `stop` is noticed

_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 30\r\n"
    b"Retry-After: 5\r\nConnection: close\r\n\r\ntoo many connections at once.\n"
)


class WebServer:
    """The agent's pages on `config.listen`. Bound when it is made, so that a taken port is known before all else."""

    def __init__(
        self, config: Web, agent: Agent, *, connections: int = CONNECTIONS, deadline: float = DEADLINE
    ) -> None:
        try:
            family, _, _, _, address = socket.getaddrinfo(
                config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            self._server = _Server(family, address, Routes(agent), connections, deadline)
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise UsageError(
                f"cannot listen on {config.listen}: {reason}; choose another web.listen, "
                "or stop what listens there (ss -ltnp shows it)"
            ) from error
        host, port = self._server.socket.getsockname()[:2]
        self.url = f"http://[{host}]:{port}" if family == socket.AF_INET6 else f"http://{host}:{port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(_POLL,), name="web", daemon=True)

    def start(self) -> None:
        """Answers from now on; clients that came before waited."""
        self._thread.start()

    def stop(self) -> None:
        """Closes the port and every connection."""
        if self._thread.is_alive():
            self._server.shutdown()
        self._server.server_close()
        self._server.cut(math.inf)


class _Server(socketserver.TCPServer):
    allow_reuse_address = True
    request_queue_size = 128

    def __init__(self, family: int, address: Any, routes: Routes, connections: int, deadline: float) -> None:
        self.address_family = family
        self.routes = routes
        self._connections = connections
        self._deadline = deadline
        self._open: dict[socket.socket, float] = {}  # deadline, monotonic seconds
        self._lock = threading.Lock()
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Hands a new connection to a thread of its own; called in the accept loop, so nothing here may wait."""
        with self._lock:
            full = len(self._open) >= self._connections
            if not full:
                self._open[request] = time.monotonic() + self._deadline
        if full:
            request.setblocking(False)
            with contextlib.suppress(OSError):  # it may have left
                request.send(_FULL)  # fits into the empty send buffer of a new connection
            self.shutdown_request(request)
            return
        threading.Thread(target=self._work, args=(request, client_address), name="web-client", daemon=True).start()

    def _work(self, request: socket.socket, client_address: Any) -> None:
        try:
            # TLS belongs here, in the worker: a client that stalls its handshake then holds up nobody else. The wrapped
            # socket has to take the place of `request` in `_open`, or the deadline would not reach it.
            self.finish_request(request, client_address)
        except (OSError, ValueError) as error:  # ValueError: a stream closed under a reader or writer
            logger.debug("a client went away: %s", error)
        except Exception:
            logger.exception("a request failed")
        finally:
            self.shutdown_request(request)

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
                        connection.shutdown(socket.SHUT_RDWR)
                    except OSError:  # the client was faster
                        logger.debug("a connection past its deadline was closed already")


class _Head(io.BufferedReader):
    """What a client sends, at most HEAD_BYTES of it."""

    _left = HEAD_BYTES

    def readline(self, size: int | None = -1, /) -> bytes:
        """One line; LineTooLong, which the parser turns into a 431, when it goes beyond the limit."""
        wanted = self._left + 1 if size is None or size < 0 else min(size, self._left + 1)
        line = super().readline(wanted)
        self._left -= len(line)
        if self._left < 0:
            raise LineTooLong("request")
        return line


class _Handler(BaseHTTPRequestHandler):
    """One request; every connection carries one."""

    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.0"  # an answer to a line that is no HTTP still has headers
    server: _Server

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        # Bounded, and reads from the socket itself.
        self.rfile = _Head(cast(socket.SocketIO, self.connection.makefile("rb", buffering=0)))

    def handle(self) -> None:
        self.command = ""
        self.request_version = self.default_request_version
        self.raw_requestline = self.rfile.readline(LINE_BYTES + 1)
        if not self.raw_requestline:
            return
        if len(self.raw_requestline) > LINE_BYTES:
            self.send_error(414)
        elif self.parse_request():
            self._answer(self._response())

    def _response(self) -> Response:
        if self.command not in ("GET", "HEAD"):
            return plain(405, "only GET and HEAD are allowed", Allow="GET, HEAD")
        try:
            return self.server.routes.respond(self.path, self.headers)
        except Exception:
            logger.exception("a page failed")
            return plain(500, "this page failed; the agent's log says why")

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """A refusal by the parser, as a short text: the original's page repeats what the client sent."""
        del message, explain
        self._answer(plain(int(code), self.responses[code][0].lower()))

    def handle_expect_100(self) -> bool:
        """No request that is served has a body to wait for."""
        return True

    def _answer(self, response: Response) -> None:
        self.send_response(response.code)
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(response.body)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)
        if response.code in (400, 405, 414, 431, 505):
            self._linger()

    def _linger(self) -> None:
        """Takes in what the client still sends: closing before would reset the connection, and the answer be lost."""
        self.connection.shutdown(socket.SHUT_WR)
        self.connection.settimeout(1.0)
        left = _LINGER_BYTES
        while left > 0 and (data := self.connection.recv(8192)):
            left -= len(data)

    def version_string(self) -> str:
        """The `Server` header: no versions for strangers."""
        return "tcptuned"

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Requests are not logged: a scrape every few seconds would drown the decisions."""
