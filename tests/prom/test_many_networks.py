"""A real agent that knows 5,000 remote networks: few series, quick scrapes."""

from __future__ import annotations

import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
from running import PORT, RunningAgent, configuration, require_root

from agent.lab.enter import in_namespace
from agent.lab.lab import Lab
from agent.lab.spec import PathSpec

NETWORKS = 5000
SCRAPES = 200
SERVE = """
import socket
listener = socket.create_server(("10.63.0.1", 9000), backlog=1024)
body = bytes(1000)
print("listening", flush=True)
while True:
    connection, _ = listener.accept()
    connection.sendall(body)
    connection.close()
"""
# One connection from an address of each network: the whole range is local to the client.
FETCH = f"""
import socket
for number in range({NETWORKS}):
    source = f"10.{{128 + (number >> 8)}}.{{number & 255}}.1"
    with socket.create_connection(("10.63.0.1", 9000), source_address=(source, 0)) as connection:
        while connection.recv(65536):
            pass
"""


def test_few_series_and_quick_scrapes(tmp_path: Path) -> None:
    """At most 1,000 series; a scrape takes at most 30 ms at the 99th percentile, in one of three tries."""
    require_root()
    with Lab([PathSpec.symmetric("unused", rate_mbps=100, delay_ms=1)]) as lab:
        _join(lab)
        # The default configuration: its pace, too.
        config = configuration(lab, tmp_path, sampling={"interval": "1s"}, control={"interval": "5s"})
        with RunningAgent(lab, config) as agent:
            server = lab.run_in("server", [sys.executable, "-c", SERVE], stdout=subprocess.PIPE)
            assert server.stdout is not None
            assert server.stdout.readline() == b"listening\n"
            client = lab.run_in("client", [sys.executable, "-c", FETCH])
            assert client.wait(120) == 0
            agent.settled("paths", NETWORKS)
            assert agent.value("paths") == NETWORKS
            series = len(agent.samples())
            found = [_percentile(lab) for _ in range(3)]
            server.terminate()
            server.stdout.close()
    print(f"{series} series; a scrape at the 99th percentile: {', '.join(f'{each * 1e3:.1f} ms' for each in found)}")
    assert 100 < series <= 1000
    assert min(found) < 0.030


def _join(lab: Lab) -> None:
    """A plain link between the two sides, and 10.128.0.0/10 on the client's."""
    server, client = lab.server_namespace, lab.client_namespace
    for command in (
        f"link add many netns {server} type veth peer name many netns {client}",
        f"-n {server} addr add 10.63.0.1/24 dev many",
        f"-n {client} addr add 10.63.0.2/24 dev many",
        f"-n {server} link set many up",
        f"-n {client} link set many up",
        f"-n {client} route add local 10.128.0.0/10 dev lo",
        f"-n {server} route add 10.128.0.0/10 via 10.63.0.2",
    ):
        subprocess.run(["ip", *command.split()], check=True)


def _percentile(lab: Lab) -> float:
    def scrape() -> list[float]:
        seconds = []
        for _ in range(SCRAPES):
            begin = time.perf_counter()
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/metrics", timeout=5) as answer:
                assert answer.read()
            seconds.append(time.perf_counter() - begin)
            time.sleep(0.01)
        return seconds

    return float(np.percentile(in_namespace(lab.server_namespace, scrape), 99))
