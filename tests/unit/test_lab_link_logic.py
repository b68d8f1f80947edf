"""Links driven by hand: every time is exact, nothing sleeps."""

from __future__ import annotations

import random
from itertools import pairwise
from pathlib import Path

import pytest

from agent.errors import LabError
from agent.lab.link import Link
from agent.lab.spec import AckBurst, LinkSpec

FULL = bytes(1500)


def drain(link: Link) -> list[tuple[float, bytes]]:
    """Everything under way, with the times at which it arrives."""
    out = []
    while (at := link.next_due()) is not None:
        out += [(at, packet) for packet in link.due(at)]
    return out


def times(link: Link) -> list[float]:
    return [at for at, _ in drain(link)]


def test_a_packet_takes_its_serialisation_and_the_delay() -> None:
    link = Link(LinkSpec(rate_mbps=12, delay_ms=10))  # 12 Mb/s: 1500 bytes take 1 ms
    link.offer(5.0, FULL)
    assert link.next_due() == pytest.approx(5.011, abs=1e-9)
    assert link.due(5.0109) == []
    assert link.due(5.0111) == [FULL]
    assert link.next_due() is None


def test_packets_leave_back_to_back_at_the_rate() -> None:
    link = Link(LinkSpec(rate_mbps=12, delay_ms=10))
    for _ in range(5):
        link.offer(0.0, FULL)
    assert times(link) == pytest.approx([0.011, 0.012, 0.013, 0.014, 0.015])


def test_an_idle_transmitter_saves_nothing_up() -> None:
    link = Link(LinkSpec(rate_mbps=12))
    link.offer(0.0, FULL)
    link.offer(1.0, FULL)
    assert times(link) == pytest.approx([0.001, 1.001])


def test_without_a_rate_only_the_delay_counts() -> None:
    link = Link(LinkSpec(delay_ms=7, queue_packets=1))
    for _ in range(100):
        link.offer(0.0, FULL)
    assert times(link) == pytest.approx([0.007] * 100)


def test_the_queue_counts_the_packet_being_sent() -> None:
    link = Link(LinkSpec(rate_mbps=12, queue_packets=3))
    for number in range(5):
        link.offer(0.0, bytes([number]) * 1500)
    assert link.counters.packets_dropped_queue == 2
    assert link.waiting(0.0) == 3
    assert link.waiting(0.0015) == 2
    link.offer(0.0015, FULL)  # the first has left: there is room for one
    link.offer(0.0015, FULL)
    assert link.counters.packets_dropped_queue == 3
    assert [packet[0] for _, packet in drain(link)] == [0, 1, 2, 0]


def test_a_queue_limited_in_bytes() -> None:
    link = Link(LinkSpec(rate_mbps=12, queue_packets=None, queue_bytes=3100))
    for size in (1500, 1500, 101, 100, 1):
        link.offer(0.0, bytes(size))
    assert link.counters.bytes_dropped_queue == 102
    assert sum(len(packet) for _, packet in drain(link)) == 3100


def test_counters_add_up() -> None:
    link = Link(LinkSpec(rate_mbps=12, delay_ms=3, loss=0.2, queue_packets=7), seed=3)
    offered = 0
    for number in range(2000):
        size = 40 + number % 1400
        link.offer(number * 0.0004, bytes(size))
        link.due(number * 0.0004)
        offered += size
    drain(link)
    counters = link.counters
    assert (counters.packets_offered, counters.bytes_offered) == (2000, offered)
    assert counters.packets_dropped_queue > 100
    assert counters.packets_delivered + counters.packets_dropped_queue + counters.packets_dropped_loss == 2000
    assert counters.bytes_delivered + counters.bytes_dropped_queue + counters.bytes_dropped_loss == offered


def test_loss_is_random_seeded_and_at_the_ratio() -> None:
    def lost(seed: int) -> list[bool]:
        link = Link(LinkSpec(loss=0.05), seed=seed)
        out = []
        for _ in range(20_000):
            link.offer(0.0, FULL)
            out.append(not link.due(0.0))
        return out

    assert lost(1) == lost(1)
    assert lost(1) != lost(2)
    assert abs(sum(lost(1)) - 1000) < 4 * (20_000 * 0.05 * 0.95) ** 0.5  # four standard deviations


def test_jitter_delays_but_keeps_the_order() -> None:
    link = Link(LinkSpec(delay_ms=10, jitter_ms=5))
    for number in range(200):  # ten packets at once every 20 ms
        link.offer(number // 10 * 0.02, number.to_bytes(2, "big"))
    arrivals = drain(link)
    assert [int.from_bytes(packet, "big") for _, packet in arrivals] == list(range(200))
    delays = [at - number // 10 * 0.02 for number, (at, _) in enumerate(arrivals)]
    assert 0.010 <= min(delays) < 0.011
    assert 0.0149 < max(delays) <= 0.015 + 1e-9


def test_a_policer_drops_what_exceeds_the_rate_and_delays_nothing() -> None:
    link = Link(LinkSpec(rate_mbps=12, delay_ms=10, queue_packets=2, policer=True))
    for _ in range(4):
        link.offer(0.0, FULL)
    assert link.counters.packets_dropped_queue == 2
    link.offer(0.0005, FULL)  # half a packet's worth of tokens
    assert link.counters.packets_dropped_queue == 3
    link.offer(0.001, FULL)
    assert link.counters.packets_dropped_queue == 3
    assert times(link) == pytest.approx([0.010, 0.010, 0.011])


def test_a_policer_passes_exactly_the_rate() -> None:
    link = Link(LinkSpec(rate_mbps=12, queue_packets=1, policer=True))
    for number in range(10_000):
        link.offer(100 + number * 0.001, FULL)
    assert link.counters.packets_dropped_queue == 0
    link = Link(LinkSpec(rate_mbps=12, queue_packets=1, policer=True))
    for number in range(10_000):
        link.offer(100 + number * 0.0005, FULL)
    assert len(drain(link)) == pytest.approx(5000, abs=1)


def test_poisson_service_has_the_mean_rate_and_its_deviation() -> None:
    link = Link(LinkSpec(rate_mbps=12, queue_packets=None, arrivals="poisson"))
    for _ in range(20_000):
        link.offer(0.0, FULL)
    arrivals = times(link)
    gaps = [b - a for a, b in pairwise(arrivals)]
    mean = sum(gaps) / len(gaps)
    assert mean == pytest.approx(0.001, rel=0.03)
    assert sum((gap - mean) ** 2 for gap in gaps) / len(gaps) == pytest.approx(1e-6, rel=0.1)


def test_ack_bursts_release_so_many_opportunities_a_period() -> None:
    link = Link(LinkSpec(ack_burst=AckBurst(packets=2, period_ms=100)))
    for _ in range(5):
        link.offer(1.0, FULL)
    assert times(link) == pytest.approx([1.0, 1.0, 1.1, 1.1, 1.2])
    for _ in range(2):
        link.offer(1.55, bytes(750))
    link.offer(1.55, FULL)  # two halves share an opportunity
    link.offer(1.55, bytes(1))
    assert times(link) == pytest.approx([1.6, 1.6, 1.6, 1.7])


def test_a_trace_gives_its_opportunities_again_and_again(tmp_path: Path) -> None:
    file = tmp_path / "trace"
    file.write_text("1\n1\n4\n10\n")
    link = Link(LinkSpec(trace=str(file), queue_packets=None))
    for _ in range(6):
        link.offer(0.0, FULL)
    assert times(link) == pytest.approx([0.001, 0.001, 0.004, 0.010, 0.011, 0.011])
    link.offer(0.5, bytes(3000))
    assert times(link) == pytest.approx([0.501])
    file.write_text("many\n")
    for _ in range(3):
        link.offer(0.5, FULL)
    with pytest.raises(LabError):
        link.change(0.5, LinkSpec(trace=str(file)))
    assert len(times(link)) == 3


def test_a_change_moves_the_queue_to_the_new_rate() -> None:
    link = Link(LinkSpec(rate_mbps=12, delay_ms=10))
    for _ in range(4):
        link.offer(0.0, FULL)
    link.change(0.0015, LinkSpec(rate_mbps=1.2, delay_ms=20))  # the second is being sent
    assert link.waiting(0.0015) == 3
    assert times(link) == pytest.approx([0.011, 0.012, 0.032, 0.042])
    assert link.waiting(1.0) == 0


def test_a_change_to_no_rate_frees_the_queue_in_order() -> None:
    link = Link(LinkSpec(rate_mbps=1.2))
    for number in range(4):
        link.offer(0.0, bytes([number]) * 1500)
    link.change(0.005, LinkSpec())
    link.offer(0.006, b"\4" * 1500)
    assert [(round(at, 6), packet[0]) for at, packet in drain(link)] == [(0.01, n) for n in range(5)]


def test_a_shorter_delay_never_reorders() -> None:
    link = Link(LinkSpec(delay_ms=100))
    link.offer(0.0, b"1")
    link.change(0.0, LinkSpec(delay_ms=1))
    link.offer(0.01, b"2")
    assert [packet for _, packet in drain(link)] == [b"1", b"2"]


def test_changes_at_random_lose_no_packet_and_keep_order() -> None:
    rng = random.Random(7)
    specs = [
        LinkSpec(rate_mbps=12, delay_ms=5, queue_packets=None),
        LinkSpec(rate_mbps=1, delay_ms=1, queue_packets=None),
        LinkSpec(delay_ms=30),
        LinkSpec(ack_burst=AckBurst(packets=3, period_ms=7), queue_packets=None),
        LinkSpec(rate_mbps=3, arrivals="poisson", jitter_ms=9, queue_packets=None),
    ]
    link = Link(specs[0])
    now, seen = 0.0, []
    for number in range(5000):
        now += rng.random() * 0.002
        if rng.random() < 0.02:
            link.change(now, rng.choice(specs))
        link.offer(now, number.to_bytes(2, "big") * 300)
        seen += link.due(now)
    waiting = link.waiting(now)
    assert 0 <= waiting <= 5000
    seen += [packet for _, packet in drain(link)]
    assert [int.from_bytes(packet[:2], "big") for packet in seen] == list(range(5000))
    assert link.waiting(now + 1e6) == 0


def test_the_middlebox_sees_every_packet_first() -> None:
    link = Link(LinkSpec(), middlebox=lambda packet: None if packet == b"bad" else packet + b"!")
    for packet in (b"good", b"bad"):
        link.offer(0.0, packet)
    assert link.due(0.0) == [b"good!"]
    assert (link.counters.packets_offered, link.counters.packets_dropped_middlebox) == (2, 1)


@pytest.mark.parametrize(
    "values",
    [
        {"rate_mbps": 0},
        {"delay_ms": -1},
        {"loss": 1.1},
        {"queue_packets": 0},
        {"policer": True},
        {"arrivals": "poisson"},
        {"arrivals": "often", "rate_mbps": 1},
        {"rate_mbps": 1, "trace": "x"},
        {"ack_burst": AckBurst(packets=0, period_ms=1)},
    ],
)
def test_impossible_specs_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(LabError):
        LinkSpec(**values)  # type: ignore[arg-type]


def test_a_spec_survives_the_control_channel() -> None:
    spec = LinkSpec(delay_ms=3, ack_burst=AckBurst(packets=2, period_ms=9))
    assert LinkSpec.from_json(spec.to_json()) == spec
