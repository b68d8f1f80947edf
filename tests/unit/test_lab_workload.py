"""Scenarios, transfers and their figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.errors import LabError, UsageError
from agent.lab.channel import Channel
from agent.lab.paths import load_paths
from agent.lab.spec import AckBurst, PathSpec
from agent.lab.workload import Completion, ServerOptions, Transfer, goodput_mbps


def test_the_paths_are_the_eighteen_published_ones() -> None:
    paths = load_paths()
    assert list(paths) == [str(number) for number in range(1, 19)]
    first = paths["1"]
    assert first.name == "path-1"
    assert (first.down.rate_mbps, first.down.delay_ms) == (0.57, 28)
    assert (first.down.loss, first.down.queue_packets) == (0.0477, 14)
    assert first.down.arrivals == "poisson"
    assert (first.up.rate_mbps, first.up.loss, first.up.arrivals) == (0.57, 0, "constant")
    assert [name for name, path in paths.items() if path.down.policer] == [str(number) for number in range(7, 13)]
    assert paths["14"].up.ack_burst == AckBurst(packets=10, period_ms=200)
    assert paths["14"].up.rate_mbps is None
    assert paths["14"].down.ack_burst is None


def test_a_file_of_paths_may_name_traces_beside_it(tmp_path: Path) -> None:
    (tmp_path / "lte.down").write_text("0\n5\n5\n20\n", encoding="ascii")
    (tmp_path / "lte.up").write_text("10\n", encoding="ascii")
    file = tmp_path / "paths.yaml"
    file.write_text("- {id: lte, trace: {down: lte.down, up: lte.up}, delay_ms: 20, queue_packets: 100}\n")
    path = load_paths(file)["lte"]
    assert (path.down.trace, path.up.trace) == (str(tmp_path / "lte.down"), str(tmp_path / "lte.up"))
    assert (path.down.rate_mbps, path.down.delay_ms, path.down.queue_packets) == (None, 20, 100)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- {id: 1, rate_mbps: -1}", "above 0"),
        ("- {id: 1, rate_mbps: 1, speed: 2}", "speed"),
        ("- {rate_mbps: 1}", "'id' is missing"),
        ("- {id: 1}\n- {id: 1}", "twice"),
        ("- 7", "not iterable"),
        ("- {id: 1, trace: {down: none, up: none}}", "none: not a trace"),
        ("- {id: 1, rate_mbps: 1, trace: {down: paths.yaml, up: paths.yaml}}", "not a trace"),
        ("{}", "is a list"),
        ("[", "not a file of paths"),
    ],
)
def test_a_mistake_in_a_file_of_paths_is_named(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "paths.yaml"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError, match=words) as error:
        load_paths(file)
    assert str(file) in str(error.value)


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
