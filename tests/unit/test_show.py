"""`status` and `explain` against a real server, and against everything that may answer in its place."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from handmade import StillAgent, absorb, still_tuner

from agent.config import Config, Web
from agent.connect import agent_url
from agent.errors import TcptunedError, UsageError
from agent.show import show_explain, show_status
from agent.web import WebServer


@pytest.fixture
def config() -> Iterator[Config]:
    """The configuration of an agent that runs."""
    tuner = still_tuner()
    absorb(tuner, "203.0.113.0/24", closed=12, sent_segments=100)
    absorb(tuner, "203.0.113.0/24", arm=1, log_time=16, closed=12, sent_segments=100)
    tuner.decide(time.monotonic())
    server = WebServer(Web(listen="127.0.0.1:0"), StillAgent(tuner))
    server.start()
    yield Config(web=Web(listen=server.url.removeprefix("http://")))
    server.stop()


def _stranger(answer: bytes) -> tuple[Config, threading.Thread]:
    """Something else that listens, and answers one connection."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with listener, listener.accept()[0] as connection:
            connection.recv(4096)
            connection.sendall(answer)

    thread = threading.Thread(target=serve)
    thread.start()
    return Config(web=Web(listen=f"127.0.0.1:{listener.getsockname()[1]}")), thread


def test_status_as_text_has_no_escape_codes(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    show_status(config, as_json=False)
    text = capsys.readouterr().out
    assert "\x1b" not in text
    for word in ("ready, tuning; paths: 1", "/sys/fs/cgroup", "default", "cdn", "initial_window"):
        assert word in text


def test_explain_as_text(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    show_explain(config, "203.0.113.7", as_json=False)
    text = capsys.readouterr().out
    assert "203.0.113.7 belongs to the path 203.0.113.0/24, group default" in text
    assert "0.50 (0.48 to 0.52)" in text
    assert re.search(r"^initial_window: \w+ since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC \(.+\)$", text, re.MULTILINE)
    show_explain(config, "2001:db8::1", as_json=False)
    assert "nothing is known of this path itself: what follows is of group default" in capsys.readouterr().out


def test_json_is_the_agents_own(config: Config, capsys: pytest.CaptureFixture[str]) -> None:
    show_status(config, as_json=True)
    assert json.loads(capsys.readouterr().out)["paths"] == 1
    show_explain(config, "203.0.113.7", as_json=True)
    assert json.loads(capsys.readouterr().out)["path"] == "203.0.113.0/24"


@pytest.mark.parametrize("address", ["", "host", "203.0.113.0/24", "1.2.3", "fe80::1%eth0"])
def test_a_bad_address_is_wrong_usage(address: str) -> None:
    with pytest.raises(UsageError, match=r"tcptuned explain 203\.0\.113\.7"):
        show_explain(Config(), address, as_json=False)


def test_without_an_agent_the_message_names_the_cure() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(TcptunedError, match=rf"no agent answers on \S+:{port} .*systemctl start") as caught:
        show_status(Config(web=Web(listen=f"127.0.0.1:{port}")), as_json=False)
    assert caught.value.exit_code == 1


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", "is not tcptuned"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]", "is not tcptuned"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 13\r\n\r\n{\"groups\":[]}", "another version"),
        (b"HTTP/1.1 503 X\r\nContent-Length: 16\r\n\r\n{\"error\":\"busy\"}", "refused: busy"),
        (b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n", "refused: HTTP 404"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "no agent answers"),
        (b"", "no agent answers"),
    ],
)
def test_whatever_else_answers_is_named(answer: bytes, text: str) -> None:
    config, thread = _stranger(answer)
    with pytest.raises(TcptunedError, match=text):
        show_status(config, as_json=False)
    thread.join()


def test_proxies_of_the_environment_are_not_asked(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")
    show_status(config, as_json=True)


@pytest.mark.parametrize(
    ("listen", "url"),
    [
        ("0.0.0.0:9877", "http://127.0.0.1:9877"),
        ("[::]:9877", "http://[::1]:9877"),
        ("[2001:db8::1]:80", "http://[2001:db8::1]:80"),
        ("localhost:9877", "http://localhost:9877"),
    ],
)
def test_where_the_agent_is_asked(listen: str, url: str) -> None:
    assert agent_url(Config(web=Web(listen=listen))) == url


def test_port_zero_cannot_be_asked() -> None:
    with pytest.raises(UsageError, match="port 0"):
        agent_url(Config(web=Web(listen="127.0.0.1:0")))
