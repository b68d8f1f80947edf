"""What is counted of a connection does not depend on how it ends: idle, half-closed, with nobody there, used again."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from ipaddress import ip_network
from typing import Any

import numpy as np
import pytest
from running import require_root

from agent import libbpf
from agent.kernel import Kernel
from agent.lab.lab import Lab
from agent.lab.spec import LinkSpec, PathSpec
from agent.loader import Loader
from agent.rules import packed

PORT = 7300
LOSSY = 4  # connections over the short queue: not every one loses in its last flight
SIZE = 50_000
ROWS = 1024
DOWN, UP = LinkSpec(rate_mbps=100, delay_ms=10), LinkSpec(delay_ms=10)
LINE = 100e6 / 8  # bytes a second
# A FIN that nobody answers is given up after so many retries, some 3 seconds.
SYSCTLS = {"ipv4/tcp_orphan_retries": "2"}

# They get an address, a port and, to connect, their own address. Where the test has something to do meanwhile, they
# wait for a line on the standard input.
COMMON = f"""
import socket, sys, time
data = bytes({SIZE})
def step():
    print("done", flush=True)
    sys.stdin.readline()
"""
LISTENING = COMMON + """
listener = socket.create_server((sys.argv[1], int(sys.argv[2])), backlog=8)
print("ready", flush=True)
def accepted():
    return listener.accept()[0]
"""
CONNECTING = COMMON + """
def connected():
    return socket.create_connection((sys.argv[1], int(sys.argv[2])), source_address=(sys.argv[3], 0))
def read(connection, size):
    while size > 0 and (part := connection.recv(65536)):
        size -= len(part)
"""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    require_root()
    paths = [
        PathSpec(name="path", down=DOWN, up=UP),
        PathSpec.symmetric("short queue", rate_mbps=12, delay_ms=10, queue_packets=8),
    ]
    with Lab(paths, server_sysctls=SYSCTLS) as opened:
        yield opened


@pytest.fixture(scope="module")
def kernel(lab: Lab) -> Iterator[Kernel]:
    """Attached to the server's cgroup; everything keeps the kernel's defaults."""
    kernel = Kernel(Loader({"POLICY_ENTRIES": 100, "ROW_ENTRIES": ROWS, "HONOURED_ENTRIES": 16}).finish())
    kernel.control(
        lease_until_ns=time.monotonic_ns() + round(600e9), initial_window_max=80, ack_delay_min_us=8001,
        host_congestion=b"cubic",
    )  # fmt: skip
    key, value = np.zeros(1, kernel.prefix_key), np.zeros(1, kernel.policy)
    key["bits"], key["address"] = 112, np.frombuffer(packed(ip_network("10.77.0.0/16").network_address), np.uint32)
    value["path_bits"] = 120
    kernel.publish(key, value)
    kernel.attach([lab.server_cgroup])
    yield kernel
    kernel.close()


@pytest.fixture(autouse=True)
def _nothing_left(kernel: Kernel) -> None:
    kernel.drain_all()


class Side:
    """A script on one side of the laboratory."""

    def __init__(self, lab: Lab, side: str, script: str, *arguments: object) -> None:
        command = [sys.executable, "-c", script, *map(str, arguments)]
        self._process = lab.run_in(side, command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def wait(self, word: str = "done") -> None:
        """Until it says so."""
        assert self._process.stdout.readline().strip() == word

    def go(self) -> None:
        """Lets it take the next step."""
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def end(self) -> None:
        self._process.communicate(timeout=20)
        assert self._process.returncode == 0


def both(lab: Lab, server: str, client: str, *, path: str = "path") -> tuple[Side, Side]:
    address = lab.server_address()
    one = Side(lab, "server", LISTENING + server, address, PORT)
    one.wait("ready")
    return one, Side(lab, "client", CONNECTING + client, address, PORT, lab.address(path))


def two_transfers(lab: Lab) -> tuple[Side, Side]:
    """Both sides of a connection whose first download has been sent; the second waits for the server to go on."""
    sides = both(
        lab, "c = accepted(); c.sendall(data); step(); c.sendall(data); step(); c.close()",
        "c = connected(); read(c, 2 * len(data)); step(); c.close()",
    )  # fmt: skip
    sides[0].wait()
    return sides


def seen(kernel: Kernel, closed: int = 1) -> dict[str, Any]:
    """The sums of all rows since they were read last, once so many connections have closed."""
    parts: list[Any] = []
    deadline = time.monotonic() + 10.0
    while not parts or (sum(int(part["closed"].sum()) for part in parts) < closed and time.monotonic() < deadline):
        time.sleep(0.3)
        parts.append(kernel.drain_all()[1])
    rows = np.concatenate(parts)
    sums: dict[str, Any] = {name: int(rows[name].sum()) for name in rows.dtype.names if rows[name].dtype.kind == "u"}
    sums["rate"] = int(rows["rate"].max(initial=0))
    return sums | {name: {each: int(rows[name][each].sum()) for each in rows[name].dtype.names}
                   for name in ("sent", "received")}  # fmt: skip


def is_one_download(sums: dict[str, Any]) -> None:
    """SIZE bytes in less than half a second, at no more than the line's rate, nothing lost."""
    sent = sums["sent"]
    assert (sent["count"], sent["bytes"], sums["sent_bytes"]) == (1, SIZE, SIZE)
    assert sent["time_us"] < 500_000
    assert 0 < sums["rate"] < 1.1 * LINE
    assert (sums["opened"], sums["closed"]) == (1, 1)
    assert (sums["first_window_losses"], sums["retransmitted_segments"], sums["timeouts"]) == (0, 0, 0)
    assert (sums["first_windows"], sums["first_window_segments"]) == (1, 10)


@pytest.mark.parametrize(
    ("server", "client"),
    [
        ("time.sleep(1.5); c.close()", "read(c, 1 << 40)"),
        ("c.recv(1); c.close()", "read(c, len(data)); time.sleep(1.5); c.close()"),
    ],
    ids=["the server", "the client"],
)
def test_who_closes_after_an_idle_while_changes_nothing(lab: Lab, kernel: Kernel, server: str, client: str) -> None:
    sides = both(lab, f"c = accepted(); c.sendall(data); {server}", f"c = connected(); {client}")
    for side in sides:
        side.end()
    is_one_download(seen(kernel))


def test_a_half_closed_connection_is_told_in_two_samples(lab: Lab, kernel: Kernel) -> None:
    """As a lingering close does: the FIN is acknowledged long before the end."""
    server, client = both(
        lab, "c = accepted(); c.sendall(data); time.sleep(1.5); c.shutdown(socket.SHUT_WR); c.recv(1)",
        "c = connected(); read(c, 1 << 40); step(); c.close()",
    )  # fmt: skip
    client.wait()
    first = seen(kernel, closed=0)
    client.go()
    client.end()
    server.end()
    last = seen(kernel)
    assert (first["sent_bytes"], last["sent_bytes"]) == (SIZE, 0)
    assert (first["sent"]["count"], last["sent"]["count"]) == (1, 0)
    assert max(first["rate"], last["rate"]) < 1.1 * LINE


def test_a_loss_in_the_last_flight_leaves_the_pause_after_it_a_pause(lab: Lab, kernel: Kernel) -> None:
    """Nothing calls when it is repaired."""
    server, client = both(
        lab, f"for _ in range({LOSSY}):\n c = accepted()\n c.sendall(data)\n time.sleep(2.5)\n c.close()",
        f"for _ in range({LOSSY}):\n c = connected()\n read(c, 1 << 40)\n c.close()", path="short queue",
    )  # fmt: skip
    server.end()
    client.end()
    sums = seen(kernel, closed=LOSSY)
    assert sums["retransmitted_segments"] > 0
    assert (sums["sent"]["count"], sums["sent"]["bytes"]) == (LOSSY, LOSSY * SIZE)
    assert sums["sent"]["time_us"] < LOSSY * 1_000_000


@pytest.mark.parametrize("idle", [0.0, 1.5], ids=["at once", "after an idle while"])
def test_a_client_that_vanished_says_nothing_of_the_arms(lab: Lab, kernel: Kernel, idle: float) -> None:
    """Nobody acknowledges the FIN, which lies within the first window: it is no data, and its wait no transfer."""
    server, client = both(
        lab, f"c = accepted(); c.sendall(data); step(); time.sleep({idle}); c.close()",
        "c = connected(); read(c, len(data)); step()",
    )  # fmt: skip
    server.wait()
    client.wait()
    time.sleep(0.1)  # the last ACK
    lab.change("path", down=LinkSpec(loss=1.0), up=LinkSpec(loss=1.0))
    try:
        server.go()
        server.end()
        is_one_download(seen(kernel))
    finally:
        lab.change("path", down=DOWN, up=UP)
        client.go()
        client.end()


def test_an_idle_while_before_a_loss_is_no_part_of_a_transfer(lab: Lab, kernel: Kernel) -> None:
    server, client = two_transfers(lab)
    time.sleep(3.0)
    lab.change("path", down=LinkSpec(loss=1.0))
    server.go()
    server.wait()
    time.sleep(0.1)  # the whole flight is lost
    lab.change("path", down=DOWN)
    client.wait()
    for each in (server, client):
        each.go()
        each.end()
    sums = seen(kernel)
    assert (sums["sent"]["count"], sums["sent"]["bytes"]) == (2, 2 * SIZE)
    assert 200_000 < sums["sent"]["time_us"] < 1_500_000  # the second waits for the retransmission, 0.2 s or more
    assert sums["retransmitted_segments"] > 0
    assert 0 < sums["rate"] < 1.1 * LINE


def test_a_socket_that_connects_again_is_a_connection_of_its_own(lab: Lab, kernel: Kernel) -> None:
    """connect(2) with AF_UNSPEC ends a connection, not its socket; the kernel's counts begin anew."""
    listener = Side(
        lab, "client",
        LISTENING + "for _ in range(2):\n c = accepted()\n try:\n  while c.recv(65536): pass\n"
        " except ConnectionResetError: pass",
        lab.address("path"), PORT,
    )  # fmt: skip
    listener.wait("ready")
    caller = Side(
        lab, "server",
        COMMON + "import ctypes\n"
        "c = socket.socket()\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "for size in (200_000, 50_000):\n"
        "    c.connect((sys.argv[1], int(sys.argv[2])))\n"
        "    c.sendall(bytes(size))\n"
        "    time.sleep(0.5)\n"
        "    assert libc.connect(c.fileno(), bytes(16), 16) == 0\n",
        lab.address("path"), PORT,
    )  # fmt: skip
    caller.end()
    listener.end()
    sums = seen(kernel, closed=2)
    assert (sums["opened"], sums["closed"]) == (2, 2)
    assert (sums["sent_bytes"], sums["sent"]["count"], sums["sent"]["bytes"]) == (250_000, 2, 250_000)
    assert sums["sent_segments"] < 400
    assert sums["retransmitted_segments"] == 0
    assert (sums["first_windows"], sums["first_window_segments"]) == (2, 20)


def test_where_rows_are_full_the_next_transfer_is_no_faster(lab: Lab, kernel: Kernel) -> None:
    """What found no row is missing; its bytes are not the next transfer's."""
    server, client = two_transfers(lab)
    time.sleep(0.5)  # transferred; then a pause
    kernel.drain_all()
    junk = np.zeros(ROWS, kernel.row_key)
    junk["address"][:, 0] = np.arange(1, ROWS + 1)
    for name in ("rows_a", "rows_b"):
        libbpf.update_batch(kernel._maps[name].fd, junk, np.zeros(ROWS, kernel.row))
    server.go()
    client.wait()
    kernel.drain_all()
    for each in (server, client):
        each.go()
        each.end()
    sums = seen(kernel)
    assert kernel.counters()["lost_rows_full"] > 0
    assert sums["sent"]["count"] == 1
    assert SIZE - 10 * 1448 <= sums["sent"]["bytes"] <= SIZE  # what its first callback came with is the first one's
    assert 0 < sums["rate"] < 1.1 * LINE
