"""The guard in the agent: it overrules decisions, resets evidence, writes the journal, and people can read why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from handmade import CONFIG, StillAgent, StillKernel, absorb
from rich.console import Console

from agent import show
from agent.exporter import registry
from agent.guarding import because
from agent.journal import Journal
from agent.page import render
from agent.path_facts import explain, paths
from agent.rules import packed
from agent.snapshot import Health, take
from agent.status import status
from agent.tuner import Tuner
from controllers.guard import ALL, WIDESPREAD, Event, Guard
from controllers.harm import Harm

HARMED, FINE = "203.0.113.0/24", "203.0.114.0/24"
ADDRESS = ip_address("203.0.113.7")


class RememberingKernel(StillKernel):
    """Keeps the policies written, by prefix."""

    def __init__(self) -> None:
        self.trie: dict[tuple[int, bytes], Any] = {}

    def publish(self, keys: Any, policies: Any) -> None:
        self.trie |= {
            (int(key["bits"]), key["address"].tobytes()): policy for key, policy in zip(keys, policies, strict=True)
        }


def new_tuner(folder: Path | None = None) -> Tuner:
    return Tuner(CONFIG, RememberingKernel(), Journal(folder), dry_run=False)  # type: ignore[arg-type]


def fill(tuner: Tuner, network: str, *, slower: int, now: float, rounds: int = 40) -> None:
    """Connections one by one: every fourth is of the holdout, the others take 2^`slower` times as long."""
    one = {"transfers": 1, "closed": 1, "opened": 1, "first_windows": 1, "first_window_segments": 10}
    for number in range(rounds):
        log_time = 16 + number % 2
        absorb(tuner, network, treatment="HOLDOUT", log_time=log_time, now=now, **one)
        for arm in range(3):
            absorb(tuner, network, arm=arm, log_time=log_time + slower - (arm > 0), now=now, **one)


@pytest.fixture
def tuner(tmp_path: Path) -> Iterator[Tuner]:
    """One path harmed, in quarantine since 1000, and one that is fine."""
    made = new_tuner(tmp_path)
    fill(made, FINE, slower=-1, now=999.0)
    fill(made, HARMED, slower=2, now=999.0)
    made.decide(1000.0)
    yield made
    made.journal.close()


def row(tuner: Tuner, address: str = "203.0.113.7") -> int:
    return tuner.match(ip_address(address)).row


def everything_off(tuner: Tuner, now: float) -> None:
    """As if all paths together had failed."""
    guard = tuner.guarding.guard
    guard._all.quarantine(np.zeros(1, np.intp), now, np.array([Harm.RETRANSMISSION]), np.array([0.05]))
    tuner.decide(now)


def test_the_harmed_path_gets_the_defaults_and_the_other_does_not(tuner: Tuner) -> None:
    bad, good = row(tuner), row(tuner, "203.0.114.1")
    for decision in tuner.decisions:
        assert decision.probabilities[bad, 0] == 1
        assert decision.reasons[decision.reason[bad]].startswith("quarantined by the guard: transfers")
    assert tuner.decisions[0].probabilities[good, 0] < 1
    kernel: Any = tuner.kernel
    policy = kernel.trie[120, packed(ip_address("203.0.113.0"))]
    assert (policy["upto"][[0, 8, 16]] == 65535).all()
    assert policy["safe_window"] == 10


def test_where_siblings_gain_much_an_unknown_path_is_mostly_treated() -> None:
    tuner = new_tuner()
    fill(tuner, FINE, slower=-4, now=999.0)
    fill(tuner, "10.1.1.0/24", slower=0, now=999.0)
    tuner.decide(1000.0)
    shares = {"203.0.113.7": 0.025, "10.1.2.7": 0.2, "192.0.2.1": 0.2}
    for address, share in shares.items():
        assert explain(tuner, ip_address(address))["guard"]["holdout"] == share
    for address in ("203.0.113.7", "10.1.2.7"):
        policy = tuner.kernel.trie[112, packed(ip_address(address))[:14] + b"\0\0"]  # type: ignore[attr-defined]
        assert policy["holdout"] == round(shares[address] * 0xFFFF)
    absorb(tuner, HARMED, now=1001.0, closed=1, opened=1)  # its first connection
    tuner.decide(1005.0)
    assert explain(tuner, ADDRESS)["known"]
    assert explain(tuner, ADDRESS)["guard"]["holdout"] == 0.025


def test_the_effect_is_told_with_the_harm_that_was_stopped(tuner: Tuner) -> None:
    """Without it the treated would look better than they were."""
    sides = [tuner.store.holdout_slot, tuner.store.treated_slot]
    assert (tuner.store.sums[row(tuner), sides].any(axis=1)).all()
    assert (tuner.store.sums[row(tuner, "203.0.114.1"), sides] != 0).any()
    # What the arms did is still known.
    assert (tuner.store.sums[row(tuner), 0] != 0).any()


def test_it_ends_after_its_time(tuner: Tuner) -> None:
    tuner.decide(1599.0)
    assert tuner.decisions[0].probabilities[row(tuner), 0] == 1
    tuner.decide(1600.0)
    assert tuner.guarding.verdict(row(tuner)) is None
    assert explain(tuner, ADDRESS)["guard"]["state"] == "probation"


def test_the_journal_has_both_ends(tuner: Tuner, tmp_path: Path) -> None:
    tuner.decide(1600.0)
    tuner.journal.close()
    lines = [json.loads(line) for line in (tmp_path / "journal.jsonl").read_text(encoding="utf-8").splitlines()]
    begun, ended = [one for one in lines if one["dimension"] == "guard"]
    assert {key: begun[key] for key in ("path", "group", "before", "after")} == {
        "path": HARMED, "group": "default", "before": "tuned", "after": "default",
    }  # fmt: skip
    assert begun["reason"] == "for 10m: transfers take 152 % longer than the holdout's"
    assert (ended["before"], ended["after"], ended["reason"]) == ("default", "tuned", "the quarantine is over")


def test_explanation(tuner: Tuner) -> None:
    facts = explain(tuner, ADDRESS)
    assert facts["guard"]["state"] == "quarantined"
    assert facts["guard"]["because"] == "transfers take 152 % longer than the holdout's"
    assert facts["guard"]["holdout"] == 0.05
    assert facts["applied"].startswith("nothing: quarantined until 2")
    assert facts["applied"].endswith("UTC, because transfers take 152 % longer than the holdout's")
    assert {one["chosen"] for one in facts["dimensions"]} == {"default"}
    other = explain(tuner, ip_address("203.0.114.1"))
    assert other["guard"]["state"] in {"probation", "watched"}
    assert other["guard"]["because"] is None
    unknown = explain(tuner, ip_address("9.9.9.9"))["guard"]
    assert (unknown["state"], unknown["holdout"]) == ("probation", 0.2)
    assert [one["quarantined"] for one in paths(tuner, limit=9, offset=0, group=None)["paths"]] == [False, True]
    json.dumps(facts, allow_nan=False)


def test_status_page_terminal_and_metrics(tuner: Tuner) -> None:
    picture = StillAgent(tuner).snapshot
    facts = status(picture)
    assert facts["guard"] == {"off": False, "until": None, "because": None}
    assert [(one["quarantined"], one["guard_trips"]) for one in facts["groups"]] == [(1, 1), (0, 0)]
    assert "switched off" not in render(facts, ready=True, paths=None, findings=(), refresh=False)
    console = Console(record=True, width=200)
    show.draw_status(console, facts | {"ready": True})
    show._print_explanation(console, explain(tuner, ADDRESS))
    text = console.export_text()
    assert "quarantined until 2" in text
    assert "SWITCHED OFF" not in text
    found = registry(lambda: picture)
    assert found.get_sample_value("tcptuned_guard_trips_total", {"group": "default"}) == 1
    assert found.get_sample_value("tcptuned_paths_quarantined", {"group": "default"}) == 1
    assert found.get_sample_value("tcptuned_paths_quarantined", {"group": "cdn"}) == 0
    assert found.get_sample_value("tcptuned_guard_off") == 0


def test_when_everything_is_off_all_of_it_says_so(tuner: Tuner) -> None:
    everything_off(tuner, 1001.0)
    for decision in (*tuner.decisions, *tuner.decider.unknown):
        assert (decision.probabilities[:, 0] == 1).all()
    kernel: Any = tuner.kernel
    assert all((policy["upto"][[0, 8, 16]] == 65535).all() for policy in kernel.trie.values())
    assert all(policy["holdout"] == round(0.05 * 65535) for policy in kernel.trie.values())
    picture = take(tuner, Health())
    facts = status(picture)
    why = "5.0 percentage points more of the segments are retransmitted than in the holdout"
    assert (facts["guard"]["off"], facts["guard"]["because"]) == (True, why)
    assert "Everything is switched off until 2" in render(facts, ready=True, paths=None, findings=(), refresh=False)
    console = Console(record=True, width=200)
    show.draw_status(console, facts | {"ready": True})
    assert "EVERYTHING IS SWITCHED OFF until 2" in console.export_text()
    assert registry(lambda: picture).get_sample_value("tcptuned_guard_off") == 1
    for address in ("203.0.113.7", "203.0.114.1", "9.9.9.9"):
        assert explain(tuner, ip_address(address))["guard"]["state"] == "off"


def test_paths_on_probation_have_a_larger_holdout_in_the_kernel(tuner: Tuner) -> None:
    kernel: Any = tuner.kernel
    holdout = {key: int(policy["holdout"]) for key, policy in kernel.trie.items()}
    # In quarantine there is nothing to compare.
    assert holdout[120, packed(ip_address("203.0.113.0"))] == round(0.05 * 65535)
    # What is not known yet, and what just began.
    assert holdout[96, packed(ip_address("0.0.0.0"))] == round(0.2 * 65535)


def test_without_holdout_there_is_none_on_probation_either() -> None:
    config = CONFIG.model_copy(update={"control": CONFIG.control.model_copy(update={"holdout": 0.0})})
    kernel = RememberingKernel()
    tuner = Tuner(config, kernel, Journal(None), dry_run=False)  # type: ignore[arg-type]
    absorb(tuner, FINE, closed=1)
    tuner.decide(0.0)
    assert {int(one["holdout"]) for one in kernel.trie.values()} == {0}


def test_a_guard_that_fails_lets_nothing_through(tuner: Tuner, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(guard: Guard, now: float) -> list[Event]:
        raise ZeroDivisionError(guard, now)

    with monkeypatch.context() as patched:
        patched.setattr(Guard, "step", broken)
        tuner.decide(1001.0)
        found = take(tuner, Health())
        said = explain(tuner, ADDRESS)
    assert (found.controller_failures["guard"], found.watch.off is not None) == (1, True)
    assert said["guard"]["state"] == "off"
    assert "the guard failed" in said["applied"]
    for decision in (*tuner.decisions, *tuner.decider.unknown):
        assert (decision.probabilities[:, 0] == 1).all()
    tuner.decide(1002.0)
    assert tuner.decisions[0].probabilities[row(tuner, "203.0.114.1"), 0] < 1


def test_a_quarantine_outlives_the_process_and_a_reload(tuner: Tuner) -> None:
    learnt = tuner.learnt(1100.0)
    reborn = Tuner(CONFIG, StillKernel(), Journal(None), dry_run=False, learnt=learnt)  # type: ignore[arg-type]
    assert explain(reborn, ADDRESS)["guard"]["state"] == "quarantined"
    assert explain(reborn, ip_address("203.0.114.1"))["guard"]["state"] != "quarantined"
    windows = CONFIG.initial_window.model_copy(update={"max": 20})
    reborn.reconfigure(CONFIG.model_copy(update={"initial_window": windows}))
    assert explain(reborn, ADDRESS)["guard"]["state"] == "quarantined"


def test_forgotten_paths_do_not_leave_their_quarantine_to_others(tuner: Tuner) -> None:
    gone, kept = tuner.store.forget(1)
    tuner.guarding.guard.keep(kept)
    tuner.publisher.forget(gone)
    tuner.networks.forget()
    tuner.decider.forget()
    tuner.decide(1001.0)
    assert tuner.guarding.guard.quarantined.sum() == (1 if tuner.match(ADDRESS).inherited is None else 0)


@pytest.mark.parametrize(
    ("kind", "worse", "text"),
    [
        (Harm.TIME, 0.585, "transfers take 50 % longer than the holdout's"),
        (Harm.FIRST_WINDOW, 0.123, "first windows lose 12.3 percentage points more than the holdout's"),
        (Harm.RETRANSMISSION, 0.02, "2.0 percentage points more of the segments are retransmitted than in the holdout"),
        (WIDESPREAD, 0.4, "40 % of the traffic is on paths in quarantine"),
    ],
)
def test_in_words(kind: int, worse: float, text: str) -> None:
    assert because(Event(ALL, 0.0, kind, worse)) == text
