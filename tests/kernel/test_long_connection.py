"""A connection of gigabytes, over a plain veth pair: sequence numbers come round again."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address, ip_network
from pathlib import Path

import numpy as np
import pytest
from running import require_root

from agent.kernel import Kernel
from agent.lab.processes import enter_command
from agent.lab.topology import SERVER_V4, Topology
from agent.loader import Loader
from agent.rules import packed

SIZE = 2_400_000_000  # between 2 and 4 GiB: half of the sequence numbers lie behind
CLIENT = IPv4Address("10.77.1.1")
SEND = f"""
import socket
listener = socket.create_server(("{SERVER_V4}", 7302))
print(flush=True)
c = listener.accept()[0]
for _ in range({SIZE // 1_000_000}):
    c.sendall(bytes(1_000_000))
print(flush=True)
c.sendall(bytes(10_000_000))
c.close()
"""
READ = f"""
import socket
c = socket.create_connection(("{SERVER_V4}", 7302))
while c.recv(1 << 20): pass
"""


@pytest.fixture
def topology() -> Iterator[Topology]:
    require_root()
    topology = Topology("tcptuned-long-test", direct=True)
    try:
        topology.open([CLIENT])
        yield topology
    finally:
        topology.close()


@contextmanager
def started(
    namespace: str, group: Path, script: str, *, after: subprocess.Popen[bytes] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A script on one side, once the other has said a line; it is gone after the block."""
    if after is not None:
        after.stdout.readline()
    command = [*enter_command(namespace, group), sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.mark.long
def test_a_late_loss_is_none_of_the_first_window(topology: Topology) -> None:
    kernel = Kernel(Loader({"POLICY_ENTRIES": 100, "ROW_ENTRIES": 1024, "HONOURED_ENTRIES": 16}).finish())
    kernel.control(lease_until_ns=time.monotonic_ns() + round(600e9), host_congestion=b"cubic")
    key, value = np.zeros(1, kernel.prefix_key), np.zeros(1, kernel.policy)
    key["bits"], key["address"] = 112, np.frombuffer(packed(ip_network("10.77.0.0/16").network_address), np.uint32)
    value["path_bits"] = 120
    kernel.publish(key, value)
    kernel.attach([topology.server_cgroup])
    try:
        with (
            started(topology.server_namespace, topology.server_cgroup, SEND) as server,
            started(topology.client_namespace, topology.client_cgroup, READ, after=server) as client,
        ):
            server.stdout.readline()
            for command in ("link set wan down", "link set wan up", "route add default dev wan"):
                subprocess.run(["ip", "-n", topology.client_namespace, *command.split()], check=True)
                time.sleep(0.2)
            assert (server.wait(30), client.wait(30)) == (0, 0)
        time.sleep(0.3)
        rows = kernel.drain_all()[1]
    finally:
        kernel.close()
    assert rows["sent_bytes"].sum() == SIZE + 10_000_000
    assert rows["retransmitted_segments"].sum() > 0
    assert rows["first_window_losses"].sum() == 0
