"""What the agent is for: real transfers get faster where they can, and nowhere slower."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, median

import pytest
from running import RunningAgent, configuration, require_root, until

from agent.lab.lab import Lab
from agent.lab.spec import PathSpec
from agent.lab.workload import Completion, Transfer

LONG = PathSpec.symmetric("long", rate_mbps=50, delay_ms=50, queue_packets=400)
SHORT = PathSpec.symmetric("short", rate_mbps=12, delay_ms=5, queue_packets=10)
QUEUE = PathSpec.symmetric("queue", rate_mbps=12, delay_ms=30, queue_packets=20)
SLOW = PathSpec.symmetric("slow", rate_mbps=2, delay_ms=10, queue_packets=200)
LOSSY = PathSpec.symmetric("lossy", rate_mbps=50, delay_ms=20, queue_packets=200, loss=0.01)


def seconds(completions: Sequence[Completion]) -> list[float]:
    assert [each.error for each in completions] == [None] * len(completions)
    return [each.seconds for each in completions]


def test_a_window_for_each_path_behind_one_gateway(tmp_path: Path) -> None:
    """One round trip fewer on the long path; the short one, whose queue holds no more than the default, stays as it is.

    An untuned client's first receive window of about 64 KB allows no more than one round trip fewer.
    """
    require_root()
    with Lab([LONG, SHORT]) as lab:

        def load(long: int, short: int) -> list[list[Completion]]:
            return lab.run(
                [
                    Transfer(path="long", size=100_000, count=long, concurrency=4),
                    Transfer(path="short", size=100_000, count=short, concurrency=1),
                ]
            )

        default_long, default_short = load(60, 120)
        # Paced, more would fit into the short one's.
        with RunningAgent(lab, configuration(lab, tmp_path, congestion={"pacing": False})) as agent:
            long, short = load(220, 160)
            windows = {path: agent.chosen(str(lab.address(path, 4)), "initial_window") for path in ("long", "short")}
    gain = median(seconds(long)) / median(seconds(default_long))
    decided = median(seconds(long[160:])) / median(seconds(default_long))
    harm = fmean(seconds(short)) / fmean(seconds(default_short))
    print(f"long: median {gain:.3f} over all 220, {decided:.3f} over the last 60; short: mean {harm:.3f}")
    assert gain <= 0.78
    assert decided <= 0.78
    assert harm <= 1.05
    assert windows["long"] in {"iw28", "iw40", "iw56", "iw80"}
    assert windows["short"] == "default"


def test_a_slow_path_is_not_given_more_than_fills_it(tmp_path: Path) -> None:
    """2 Mb/s and 20 ms hold three segments: more than the default's window would only wait, and others behind it."""
    require_root()
    with Lab([SLOW]) as lab, RunningAgent(lab, configuration(lab, tmp_path)) as agent:
        seconds(lab.fetch("slow", size=20_000, count=60))
        agent.settled("connections_closed_total", 60)
        found = agent.explain(str(lab.address("slow", 4)))
    [window] = [one for one in found["dimensions"] if one["name"] == "initial_window"]
    print(f"{8e-6 * found['rate']:.2f} Mb/s, filled by {found['pipe']} segments: {window['reason']}")
    assert 0.5 * 2 < 8e-6 * found["rate"] < 1.5 * 2
    assert "filled" in window["reason"]
    assert [arm["connections"] for arm in window["arms"] if arm["name"] != "default"] == [0] * 6


@pytest.mark.long
def test_the_right_algorithm_under_random_loss(tmp_path: Path) -> None:
    """10 MB at 1 % loss: the goodput of what is chosen is at least twice cubic's, the host's default."""
    require_root()
    size = 10_000_000
    with Lab([LOSSY]) as lab:
        default = lab.bulk("lossy", 15.0, concurrency=4)
        with RunningAgent(lab, configuration(lab, tmp_path)) as agent:
            address = str(lab.address("lossy", 4))
            learning = lab.start(Transfer(path="lossy", size=size, count=None, concurrency=6, seconds=150))
            until(lambda: agent.chosen(address, "congestion") == "bbr", 120, "bbr was not chosen")
            learning.stop()
            learnt = len(learning.wait(60))
            after = lab.fetch("lossy", size=size, count=7, concurrency=1)
    # The holdout and the arms kept fresh are in it.
    ratio = median(each.mbps for each in after) / median(each.mbps for each in default)
    print(f"goodput {ratio:.1f} times the default's, learnt from {learnt} transfers")
    assert ratio >= 2.0


@pytest.mark.long
def test_what_is_paced_fits_into_a_short_queue(tmp_path: Path) -> None:
    """A third of the bandwidth-delay product: the default overflows it, and so do larger windows, unless paced."""
    require_root()
    with Lab([QUEUE]) as lab:
        default = seconds(lab.fetch("queue", size=100_000, count=40))
        with RunningAgent(lab, configuration(lab, tmp_path)) as agent:
            lab.fetch("queue", size=100_000, count=250)
            tuned = seconds(lab.fetch("queue", size=100_000, count=60))
            found = agent.explain(str(lab.address("queue", 4)))
    holdout, treated = (side["retransmission"] for side in found["comparison"])
    ratio = median(tuned) / median(default)
    print(f"median {ratio:.2f}; retransmitted: {treated:.2%}, by the holdout {holdout:.2%}; {found['rate']:,} bytes/s")
    assert found["paced_window"] >= 40  # 60 segments fill the path
    assert ratio <= 0.6
    assert treated <= holdout + 0.01
    assert next(one["chosen"] for one in found["dimensions"] if one["name"] == "congestion").endswith("paced")
    assert 0.6 * 1.45e6 < found["rate"] < 1.1 * 1.45e6  # 12 Mb/s, of which 1,448 bytes in 1,500 are data


def test_nothing_is_slower_where_there_is_nothing_to_gain(tmp_path: Path) -> None:
    """Objects that fit into the default's first window: whatever is chosen, they take as long as before."""
    require_root()
    with Lab([LONG]) as lab:
        with RunningAgent(lab, configuration(lab, tmp_path)):
            tuned = seconds(lab.fetch("long", size=5_000, count=200, concurrency=8))
        default = seconds(lab.fetch("long", size=5_000, count=200, concurrency=8))
    assert median(tuned) / median(default) <= 1.03
    assert all(second >= 0.19 for second in itertools.chain(tuned, default))  # two round trips of 100 ms
