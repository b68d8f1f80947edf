"""Known loads appear exactly in /metrics."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from running import RunningAgent, configuration, require_root

from agent.bpf_source import constants
from agent.lab.bench.kernel import FixedArms
from agent.lab.enter import in_namespace
from agent.lab.lab import Lab
from agent.lab.spec import LinkSpec, PathSpec
from agent.lab.workload import ServerOptions, Transfer
from agent.rules import packed

SIZE = 30_011  # a prime, so that no accident makes the sums right
PATHS = [
    PathSpec.symmetric("quiet", rate_mbps=100, delay_ms=2),
    PathSpec.symmetric("slow", rate_mbps=0.8, delay_ms=20, queue_packets=20),
    PathSpec.symmetric("twice as fast", rate_mbps=1.6, delay_ms=20, queue_packets=20),
    PathSpec(name="lossy", down=LinkSpec(delay_ms=2, loss=0.03), up=LinkSpec(delay_ms=2)),
]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    require_root()
    with Lab(PATHS, server_options=ServerOptions(dual_stack=True)) as opened:
        yield opened


@pytest.mark.parametrize(
    ("options", "network"),
    [({"family": 4}, "10.77.1.0/24"), ({"family": 6}, "fd77:1::/48")],
    ids=["v4-mapped", "v6"],
)
def test_connections_and_bytes_are_exact(lab: Lab, tmp_path: Path, options: dict[str, int], network: str) -> None:
    with RunningAgent(lab, configuration(lab, tmp_path)) as agent:
        completions = lab.fetch("quiet", size=SIZE, count=101, concurrency=4, **options)
        assert [each.error for each in completions] == [None] * 101
        assert agent.settled("connections_closed_total", 101) == 101
        assert agent.value("connections_opened_total", side="passive") == 101
        assert agent.value("connections_opened_total", side="active") == 0
        assert agent.value("sent_bytes_total") == 101 * SIZE
        assert agent.value("first_windows_total") <= 101
        assert agent.value("rtt_seconds_count") == agent.value("rounds_total") > 101
        assert agent.value("connections_treated_total") + agent.value("connections_holdout_total") == 101
        found = agent.explain(completions[0].address)
        assert found["path"] == network
        assert agent.value("paths") == 1


def test_plain_v4_listener(lab: Lab, tmp_path: Path) -> None:
    lab.listen(ServerOptions())
    try:
        with RunningAgent(lab, configuration(lab, tmp_path)) as agent:
            completions = lab.fetch("quiet", size=SIZE, count=53, concurrency=2)
            assert agent.settled("sent_bytes_total", 53 * SIZE) == 53 * SIZE
            assert agent.explain(completions[0].address)["path"] == "10.77.1.0/24"
    finally:
        lab.listen(ServerOptions(dual_stack=True))


def test_uploads_are_received_bytes(lab: Lab, tmp_path: Path) -> None:
    with RunningAgent(lab, configuration(lab, tmp_path)) as agent:
        lab.upload("quiet", size=SIZE, count=23)
        agent.settled("connections_closed_total", 23)
        # The request line comes first: PUT, a blank, the size, a line feed.
        assert agent.value("received_bytes_total") == 23 * (SIZE + len(f"PUT {SIZE}\n"))


def test_retransmissions_are_what_the_kernel_counts(lab: Lab, tmp_path: Path) -> None:
    with RunningAgent(lab, configuration(lab, tmp_path)) as agent:
        before = kernel_retransmissions(lab)
        dropped = lab.counters().paths["lossy"].down.packets_dropped_loss
        lab.fetch("lossy", size=SIZE, count=199, concurrency=4)
        assert agent.settled("connections_closed_total", 199) == 199
        counted = agent.value("retransmitted_segments_total")
        # The kernel counts FINs that stand alone too: 3 % of 199 are lost, some twice.
        assert 0 <= kernel_retransmissions(lab) - before - counted <= 15
        # SYN-ACKs and pure ACKs are lost too, so what was lost is more than what was sent again.
        assert 50 < counted <= 1.2 * (lab.counters().paths["lossy"].down.packets_dropped_loss - dropped)
        assert 0 < agent.value("first_window_losses_total") <= counted


def test_a_long_transfer_is_told_in_pieces(lab: Lab, tmp_path: Path) -> None:
    """256 KiB, 1, 4 and 16 MiB and the rest of 25 MB; together all its bytes, and all but its handshake of its time."""
    with RunningAgent(lab, configuration(lab, tmp_path, control={"holdout": 0})) as agent:
        [done] = lab.fetch("quiet", size=25_000_000, count=1)
        assert agent.settled("transfers_total", 5, dimension="congestion") == 5
        assert agent.value("transfer_bytes_total", dimension="congestion") == 25_000_000
        seconds = agent.value("transfer_seconds_total", dimension="congestion")
        assert done.connect is not None
        assert 0.95 < seconds / (done.seconds - done.connect) < 1.05


def test_a_transfer_that_is_cut_counts_as_what_its_piece_would_have_taken(lab: Lab) -> None:
    """Both downloads last a second; the one of twice the speed must count as half the time."""
    whole = constants()["PIECE_BYTES"]
    with FixedArms(lab.server_cgroup) as fixed:
        for path in ("slow", "twice as fast"):
            fixed.choose(lab.network(path), 10, "cubic")
        downloads = lab.run([
            Transfer(path=path, size=1 << 40, seconds=1.0, cut=True) for path in ("slow", "twice as fast")
        ])  # fmt: skip
        time.sleep(2.5)  # until the last rows have been read
        counts = fixed.counts()
    for path, [done] in zip(("slow", "twice as fast"), downloads, strict=True):
        assert done.bytes < whole
        found = counts[packed(lab.network(path).network_address)]
        assert found["transfers"] == 1
        assert 2 ** found["log_time"] / 1e6 == pytest.approx(whole * 8e-6 / done.mbps, rel=0.15)


def kernel_retransmissions(lab: Lab) -> int:
    """Retransmitted data segments of the server's namespace: all, less SYN-ACKs (RFC 4022, snmp_counter.rst)."""

    def read() -> int:
        tcp = counters("/proc/self/net/snmp", "Tcp")
        extended = counters("/proc/self/net/netstat", "TcpExt")
        return tcp["RetransSegs"] - extended["TCPSynRetrans"]

    return in_namespace(lab.server_namespace, read)


def counters(path: str, section: str) -> dict[str, int]:
    # A thread has its own view of /proc/thread-self/net; /proc/self is the process's main thread.
    lines = Path(path.replace("self", "thread-self")).read_text(encoding="ascii").splitlines()
    names, values = [line.split()[1:] for line in lines if line.startswith(f"{section}:")]
    return dict(zip(names, map(int, values), strict=True))
