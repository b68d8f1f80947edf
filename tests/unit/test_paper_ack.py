"""The ACK experiment's arithmetic: what is measured side by side, and what the figures say."""

from __future__ import annotations

from itertools import chain

import numpy as np
import pytest

from agent.lab.paper.ack import ack_links, loads
from agent.lab.paper.ack_result import STRATEGIES, Measured, pooled_table, verdicts
from agent.lab.ratios import Ratio
from agent.lab.side_by_side import MOST_MBPS, batches

BASELINE, _, JUDGED, _ = STRATEGIES


def measured(acks: float, mbps: float, seconds: float) -> Measured:
    rng = np.random.default_rng(1)
    noise = rng.lognormal(0, 0.01, 8)
    times = (seconds * rng.lognormal(0, 0.05, 400)).tolist()
    return Measured((mbps * noise).tolist(), (acks * noise).tolist(), times, [0.0] * 8)


def link(acks: float, mbps: float, seconds: float) -> dict[str, Measured]:
    """What thinning at 10 does to ACKs, goodput and time; the baseline has 0.5, 10 and 1."""
    found = {name: measured(0.5, 10, 1) for name in STRATEGIES}
    return {**found, JUDGED: measured(acks, mbps, seconds)}


def test_every_link_is_in_one_batch_that_the_emulator_can_carry() -> None:
    links = ack_links()
    assert len(links) == 20
    found = batches(loads(links))
    assert sorted(chain(*found)) == sorted(links)
    for batch in found:
        rates = [links[name].spec.down.rate_mbps or 0 for name in batch]
        assert len(batch) == 1 or sum(rates) <= MOST_MBPS


def test_objects_leave_a_link_half_empty() -> None:
    links = ack_links()
    assert links["scenario 1"].concurrency == 1
    assert links["long"].concurrency == 8


def test_verdicts_tell_what_is_met_and_what_is_missed_for_certain() -> None:
    met, missed = verdicts({"good": link(0.2, 10, 1), "slow": link(0.2, 9, 1.5), "many": link(0.4, 10, 1)})
    assert "met on 1 of 3 links (good)" in met
    assert "slow: goodput 0.90" in missed
    assert "slow: p99" in missed
    assert "many: ACKs 0.80" in missed
    assert "good:" not in missed


def test_what_may_be_chance_is_not_missed_for_certain() -> None:
    found = link(0.2, 10, 1)
    found[JUDGED].mbps = [8.0, 12.0, 9.0, 11.0, 7.0, 10.2, 9.4, 9.5]
    met, missed = verdicts({"unsure": found})
    assert "met on 0 of 1 links." in met
    assert missed == "Missed for certain nowhere."


def test_together_links_count_alike() -> None:
    table = pooled_table({"fast": link(0.25, 10, 1), "slow": {k: measured(0.5, 1, 30) for k in STRATEGIES}})
    row = next(row for row in table.rows if row[0] == JUDGED)
    *_, acks, goodput, median, _, objects, _ = row
    assert isinstance(acks, Ratio)
    assert isinstance(goodput, Ratio)
    assert isinstance(median, Ratio)
    assert acks.low >= 0.49
    assert goodput.value == pytest.approx(1, abs=0.03)
    assert median.value == pytest.approx(1, abs=0.02)
    assert objects == 800
