"""`status --watch` as a process: on a terminal, in a pipe, as JSON, and past an agent's restart."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from handmade import StillAgent, absorb, still_tuner

from agent.cli import main
from agent.config import Web
from agent.web import WebServer

# A shell's background job, such as a test run may be, ignores Ctrl-C, and so would its children.
HEEDS_CTRL_C = ["env", "--default-signal=INT", sys.executable, "-m", "agent"]


def _server(listen: str = "127.0.0.1:0", *, paths: int = 1) -> WebServer:
    tuner = still_tuner()
    for number in range(paths):
        absorb(tuner, f"203.0.{number}.0/24", closed=12, sent_segments=100)
    tuner.decide(time.monotonic())
    server = WebServer(Web(listen=listen), StillAgent(tuner))
    server.start()
    return server


@pytest.fixture
def command(tmp_path: Path) -> Iterator[list[str]]:
    server = _server()
    file = tmp_path / "tcptuned.yaml"
    file.write_text(f"web: {{listen: '{server.url.removeprefix('http://')}'}}\n")
    yield [*HEEDS_CTRL_C, "status", "--config", str(file), "--watch", "0.1"]
    server.stop()


def _read_until(descriptor: int, pattern: str) -> str:
    """What comes, up to and with the pattern."""
    text, end = "", time.monotonic() + 20
    while not re.search(pattern, text, re.DOTALL):
        assert time.monotonic() < end, text
        text += os.read(descriptor, 65536).decode()
    return text


def test_a_terminal_is_redrawn_in_place_and_ctrl_c_ends_it_well(command: list[str]) -> None:
    ours, theirs = pty.openpty()
    size = {**os.environ, "COLUMNS": "100", "LINES": "40", "TERM": "xterm"}
    with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=subprocess.PIPE, env=size) as process:
        os.close(theirs)
        text = _read_until(ours, r"every 0\.1 s; Ctrl-C ends.*every 0\.1 s; Ctrl-C ends")
        process.send_signal(signal.SIGINT)
        text += _read_until(ours, re.escape("\x1b[?25h"))  # the cursor is shown again
        assert process.wait(10) == 0
        assert process.stderr is not None
        assert process.stderr.read() == b""
    os.close(ours)
    assert "ready, tuning; paths: 1" in text
    # Up by all lines of the picture before, each cleared.
    assert text.count("\x1b[1A\x1b[2K") > 10


def test_a_pipe_gets_plain_text(command: list[str]) -> None:
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        text = _read_until(process.stdout.fileno(), r"UTC\ntcptuned .*UTC\ntcptuned ")
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
    assert "\x1b" not in text


def test_json_is_one_line_an_interval_and_a_restart_of_the_agent_is_waited_for(tmp_path: Path) -> None:
    server = _server()
    listen = server.url.removeprefix("http://")
    file = tmp_path / "tcptuned.yaml"
    file.write_text(f"web: {{listen: '{listen}'}}\n")
    command = [*HEEDS_CTRL_C, "status", "--config", str(file), "--json", "--watch", "0.1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert json.loads(process.stdout.readline())["paths"] == 1
        server.stop()
        assert "no agent answers" in _read_until(process.stderr.fileno(), "--config\n")
        again = _server(listen, paths=2)
        # After what was in the pipe before the end.
        assert any(json.loads(process.stdout.readline())["paths"] == 2 for _ in range(100))
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0
        again.stop()


def test_without_an_agent_at_first_it_is_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "tcptuned.yaml"
    file.write_text("web: {listen: '127.0.0.1:1'}\n")
    assert main(["status", "--watch", "--config", str(file)]) == 1
    assert "no agent answers" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["0", "-1", "nan", "inf", "soon"])
def test_an_interval_that_is_none_is_wrong_usage(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["status", f"--watch={text}"])
    assert caught.value.code == 2
    assert "must be 0.1 to 86400 seconds" in capsys.readouterr().err
