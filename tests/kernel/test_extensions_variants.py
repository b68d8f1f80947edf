"""Options where connections begin in another way: TCP Fast Open, SYN cookies, lost SYNs, simultaneous open, MPTCP.

Every connection succeeds and carries its data; what is asked for is granted, or the kernel gives no way to see it, and
that is counted.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from running import require_root
from test_extensions import CLIENTS, both_sides, capture

from agent.lab.lab import Lab
from agent.lab.spec import LinkSpec, PathSpec

MPTCP = 262
SIZE = 200_003
PORT = 9100
UTO_200_SECONDS = bytes.fromhex("1c04 00c8")
ASKS = {"window_request": {"send": 33}, "congestion_request": {"send": "reno"}}
LOSES_SYNS = LinkSpec(delay_ms=10, middlebox="agent.lab.middlebox:lose_first_syns")
PLAIN = LinkSpec(delay_ms=10)

# One end of a connection. argv: a JSON object of
#   role      listen, connect, or meet (a simultaneous open)
#   protocol  of the socket; fast_open: with data in the SYN; congestion: what the application chooses, if anything
#   count     how many connections, one after the other
# A listener sends SIZE bytes for a line, and prints each connection's state as it was before; a client prints what it
# got. Those that meet send each other SIZE bytes.
PEER = """
import json, signal, socket, struct, sys, time
signal.alarm(60)  # Python's own timeouts would make the sockets non-blocking, and Fast Open something else
role, protocol, fast_open, congestion, count, size, here, there = json.loads(sys.argv[1])

def made():
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM, protocol)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if congestion:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, congestion.encode())
    if here:
        sock.bind(tuple(here))
    return sock

def state(sock):
    info = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
    return {
        "congestion": sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).rstrip(bytes(1)).decode(),
        "window": struct.unpack_from("I", info, 80)[0],
        "syn_data": bool(info[5] & 32),  # TCPI_OPT_SYN_DATA
    }

def drained(sock):
    total = 0
    while data := sock.recv(1 << 16):
        total += len(data)
    return total

def tell(**facts):
    print(json.dumps(facts), flush=True)

if role == "listen":
    listener = made()
    if fast_open:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_FASTOPEN, 16)
    listener.listen()
    tell(ready=True)
    for _ in range(count):
        sock, _ = listener.accept()
        before = state(sock)
        assert sock.recv(5) == b"send\\n"
        sock.sendall(bytes(size))
        sock.close()
        tell(**before)
elif role == "connect":
    for _ in range(count):
        sock, began = made(), time.monotonic()
        if fast_open:
            sock.sendto(b"send\\n", socket.MSG_FASTOPEN, tuple(there))
        else:
            sock.connect(tuple(there))
            sock.sendall(b"send\\n")
        took = time.monotonic() - began
        tell(received=drained(sock), seconds=took, **state(sock))
        sock.close()
else:
    tell(ready=True)
    sys.stdin.readline()
    sock = made()
    sock.connect(tuple(there))
    sock.sendall(bytes(size))
    sock.shutdown(socket.SHUT_WR)
    tell(received=drained(sock), **state(sock))
"""


@pytest.fixture
def lab(request: pytest.FixtureRequest) -> Iterator[Lab]:
    """One path; a test may ask for links and settings of its own."""
    require_root()
    options: dict[str, Any] = {"down": PLAIN, "up": PLAIN, **getattr(request, "param", {})}
    path = PathSpec(name="path", down=options.pop("down"), up=options.pop("up"))
    with Lab([path], **options) as opened:
        yield opened


@contextmanager
def peer(
    lab: Lab, side: str, role: str, *, protocol: int = 0, fast_open: bool = False, congestion: str = "",
    count: int = 1, here: Any = None, there: Any = None,
) -> Iterator[subprocess.Popen[Any]]:  # fmt: skip
    command = [role, protocol, fast_open, congestion, count, SIZE, here, there]
    with lab.run_in(
        side, [sys.executable, "-c", PEER, json.dumps(command)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as process:  # fmt: skip
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


def told(process: subprocess.Popen[Any], count: int) -> list[dict[str, Any]]:
    lines = [process.stdout.readline() for _ in range(count)]
    assert all(lines), "the peer ended"
    return [json.loads(line) for line in lines]


def transfers(lab: Lab, count: int, **options: Any) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """So many downloads one after the other: what client and server say of each; all data has arrived."""
    server = [str(lab.server_address()), PORT]
    chosen = options.pop("congestion", "")
    with peer(lab, "server", "listen", here=server, count=count, congestion=chosen, **options) as listening:
        told(listening, 1)
        with peer(lab, "client", "connect", there=server, count=count, **options) as connecting:
            clients, servers = told(connecting, count), told(listening, count)
    assert [each["received"] for each in clients] == [SIZE] * count
    return clients, servers


ASKED_FOR = {"congestion": "reno", "window": 33}


def granted(states: list[dict[str, Any]]) -> list[bool]:
    """Which of the server's sockets are as was asked for; all others have the kernel's defaults."""
    found = [{name: state[name] for name in ASKED_FOR} for state in states]
    assert all(each in (ASKED_FOR, {"congestion": "cubic", "window": 10}) for each in found), found
    return [each == ASKED_FOR for each in found]


FAST_OPEN = {"server_sysctls": {"ipv4/tcp_fastopen": "2"}, "client_sysctls": {"ipv4/tcp_fastopen": "1"}}


@pytest.mark.parametrize("lab", [FAST_OPEN], indirect=True, ids=[""])
def test_fast_open(lab: Lab, tmp_path: Path) -> None:
    """The first connection gets the cookie, the others send their request in the SYN, beside ours."""
    with both_sides(lab, tmp_path, asks=ASKS) as (client, server):
        with capture(lab, PORT) as lines:
            clients, servers = transfers(lab, 5, fast_open=True)
        assert [each["syn_data"] for each in clients] == [False, True, True, True, True]
        assert granted(servers) == [True] * 5
        assert server.settled("extension_granted_total", 5, extension="window_request") == 5
        assert server.value("syns_not_kept_total") == 0
        assert client.settled("extension_sent_total", 5, extension="window_request") == 5
        assert server.settled("connections_closed_total", 5, side="passive") == 5
        assert server.settled("sent_bytes_total", 5 * SIZE) == 5 * SIZE
        assert client.settled("received_bytes_total", 5 * SIZE) == 5 * SIZE
    syns = [segment.options for segment in lines if segment.from_client and b"\xfe\x08\xe7\xc9" in segment.options]
    assert len(syns) == 5
    assert [b"\x22\x0a" in options for options in syns] == [False, True, True, True, True]  # RFC 7413: kind 34


@pytest.mark.parametrize("lab", [FAST_OPEN], indirect=True, ids=[""])
def test_fast_open_leaves_no_room_for_all(lab: Lab, tmp_path: Path) -> None:
    """With the cookie and a request the SYN is full. The user timeout follows in the next segment, but the server's
    kernel shows no program the segment that ends such a handshake."""
    with both_sides(lab, tmp_path, asks={**ASKS, "user_timeout": {"send": "200s"}}) as (client, server):
        with capture(lab, PORT) as lines:
            _, servers = transfers(lab, 3, fast_open=True)
        assert granted(servers) == [True] * 3
        assert server.settled("extension_granted_total", 1, extension="user_timeout") == 1
        assert client.settled("extension_no_room_total", 2) == 2
    syns = [segment.options for segment in lines if segment.from_client and b"\xfe\x08\xe7\xc9" in segment.options]
    assert [UTO_200_SECONDS in options for options in syns] == [True, False, False]


@pytest.mark.parametrize("lab", [{"server_sysctls": {"ipv4/tcp_syncookies": "2"}}], indirect=True, ids=[""])
def test_syn_cookies(lab: Lab, tmp_path: Path) -> None:
    """The server forgets the SYN: nothing is granted, and that is counted; what comes later is heard."""
    asks = {**ASKS, "user_timeout": {"send": "200s"}}
    with both_sides(lab, tmp_path, asks=asks) as (client, server):
        clients, servers = transfers(lab, 7)
        assert granted(servers) == [False] * 7
        assert max(each["seconds"] for each in clients) < 0.5
        assert server.settled("syns_not_kept_total", 7) == 7
        assert client.settled("extension_sent_total", 7, extension="window_request") == 7
        assert server.value("extension_received_total", extension="window_request") == 0
        assert server.settled("extension_granted_total", 7, extension="user_timeout") == 7


@pytest.mark.parametrize("lab", [{"up": LOSES_SYNS}], indirect=True, ids=[""])
def test_a_lost_syn_is_sent_again_without_options(lab: Lab, tmp_path: Path) -> None:
    with both_sides(lab, tmp_path, asks=ASKS) as (client, server):
        clients, servers = transfers(lab, 3)
        assert granted(servers) == [False] * 3
        # RFC 6298: one second. Twice in a row, and the path is spared the options.
        assert all(0.9 < each["seconds"] < 2.0 for each in clients)
        assert client.settled("extension_sent_total", 2, extension="window_request") == 2
        assert server.value("extension_received_total") == 0
        assert server.value("syns_not_kept_total") == 0


@pytest.mark.parametrize("lab", [{"down": LOSES_SYNS}], indirect=True, ids=[""])
def test_a_lost_syn_ack_loses_no_request(lab: Lab, tmp_path: Path) -> None:
    """The server knows the options of the first SYN, whatever the second one lacks. Where more than one SYN-ACK was
    sent again the kernel begins with one segment, and that stays."""
    with both_sides(lab, tmp_path, asks=ASKS) as (client, server):
        clients, [state] = transfers(lab, 1)
        assert state["congestion"] == ASKED_FOR["congestion"]
        assert 0.9 < clients[0]["seconds"] < 2.0
        assert server.settled("extension_granted_total", 1, extension="congestion_request") == 1
        window, left = {"extension": "window_request"}, state["window"] == 1
        assert state["window"] == (1 if left else ASKED_FOR["window"])
        assert server.settled("extension_granted_total", 1 - left, **window) == 1 - left
        assert server.settled("extension_rejected_total", left, reason="own_choice", **window) == left
        assert client.settled("extension_sent_total", 1, extension="window_request") == 1


FAR = {"up": LinkSpec(delay_ms=100), "down": LinkSpec(delay_ms=100)}


@pytest.mark.parametrize("lab", [FAR], indirect=True, ids=[""])
def test_simultaneous_open(lab: Lab, tmp_path: Path) -> None:
    """Both ends connect. The kernel keeps no SYN of a connection that it opened itself, so nothing can be granted."""
    here, there = [str(lab.server_address()), PORT], [str(lab.address("path")), 9001]
    asks = {**ASKS, "user_timeout": {"send": "200s"}}
    grants = {"honour_from": CLIENTS}
    with both_sides(lab, tmp_path, asks=asks, grants=grants) as (client, server):
        with (
            peer(lab, "server", "meet", here=here, there=there) as one,
            peer(lab, "client", "meet", here=there, there=here) as other,
        ):
            told(one, 1)
            told(other, 1)
            for each in (one, other):
                each.stdin.write("go\n")
                each.stdin.flush()
            states = [told(each, 1)[0] for each in (one, other)]
        assert [state["received"] for state in states] == [SIZE] * 2
        assert [state["congestion"] for state in states] == ["cubic"] * 2
        assert server.settled("syns_not_kept_total", 1) == 1
        assert server.value("extension_granted_total", extension="window_request") == 0
        # After the handshake the user timeout is sent again.
        assert server.settled("extension_granted_total", 1, extension="user_timeout") == 1
        for agent in (client, server):
            assert agent.settled("connections_closed_total", 1) == 1
            assert agent.settled("sent_bytes_total", SIZE) == SIZE
            assert agent.settled("received_bytes_total", SIZE) == SIZE
            assert agent.settled("connections_opened_total", 1, side="active") == 1


def has_mptcp() -> bool:
    path = Path("/proc/sys/net/mptcp/enabled")
    return path.exists() and path.read_text(encoding="ascii").strip() == "1"


@pytest.mark.skipif(not has_mptcp(), reason="this kernel has no MPTCP (CONFIG_MPTCP, net.mptcp.enabled)")
def test_mptcp(lab: Lab, tmp_path: Path) -> None:
    """A subflow is a TCP connection: asked for and granted like any other."""
    with both_sides(lab, tmp_path, asks=ASKS) as (_, server):
        with capture(lab, PORT) as lines:
            _, servers = transfers(lab, 5, protocol=MPTCP)
        assert granted(servers) == [True] * 5
        assert server.settled("extension_granted_total", 5, extension="window_request") == 5
    syns = [segment.options for segment in lines if segment.from_client and b"\xfe\x08\xe7\xc9" in segment.options]
    assert len(syns) == 5
    assert all(b"\x1e\x04" in options for options in syns)  # RFC 8684: kind 30


@pytest.mark.skipif(not has_mptcp(), reason="this kernel has no MPTCP (CONFIG_MPTCP, net.mptcp.enabled)")
def test_an_application_chooses_on_mptcp_too(lab: Lab, tmp_path: Path) -> None:
    """It speaks to the MPTCP socket, we see the subflow."""
    with both_sides(lab, tmp_path, asks=ASKS) as (_, server):
        _, servers = transfers(lab, 3, protocol=MPTCP, congestion="bbr")
        assert [each["congestion"] for each in servers] == ["bbr"] * 3
        labels = {"extension": "congestion_request", "reason": "own_choice"}
        assert server.settled("extension_rejected_total", 3, **labels) == 3
