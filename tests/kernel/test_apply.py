"""What the kernel side applies, and what it leaves alone, by policies written for the purpose."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Any

import numpy as np
import pytest
from running import require_root

from agent import libbpf
from agent.bpf_source import constants, counter_names
from agent.errors import KernelError
from agent.kernel import Kernel, possible_processors
from agent.lab.lab import Lab
from agent.lab.spec import PathSpec
from agent.lab.workload import ServerOptions
from agent.loader import Loader
from agent.rules import packed

ARMS = constants()["ARMS"]
WINDOW, CONGESTION, ACK = range(3)
SIZE = 60_000
ALWAYS = 65535
TWO_NETWORKS = ("10.0.0.0/8", "192.168.0.0/16")
RATE_MIN, RATE_MAX = constants()["RATE_MIN"], constants()["RATE_MAX"]


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    require_root()
    with Lab([PathSpec.symmetric("path", rate_mbps=100, delay_ms=10)]) as opened:
        yield opened


@pytest.fixture(scope="module")
def compiled() -> Iterator[Kernel]:
    """With arms 40 segments, bbr, paced, bbr-paced and an ACK delay."""
    require_root()
    kernel = Kernel(Loader({"POLICY_ENTRIES": 100, "ROW_ENTRIES": 1024, "HONOURED_ENTRIES": 16}).finish())
    arms = np.zeros(3 * ARMS, kernel.arm)
    arms["value"][WINDOW * ARMS + 1] = 40
    arms["value"][WINDOW * ARMS + 2] = 60_000
    arms["congestion"][CONGESTION * ARMS + 1] = b"bbr"
    arms["congestion"][CONGESTION * ARMS + 2] = b"no_such_thing"
    arms["value"][CONGESTION * ARMS + 3 : CONGESTION * ARMS + 5] = constants()["ARM_PACED"]
    arms["congestion"][CONGESTION * ARMS + 4] = b"bbr"
    arms["value"][CONGESTION * ARMS + 5] = constants()["ARM_PACED"]
    arms["congestion"][CONGESTION * ARMS + 5] = b"no_such_thing"
    arms["value"][ACK * ARMS + 1] = 4
    kernel.publish_arms(arms)
    yield kernel
    kernel.close()


@pytest.fixture
def kernel(lab: Lab, compiled: Kernel) -> Iterator[Kernel]:
    """Attached to the server's cgroup, as new: without policies, rows and counts; no holdout."""
    for index in range(len(counter_names())):
        nothing = np.zeros(possible_processors(), np.uint64)
        libbpf.update(compiled._maps["counters"].fd, np.array([index], np.uint32), nothing)
    generations.append((generations[-1] + 1) % 256)
    compiled.control(
        initial_window_max=80, ack_delay_min_us=8001, host_congestion=b"cubic", generation=generations[-1]
    )  # fmt: skip
    lease(compiled, 60.0)
    compiled.attach([lab.server_cgroup])
    yield compiled
    rows(compiled)
    compiled.detach()
    while published:
        compiled.withdraw(published.pop())


published: list[Any] = []
"""The keys of policies that are in the kernel."""
generations = [0]
"""One a test: a connection whose FIN got lost outlives its own, and must not be among the next one's."""


def lease(kernel: Kernel, seconds: float) -> None:
    kernel.control(lease_until_ns=time.monotonic_ns() + round(seconds * 1e9))


def policy(
    kernel: Kernel, network: IPv4Network | IPv6Network, *,
    excluded: bool = False, holdout: int = 0, rate: int = 0, paced_window: int = 0, transfer_min: int = 0, **arms: int,
) -> None:  # fmt: skip
    """One policy that always draws the arms named."""
    bits = network.prefixlen + (96 if network.version == 4 else 0)
    key = np.zeros(1, kernel.prefix_key)
    key["bits"], key["address"] = bits, np.frombuffer(packed(network.network_address), np.uint32)
    value = np.zeros(1, kernel.policy)
    value["path_bits"], value["excluded"] = max(bits, 96 + 24 if network.version == 4 else 48), excluded
    value["holdout"], value["rate"], value["transfer_min"] = holdout, rate, transfer_min
    value["paced_window"] = paced_window
    for dimension, name in enumerate(("window", "congestion", "ack")):
        value["upto"][0, dimension * ARMS + arms.get(name, 0) : (dimension + 1) * ARMS] = ALWAYS
    kernel.publish(key, value)
    published.append(key)


def states(lab: Lab, count: int = 5, **options: Any) -> list[dict[str, Any]]:
    """What the server's sockets say after a download."""
    found = lab.fetch("path", size=SIZE, count=count, state=True, **options)
    assert [each.error for each in found] == [None] * count
    return [each.state or {} for each in found]


def congestion(lab: Lab, **options: Any) -> set[str]:
    return {state["congestion"] for state in states(lab, **options)}


def rows(kernel: Kernel) -> tuple[Any, Any]:
    """Both maps, once the last connections have closed."""
    time.sleep(0.3)
    keys, values = kernel.drain_all()
    ours = keys["generation"] == generations[-1]
    return keys[ours], values[ours]


def first_flight(lab: Lab) -> int:
    """Segments of data the server sends before the first acknowledgement, counted on the wire."""
    filters = f"tcp and port {lab.server_port}".split()
    command = ["tcpdump", "-n", "-q", "-t", "-l", "-B", "8192", "-i", "any", *filters]
    with lab.run_in("server", command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as capture:
        while "listening on" not in capture.stderr.readline():
            pass
        lab.fetch("path", size=200_000)
        time.sleep(0.3)
        capture.terminate()
        lines, _ = capture.communicate(timeout=10)
    lengths = [(" Out " in line, int(line.rsplit(" ", 1)[1])) for line in lines.splitlines() if ": tcp " in line]
    request = next(index for index, (out, length) in enumerate(lengths) if not out and length)
    flight = itertools.takewhile(lambda packet: packet[0], lengths[request + 1 :])
    return round(sum(length for _, length in flight) / 1448)


@pytest.mark.parametrize("family", [4, 6])
def test_arms_are_applied_and_counted(lab: Lab, kernel: Kernel, family: int) -> None:
    policy(kernel, ip_network("10.77.0.0/16"), window=1, congestion=1, ack=1)
    policy(kernel, ip_network("fd77::/16"), window=1, congestion=1, ack=1)
    assert congestion(lab, family=family) == {"bbr"}
    counters = kernel.counters()
    assert (counters["set_initial_window"], counters["set_congestion"], counters["set_ack"]) == (5, 5, 5)
    keys, values = rows(kernel)
    assert len(keys) == 1
    assert keys["arms"].tolist() == [[1, 1, 1]]
    assert keys["treatment"].tolist() == [constants()["TREATMENT_APPLIED"]]
    assert values["closed"].tolist() == [5]
    assert values["first_windows"].tolist() == [5]
    assert values["first_window_segments"].tolist() == [5 * 40]


def test_the_first_flight_is_the_window(lab: Lab, kernel: Kernel) -> None:
    policy(kernel, ip_network("10.77.0.0/16"))
    assert first_flight(lab) == 10
    policy(kernel, ip_network("10.77.0.0/16"), window=1)
    assert first_flight(lab) == 40


def test_the_kernel_bounds_a_hostile_policy(lab: Lab, kernel: Kernel) -> None:
    policy(kernel, ip_network("10.77.0.0/16"), window=2)
    lab.fetch("path", size=SIZE, count=3)
    _, values = rows(kernel)
    # 60,000 segments were asked for, 80 is the configured most; a download of 42 segments does not fill it.
    assert values["first_window_segments"].tolist() == [3 * 42]
    kernel.control(initial_window_max=1_000_000)
    lab.fetch("path", size=1_000_000, count=3)
    _, values = rows(kernel)
    assert values["first_window_segments"].tolist() == [3 * constants()["INITIAL_WINDOW_MAX"]]


def test_an_algorithm_the_kernel_lacks_is_counted_and_not_compared(lab: Lab, kernel: Kernel) -> None:
    policy(kernel, ip_network("10.77.0.0/16"), congestion=2)
    assert congestion(lab) == {"cubic"}
    assert kernel.counters()["failed_congestion"] == 5
    keys, _ = rows(kernel)
    assert keys["arms"].tolist() == [[0, constants()["ARM_NONE"], 0]]


@pytest.mark.parametrize(
    ("asked", "applied"),
    [
        (1_600_000, {1_200_000, 2_000_000}), (1, {RATE_MIN, RATE_MIN * 5 // 4}),
        (2**32 - 1, {RATE_MAX - RATE_MAX // 4, RATE_MAX}),
    ],
)  # fmt: skip
@pytest.mark.parametrize("arm", [3, 4])
def test_a_paced_connection_has_the_rate_within_its_bounds(
    lab: Lab, kernel: Kernel, asked: int, applied: set[int], arm: int
) -> None:
    """One in eight tries a quarter more; the others leave a quarter while the first window is under way."""
    count = 20 if asked == 1 else 100  # that takes long
    algorithm = "bbr" if arm == 4 else "cubic"
    policy(kernel, ip_network("10.77.0.0/16"), congestion=arm, rate=asked, paced_window=80)
    found = states(lab, count=count, concurrency=20)
    assert {state["congestion"] for state in found} == {algorithm}
    rates = [state["tcp_info"]["max_pacing_rate"] for state in found]
    assert set(rates) == applied or (asked == 1 and set(rates) < applied)  # none tries more once in 600,000 runs
    assert rates.count(min(applied)) > 0.6 * count
    counters = kernel.counters()
    assert (counters["set_rate"], counters["set_congestion"]) == (count, count if algorithm == "bbr" else 0)
    assert counters["failed_rate"] == 0
    keys, _ = rows(kernel)
    assert set(keys["arms"][:, CONGESTION].tolist()) == {arm}


def test_after_its_first_window_a_paced_connection_has_the_whole_rate(lab: Lab, kernel: Kernel) -> None:
    policy(kernel, ip_network("10.77.0.0/16"), congestion=3, rate=1_600_000)
    rates = {state["tcp_info"]["max_pacing_rate"] for state in states(lab, count=20, concurrency=20)}
    assert 1_600_000 in rates
    assert rates <= {1_600_000, 2_000_000}


def test_a_probe_ends_with_its_first_loss(lab: Lab, kernel: Kernel) -> None:
    """None of 40 connections loses nothing in 99 runs of 100, and one of them probes in 99."""
    policy(kernel, ip_network("10.77.0.0/16"), congestion=3, rate=1_600_000)
    before = PathSpec.symmetric("path", rate_mbps=100, delay_ms=10).down
    lab.change("path", down=replace(before, loss=0.2))
    try:
        rates = {state["tcp_info"]["max_pacing_rate"] for state in states(lab, count=40, concurrency=20)}
    finally:
        lab.change("path", down=before)
    assert rates == {1_600_000}


def test_without_a_known_rate_nothing_is_paced_nor_compared(lab: Lab, kernel: Kernel) -> None:
    policy(kernel, ip_network("10.77.0.0/16"), congestion=4)
    assert congestion(lab) == {"cubic"}
    assert kernel.counters()["set_rate"] == 0
    keys, _ = rows(kernel)
    assert keys["arms"].tolist() == [[0, constants()["ARM_NONE"], 0]]


def test_without_its_algorithm_an_arm_leaves_no_rate_nor_window(lab: Lab, kernel: Kernel) -> None:
    policy(kernel, ip_network("10.77.0.0/16"), congestion=5, rate=1_000_000, paced_window=28)
    [state] = states(lab, count=1)
    assert (state["congestion"], state["tcp_info"]["max_pacing_rate"]) == ("cubic", 2**64 - 1)
    assert kernel.counters()["failed_congestion"] == 1
    _, values = rows(kernel)
    assert values["first_window_segments"].tolist() == [10]


@pytest.mark.parametrize(("asked", "applied"), [(28, 28), (250, 80), (1, 2)])
@pytest.mark.parametrize("arm", [3, 4])
def test_a_paced_connection_has_its_own_window(lab: Lab, kernel: Kernel, asked: int, applied: int, arm: int) -> None:
    """Whatever would be drawn; and no other connection has it."""
    network = ip_network("10.77.0.0/16")
    policy(kernel, network, congestion=arm, rate=4_000_000, window=1, paced_window=asked)
    lab.fetch("path", size=200_000, count=3)
    keys, values = rows(kernel)
    assert keys["arms"].tolist() == [[constants()["ARM_NONE"], arm, 0]]
    assert values["first_window_segments"].tolist() == [3 * applied]
    policy(kernel, network, congestion=1, rate=4_000_000, window=1, paced_window=asked)
    lab.fetch("path", size=200_000, count=3)
    keys, values = rows(kernel)
    assert keys["arms"].tolist() == [[1, 1, 0]]
    assert values["first_window_segments"].tolist() == [3 * 40]


def test_an_applications_own_rate_stands(lab: Lab, kernel: Kernel) -> None:
    policy(kernel, ip_network("10.77.0.0/16"), congestion=4, rate=1_000_000)
    try:
        # on the listener, inherited by what it accepts; then on every accepted socket, after ours
        for options, left in (
            (ServerOptions(listener={"max_pacing_rate": 3_000_000}), 5),
            # ours is to become another one after the first window
            (ServerOptions(accepted={"max_pacing_rate": 3_000_000}), 0),
        ):
            lab.listen(options)
            before = kernel.counters()["left_own_rate"]
            found = {(state["congestion"], state["tcp_info"]["max_pacing_rate"]) for state in states(lab)}
            assert found == {("cubic" if left else "bbr", 3_000_000)}
            assert kernel.counters()["left_own_rate"] - before == left
    finally:
        lab.listen(ServerOptions())


def test_where_something_is_paced_an_applications_rate_counts_for_no_arm(lab: Lab, kernel: Kernel) -> None:
    """Or the arms without pacing would answer for those connections, and the paced ones would not."""
    policy(kernel, ip_network("10.77.0.0/16"), congestion=1, rate=1_000_000)
    try:
        lab.listen(ServerOptions(listener={"max_pacing_rate": 3_000_000}))
        assert congestion(lab) == {"cubic"}
    finally:
        lab.listen(ServerOptions())
    keys, _ = rows(kernel)
    assert set(keys["arms"][:, CONGESTION].tolist()) == {constants()["ARM_NONE"]}
    assert congestion(lab) == {"bbr"}


def test_the_rate_that_is_seen_is_the_paths(lab: Lab, kernel: Kernel) -> None:
    """100 Mb/s are 12.07 MB of data a second in segments of 1,448 bytes and packets of 1,500."""
    policy(kernel, ip_network("10.77.0.0/16"))
    lab.fetch("path", size=20_000_000)
    _, values = rows(kernel)
    assert 0.9 * 12.07e6 < float(values["rate"].max()) < 1.1 * 12.07e6


@pytest.mark.parametrize(("least", "counted"), [(0, 0), (1, 5), (6, 5), (7, 0)])
def test_short_transfers_count_where_a_policy_asks_for_them(
    lab: Lab, kernel: Kernel, least: int, counted: int
) -> None:
    """10 KB are six segments and 1,312 bytes."""
    policy(kernel, ip_network("10.77.0.0/16"), transfer_min=least)
    lab.fetch("path", size=10_000, count=5)
    _, values = rows(kernel)
    assert values["sent"]["count"].tolist() == [counted]


def test_a_lapsed_lease_means_the_kernels_defaults(lab: Lab, kernel: Kernel) -> None:
    policy(kernel, ip_network("10.77.0.0/16"), window=1, congestion=1)
    lease(kernel, 0.0)
    assert congestion(lab) == {"cubic"}
    keys, values = rows(kernel)
    assert keys["treatment"].tolist() == [constants()["TREATMENT_OBSERVED"]]
    assert values["first_window_segments"].tolist() == [5 * 10]
    assert kernel.counters()["left_lease_lapsed"] == 5
    lease(kernel, 60.0)
    assert congestion(lab) == {"bbr"}


def test_the_holdout_has_defaults_and_its_share(lab: Lab, kernel: Kernel) -> None:
    policy(kernel, ip_network("10.77.0.0/16"), window=1, congestion=1, holdout=round(0.2 * 65535))
    lab.fetch("path", size=2_000, count=600, concurrency=8)
    keys, values = rows(kernel)
    held = keys["treatment"] == constants()["TREATMENT_HOLDOUT"]
    opened = int(values["opened"].sum())
    assert opened == 600
    # Binomial: 120 expected, standard deviation 9.8; five of them is once in two million runs.
    assert abs(int(values["opened"][held].sum()) - 120) <= 49
    assert keys["arms"][held].tolist() == [[0, 0, 0]]


def test_an_applications_own_choice_stands(lab: Lab, kernel: Kernel) -> None:
    policy(kernel, ip_network("10.77.0.0/16"), congestion=1)
    try:
        # on the listener, inherited by what it accepts; then on every accepted socket
        for options in (ServerOptions(listener={"congestion": "reno"}), ServerOptions(accepted={"congestion": "reno"})):
            lab.listen(options)
            assert congestion(lab) == {"reno"}
        keys, _ = rows(kernel)
        assert set(keys["arms"][:, CONGESTION].tolist()) == {constants()["ARM_NONE"]}
        # Even when the choice is what the host has as default, it is a choice.
        lab.listen(ServerOptions(listener={"congestion": "cubic"}))
        assert congestion(lab) == {"cubic"}
    finally:
        lab.listen(ServerOptions())
    assert congestion(lab) == {"bbr"}


def test_a_listener_older_than_the_agent(lab: Lab, kernel: Kernel) -> None:
    policy(kernel, ip_network("10.77.0.0/16"), congestion=1)
    kernel.detach()
    try:
        lab.listen(ServerOptions(listener={"congestion": "reno"}))
        kernel.attach([lab.server_cgroup])
        assert congestion(lab) == {"reno"}
        assert kernel.counters()["left_own_congestion"] == 5
    finally:
        lab.listen(ServerOptions())
    assert congestion(lab) == {"bbr"}


def test_excluded_networks_and_loopback_are_untouched(lab: Lab, kernel: Kernel) -> None:
    policy(kernel, ip_network("10.77.0.0/16"), congestion=1)
    policy(kernel, ip_network("10.77.1.0/25"), congestion=1, excluded=True)
    assert congestion(lab) == {"cubic"}
    assert kernel.counters()["left_excluded"] == 5
    policy(kernel, ip_network("0.0.0.0/0"), congestion=1)
    local = [sys.executable, "-c", LOOPBACK, str(lab.server_address(4)), str(lab.server_port)]
    assert lab.run_in("server", local).wait(10) == 0
    assert kernel.counters()["left_loopback"] == 4  # both ends of two connections
    keys, _ = rows(kernel)
    assert len(keys) == 0


# Two connections that never leave the host: to 127.0.0.1, and to the host's own address.
LOOPBACK = """
import socket, sys
for address in ("127.0.0.1", sys.argv[1]):
    with socket.create_server((address, 0)) as listener, socket.create_connection(listener.getsockname()) as client:
        accepted, _ = listener.accept()
        accepted.close()
"""


def test_a_network_without_a_policy_is_untouched(lab: Lab, kernel: Kernel) -> None:
    assert congestion(lab) == {"cubic"}
    assert kernel.counters()["left_excluded"] == 5


OTHER = r"""
BPF_ARRAY(seen, u64, 2);
int other_ops(struct bpf_sock_ops *skops)
{
    int established = 0, rounds = 1;
    u64 *count;

    if (skops->op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB) {
        bpf_sock_ops_cb_flags_set(skops, skops->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_RTT_CB_FLAG);
        count = seen.lookup(&established);
    } else if (skops->op == BPF_SOCK_OPS_RTT_CB) {
        count = seen.lookup(&rounds);
    } else {
        return 1;
    }
    if (count)
        __sync_fetch_and_add(count, 1);
    return 1;
}
"""


@contextmanager
def attached(lab: Lab, monkeypatch: pytest.MonkeyPatch, text: str, *programs: tuple[str, int, int]) -> Iterator[Any]:
    """Another tool's programs (name, type, attach type) at the server's cgroup, until the block's end."""
    from agent.bpf_source import FOLDER  # noqa: PLC0415

    monkeypatch.setenv("BCC_KERNEL_SOURCE", str(FOLDER / "stubs"))
    from bcc import BPF  # noqa: PLC0415

    other = BPF(text=text.encode())
    descriptors = [os.open(lab.server_cgroup, os.O_RDONLY)]
    try:
        for name, kind, attach in programs:
            program = other.load_func(name.encode(), kind, attach_type=attach).fd
            descriptors.append(libbpf.create_link(program, descriptors[0], attach))
        yield other
    finally:
        for descriptor in descriptors:
            os.close(descriptor)


SOCK_OPS, SETSOCKOPT = (13, 3), (25, 22)  # include/uapi/linux/bpf.h


def test_another_program_works_beside_ours(lab: Lab, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    with attached(lab, monkeypatch, OTHER, ("other_ops", *SOCK_OPS)) as other:
        policy(kernel, ip_network("10.77.0.0/16"), window=1, congestion=1)
        assert congestion(lab) == {"bbr"}
        _, values = rows(kernel)
        seen = [int(other[b"seen"][index].value) for index in range(2)]
        assert seen[0] == 5
        assert seen[1] >= 5
        assert values["closed"].tolist() == [5]
        assert int(values["rounds"].sum()) == seen[1]
        # Ours goes; the other stays.
        kernel.detach()
        assert congestion(lab) == {"cubic"}
        assert int(other[b"seen"][0].value) == 10


FIRST = r"""
BPF_ARRAY(asked, u64, 1);
int first_ops(struct bpf_sock_ops *skops)
{
    int zero = 0;
    u64 *count = asked.lookup(&zero);

    if (skops->op == BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB)
        bpf_sock_ops_cb_flags_set(skops, skops->bpf_sock_ops_cb_flags | BPF_SOCK_OPS_WRITE_HDR_OPT_CB_FLAG);
    else if (skops->op == BPF_SOCK_OPS_HDR_OPT_LEN_CB && count)
        __sync_fetch_and_add(count, 1);
    skops->reply = -1;
    return 1;
}
int first_choice(struct bpf_sockopt *call)
{
    if (call->level == 1 && call->optname == 9999)
        call->optlen = -1; /* done: the kernel is not to look at it */
    return 1;
}
"""


def test_a_program_before_ours_has_its_way(lab: Lab, kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """It writes options of its own, handles an option of its own, and leaves an answer where our arguments are."""
    policy(kernel, ip_network("10.77.0.0/16"))
    kernel.detach()
    kernel.control(honours=1)
    programs = ("first_ops", *SOCK_OPS), ("first_choice", *SETSOCKOPT)
    try:
        with attached(lab, monkeypatch, FIRST, *programs) as first:
            kernel.attach([lab.server_cgroup])
            states(lab)
            _, values = rows(kernel)
            assert int(first[b"asked"][0].value) > 5 * 20  # more than a handshake has segments
            call = "import socket; socket.socket().setsockopt(1, 9999, 1)"
            with lab.run_in("server", [sys.executable, "-c", call]) as process:
                assert process.wait(10) == 0
    finally:
        kernel.control(honours=0)
    assert values["closed"].sum() == 5
    assert 5 * SIZE < values["sent"]["bytes"].sum() < 5.2 * SIZE  # with what the sockets say
    assert 15_000 < values["rtt_us"].sum() / values["rounds"].sum() < 100_000


AGAIN = """
import ctypes, socket, sys
libc = ctypes.CDLL(None)
c = socket.socket()
for host in sys.argv[2:]:
    c.connect((host, int(sys.argv[1])))
    name = c.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(bytes(1)).decode()
    print(name, c.getsockopt(socket.SOL_SOCKET, 47), flush=True)
    assert libc.connect(c.fileno(), bytes(16), 16) == 0
"""


TWICE = """
import socket, sys
listener = socket.create_server((sys.argv[1], 7301))
print(flush=True)
for _ in range(2):
    listener.accept()
"""


def test_a_socket_that_connects_again_is_not_compared(lab: Lab, kernel: Kernel) -> None:
    """It keeps the first connection's algorithm (connect(2) with AF_UNSPEC), but not its path's rate."""
    policy(kernel, ip_network("10.77.0.0/16"), congestion=4, rate=1_000_000)
    address = str(lab.address("path"))
    with lab.run_in("client", [sys.executable, "-c", TWICE, address], stdout=subprocess.PIPE) as listener:
        listener.stdout.readline()
        command = [sys.executable, "-c", AGAIN, "7301", address, address]
        with lab.run_in("server", command, stdout=subprocess.PIPE, text=True) as caller:
            said = caller.communicate(timeout=10)[0].splitlines()
    first, second = (line.split() for line in said)
    assert first[0] == "bbr"
    assert 0 < int(first[1]) < 2_000_000
    assert second == ["bbr", "-1"]
    keys, values = rows(kernel)
    treatments = dict(zip(keys["treatment"].tolist(), values["opened"].tolist(), strict=True))
    assert treatments == {constants()["TREATMENT_APPLIED"]: 1, constants()["TREATMENT_OBSERVED"]: 1}
    assert kernel.counters()["left_used_socket"] == 1


def test_a_reload_refuses_nobody(kernel: Kernel) -> None:
    """Networks that stay honoured are so at every moment of a reload, and one that goes is not any more."""
    table = kernel._maps["honoured"].fd
    both, stays = np.zeros(2, kernel.prefix_key), np.zeros(1, kernel.prefix_key)
    both["bits"], stays["bits"] = [104, 112], 104
    both["address"] = [np.frombuffer(packed(ip_network(each).network_address), np.uint32) for each in TWO_NETWORKS]
    stays["address"] = both["address"][:1]
    sends, algorithms = np.zeros(0, np.uint32), np.zeros(0, kernel.arm)
    kernel.publish_extensions(sends, algorithms, both, both[:0])
    done = threading.Event()

    def missed() -> int:
        count = 0
        while not done.is_set():
            try:
                libbpf.lookup(table, both[:1], np.zeros(1, np.uint32))
            except KernelError:
                count += 1
        return count

    with ThreadPoolExecutor(1) as pool:
        watching = pool.submit(missed)
        for _ in range(300):
            kernel.publish_extensions(sends, algorithms, both, stays)
            kernel.publish_extensions(sends, algorithms, stays, both)
        done.set()
        assert watching.result() == 0
    with pytest.raises(KernelError):
        libbpf.lookup(table, both[1:], np.zeros(1, np.uint32))


def test_large_socket_options_pass(lab: Lab, kernel: Kernel) -> None:
    """Options beyond a page, such as netfilter's tables, must reach the kernel whole (kernel/bpf/cgroup.c)."""
    del kernel
    script = """
import socket
# SO_ATTACH_FILTER with the most instructions there may be would be larger than a page in its array; the option itself
# carries a pointer. IP_MSFILTER carries its sources in the option: 1,100 of them are 4,416 bytes.
import struct
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
group, interface = socket.inet_aton("239.1.2.3"), socket.inet_aton("127.0.0.1")
s.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, group + interface)
sources = b"".join(struct.pack("!I", 0x0A000001 + i) for i in range(1100))
try:
    s.setsockopt(socket.IPPROTO_IP, 41, group + interface + struct.pack("=II", 0, 1100) + sources)
except OSError as error:
    print(error.errno)
else:
    print(0)
"""
    with_ours = lab.run_in("server", [sys.executable, "-c", script], stdout=subprocess.PIPE)
    without = lab.run_in("client", [sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert with_ours.communicate(timeout=10)[0] == without.communicate(timeout=10)[0]
