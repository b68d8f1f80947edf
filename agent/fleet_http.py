"""One question to a Prometheus server that may be down, slow or hostile: bounded in time and bytes.

Redirects are not followed, certificates are verified, and no environment variable names a proxy.
"""

from __future__ import annotations

import base64
import http.client
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from urllib.parse import SplitResult, quote, unquote, urlsplit

from agent.errors import FleetError

__all__ = ["MOST_BYTES", "SECONDS", "query", "shown"]

SECONDS = 5.0  # for everything after the name was looked up
# 60 groups with all arms that there are; more is no answer to our question.
MOST_BYTES = 1 << 20


def query(url: str, expression: str, *, seconds: float = SECONDS, most: int = MOST_BYTES) -> bytes:
    """The body of the answer to an instant query (Prometheus' HTTP API, GET /api/v1/query).

    `url` is the server's address, perhaps with a prefix and a name and password. Raises FleetError.
    """
    parts = urlsplit(url)
    target = f"{parts.path.rstrip('/')}/api/v1/query?query={quote(expression, safe='')}"
    headers = {"Accept": "application/json", "Connection": "close", "User-Agent": "tcptuned", **_authorization(parts)}
    try:
        with _connected(parts, seconds) as connection:
            connection.request("GET", target, headers=headers)
            response = connection.getresponse()
            if response.status != HTTPStatus.OK:
                moved = ", and redirects are not followed" if 300 <= response.status < 400 else ""
                raise FleetError("refused", f"the answer is HTTP {response.status}{moved}")
            body = response.read(most + 1)
            if len(body) > most:
                raise FleetError("too_large", f"the answer is longer than {most} bytes")
            if response.length:
                raise FleetError("malformed", f"the answer ends {response.length} bytes too early")
            return body
    except TimeoutError:
        raise FleetError("timeout", f"no answer within {seconds:g} s") from None
    except ssl.SSLError as error:
        raise FleetError("tls", getattr(error, "verify_message", "") or str(error.reason or error)) from None
    except OSError as error:
        raise FleetError("unreachable", (error.strerror or str(error)).lower()) from None
    except http.client.HTTPException as error:
        raise FleetError("malformed", f"the answer is not HTTP: {type(error).__name__}") from None


def shown(url: str) -> str:
    """The address without name and password."""
    parts = urlsplit(url)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()


def _authorization(parts: SplitResult) -> dict[str, str]:
    if parts.username is None:
        return {}
    both = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
    return {"Authorization": "Basic " + base64.b64encode(both).decode()}


@contextmanager
def _connected(parts: SplitResult, seconds: float) -> Iterator[http.client.HTTPConnection]:
    """A connection that is cut after `seconds`: who sends a byte a second keeps every single read within its limit."""
    host, secure = parts.hostname or "", parts.scheme == "https"
    kind = http.client.HTTPSConnection if secure else http.client.HTTPConnection
    connection = kind(host, parts.port or kind.default_port)  # else it looks for one in an IPv6 address
    sock = socket.create_connection((connection.host, connection.port), timeout=seconds)
    cut = threading.Event()
    try:
        if secure:
            context = ssl.create_default_context()
            sock = context.wrap_socket(sock, server_hostname=host, do_handshake_on_connect=False)
        timer = threading.Timer(seconds, _cut, (sock, cut))
        timer.daemon = True
        timer.start()
        try:
            if isinstance(sock, ssl.SSLSocket):
                sock.do_handshake()
            connection.sock = sock
            yield connection
        except (OSError, http.client.HTTPException, ValueError):
            if cut.is_set():
                raise TimeoutError from None
            raise
        finally:
            timer.cancel()
        if cut.is_set():  # what was read may be a part
            raise TimeoutError
    finally:
        sock.close()
        connection.close()


def _cut(sock: socket.socket, cut: threading.Event) -> None:
    cut.set()
    with suppress(OSError):  # it is closed already
        # Not the method of a TLS socket, which first takes the session from under the reader.
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
