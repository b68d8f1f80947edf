"""The uplift that the agent shows is the one that clients see, by their own clocks."""

from __future__ import annotations

import time
from collections.abc import Sequence
from math import log2
from pathlib import Path
from statistics import fmean, stdev

import pytest
from running import RunningAgent, configuration, require_root

from agent.lab.jobs import wait_all
from agent.lab.lab import Lab
from agent.lab.spec import PathSpec
from agent.lab.workload import Completion, Transfer

LONG = PathSpec.symmetric("long", rate_mbps=50, delay_ms=50, queue_packets=400)
OBJECTS = Transfer(path="long", size=100_000, count=400, concurrency=4)


def log_times(completions: Sequence[Completion]) -> list[float]:
    """log2 of the time from the established connection to the last byte."""
    assert [each.error for each in completions] == [None] * len(completions)
    return [log2(each.seconds - (each.connect or 0.0)) for each in completions]


@pytest.mark.long
def test_the_interval_covers_what_clients_measure(tmp_path: Path) -> None:
    """Side by side: the kernel's defaults in a laboratory without an agent, and one where 30 % are the holdout.

    A client does not know what its connection was drawn for. But the mean of all of them is that of the defaults, and
    of the treated, by their shares, which are counted; so the mean of the treated follows.
    """
    require_root()
    with Lab([LONG]) as plain, Lab([LONG]) as tuned:
        # Nothing fades, so that the agent speaks of all the connections that the clients made.
        config = configuration(tuned, tmp_path, control={"holdout": 0.3, "half_life": "24h"})
        with RunningAgent(tuned, config) as agent:
            found = wait_all([plain.start(OBJECTS), tuned.start(OBJECTS)], 300.0)
            agent.settled("connections_closed_total", OBJECTS.count or 0)
            # Dimensions are compared in turn, one a step, of a second each.
            time.sleep(5.0)
            lower, shown, upper = agent.uplift("all")
            window = agent.uplift("initial_window")
            holdout, treated = agent.value("connections_holdout_total"), agent.value("connections_treated_total")
            totals = {
                arm: agent.value("transfer_seconds_total", dimension="all", arm=arm)
                / agent.value("transfers_total", dimension="all", arm=arm)
                for arm in ("holdout", "treated")
            }
    default, mixed = (log_times(each) for each in found)
    share = holdout / (holdout + treated)
    assert 0.2 < share < 0.5  # while a path is new, its holdout is larger
    ratio = (fmean(mixed) - fmean(default)) / (1 - share)
    error = ((stdev(mixed) ** 2 + stdev(default) ** 2) / len(default)) ** 0.5 / (1 - share)
    measured, least, most = (1 - 2 ** (ratio + sign * 2 * error) for sign in (0, 1, -1))
    by_totals = 1 - totals["treated"] / totals["holdout"]
    print(
        f"clients: {measured:.3f} ({least:.3f} to {most:.3f}); the agent: {shown:.3f} ({lower:.3f} to {upper:.3f}), of "
        f"the initial window {window[1]:.3f} ({window[0]:.3f} to {window[2]:.3f}); by the totals: {by_totals:.3f}"
    )
    # The clients' own mean is not exact either.
    assert lower <= most
    assert least <= upper
    assert measured > 0.05
    assert lower > 0
    assert upper - lower < 0.15
    assert window[0] > 0
    assert abs(by_totals - measured) < 0.1
