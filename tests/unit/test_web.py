"""The web server over real sockets on the loopback interface."""

from __future__ import annotations

import gzip
import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import replace

import pytest
from handmade import StillAgent, absorb, still_tuner

from agent.config import Web
from agent.errors import ListenError, UsageError
from agent.journal import Entry
from agent.snapshot import Snapshot
from agent.web import CONNECTIONS, WebServer
from agent.web_request import HEAD_BYTES, LINE_BYTES

HOSTILE = '<script>alert("1")</script>&\'x'


def _agent() -> StillAgent:
    """Two paths, in the groups default and cdn."""
    tuner = still_tuner()
    absorb(tuner, "203.0.113.0/24")
    absorb(tuner, "198.51.100.0/24", group=1)
    tuner.decide(time.monotonic())
    return StillAgent(tuner)


@pytest.fixture
def agent() -> StillAgent:
    return _agent()


@pytest.fixture
def server(agent: StillAgent) -> Iterator[WebServer]:
    made = WebServer(Web(listen="127.0.0.1:0"), agent)
    made.start()
    yield made
    made.stop()


@pytest.fixture(scope="module")
def shared() -> Iterator[WebServer]:
    """For tests that change nothing: stopping a server takes a quarter of a second."""
    made = WebServer(Web(listen="127.0.0.1:0"), _agent())
    made.start()
    yield made
    made.stop()


def _address(server: WebServer) -> tuple[str, int]:
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    return host.strip("[]"), int(port)


class _Answer:
    """One request and its whole answer."""

    def __init__(self, server: WebServer, target: str, method: str = "GET", **headers: str) -> None:
        connection = http.client.HTTPConnection(*_address(server), timeout=8)
        connection.request(method, target, headers={name.replace("_", "-"): text for name, text in headers.items()})
        response = connection.getresponse()
        self.status, self.headers, self.body = response.status, response.headers, response.read()
        connection.close()

    @property
    def json(self) -> dict[str, object]:
        result: dict[str, object] = json.loads(self.body)
        return result


def _raw(server: WebServer, data: bytes) -> bytes:
    """Everything that comes back for `data`."""
    with socket.create_connection(_address(server), timeout=8) as connection:
        connection.sendall(data)
        answer = b""
        while piece := connection.recv(65536):
            answer += piece
        return answer


def _silent(server: WebServer, stack: ExitStack, count: int) -> list[socket.socket]:
    return [stack.enter_context(socket.create_connection(_address(server), timeout=8)) for _ in range(count)]


@pytest.mark.parametrize(
    ("target", "status", "kind"),
    [
        ("/", 200, "text/html; charset=utf-8"),
        ("/metrics", 200, "text/plain; version=1.0.0; charset=utf-8; escaping=underscores"),
        ("/-/healthy", 200, "text/plain; charset=utf-8"),
        ("/-/ready", 200, "text/plain; charset=utf-8"),
        ("/api/v1/status", 200, "application/json; charset=utf-8"),
        ("/api/v1/paths", 200, "application/json; charset=utf-8"),
        ("/api/v1/history", 200, "application/json; charset=utf-8"),
        ("/api/v1/paths?address=203.0.113.7", 200, "application/json; charset=utf-8"),
        ("/metrics/", 404, "text/plain; charset=utf-8"),
        ("/../etc/passwd", 404, "text/plain; charset=utf-8"),
    ],
)
def test_routes(shared: WebServer, target: str, status: int, kind: str) -> None:
    answer = _Answer(shared, target)
    assert answer.status == status
    if target != "/metrics":  # which versions of the text format there are is the library's affair
        assert answer.headers["Content-Type"] == kind
    assert int(answer.headers["Content-Length"]) == len(answer.body)
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert answer.headers["Referrer-Policy"] == "no-referrer"
    assert answer.headers["Cache-Control"] == "no-store"
    assert answer.headers["Server"] == "tcptuned"
    head = _Answer(shared, target, "HEAD")
    assert (head.status, head.body) == (answer.status, b"")
    if status == 200 and target != "/metrics":  # the process metrics move
        assert abs(int(head.headers["Content-Length"]) - len(answer.body)) < 10


def test_ready_follows_the_agent_and_healthy_does_not(server: WebServer, agent: StillAgent) -> None:
    agent.is_ready = False
    assert _Answer(server, "/-/ready").status == 503
    assert _Answer(server, "/-/healthy").status == 200
    assert b"not ready" in _Answer(server, "/").body
    assert _Answer(server, "/api/v1/status").json["ready"] is False


def test_healthy_is_no_longer_who_has_a_job_that_hangs(server: WebServer, agent: StillAgent) -> None:
    agent.is_healthy = False
    answer = _Answer(server, "/-/healthy")
    assert answer.status == 503
    assert b"restart" in answer.body


def test_metrics_negotiate_format_and_compression(shared: WebServer) -> None:
    plain = _Answer(shared, "/metrics")
    assert plain.headers["Content-Type"].startswith("text/plain")
    assert b'tcptuned_paths{group="default"} 1.0' in plain.body
    modern = _Answer(shared, "/metrics", Accept="application/openmetrics-text; version=1.0.0", Accept_Encoding="gzip")
    assert modern.headers["Content-Type"].startswith("application/openmetrics-text; version=1.0.0")
    assert modern.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(modern.body).endswith(b"# EOF\n")
    one = _Answer(shared, "/metrics?name[]=tcptuned_paths").body.decode().splitlines()
    assert [line for line in one if not line.startswith("#")] == [
        'tcptuned_paths{group="default"} 1.0', 'tcptuned_paths{group="cdn"} 1.0',
    ]  # fmt: skip


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "PATCH", "CONNECT", "TRACE", "get"])
def test_nothing_can_be_written(shared: WebServer, method: str) -> None:
    body = b"x" * 20_000
    answer = _raw(shared, f"{method} /metrics HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
    assert answer.startswith(b"HTTP/1.1 405 ")
    assert b"\r\nAllow: GET, HEAD\r\n" in answer


@pytest.mark.parametrize(
    ("request_text", "status"),
    [
        (b"GET /" + b"a" * LINE_BYTES + b" HTTP/1.1\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nX: " + b"a" * HEAD_BYTES + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 101 + b"\r\n", 431),
        (b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * (HEAD_BYTES // 6) + b"\r\n", 431),
        (b"GET http://[ HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\n\r\n", 505),
        (b"GET / HTCPCP/1.0\r\n\r\n", 400),
        (b"GET / and more HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\n", 400),  # a TLS client
    ],
)
def test_malformed_and_oversized_requests_are_refused(shared: WebServer, request_text: bytes, status: int) -> None:
    answer = _raw(shared, request_text)
    assert answer.startswith(f"HTTP/1.1 {status} ".encode())
    assert len(answer) < 1000
    assert b"aaaa" not in answer
    assert _Answer(shared, "/-/healthy").status == 200


def test_a_query_below_the_limit_is_served(shared: WebServer) -> None:
    fitting = "/-/healthy?" + "a" * (LINE_BYTES - len("GET /-/healthy? HTTP/1.1\r\n"))
    assert _Answer(shared, fitting).status == 200
    assert _Answer(shared, fitting + "a").status == 414


def test_silent_clients_delay_no_scrape(server: WebServer) -> None:
    with ExitStack() as stack:
        _silent(server, stack, 20)
        begin = time.monotonic()
        assert _Answer(server, "/metrics").status == 200
        assert time.monotonic() - begin < 1.0


def test_clients_past_their_deadline_are_cut_and_their_places_are_free(agent: StillAgent) -> None:
    server = WebServer(Web(listen="127.0.0.1:0"), agent, connections=4, deadline=1.0)
    server.start()
    try:
        with ExitStack() as stack:
            silent, dribbling, *others = _silent(server, stack, 4)
            # Before the deadline there is no room, and the refusal is quick.
            begin = time.monotonic()
            assert _raw(server, b"").startswith(b"HTTP/1.1 503 ")
            assert time.monotonic() - begin < 0.5
            # A sign of life now and then buys nobody more time.
            with pytest.raises(OSError):
                while time.monotonic() - begin < 5:
                    dribbling.sendall(b"G")
                    time.sleep(0.05)
            assert 0.9 < time.monotonic() - begin < 2.0
            assert [client.recv(100) for client in (silent, *others)] == [b"", b"", b""]
            assert _Answer(server, "/metrics").status == 200
    finally:
        server.stop()


def test_a_client_that_never_reads_is_cut(agent: StillAgent) -> None:
    # More than the send buffer may grow to (net.ipv4.tcp_wmem, usually 4 MB), so that the server has to wait.
    entry = Entry(1e9, "", "", "", "", "", "x" * (32 << 20))
    long = replace(agent.snapshot, journal=(entry,))
    agent.picture = lambda: long
    server = WebServer(Web(listen="127.0.0.1:0"), agent, connections=1, deadline=1.0)
    server.start()
    try:
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            client.connect(_address(server))
            client.sendall(b"GET /api/v1/status HTTP/1.1\r\n\r\n")
            time.sleep(0.5)
            assert _raw(server, b"").startswith(b"HTTP/1.1 503 ")
            time.sleep(1.1)
            assert _Answer(server, "/-/healthy").status == 200
    finally:
        server.stop()


def test_more_connections_than_allowed_are_refused_at_once(server: WebServer) -> None:
    with ExitStack() as stack:
        _silent(server, stack, CONNECTIONS)
        assert _raw(server, b"").endswith(b"\r\n\r\ntoo many connections at once.\n")
    # All of them left: there is room again.
    for _ in range(50):
        if _Answer(server, "/-/healthy").status == 200:
            break
        time.sleep(0.02)
    assert _Answer(server, "/-/healthy").status == 200


def test_a_taken_port_is_named_with_its_cure(server: WebServer, agent: StillAgent) -> None:
    host, port = _address(server)
    with pytest.raises(ListenError, match=rf"cannot listen on {host}:{port}: address already in use; choose another"):
        WebServer(Web(listen=f"{host}:{port}"), agent)


def test_an_address_of_another_host_is_named_with_its_cure(agent: StillAgent) -> None:
    with pytest.raises(ListenError, match="this host has no such address") as caught:
        WebServer(Web(listen="203.0.113.99:0"), agent)
    assert caught.value.exit_code == 1  # systemd tries again: it may come


def test_stop_is_prompt_and_ends_every_connection(agent: StillAgent) -> None:
    server = WebServer(Web(listen="127.0.0.1:0"), agent)
    server.start()
    with ExitStack() as stack:
        clients = _silent(server, stack, 3)
        assert _Answer(server, "/-/healthy").status == 200
        begin = time.monotonic()
        server.stop()
        assert time.monotonic() - begin < 1.0
        assert [client.recv(100) for client in clients] == [b"", b"", b""]
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(_address(server), timeout=1)


def test_a_server_that_never_started_can_be_stopped(agent: StillAgent) -> None:
    WebServer(Web(listen="127.0.0.1:0"), agent).stop()


def test_ipv6_addresses_have_brackets(agent: StillAgent) -> None:
    try:
        server = WebServer(Web(listen="[::1]:0"), agent)
    except UsageError as error:
        pytest.skip(f"no IPv6 here: {error}")
    server.start()
    assert server.url.startswith("http://[::1]:")
    assert _Answer(server, "/-/healthy").status == 200
    server.stop()


def test_every_text_on_the_page_is_escaped(server: WebServer, agent: StillAgent) -> None:
    taken = agent.snapshot
    entry = Entry(1e9, *(HOSTILE + name for name in ("path", "group", "dimension", "before", "after", "reason")))
    hostile = replace(taken, groups=(HOSTILE + "zero", "cdn"), journal=(entry,), map_entries={HOSTILE + "map": (1, 2)})
    agent.picture = lambda: hostile
    page = _Answer(server, "/").body.decode()
    assert "<script" not in page
    for name in ("zero", "path", "group", "dimension", "before", "after", "reason", "map"):
        assert f"&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;&#x27;x{name}" in page
    assert "2001-09-09 01:46:40" in page


def test_the_page_shows_what_is_there(shared: WebServer) -> None:
    page = _Answer(shared, "/").body.decode()
    for text in ('http-equiv="refresh"', "/sys/fs/cgroup", "cdn", "iw14", "tuning", ">ready<", "paths: 2"):
        assert text in page


@pytest.mark.parametrize(
    ("query", "text"),
    [
        ("address=nonsense", "address must be an IPv4 or IPv6 address"),
        ("address=", "address must be"),
        ("address=fe80::1%25eth0", "without a zone"),
        ("address=1.2.3.4&limit=1", "address goes without"),
        ("address=1.2.3.4&address=1.2.3.5", "at most once"),
        ("limit=0", "limit must be a number from 1 to 1000"),
        ("limit=1001", "limit must be"),
        ("limit=", "limit must be"),
        ("offset=-1", "offset must be"),
        ("offset=%D9%A1", "offset must be"),
        ("offset=99999999999999999999", "offset must be"),
        ("group=nobody", "no such group"),
        ("order=size", "order is appearance or transfers"),
        ("colour=red", "the parameters are address, limit, offset, group"),
        ("&".join(f"a{number}=1" for number in range(50)), "too many parameters"),
    ],
)
def test_bad_input_is_a_json_error(shared: WebServer, query: str, text: str) -> None:
    answer = _Answer(shared, f"/api/v1/paths?{query}")
    assert answer.status == 400
    assert text in str(answer.json["error"])


def test_paths_are_paged(shared: WebServer) -> None:
    first = _Answer(shared, "/api/v1/paths?limit=1").json
    second = _Answer(shared, "/api/v1/paths?limit=1&offset=1").json
    assert first["total"] == second["total"] == 2
    assert [page["paths"][0]["path"] for page in (first, second)] == ["203.0.113.0/24", "198.51.100.0/24"]  # type: ignore[index]
    assert _Answer(shared, "/api/v1/paths?group=cdn").json["total"] == 1


def test_a_loop_that_hangs_leaves_the_other_pages_alone(server: WebServer, agent: StillAgent) -> None:
    with agent.lock:
        answer = _Answer(server, "/api/v1/paths")
        assert (answer.status, answer.json) == (503, {"error": "the agent is busy; try again"})
        assert _Answer(server, "/metrics").status == 200
        assert _Answer(server, "/").status == 200


def test_a_page_that_fails_says_so_and_no_more(
    server: WebServer, agent: StillAgent, caplog: pytest.LogCaptureFixture
) -> None:
    def broken() -> Snapshot:
        raise RuntimeError("secret")

    agent.picture = broken
    answer = _Answer(server, "/api/v1/status")
    assert answer.status == 500
    assert b"secret" not in answer.body
    assert "secret" in caplog.text
    assert _Answer(server, "/-/healthy").status == 200
    assert b"tcptuned_exporter_failures_total 1.0" in _Answer(server, "/metrics").body


def test_many_scrapes_at_once(server: WebServer) -> None:
    answers: list[int] = []
    threads = [
        threading.Thread(target=lambda: answers.append(_Answer(server, "/metrics").status)) for _ in range(CONNECTIONS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * CONNECTIONS
