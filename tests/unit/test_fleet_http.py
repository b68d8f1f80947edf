"""A Prometheus server that is down, slow or hostile: every question ends in time, with a reason, and takes few bytes.

The servers here are real ones, on loopback.
"""

from __future__ import annotations

import socket
import ssl
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
import trustme

from agent.errors import FleetError
from agent.fleet_http import MOST_BYTES, query, shown

BODY = b'{"status":"success","data":{"resultType":"vector","result":[]}}'
OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
SECONDS = 1.0
AUTHORITY = trustme.CA()


@contextmanager
def server(
    serve: Callable[[socket.socket], None], context: ssl.SSLContext | None = None
) -> Iterator[tuple[int, list[bytes]]]:
    """Reads one request a connection and lets `serve` answer; yields the port and the requests."""
    requests: list[bytes] = []
    listener = socket.create_server(("127.0.0.1", 0))

    def run() -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with connection, suppress(OSError):  # the other side has had enough
                connection.settimeout(5)
                with context.wrap_socket(connection, server_side=True) if context else connection as talking:
                    requests.append(talking.recv(65536))
                    serve(talking)

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield listener.getsockname()[1], requests
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(10)


def sends(data: bytes) -> Callable[[socket.socket], None]:
    return lambda connection: connection.sendall(data)


def plain(body: bytes, status: bytes = OK) -> bytes:
    return status + b"Content-Length: %d\r\n\r\n" % len(body) + body


def drip(connection: socket.socket) -> None:
    """A byte every 50 ms: no single read waits long."""
    data = plain(BODY) + b" " * 1000
    for position in range(len(data)):
        connection.sendall(data[position : position + 1])
        time.sleep(0.05)


def flood(connection: socket.socket) -> None:
    """A gigabyte, if somebody takes it."""
    connection.sendall(OK + b"Content-Length: 1073741824\r\n\r\n")
    for _ in range(1024):
        connection.sendall(b" " * (1 << 20))


def chunks(connection: socket.socket) -> None:
    connection.sendall(OK + b"Transfer-Encoding: chunked\r\n\r\n")
    for _ in range(1 << 16):
        connection.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")


def continues(connection: socket.socket) -> None:
    while True:
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")


def headers(connection: socket.socket) -> None:
    connection.sendall(OK)
    while True:
        connection.sendall(b"X: " + b"y" * 60000 + b"\r\n")


def hangs(connection: socket.socket) -> None:
    connection.recv(1)


def asked(port: int, **options: float) -> bytes:
    return query(f"http://127.0.0.1:{port}/prefix/", 'up{a="b"}', **options)  # type: ignore[arg-type]


def test_an_answer_and_what_was_asked() -> None:
    with server(sends(plain(BODY))) as (port, requests):
        assert asked(port) == BODY
        assert query(f"http://us%40er:pass@127.0.0.1:{port}", "up") == BODY
    first, second = (request.decode() for request in requests)
    assert first.startswith("GET /prefix/api/v1/query?query=up%7Ba%3D%22b%22%7D HTTP/1.1\r\n")
    assert f"Host: 127.0.0.1:{port}\r\n" in first
    assert "Authorization" not in first
    assert second.startswith("GET /api/v1/query?query=up HTTP/1.1\r\n")
    assert "Authorization: Basic dXNAZXI6cGFzcw==\r\n" in second


def test_passwords_are_not_shown() -> None:
    assert shown("https://user:secret@[2001:db8::1]:9090/x") == "https://[2001:db8::1]:9090/x"


@pytest.mark.parametrize(
    ("serve", "reason"),
    [
        (hangs, "timeout"),
        (drip, "timeout"),
        (continues, "timeout"),
        (flood, "too_large"),
        (chunks, "too_large"),
        (headers, "malformed"),
        (sends(plain(b"x" * (MOST_BYTES + 1))), "too_large"),
        (sends(b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"), "refused"),
        (sends(plain(BODY, b"HTTP/1.1 503 Service Unavailable\r\n")), "refused"),
        (sends(b"SSH-2.0-OpenSSH_9.2\r\n"), "malformed"),
        (sends(OK + b"Content-Length: 500\r\n\r\n" + BODY), "malformed"),
        (sends(OK + b"Transfer-Encoding: chunked\r\n\r\nzz\r\n"), "malformed"),
        (sends(b""), "unreachable"),
    ],
)
def test_what_goes_wrong_has_a_reason_and_an_end(serve: Callable[[socket.socket], None], reason: str) -> None:
    with server(serve) as (port, _):
        tracemalloc.start()
        begin = time.monotonic()
        try:
            with pytest.raises(FleetError) as caught:
                asked(port, seconds=SECONDS)
            seconds, (_, most) = time.monotonic() - begin, tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
    assert caught.value.reason == reason, caught.value
    assert seconds < SECONDS + 1.0
    assert most < 16 << 20


def test_a_redirect_is_said_to_be_one() -> None:
    with (
        server(sends(b"HTTP/1.1 301 Moved\r\nLocation: /\r\n\r\n")) as (port, requests),
        pytest.raises(FleetError, match="redirects are not followed"),
    ):
        asked(port)
    assert len(requests) == 1


def test_nobody_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(FleetError) as caught:
        asked(port)
    assert (caught.value.reason, str(caught.value)) == ("unreachable", "connection refused")
    with pytest.raises(FleetError) as caught:
        query("http://nobody.invalid", "up")
    assert caught.value.reason == "unreachable"


def _tls(name: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    AUTHORITY.issue_cert(name).configure_cert(context)
    return context


def test_certificates_are_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(port: int, host: str = "localhost") -> FleetError:
        with pytest.raises(FleetError) as caught:
            query(f"https://{host}:{port}", "up")
        return caught.value

    with server(sends(plain(BODY)), _tls("localhost")) as (port, requests):
        assert refused(port).reason == "tls"
        AUTHORITY.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
        # OpenSSL's own variable, as the README says for an authority of one's own.
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
        assert query(f"https://localhost:{port}", "up") == BODY
        assert len(requests) == 1
    with server(sends(plain(BODY)), _tls("other.example")) as (port, requests):
        assert refused(port).reason == "tls"
        assert requests == []


@pytest.mark.parametrize(("serve", "reason"), [(hangs, "timeout"), (drip, "timeout"), (flood, "too_large")])
def test_the_bounds_hold_within_tls(
    serve: Callable[[socket.socket], None], reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    AUTHORITY.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    with server(serve, _tls("localhost")) as (port, _):
        begin = time.monotonic()
        with pytest.raises(FleetError) as caught:
            query(f"https://localhost:{port}", "up", seconds=SECONDS)
    assert caught.value.reason == reason
    assert time.monotonic() - begin < SECONDS + 1.0


def test_a_handshake_that_never_comes_to_an_end() -> None:
    """Plain bytes that look like the begin of a long TLS record, one by one."""

    def handshake(connection: socket.socket) -> None:
        connection.sendall(b"\x16\x03\x03\x3f\xff")
        for _ in range(100):
            connection.sendall(b"\x00")
            time.sleep(0.05)

    with server(handshake) as (port, _):
        begin = time.monotonic()
        with pytest.raises(FleetError) as caught:
            query(f"https://127.0.0.1:{port}", "up", seconds=SECONDS)
        assert time.monotonic() - begin < SECONDS + 1.0
    assert caught.value.reason == "timeout"


@pytest.mark.parametrize(("url", "port"), [("http://[2001:db8::9]", 80), ("https://[2001:db8::a]/x", 443)])
def test_an_ipv6_address_without_a_port_has_the_schemes(url: str, port: int, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def refuse(address: tuple[str, int], timeout: float) -> socket.socket:
        asked.append(address)
        raise ConnectionRefusedError(timeout)

    monkeypatch.setattr(socket, "create_connection", refuse)
    with pytest.raises(FleetError):
        query(url, "up", seconds=SECONDS)
    assert asked == [(url.split("[")[1].split("]", maxsplit=1)[0], port)]
