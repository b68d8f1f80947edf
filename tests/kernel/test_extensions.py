"""The TCP options on the wire and in the sockets: one agent on the side that asks, one on the side that grants."""

from __future__ import annotations

import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from running import RunningAgent, configuration, require_root

from agent.lab.lab import Lab
from agent.lab.spec import LinkSpec, PathSpec
from agent.lab.workload import PORT, ServerOptions

PATHS = [
    PathSpec.symmetric("path", rate_mbps=100, delay_ms=10),
    PathSpec.symmetric("long", rate_mbps=50, delay_ms=50, queue_packets=400),
    PathSpec(
        name="dropping",
        down=LinkSpec(delay_ms=10),
        up=LinkSpec(delay_ms=10, middlebox="agent.lab.middlebox:drop_experimental"),
    ),
    PathSpec(
        name="stripping",
        down=LinkSpec(delay_ms=10),
        up=LinkSpec(delay_ms=10, middlebox="agent.lab.middlebox:strip_experimental"),
    ),
]
CLIENTS = ["10.77.0.0/16", "fd77::/16"]
UTO_2_MINUTES = bytes.fromhex("1c04 0078")  # RFC 5482: 120 seconds
UTO_10_HOURS = bytes.fromhex("1c04 8258")  # the highest bit says minutes: 600
QUIET = {
    "initial_window": {"enabled": False},
    "congestion": {"enabled": False, "allowed": ["cubic", "bbr", "reno"]},
    "ack": {"enabled": False},
}


@pytest.fixture
def lab() -> Iterator[Lab]:
    require_root()
    with Lab(PATHS) as opened:
        yield opened


@contextmanager
def both_sides(
    lab: Lab, folder: Path, *, asks: dict[str, Any], grants: dict[str, Any] | None = None,
    client: dict[str, Any] | None = None, **server: Any,
) -> Iterator[tuple[RunningAgent, RunningAgent]]:  # fmt: skip
    """The agents of client and server; the server's honours the clients unless `grants` says otherwise."""
    grants = {"honour_from": CLIENTS} if grants is None else grants
    server = {**QUIET, "control": {"holdout": 0}, **server, "extensions": grants}
    with ExitStack() as stack:
        agents = []
        for side, sections in (("client", {**QUIET, **(client or {}), "extensions": asks}), ("server", server)):
            (folder / side).mkdir()
            config = configuration(lab, folder / side, side=side, **sections)
            agents.append(stack.push(RunningAgent(lab, config, side=side)))
        for agent in agents:
            agent.wait()
        # Listeners older than the agent do not keep SYNs.
        lab.listen(ServerOptions())
        yield agents[0], agents[1]


@dataclass(frozen=True)
class Segment:
    """A TCP segment as it was on the wire: who sent it, and its options as bytes."""

    from_client: bool
    options: bytes


@contextmanager
def capture(lab: Lab, port: int = PORT) -> Iterator[list[Segment]]:
    """What passes the server's device to and from a port of the server, complete after the block."""
    segments: list[Segment] = []
    command = [
        "tcpdump",
        "-U",
        "--immediate-mode",
        "-B",
        "8192",
        "-w",
        "-",
        "-i",
        "wan",
        "tcp",
        "and",
        "port",
        str(port),
    ]
    # To a file: nobody reads while it records, and a full pipe would stop it.
    with (
        tempfile.TemporaryFile() as recorded,
        lab.run_in("server", command, stdout=recorded, stderr=subprocess.PIPE) as process,
    ):
        while b"listening on" not in process.stderr.readline():
            pass
        try:
            yield segments
            size = -1
            for _ in range(10):  # until nothing comes any more: on a busy machine tcpdump is late
                time.sleep(0.3)
                if size == (size := os.fstat(recorded.fileno()).st_size):
                    break
        finally:
            process.terminate()
            process.communicate(timeout=10)
        recorded.seek(0)
        segments += parsed(recorded.read(), port)


def parsed(recorded: bytes, server_port: int) -> Iterator[Segment]:
    """Segments of a capture of raw IP packets (pcap's LINKTYPE_RAW: no header below IP)."""
    at = 24
    while at + 16 <= len(recorded):
        length = int.from_bytes(recorded[at + 8 : at + 12], "little")
        packet = recorded[at + 16 : at + 16 + length]
        tcp = packet[40:] if packet[0] >> 4 == 6 else packet[(packet[0] & 15) * 4 :]
        source = int.from_bytes(tcp[:2])
        yield Segment(source != server_port, tcp[20 : (tcp[12] >> 4) * 4])
        at += 16 + length


@pytest.mark.parametrize("family", [4, 6])
def test_bytes_and_segments_are_as_specified(lab: Lab, tmp_path: Path, family: int) -> None:
    asks = {
        "user_timeout": {"send": "2m"},
        "congestion_request": {"send": "reno"},
        "window_request": {"send": 33},
    }
    grants = {"honour_from": CLIENTS, "user_timeout": {"send": "10h"}}
    with both_sides(lab, tmp_path, asks=asks, grants=grants) as (client, server):
        with capture(lab) as lines:
            [done] = lab.fetch("path", size=100_000, count=1, family=family, state=True)
        for extension in ("congestion_request", "window_request"):
            assert client.settled("extension_sent_total", 1, extension=extension) == 1
            assert server.settled("extension_granted_total", 1, extension=extension) == 1
    assert done.error is None
    syn, *later = [segment.options for segment in lines if segment.from_client]
    assert UTO_2_MINUTES in syn
    # kind 254, length 8, ExID, version 1, subtype 1, algorithm 1 (reno), 33 segments
    assert bytes.fromhex("fe08 e7c9 01 01 01 21") in syn
    assert UTO_2_MINUTES in later[0]  # the first segment that is no SYN
    assert not [options for options in later if b"\xe7\xc9" in options]
    assert not [options for options in later[1:] if UTO_2_MINUTES in options]
    synack, *answers = [segment.options for segment in lines if not segment.from_client]
    assert UTO_10_HOURS in synack
    assert UTO_10_HOURS in answers[0]
    assert not [options for options in answers[1:] if UTO_10_HOURS in options]
    assert done.state is not None
    assert done.state["congestion"] == "reno"


def test_the_user_timeout_is_applied_on_both_ends(lab: Lab, tmp_path: Path) -> None:
    asks = {"honour_from": ["10.78.0.0/16"], "user_timeout": {"send": "200s"}}
    grants = {"honour_from": CLIENTS, "user_timeout": {"send": "300s", "max": "280s"}}
    with both_sides(lab, tmp_path, asks=asks, grants=grants):
        [done] = lab.fetch("path", size=5_000, count=1, state=True)
    assert done.state is not None
    # min(U_LIMIT 280 s, max(300 s, 200 s, L_LIMIT 100 s))
    assert done.state["user_timeout"] == 280_000


def test_an_applications_own_timeout_stands(lab: Lab, tmp_path: Path) -> None:
    with both_sides(lab, tmp_path, asks={"user_timeout": {"send": "200s"}}) as (_, server):
        lab.listen(ServerOptions(listener={"user_timeout": 30_000}))
        [done] = lab.fetch("path", size=5_000, count=1, state=True)
        assert done.state is not None
        assert done.state["user_timeout"] == 30_000
        labels = {"extension": "user_timeout", "reason": "own_choice"}
        assert server.settled("extension_rejected_total", 2, **labels) >= 1


def test_strangers_are_refused_and_counted(lab: Lab, tmp_path: Path) -> None:
    asks = {"congestion_request": {"send": "reno"}, "window_request": {"send": 40}}
    with both_sides(lab, tmp_path, asks=asks, grants={"honour_from": ["192.0.2.0/24"]}) as (_, server):
        done = lab.fetch("path", size=50_000, count=5, state=True)
        assert {(each.state or {})["congestion"] for each in done} == {"cubic"}
        for extension in ("congestion_request", "window_request"):
            labels = {"extension": extension, "reason": "network"}
            assert server.settled("extension_rejected_total", 5, **labels) == 5
            assert server.value("extension_granted_total", extension=extension) == 0


def test_only_allowed_algorithms_are_granted(lab: Lab, tmp_path: Path) -> None:
    asks = {"congestion_request": {"send": "reno"}}
    allowed = {"enabled": False, "allowed": ["cubic", "bbr"]}
    with both_sides(lab, tmp_path, asks=asks, congestion=allowed) as (_, server):
        [done] = lab.fetch("path", size=5_000, count=1, state=True)
        assert (done.state or {})["congestion"] == "cubic"
        labels = {"extension": "congestion_request", "reason": "algorithm"}
        assert server.settled("extension_rejected_total", 1, **labels) == 1
        # The application's own choice is not overruled either.
        lab.listen(ServerOptions(listener={"congestion": "bbr"}))
        [done] = lab.fetch("path", size=5_000, count=1, state=True)
        assert (done.state or {})["congestion"] == "bbr"


def test_a_window_request_saves_two_round_trips(lab: Lab, tmp_path: Path) -> None:
    """100 KB over 100 ms: at most 0.60 of the default's median, and a bulk download loses nothing by it."""
    default = [each.seconds for each in lab.fetch("long", size=100_000, count=9)]
    bulk_default = lab.fetch("long", size=20_000_000, count=1)[0].seconds
    with both_sides(lab, tmp_path, asks={"window_request": {"send": 80}}):
        asked = [each.seconds for each in lab.fetch("long", size=100_000, count=9)]
        bulk = lab.fetch("long", size=20_000_000, count=1)[0].seconds
    print(f"median {median(asked) / median(default):.3f} of the default's, bulk {bulk / bulk_default:.3f}")
    assert median(asked) <= 0.60 * median(default)
    assert bulk <= 1.05 * bulk_default


@pytest.mark.parametrize("path", ["dropping", "stripping"])
def test_middleboxes_cost_one_retransmission_at_most(lab: Lab, tmp_path: Path, path: str) -> None:
    with both_sides(lab, tmp_path, asks={"window_request": {"send": 40}}) as (client, server):
        done = lab.fetch(path, size=20_000, count=5)
        assert [each.error for each in done] == [None] * 5
        connects = [each.connect or 0.0 for each in done]
        assert server.value("extension_granted_total") == 0
        expected = 5 if path == "stripping" else 2
        assert client.settled("extension_sent_total", expected, extension="window_request") == expected
    if path == "stripping":
        assert max(connects) < 0.5
    else:
        # The first SYN's timeout is 1 s (RFC 6298); after two lost SYNs in a row the path is remembered.
        assert [connect > 0.9 for connect in connects] == [True, True, False, False, False]
        assert max(connects) < 2.0


def handshake_options(lab: Lab) -> list[bytes]:
    """The options of the server's segments on one connection."""
    with capture(lab) as lines:
        lab.fetch("path", size=5_000, count=1)
    return [segment.options for segment in lines if not segment.from_client]


def test_nothing_is_sent_without_a_lease_nor_in_a_dry_run(lab: Lab, tmp_path: Path) -> None:
    sends = {"user_timeout": {"send": "10h"}}
    sections: dict[str, Any] = {**QUIET, "extensions": sends, "control": {"lease": "1s"}}
    with RunningAgent(lab, configuration(lab, tmp_path, **sections)) as agent:
        lab.listen(ServerOptions())
        assert UTO_10_HOURS in handshake_options(lab)[0]
        agent.process.send_signal(signal.SIGSTOP)
        time.sleep(1.5)
        assert not [found for found in handshake_options(lab) if UTO_10_HOURS in found]
    with RunningAgent(lab, configuration(lab, tmp_path, **sections), arguments=["--dry-run"]):
        lab.listen(ServerOptions())
        assert not [found for found in handshake_options(lab) if UTO_10_HOURS in found]
