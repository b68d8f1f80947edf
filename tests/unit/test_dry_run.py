"""A dry run learns what the kernel's defaults do and decides by it, and claims nothing about what was not done."""

from __future__ import annotations

import time
from ipaddress import ip_address

from handmade import absorb, still_tuner

from agent.path_facts import explain, paths
from agent.snapshot import Health, take
from agent.status import status

ADDRESS = ip_address("203.0.113.7")
COUNTED = {"closed": 50, "sent_segments": 5000, "first_windows": 50, "first_window_segments": 500}


def test_what_is_observed_is_evidence_of_the_defaults_and_is_decided_by() -> None:
    tuner = still_tuner(dry_run=True)
    absorb(tuner, "203.0.113.0/24", treatment="OBSERVED", transfers=50, **COUNTED)
    tuner.decide(time.monotonic())
    facts = explain(tuner, ADDRESS)
    assert (facts["known"], facts["applied"]) == (True, "nothing: this is a dry run")
    window = facts["dimensions"][0]
    assert [arm["connections"] for arm in window["arms"]][:2] == [50, 0]
    # It would try the next window.
    assert window["reason"].startswith("trying a larger window")
    assert window["arms"][1]["probability"] > 0.3
    (path,) = paths(tuner, limit=9, offset=0, group=None)["paths"]
    assert path["connections"] == 50


def test_no_gain_is_shown_and_none_is_prepared() -> None:
    before = still_tuner()
    for treatment, log_time in (("HOLDOUT", 18), ("APPLIED", 17)):
        absorb(before, "203.0.113.0/24", treatment=treatment, log_time=log_time, transfers=50, **COUNTED)
    for _ in range(4):
        before.decide(time.monotonic())
    assert status(take(before, Health()))["groups"][0]["uplift"]["all"] is not None

    tuner = still_tuner(dry_run=True)
    absorb(tuner, "203.0.113.0/24", treatment="OBSERVED", transfers=50, **COUNTED)
    for _ in range(4):
        tuner.decide(time.monotonic())
    assert not any(status(take(tuner, Health()))["groups"][0]["uplift"].values())
    learnt = tuner.learnt(time.monotonic())
    assert {learnt.slots[slot].split("/")[0] for slot in learnt.slot} == {"initial_window", "congestion", "ack"}
