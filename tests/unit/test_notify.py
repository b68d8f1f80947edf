"""The service manager's protocol against real datagram sockets."""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.notify import Notifier


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, str]]:
    """A bound socket as systemd has it, and its NOTIFY_SOCKET."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@tcptuned-test-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(name.replace("@", "\0", 1))
        receiver.settimeout(5)
        yield receiver, name


def test_messages_in_the_order_of_a_service_life(manager: tuple[socket.socket, str]) -> None:
    receiver, name = manager
    notifier = Notifier.from_environment({"NOTIFY_SOCKET": name})
    assert notifier.ready("tuning\n1 cgroup")
    assert notifier.ping()
    assert notifier.reloading()
    assert notifier.ready()
    assert notifier.stopping("bye")
    said = [receiver.recv(4096).decode().split("\n") for _ in range(5)]
    reloading, monotonic = said.pop(2)
    assert said == [
        ["READY=1", "STATUS=tuning 1 cgroup"],
        ["WATCHDOG=1"],
        ["READY=1"],
        ["STOPPING=1", "STATUS=bye"],
    ]
    assert reloading == "RELOADING=1"
    assert int(monotonic.removeprefix("MONOTONIC_USEC=")) > 0


@pytest.mark.parametrize("address", [None, "", "relative", "vsock:2:1234"])
def test_outside_systemd_nothing_is_said(address: str | None) -> None:
    notifier = Notifier.from_environment({} if address is None else {"NOTIFY_SOCKET": address})
    assert notifier == Notifier()
    assert not notifier.ready()


def test_a_socket_that_is_gone_or_full_stops_nobody(tmp_path: Path) -> None:
    gone = Notifier(str(tmp_path / "gone"))
    assert not gone.ping()
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(str(tmp_path / "full"))
        full = Notifier(str(tmp_path / "full"))
        # The kernel queues net.unix.max_dgram_qlen datagrams; nobody reads them here.
        limit = int(Path("/proc/sys/net/unix/max_dgram_qlen").read_text())
        answers = [full.ping() for _ in range(limit + 2)]
    assert answers[0]
    assert not answers[-1]
