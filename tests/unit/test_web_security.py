"""TLS and passwords over real sockets: who gets in, who cannot delay others, and certificates that change."""

from __future__ import annotations

import http.client
import logging
import os
import socket
import ssl
import stat
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme
from certificates import AUTHORITY, hashed, issue, trusting, web_config
from handmade import StillAgent, still_tuner

from agent.config import Config, Web
from agent.connect import connect
from agent.errors import ConfigurationError, TcptunedError
from agent.show import ask
from agent.web import CONNECTIONS, WebServer
from agent.web_request import HEAD_BYTES
from agent.web_security import load

PASSWORD = {"Authorization": "Basic " + b64encode(b"alice:right").decode()}


@contextmanager
def serving(folder: Path, *, local: bool = False, **options: Any) -> Iterator[WebServer]:
    """A server with the configuration file that is in `folder`."""
    config = Web(listen="127.0.0.1:0", config_file=folder / "web.yml")
    server = WebServer(config, StillAgent(still_tuner()), local=folder / "agent.sock" if local else None, **options)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With a configuration of TLS and one user."""
    web_config(tmp_path, tls_server_config=issue(tmp_path), basic_auth_users={"alice": hashed("right")})
    return tmp_path


def address(server: WebServer) -> tuple[str, int]:
    return "127.0.0.1", int(server.url.rpartition(":")[2])


def get(
    server: WebServer, target: str = "/-/healthy", *, context: ssl.SSLContext | None = None, method: str = "GET",
    headers: dict[str, str] | None = None,
) -> tuple[int, http.client.HTTPMessage, bytes]:  # fmt: skip
    """Status, headers and body over TLS."""
    connection = http.client.HTTPSConnection(*address(server), timeout=8, context=context or trusting())
    try:
        connection.request(method, target, headers=PASSWORD if headers is None else headers)
        response = connection.getresponse()
        return response.status, response.headers, response.read()
    finally:
        connection.close()


def certificate(server: WebServer) -> bytes:
    """What the server shows."""
    with (
        socket.create_connection(address(server), timeout=8) as plain,
        trusting().wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        return secure.getpeercert(binary_form=True) or b""


def test_a_page_over_tls_with_a_password(folder: Path) -> None:
    with serving(folder) as server:
        assert server.url.startswith("https://127.0.0.1:")
        status, headers, body = get(server, "/metrics")
        assert (status, headers["Connection"]) == (200, "close")
        assert b"tcptuned_paths" in body
        assert get(server, "/metrics", method="HEAD")[0::2] == (200, b"")


@pytest.mark.parametrize("target", ["/", "/metrics", "/-/healthy", "/-/ready", "/api/v1/status", "/nowhere"])
def test_nothing_is_shown_without_a_password(folder: Path, target: str) -> None:
    wrong = "Basic " + b64encode(b"alice:wrong").decode()
    with serving(folder) as server:
        for headers in ({}, {"Authorization": wrong}):
            status, answered, body = get(server, target, headers=headers)
            assert status == 401
            assert answered["WWW-Authenticate"] == 'Basic realm="tcptuned", charset="UTF-8"'
            assert body == b"a user and a password are needed\n"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_nothing_can_be_written_with_a_password_either(folder: Path, method: str) -> None:
    with serving(folder) as server:
        assert get(server, "/metrics", method=method)[0] == 405
        assert get(server, "/metrics", method=method, headers={})[0] == 401


def test_a_refusal_arrives_whole_over_tls(folder: Path) -> None:
    """The client is still sending when it is refused."""
    with (
        serving(folder) as server,
        socket.create_connection(address(server), timeout=8) as plain,
        trusting().wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        secure.sendall(b"GET / HTTP/1.1\r\nX: " + b"a" * HEAD_BYTES + b"\r\n\r\n")
        answer = b""
        # An end without close_notify would raise.
        while piece := secure.recv(65536):
            answer += piece
        assert answer.startswith(b"HTTP/1.1 431 ")


def test_plain_http_is_told_that_this_is_tls(folder: Path) -> None:
    with serving(folder) as server:
        connection = http.client.HTTPConnection(*address(server), timeout=8)
        connection.request("GET", "/", headers={"X": "y" * 5000})
        response = connection.getresponse()
        assert (response.status, response.read()) == (400, b"this port speaks TLS: write https://.\n")
        connection.close()


def _hello() -> bytes:
    """A ClientHello."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = trusting().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


@pytest.mark.parametrize("said", ["nothing", "half a handshake", "a handshake without its end", "no TLS at all"])
def test_silent_clients_delay_no_scrape(folder: Path, said: str) -> None:
    hello = _hello()
    data = {"nothing": b"", "half a handshake": hello[:20], "a handshake without its end": hello}
    with serving(folder) as server, ExitStack() as stack:
        get(server, "/metrics")
        for _ in range(20):
            client = stack.enter_context(socket.create_connection(address(server), timeout=8))
            client.sendall(data.get(said, b"\0" * 100))
        begin = time.monotonic()
        assert get(server, "/metrics")[0] == 200
        assert time.monotonic() - begin < 1.0


def test_clients_past_their_deadline_are_cut_in_the_handshake_and_after(folder: Path) -> None:
    with serving(folder, connections=2, deadline=1.0) as server, ExitStack() as stack:
        silent = stack.enter_context(socket.create_connection(address(server), timeout=8))
        plain = stack.enter_context(socket.create_connection(address(server), timeout=8))
        secure = stack.enter_context(trusting().wrap_socket(plain, server_hostname="localhost"))
        begin = time.monotonic()
        with pytest.raises(OSError):  # no room; over TLS that cannot be said
            get(server)
        assert time.monotonic() - begin < 0.5
        with pytest.raises(OSError):
            while time.monotonic() - begin < 5:
                secure.sendall(b"G")
                time.sleep(0.05)
        assert 0.7 < time.monotonic() - begin < 2.5
        assert silent.recv(100) == b""
        assert get(server)[0] == 200


def test_a_reader_that_stalls_over_tls_is_cut(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from agent.routes import Routes, plain  # noqa: PLC0415

    monkeypatch.setattr(Routes, "respond", lambda *_: plain(200, "x" * (32 << 20)))
    with serving(folder, connections=1, deadline=1.0) as server, socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.settimeout(8)
        client.connect(address(server))
        with trusting().wrap_socket(client, server_hostname="localhost") as secure:
            secure.sendall(f"GET / HTTP/1.1\r\nAuthorization: {PASSWORD['Authorization']}\r\n\r\n".encode())
            time.sleep(1.6)
            assert get(server, headers={})[0] == 401


def test_more_connections_than_allowed_are_refused_at_once(folder: Path) -> None:
    with serving(folder) as server, ExitStack() as stack:
        for _ in range(CONNECTIONS):
            stack.enter_context(socket.create_connection(address(server), timeout=8))
        begin = time.monotonic()
        with pytest.raises(OSError):
            get(server)
        assert time.monotonic() - begin < 0.5


def test_a_user_is_checked_once_and_then_for_nothing(tmp_path: Path) -> None:
    web_config(tmp_path, basic_auth_users={"alice": hashed("right", 12)})
    with serving(tmp_path) as server:
        times = []
        for _ in range(6):
            begin = time.monotonic()
            connection = http.client.HTTPConnection(*address(server), timeout=8)
            connection.request("GET", "/-/healthy", headers=PASSWORD)
            assert connection.getresponse().status == 200
            connection.close()
            times.append(time.monotonic() - begin)
        assert times[0] > 4 * min(times[1:])


def test_guesses_do_not_hold_up_a_user(tmp_path: Path) -> None:
    web_config(tmp_path, tls_server_config=issue(tmp_path), basic_auth_users={"alice": hashed("right", 11)})
    with serving(tmp_path) as server:
        get(server)
        guess = {"Authorization": "Basic " + b64encode(b"alice:guess").decode()}
        found: list[int] = []
        guesses = [threading.Thread(target=lambda: found.append(get(server, headers=guess)[0])) for _ in range(12)]
        for thread in guesses:
            thread.start()
        time.sleep(0.1)
        begin = time.monotonic()
        assert get(server, "/metrics")[0] == 200
        assert time.monotonic() - begin < 1.0
        for thread in guesses:
            thread.join()
        assert set(found) <= {401, 503}
        assert found.count(401) > 0


def test_old_clients_are_refused(tmp_path: Path) -> None:
    web_config(tmp_path, tls_server_config={**issue(tmp_path), "min_version": "TLS13"})
    old = trusting()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with serving(tmp_path) as server:
        assert get(server)[0] == 200
        with pytest.raises(ssl.SSLError):
            get(server, context=old)


def test_ciphers_are_those_named(tmp_path: Path) -> None:
    name = "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256"
    web_config(tmp_path, tls_server_config={**issue(tmp_path), "max_version": "TLS12", "cipher_suites": [name]})
    with (
        serving(tmp_path) as server,
        socket.create_connection(address(server), timeout=8) as plain,
        trusting().wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        assert secure.cipher() == ("ECDHE-ECDSA-CHACHA20-POLY1305", "TLSv1.2", 256)


@pytest.mark.parametrize("policy", ["RequireAndVerifyClientCert", "VerifyClientCertIfGiven"])
def test_certificates_of_clients(tmp_path: Path, policy: str) -> None:
    AUTHORITY.cert_pem.write_to_path(str(tmp_path / "ca.crt"))
    section = {**issue(tmp_path), "client_auth_type": policy, "client_ca_file": "ca.crt"}
    web_config(tmp_path, tls_server_config=section)
    known, stranger = trusting(), trusting()
    AUTHORITY.issue_cert("client").configure_cert(known)
    trustme.CA().issue_cert("client").configure_cert(stranger)
    with serving(tmp_path) as server:
        assert get(server, context=known)[0] == 200
        with pytest.raises(OSError):
            get(server, context=stranger)
        if policy == "VerifyClientCertIfGiven":
            assert get(server)[0] == 200
        else:
            with pytest.raises(OSError):
                get(server)


def test_headers_are_added_and_replace_our_own(tmp_path: Path) -> None:
    wanted = {"Strict-Transport-Security": "max-age=300", "Content-Security-Policy": "default-src 'self'"}
    web_config(tmp_path, tls_server_config=issue(tmp_path), http_server_config={"headers": wanted})
    with serving(tmp_path) as server:
        for target in ("/", "/nowhere"):
            headers = get(server, target)[1]
            assert {name: headers.get_all(name) for name in wanted} == {name: [text] for name, text in wanted.items()}


def _renewed(server: WebServer, old: bytes) -> bool:
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        if certificate(server) != old:
            return True
        time.sleep(0.1)
    return False


def test_a_renewed_certificate_is_taken_in(folder: Path) -> None:
    with serving(folder) as server:
        old = certificate(server)
        issue(folder)
        assert _renewed(server, old)
        assert get(server)[0] == 200


def test_a_renewed_certificate_behind_links_is_taken_in(tmp_path: Path) -> None:
    """As programs that renew lay them: names that point at the newest files."""
    for name in ("one", "two"):
        issue(tmp_path, name)
    names = {"cert_file": "live.crt", "key_file": "live.key"}
    for name in names.values():
        (tmp_path / name).symlink_to("one" + name[4:])
    web_config(tmp_path, tls_server_config=names)
    with serving(tmp_path) as server:
        old = certificate(server)
        for name in names.values():
            (tmp_path / "new").symlink_to("two" + name[4:])
            (tmp_path / "new").rename(tmp_path / name)
        assert _renewed(server, old)


@pytest.mark.parametrize("fault", ["garbage", "half", "gone"])
def test_a_broken_pair_leaves_the_old_one_in_use(
    folder: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    monkeypatch.setattr("agent.web_security._LOOK", 0.0)
    with serving(folder) as server:
        old = certificate(server)
        if fault == "garbage":
            (folder / "server.crt").write_text("garbage", encoding="utf-8")
        elif fault == "half":
            issue(folder, key="unused")
        else:
            (folder / "server.key").unlink()
        for _ in range(4):
            assert certificate(server) == old
            assert get(server)[0] == 200
        warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
        assert len(warnings) == 1
        assert "the old one stays in use: " in warnings[0]
        issue(folder)
        assert _renewed(server, old)


def test_a_reload_takes_in_everything_or_nothing(folder: Path) -> None:
    with serving(folder) as server:
        old = certificate(server)
        path = web_config(folder, tls_server_config=issue(folder, "new"), basic_auth_users={"bob": hashed("b")})
        assert get(server)[0] == 200  # the file itself counts at a reload only
        (folder / "new.key").write_text("", encoding="utf-8")
        with pytest.raises(ConfigurationError, match="holds no private key"):
            load(path)
        issue(folder, "new")
        server.security.install(load(path))
        assert certificate(server) != old
        assert get(server)[0] == 401


def test_passwords_in_clear_on_the_network_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = web_config(tmp_path, basic_auth_users={"alice": hashed("right")})
    for listen, warned in (("127.0.0.1:0", False), ("0.0.0.0:0", True)):
        WebServer(Web(listen=listen, config_file=path), StillAgent(still_tuner())).stop()
        assert ("in clear" in caplog.text) is warned


def test_commands_of_this_host_need_no_password(folder: Path) -> None:
    path = folder / "agent.sock"
    with socket.socket(socket.AF_UNIX) as left_behind:
        left_behind.bind(str(path))
    config = Config(state_dir=folder, web=Web(config_file=folder / "web.yml"))
    with serving(folder, local=True):
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert "groups" in ask(config, "/api/v1/status", "groups")
        connection = connect(config, 3)
        connection.request("POST", "/api/v1/status")
        assert connection.getresponse().status == 405
        connection.close()
    assert not path.exists()
    with pytest.raises(TcptunedError, match=rf"no agent answers on {path} \(no such file"):
        ask(config, "/api/v1/status", "groups")


def test_the_socket_for_commands_is_closed_to_others(folder: Path) -> None:
    if os.geteuid() != 0:
        pytest.fail("becoming another user needs root: sudo ./test")
    for parent in (folder, *folder.parents[:2]):
        parent.chmod(0o755)
    with serving(folder, local=True):
        child = os.fork()
        if child == 0:
            code = 1
            try:
                os.setuid(65534)
                socket.socket(socket.AF_UNIX).connect(str(folder / "agent.sock"))
            except PermissionError:
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_an_agent_that_cannot_make_its_socket_says_so(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    server = WebServer(
        Web(listen="127.0.0.1:0", config_file=folder / "web.yml"), StillAgent(still_tuner()),
        local=folder / ("x" * 120) / "agent.sock",
    )  # fmt: skip
    server.stop()
    assert "commands such as `tcptuned status` cannot ask this agent" in caplog.text
