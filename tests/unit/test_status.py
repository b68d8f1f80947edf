"""Facts and explanations, from evidence made by hand."""

from __future__ import annotations

import json
import time
from ipaddress import ip_address
from typing import Any

import numpy as np
import pytest
from handmade import CONFIG, StillAgent, absorb, still_tuner
from rich.console import Console

from agent import show
from agent.journal import Entry
from agent.path_facts import explain, paths
from agent.status import JOURNAL_SHOWN, status
from agent.tuner import Tuner
from controllers import Field

PATH = "203.0.113.0/24"


@pytest.fixture
def tuner() -> Tuner:
    """On one path iw14 (arm 1) halves the time of transfers; iw20 (arm 2) loses; iw28 was never tried."""
    made = still_tuner()
    sent = {"sent_segments": 1200, "first_windows": 12, "first_window_segments": 120, "closed": 12, "opened": 12}
    absorb(made, PATH, log_time=17, **sent)
    absorb(made, PATH, arm=1, log_time=16, **sent)
    absorb(made, PATH, arm=2, log_time=17, **sent | {"first_window_losses": 30, "retransmitted_segments": 60})
    absorb(made, PATH, treatment="HOLDOUT", transfers=6, log_time=18, closed=6, opened=6)
    absorb(made, "198.51.100.0/24", group=1, closed=2, transfers=1)
    made.decide(time.monotonic())
    return made


def _arms(facts: dict[str, Any], dimension: str = "initial_window") -> dict[str, dict[str, Any]]:
    (found,) = (one for one in facts["dimensions"] if one["name"] == dimension)
    return {arm["name"]: arm for arm in found["arms"]}


def test_explanation_of_a_known_path(tuner: Tuner) -> None:
    facts = explain(tuner, ip_address("203.0.113.7"))
    assert {key: facts[key] for key in ("address", "path", "group", "known", "inherited_from", "excluded")} == {
        "address": "203.0.113.7", "path": PATH, "group": "default", "known": True, "inherited_from": None,
        "excluded": False,
    }  # fmt: skip
    assert facts["applied"] == "arms are drawn for 80% of the connections; 20% keep the kernel's defaults"
    arms = _arms(facts)
    # Equal sizes leave nothing to adjust: the ratio is exact. The error is the prior's alone, as nothing varied:
    # a variance of 4 * 0.09 / 16 for one transfer, an eighth part of it over 12, twice for a difference.
    error = (2 * 4 * 0.09 / 16 / 12) ** 0.5
    assert arms["iw14"]["time_ratio"] == 0.5
    assert arms["iw14"]["time_ratio_low"] == pytest.approx(0.5 * 2**-error, abs=1e-3)
    assert arms["iw14"]["time_ratio_high"] == pytest.approx(0.5 * 2**error, abs=1e-3)
    assert arms["default"]["time_ratio"] is None
    assert arms["iw20"]["time_ratio"] == 1.0
    assert arms["iw20"]["first_window_loss"] == 0.25
    assert arms["iw20"]["retransmission"] == 0.05
    assert arms["iw14"]["first_window_loss"] == 0.0
    assert (arms["iw14"]["transfers"], arms["iw14"]["connections"]) == (12, 12)
    never = arms["iw28"]
    assert (never["transfers"], never["time_ratio"], never["first_window_loss"], never["retransmission"]) == (
        0, None, None, None,
    )  # fmt: skip
    assert sum(arm["probability"] for arm in arms.values()) == pytest.approx(1, abs=1e-3)
    (window,) = (one for one in facts["dimensions"] if one["name"] == "initial_window")
    decision = tuner.decisions[0]
    row = tuner.match(ip_address("203.0.113.7")).row
    assert window["chosen"] == tuner.dimensions[0].arms[decision.chosen[row]].name
    assert window["reason"] == decision.reasons[decision.reason[row]]


def test_what_fills_the_path_is_shown_where_it_is_known(tuner: Tuner) -> None:
    """12 Mb/s and 50 ms."""
    facts = explain(tuner, ip_address("203.0.113.7"))
    assert (facts["rate"], facts["pipe"]) == (None, None)
    row = tuner.match(ip_address("203.0.113.7")).row
    tuner.store.rates.absorb(np.array([row]), np.array([1.5e6]), np.array([20.0]), time.monotonic())
    sums = tuner.store.of(1).sums[row, 0]
    sums[Field.RTT], sums[Field.BASE_RTT] = 1e6, 5e5  # a queue stands
    facts = explain(tuner, ip_address("203.0.113.7"))
    assert (facts["rate"], facts["pipe"]) == (1_500_000, 51.8)
    console = Console(record=True, width=200)
    show._print_explanation(console, facts)
    assert "fastest seen: 12 Mb/s, filled by 51.8 segments" in console.export_text()
    elsewhere = explain(tuner, ip_address("203.0.114.7"))
    assert elsewhere["pipe"] is None


def test_treated_are_compared_with_the_holdout(tuner: Tuner) -> None:
    holdout, treated = explain(tuner, ip_address("203.0.113.7"))["comparison"]
    assert (holdout["name"], holdout["connections"], holdout["time_ratio"]) == ("holdout", 6, None)
    assert (treated["name"], treated["connections"]) == ("treated", 36)
    # Means of log2: 18 for the holdout; 17, 16 and 17 for the treated.
    assert treated["time_ratio"] == pytest.approx(2 ** (50 / 3 - 18), abs=1e-3)


@pytest.mark.parametrize(
    ("address", "path", "source"),
    [
        ("203.0.114.1", "203.0.114.0/24", "network 203.0.0.0/16"),
        ("203.1.114.1", "203.1.114.0/24", "group default"),
        ("2001:db8::1", "2001:db8::/48", "group default"),
    ],
)
def test_an_unknown_path_inherits_from_its_network_or_its_group(
    tuner: Tuner, address: str, path: str, source: str
) -> None:
    facts = explain(tuner, ip_address(address))
    assert (facts["path"], facts["known"], facts["inherited_from"]) == (path, False, source)
    assert _arms(facts)["iw14"]["time_ratio"] == 0.5
    assert _arms(facts)["iw14"]["connections"] == 12


def test_unlike_paths_are_never_averaged(tuner: Tuner) -> None:
    """iw14 is faster on either path; but the slow one had more of it, so pooled times would call it slower."""
    absorb(tuner, "203.0.115.0/24", log_time=20, transfers=4, closed=4)
    absorb(tuner, "203.0.115.0/24", arm=1, log_time=19, transfers=100, closed=100)
    tuner.decide(time.monotonic())
    facts = explain(tuner, ip_address("203.0.114.1"))
    assert _arms(facts)["iw14"]["time_ratio"] == pytest.approx(0.5)
    sums = tuner.store.of(0).sums[0]
    assert sums[1, Field.LOG_TIME] / sums[1, 0] > sums[0, Field.LOG_TIME] / sums[0, 0] + 0.9


@pytest.mark.parametrize(
    ("address", "expected", "applied"),
    [
        ("198.51.100.9", ("198.51.100.0/24", "cdn", False), "arms are drawn"),
        ("::ffff:198.51.100.9", ("198.51.100.0/24", "cdn", False), "arms are drawn"),
        ("192.0.2.1", ("192.0.2.0/24", "default", True), "nothing: a rule of paths.rules excludes it"),
        ("2001:db8:1:2::3", ("2001:db8:1::/48", "default", False), "arms are drawn"),
        ("127.0.0.1", ("127.0.0.0/24", "default", False), "nothing: loopback"),
        ("::1", ("::/48", "default", False), "nothing: loopback"),
        ("::ffff:127.0.0.1", ("127.0.0.0/24", "default", False), "nothing: loopback"),
    ],
)
def test_which_path_an_address_is_of(
    tuner: Tuner, address: str, expected: tuple[str, str, bool], applied: str
) -> None:
    facts = explain(tuner, ip_address(address))
    assert (facts["path"], facts["group"], facts["excluded"]) == expected
    assert facts["applied"].startswith(applied)


def test_a_dry_run_says_so() -> None:
    assert explain(still_tuner(dry_run=True), ip_address("203.0.113.7"))["applied"] == "nothing: this is a dry run"


def test_a_path_newer_than_the_last_decision_is_decided_by_its_network(tuner: Tuner) -> None:
    absorb(tuner, "203.0.115.0/24", arm=1, closed=1)
    facts = explain(tuner, ip_address("203.0.115.1"))
    network = explain(tuner, ip_address("203.0.116.1"))
    assert facts["known"]
    assert [one["chosen"] for one in facts["dimensions"]] == [one["chosen"] for one in network["dimensions"]]
    listed = paths(tuner, limit=10, offset=2, group=None)["paths"]
    assert [one["path"] for one in listed] == ["203.0.115.0/24"]


def test_before_any_decision_everything_is_default(tuner: Tuner) -> None:
    tuner.decider.forget()
    facts = explain(tuner, ip_address("203.0.113.7"))
    assert {(one["chosen"], one["reason"]) for one in facts["dimensions"]} == {("default", "nothing is decided yet")}
    listed = paths(tuner, limit=9, offset=0, group=None)["paths"]
    assert {one["chosen"]["initial_window"] for one in listed} == {"default"}


def test_paths(tuner: Tuner) -> None:
    listed = paths(tuner, limit=1, offset=0, group=None)
    assert (listed["total"], listed["limit"], listed["offset"]) == (2, 1, 0)
    (first,) = listed["paths"]
    assert (first["path"], first["group"], first["connections"], first["transfers"]) == (PATH, "default", 42, 42)
    assert set(first["chosen"]) == {"initial_window", "congestion", "ack"}
    (other,) = paths(tuner, limit=9, offset=0, group="cdn")["paths"]
    assert (other["path"], other["group"]) == ("198.51.100.0/24", "cdn")
    assert paths(tuner, limit=9, offset=9, group=None)["paths"] == []


def test_the_busiest_paths_first(tuner: Tuner) -> None:
    absorb(tuner, "203.0.114.0/24", transfers=500)
    absorb(tuner, "203.0.115.0/24", transfers=5)
    listed = paths(tuner, limit=3, offset=0, group=None, busiest_first=True)["paths"]
    assert [one["path"] for one in listed] == ["203.0.114.0/24", PATH, "203.0.115.0/24"]
    (last,) = paths(tuner, limit=3, offset=3, group=None, busiest_first=True)["paths"]
    assert last["path"] == "198.51.100.0/24"


def test_status(tuner: Tuner) -> None:
    for number in range(JOURNAL_SHOWN + 5):
        tuner.journal.write(Entry(1e9 + number, PATH, "default", "ack", "default", "delay", "because"))
    facts = status(StillAgent(tuner).snapshot)
    default, cdn = facts["groups"]
    assert (default["name"], default["paths"], default["closed"]) == ("default", 1, 42)
    assert default["opened"] == {"active": 42, "passive": 0}
    assert default["connections"] == {"observed": 0, "holdout": 6, "treated": 36}
    assert default["retransmission"] == pytest.approx(60 / 3600)
    assert default["first_window_loss"] == pytest.approx(30 / 360)
    assert (cdn["name"], cdn["retransmission"], cdn["rtt_seconds"]) == ("cdn", None, None)
    window = facts["dimensions"][0]
    assert window["arms"][1] == {
        "name": "iw14", "value": 14, "transfers": 12, "bytes": 12 << 17, "seconds": pytest.approx(12 * 65536e-6),
    }  # fmt: skip
    assert sum(default["chosen"]["initial_window"].values()) == 1
    assert [entry["time"] - 1e9 for entry in facts["journal"]] == list(range(JOURNAL_SHOWN + 4, 4, -1))
    assert facts["attached"] == ["/sys/fs/cgroup"]


def test_all_of_it_is_json(tuner: Tuner) -> None:
    for facts in (
        status(StillAgent(tuner).snapshot),
        paths(tuner, limit=9, offset=0, group=None),
        explain(tuner, ip_address("203.0.113.7")),
        explain(still_tuner(CONFIG), ip_address("2001:db8::1")),
    ):
        assert json.loads(json.dumps(facts, allow_nan=False)) == facts
