"""One request: how much of it is read, who may have the answer, and how the connection ends."""

from __future__ import annotations

import contextlib
import io
import logging
import socket
import ssl
from http.client import LineTooLong
from http.server import BaseHTTPRequestHandler
from socketserver import BaseServer
from typing import Any, cast

from agent.routes import Response, Routes, plain
from agent.web_security import Security

__all__ = ["HEAD_BYTES", "LINE_BYTES", "Handler", "linger", "say_goodbye"]

logger = logging.getLogger(__name__)

LINE_BYTES = 2048
HEAD_BYTES = 16_384  # request line and headers
_LINGER_BYTES = 65_536


def say_goodbye(connection: ssl.SSLSocket) -> None:
    """Tells that the answer is whole (TLS close_notify), and waits for no answer."""
    connection.settimeout(0)
    with contextlib.suppress(OSError, ValueError):
        connection.unwrap()


def linger(connection: socket.socket) -> None:
    """Takes in what the client still sends: closing before would reset the connection, and the answer be lost."""
    if isinstance(connection, ssl.SSLSocket):
        say_goodbye(connection)
    socket.socket.shutdown(connection, socket.SHUT_WR)
    connection.settimeout(1.0)
    left = _LINGER_BYTES
    # Raw bytes, under TLS too: nobody reads them.
    while left > 0 and (data := socket.socket.recv(connection, 8192)):
        left -= len(data)


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


class Handler(BaseHTTPRequestHandler):
    """One request; every connection carries one."""

    protocol_version = "HTTP/1.1"
    default_request_version = "HTTP/1.0"  # an answer to a line that is no HTTP still has headers

    def __init__(
        self, request: socket.socket, client_address: Any, server: BaseServer, *, routes: Routes, security: Security
    ) -> None:
        self._routes = routes
        self._security = security
        super().__init__(request, client_address, server)

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
        users = self._security.users
        if users is not None:
            admitted = users.admit(self.headers.get("Authorization"))
            if admitted is None:
                return plain(503, "too many passwords to check at once", **{"Retry-After": "5"})
            if not admitted:
                challenge = 'Basic realm="tcptuned", charset="UTF-8"'
                return plain(401, "a user and a password are needed", **{"WWW-Authenticate": challenge})
        if self.command not in ("GET", "HEAD"):
            return plain(405, "only GET and HEAD are allowed", Allow="GET, HEAD")
        try:
            return self._routes.respond(self.path, self.headers)
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
        for name, value in {**response.headers, **self._security.headers}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(response.body)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(response.body)
        if response.code in (400, 401, 405, 414, 431, 505):
            linger(self.connection)

    def version_string(self) -> str:
        """The `Server` header: no versions for strangers."""
        return "tcptuned"

    def log_request(self, code: object = "-", size: object = "-") -> None:
        """Requests are not logged: a scrape every few seconds would drown the decisions."""
