"""Scenarios, transfers and their figures."""

from __future__ import annotations

import pytest

from agent.errors import LabError
from agent.lab.channel import Channel
from agent.lab.scenarios import load_scenarios
from agent.lab.spec import AckBurst, PathSpec
from agent.lab.workload import Completion, ServerOptions, Transfer, goodput_mbps


def test_the_scenarios_are_the_eighteen_published_ones() -> None:
    scenarios = load_scenarios()
    assert list(scenarios) == list(range(1, 19))
    first = scenarios[1]
    assert (first.down.rate_mbps, first.down.delay_ms) == (0.57, 28)
    assert (first.down.loss, first.down.queue_packets) == (0.0477, 14)
    assert first.down.arrivals == "poisson"
    assert (first.up.rate_mbps, first.up.loss, first.up.arrivals) == (0.57, 0, "constant")
    assert [number for number, path in scenarios.items() if path.down.policer] == list(range(7, 13))
    assert scenarios[14].up.ack_burst == AckBurst(packets=10, period_ms=200)
    assert scenarios[14].up.rate_mbps is None
    assert scenarios[14].down.ack_burst is None


def test_goodput_counts_from_the_first_start_to_the_last_end() -> None:
    one = Completion("p", 4, 10.0, 0.1, 1.1, 1_000_000, "10.77.1.1", 1)
    two = Completion("p", 4, 11.0, 0.1, 3.0, 3_000_000, "10.77.1.1", 2)
    assert one.mbps == pytest.approx(8.0)
    assert goodput_mbps([one, two]) == pytest.approx(8.0)
    assert goodput_mbps([]) == 0.0


@pytest.mark.parametrize(
    "values",
    [
        {"size": -1},
        {"concurrency": 0},
        {"count": None},
        {"cut": True},
        {"family": 5},
        {"family": 6, "mapped": True},
        {"upload": True, "keep": True},
        {"client": {"colour": 3}},
    ],
)
def test_impossible_transfers_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(LabError):
        Transfer(**{"path": "p", "size": 1, **values})  # type: ignore[arg-type]


def test_a_path_needs_clients() -> None:
    with pytest.raises(LabError):
        PathSpec(name="p", addresses=0)


def test_the_channel_carries_whole_messages_and_notices_the_end() -> None:
    ours, theirs = Channel.pair()
    other = Channel(theirs)
    ours.send({"a": 1})
    ours.send(["ü" * 10_000])
    assert other.receive(1.0) == {"a": 1}
    assert other.receive(1.0) == ["ü" * 10_000]
    with pytest.raises(LabError, match="did not answer"):
        other.receive(0.0)
    ours.shutdown()
    assert other.receive(1.0) is None
    ours.close()
    other.close()


def test_server_options_start_empty() -> None:
    assert not ServerOptions().listener
