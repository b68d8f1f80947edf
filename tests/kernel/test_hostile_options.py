"""Hostile options: malformed, truncated, duplicated and forged option strings in real segments to a real listener.

Whatever a peer sends, no socket option leaves its bounds, and every connection that a kernel without us would accept is
accepted.
"""

from __future__ import annotations

import fcntl
import os
import random
import select
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_network
from pathlib import Path

import pytest
from running import require_root

from agent.cgroups import mount_point
from agent.config import Config
from agent.config_extensions import Extensions, SendAll, UserTimeout
from agent.journal import Journal
from agent.kernel import Kernel
from agent.lab.enter import in_namespace
from agent.loader import Loader, map_sizes
from agent.tuner import Tuner

NAMESPACE = f"tcptuned-hostile-{os.getpid()}"
SERVER, PORT = bytes([10, 81, 0, 1]), 7000
CONFIG = Config(
    extensions=Extensions(
        honour_from=(ip_network("10.0.0.0/8"),),
        user_timeout=UserTimeout(send=250.0, min=120.0, max=400.0),
        window_request=SendAll(send=20),
    )
)
TIMEOUTS = range(120_000, 400_001)
BATCH = 64
QUEUE = 1 << 18

Client = tuple[bytes, int]  # address and port

# Accepts, lets each connection live while the next 200 come, so that later segments still find it, then looks at it;
# tells at the end how many there were, and everything out of bounds.
SERVE = """
import collections, socket, struct, sys
listener = socket.create_server(("10.81.0.1", 7000), backlog=1 << 18)
print("listening", flush=True)
seen, strange, waiting = 0, [], collections.deque()

def look(connection, peer):
    timeout = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT)
    algorithm = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(b"\\0").decode()
    window = struct.unpack_from("I", connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), 80)[0]
    if timeout and not int(sys.argv[1]) <= timeout <= int(sys.argv[2]):
        strange.append((peer, "timeout", timeout))
    if algorithm not in sys.argv[3].split(",") or window > 81:
        strange.append((peer, algorithm, window))
    connection.close()

while True:
    connection, peer = listener.accept()
    waiting.append((connection, peer))
    if len(waiting) > 200 or peer[0] == "10.83.0.1":
        look(*waiting.popleft())
    if peer[0] == "10.83.0.1":
        break
    seen += 1
for each in waiting:
    look(*each)
print(seen, strange[:5], flush=True)
"""


def option_string(numbers: random.Random) -> bytes:
    """Up to 40 bytes of options: some right, most wrong, often ours with something changed."""
    parts = []
    while sum(map(len, parts)) < 40 and numbers.random() < 0.75:
        kind = numbers.choice([2, 3, 4, 5, 8, 19, 28, 28, 29, 30, 34, 253, 254, 254, 254, numbers.randrange(256)])
        body = numbers.randbytes(numbers.randrange(9))
        if kind == 254 and numbers.random() < 0.8:
            body = b"\xe7\xc9" + bytes([numbers.choice([0, 1, 1, 1, 2, 255]), numbers.choice([0, 1, 1, 1, 2, 3])])
            body += numbers.randbytes(numbers.choice([0, 1, 2, 2, 2, 3, 20]))
        if kind == 28 and numbers.random() < 0.7:
            body = numbers.randbytes(2)
        length = numbers.choice([len(body) + 2] * 6 + [0, 1, 2, 255, numbers.randrange(64)])
        parts.append(bytes([kind, length]) + body)
        if numbers.random() < 0.1:
            parts.append(bytes(numbers.randrange(1, 3)))  # end of options in the middle
        if numbers.random() < 0.2:
            parts.append(parts[-1])  # the same again
        if numbers.random() < 0.2:
            parts.append(b"\x01")
    found = b"".join(parts)[: numbers.choice([40] * 3 + [numbers.randrange(41)])]
    return found + bytes(-len(found) % 4)


def checksum(data: bytes) -> int:
    """RFC 1071."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data)) + (data[-1] << 8 if len(data) % 2 else 0)
    total = (total & 0xFFFF) + (total >> 16)
    return ~((total & 0xFFFF) + (total >> 16)) & 0xFFFF


def packet(
    source: bytes, port: int, *, sequence: int, acknowledge: int, flags: int, options: bytes = b"", data: bytes = b""
) -> bytes:
    """An IPv4 packet with a TCP segment to the server."""
    length = 20 + len(options) + len(data)
    fields = [port, PORT, sequence & 0xFFFFFFFF, acknowledge & 0xFFFFFFFF, (5 + len(options) // 4) << 4, flags, 65000]
    segment = struct.pack("!HHIIBBHHH", *fields, 0, 0) + options + data
    pseudo = source + SERVER + struct.pack("!HH", 6, length)
    segment = segment[:16] + struct.pack("!H", checksum(pseudo + segment)) + segment[18:]
    header = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + length, 0, 0x4000, 64, 6, 0, source, SERVER)
    return header[:10] + struct.pack("!H", checksum(header)) + header[12:] + segment


@contextmanager
def wire() -> Iterator[int]:
    """A namespace whose only way out is a TUN device that this process holds."""

    def tun() -> int:
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        fcntl.ioctl(descriptor, 0x400454CA, struct.pack("16sH14x", b"wire", 0x1001))  # TUNSETIFF, IFF_TUN | IFF_NO_PI
        return descriptor

    def long_queues() -> None:
        # Half-open connections must neither fill the queue nor the wire with SYN-ACKs sent again: whether a SYN is
        # answered would depend on the machine's speed.
        for name, value in (
            ("core/somaxconn", QUEUE),
            ("ipv4/tcp_max_syn_backlog", QUEUE),
            ("ipv4/tcp_synack_retries", 0),
        ):
            (Path("/proc/sys/net") / name).write_text(str(value), encoding="ascii")

    subprocess.run(["ip", "netns", "add", NAMESPACE], check=True)
    try:
        descriptor = in_namespace(NAMESPACE, tun)
        for command in (
            "addr add 10.81.0.1/24 dev wire",
            "link set wire txqueuelen 10000 up",
            "link set lo up",
            "route add default dev wire",
        ):
            subprocess.run(["ip", "-n", NAMESPACE, *command.split()], check=True)
        in_namespace(NAMESPACE, long_queues)
        yield descriptor
        os.close(descriptor)
    finally:
        subprocess.run(["ip", "netns", "del", NAMESPACE], check=True)


def answers(descriptor: int, last: Client) -> dict[Client, tuple[int, int]]:
    """SYN-ACKs by client, sequence and acknowledgement, up to the one to `last`, which made an honest SYN."""
    os.write(descriptor, packet(*last, sequence=1, acknowledge=0, flags=2))
    found: dict[Client, tuple[int, int]] = {}
    while last not in found:
        assert select.select([descriptor], [], [], 10.0)[0], "the server answers nobody any more"
        data = os.read(descriptor, 2048)
        if data[0] == 0x45 and data[9] == 6 and data[33] & 0x12 == 0x12:
            port, sequence, acknowledge = struct.unpack("!xxHII", data[20:32])
            found[data[16:20], port] = sequence, acknowledge
    return found


def attack(descriptor: int, count: int, seed: int) -> set[Client]:
    """Opens `count` connections with hostile options, sends more of them with data, resets. Returns those answered."""
    numbers, later = random.Random(seed), random.Random(seed + 1)
    accepted: set[Client] = set()
    for start in range(0, count, BATCH):
        clients = {}
        for number in range(start, min(start + BATCH, count)):
            client = bytes([10, 82, number >> 8 & 255, number & 255]), 10_000 + (number >> 16)
            clients[client] = numbers.getrandbits(32)
            syn = packet(*client, sequence=clients[client], acknowledge=0, flags=2, options=option_string(numbers))
            os.write(descriptor, syn)
        honest = bytes([10, 84, 0, 1]), 1_000 + start // BATCH
        found = answers(descriptor, honest)
        os.write(descriptor, packet(*honest, sequence=2, acknowledge=0, flags=4))
        for client, (sequence, acknowledge) in found.items():
            if client not in clients or acknowledge != (clients[client] + 1) & 0xFFFFFFFF:
                continue
            accepted.add(client)
            rest = {"sequence": acknowledge, "acknowledge": sequence + 1}
            os.write(descriptor, packet(*client, **rest, flags=0x10, options=option_string(later)))
            os.write(descriptor, packet(*client, **rest, flags=0x18, options=option_string(later), data=b"work"))
            rest["sequence"] += 4
            os.write(descriptor, packet(*client, **rest, flags=0x11))
    return accepted


def finish(descriptor: int) -> None:
    """An honest connection that tells the server to end."""
    client = bytes([10, 83, 0, 1]), 9999
    sequence, acknowledge = answers(descriptor, client)[client]
    os.write(descriptor, packet(*client, sequence=acknowledge, acknowledge=sequence + 1, flags=0x10))


def run(count: int, seed: int, cgroup: Path, kernel: Kernel | None) -> tuple[set[Client], int]:
    """The connections answered, and how many the server accepted; fails on anything out of bounds."""
    with wire() as descriptor:
        if kernel:
            tuner = in_namespace(NAMESPACE, lambda: Tuner(CONFIG, kernel, Journal(None), dry_run=False))
            kernel.control(lease_until_ns=time.monotonic_ns() + 600 * 10**9)
            kernel.attach([cgroup])
            del tuner
        enter = [sys.executable, "-m", "agent.lab.enter", "--netns", NAMESPACE, "--cgroup", str(cgroup), "--"]
        limits = [str(TIMEOUTS[0]), str(TIMEOUTS[-1]), "cubic,bbr,reno"]
        server = subprocess.Popen(
            [*enter, sys.executable, "-c", SERVE, *limits], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            assert server.stdout is not None
            assert server.stdout.readline() == "listening\n"
            accepted = attack(descriptor, count, seed)
            finish(descriptor)
            out, errors = server.communicate(timeout=60)
        finally:
            server.kill()
            server.communicate()
    assert errors == ""
    seen, strange = out.split(" ", 1)
    assert strange.strip() == "[]"
    return accepted, int(seen)


@pytest.fixture
def cgroup() -> Iterator[Path]:
    require_root()
    folder = mount_point() / NAMESPACE
    folder.mkdir(exist_ok=True)
    yield folder
    folder.rmdir()


def test_no_connection_is_refused_that_would_be_accepted_without_us(cgroup: Path) -> None:
    without, _ = run(5_000, seed=7, cgroup=cgroup, kernel=None)
    kernel = Kernel(Loader(map_sizes(CONFIG)).finish())
    try:
        with_us, _ = run(5_000, seed=7, cgroup=cgroup, kernel=kernel)
    finally:
        kernel.close()
    # The kernel itself drops what carries an unexpected TCP-MD5 or TCP-AO option, or fits no sequence number.
    assert len(without) > 3_000
    assert with_us == without


def test_a_hundred_thousand_hostile_connections(cgroup: Path) -> None:
    kernel = Kernel(Loader(map_sizes(CONFIG)).finish())
    try:
        accepted, seen = run(100_000, seed=11, cgroup=cgroup, kernel=kernel)
        counts = kernel.extension_counts()
    finally:
        kernel.close()
    happened = {name: count for name, count in counts.items() if count}
    print(f"{len(accepted)} answered, {seen} accepted; {happened}")
    assert len(accepted) > 60_000
    assert seen >= 0.99 * len(accepted)
    # The attack reached what it is meant to reach.
    assert counts["user_timeout", "received"] > 10_000
    assert counts["user_timeout", "refused_malformed"] > 5_000
    assert counts["congestion_request", "refused_algorithm"] > 300
    assert counts["window_request", "granted"] > 300
    assert counts["window_request", "refused_malformed"] > 5_000
