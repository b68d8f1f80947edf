"""Since when a decision has held: over changes, moved rows, reloads and restarts; and what an administrator decides."""

from __future__ import annotations

import time
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path

import numpy as np
import pytest
from handmade import CONFIG, StillKernel, absorb, still_tuner
from prometheus_client import CollectorRegistry

from agent import features
from agent.changes import Changes
from agent.config import Config, InitialWindow
from agent.dimensions import CONGESTION, INITIAL_WINDOW, Dimension, dimensions
from agent.exporter import Exporter
from agent.journal import Entry, Journal
from agent.page import render
from agent.path_facts import explain, paths
from agent.section import Section
from agent.snapshot import Health, take
from agent.state import load, save
from agent.status import status
from agent.tuner import Tuner
from controllers import Decision

ADDRESS = ip_address("203.0.113.7")
Clock = Callable[[float], None]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    def put(now: float) -> None:
        monkeypatch.setattr(time, "time", lambda: now)

    put(1e9)
    return put


def made(windows: InitialWindow | None = None) -> tuple[Dimension, ...]:
    config = Config(initial_window=windows or InitialWindow())
    return dimensions(config, algorithms=("cubic", "bbr"), host_congestion="cubic")


def decided(*chosen: int) -> Decision:
    count = len(chosen)
    return Decision(np.zeros((count, 8), np.float32), np.array(chosen), np.zeros(count, np.uint8), ("because",))


def fresh(entries: Journal, windows: InitialWindow | None = None) -> Changes:
    changes = Changes(entries, lambda row: (f"path {row}", "default"))
    changes.begin(made(windows)[:1])
    return changes


def test_a_change_is_dated_counted_and_written_down(clock: Clock) -> None:
    journal = Journal(None)
    changes = fresh(journal)
    assert changes.since(0, 0) is None
    changes.note(np.arange(2), [decided(0, 3)], first=True)
    assert (list(journal.recent), changes.counts) == ([], {})
    clock(1e9 + 60)
    # The third row is new; the second is not asked about.
    changes.note(np.array([0, 2]), [decided(2, 5, 1)])
    assert [changes.since(row, 0) for row in range(4)] == [1e9 + 60, 1e9, 1e9 + 60, None]
    clock(1e9 + 120)
    changes.note(np.arange(3), [decided(2, 1, 1)])
    assert [changes.since(row, 0) for row in range(3)] == [1e9 + 60, 1e9 + 120, 1e9 + 60]
    names = [arm.name for arm in made()[0].arms]
    assert list(journal.recent) == [
        Entry(1e9 + 60, "path 0", "default", INITIAL_WINDOW, names[0], names[2], "because"),
        Entry(1e9 + 60, "path 2", "default", INITIAL_WINDOW, names[0], names[1], "because"),
        Entry(1e9 + 120, "path 1", "default", INITIAL_WINDOW, names[3], names[1], "because"),
    ]
    assert changes.counts == {(INITIAL_WINDOW, "up"): 2, (INITIAL_WINDOW, "down"): 1}


def test_rows_may_move(clock: Clock) -> None:
    changes = fresh(Journal(None))
    for row in range(4):
        clock(1e9 + row)
        changes.note(np.array([row]), [decided(1, 1, 1, 1)])
    changes.keep(np.array([0, 3]))
    assert [changes.since(row, 0) for row in range(3)] == [1e9, 1e9 + 3, None]


def test_it_outlives_the_process_where_arms_keep_their_names(clock: Clock) -> None:
    changes = fresh(Journal(None))
    names = [arm.name for arm in made()[0].arms]
    changes.note(np.arange(3), [decided(0, names.index("iw20"), names.index("iw14"))])
    clock(1e9 + 60)
    journal = Journal(None)
    again = fresh(journal, InitialWindow(min=20))
    again.load(changes.dump(np.arange(3)), np.array([0, 2, 1]))
    there = [arm.name for arm in made(InitialWindow(min=20))[0].arms]
    assert "iw14" not in there
    again.note(np.arange(3), [decided(0, 0, there.index("iw20"))], first=True)
    # iw14 is no arm any more, so what its path has now is new.
    assert [again.since(row, 0) for row in range(3)] == [1e9, 1e9 + 60, 1e9]


@pytest.mark.parametrize(
    "section",
    [
        Section({}, {}),
        Section({"arms": 7}, {"arm": np.zeros((3, 1), np.uint8), "time": np.zeros((3, 1), np.uint32)}),
        Section({"arms": [7]}, {"arm": np.zeros((3, 1), np.uint8), "time": np.zeros((3, 1), np.uint32)}),
        Section({"arms": [[{}] * 999]}, {"arm": np.zeros((3, 1), np.uint8), "time": np.zeros((3, 1), np.uint32)}),
        Section({"arms": [["default"]]}, {"arm": np.zeros((3, 1), np.int8), "time": np.zeros((3, 1), np.uint32)}),
        Section({"arms": [["default"]]}, {"arm": np.zeros((2, 1), np.uint8), "time": np.zeros((3, 1), np.uint32)}),
        Section({"arms": [["default"]]}, {"arm": np.full((3, 1), 9, np.uint8), "time": np.zeros((3, 1), np.uint32)}),
    ],
)
@pytest.mark.usefixtures("clock")
def test_a_section_that_does_not_fit_is_as_good_as_none(section: Section) -> None:
    changes = fresh(Journal(None))
    changes.load({"since": section}, np.arange(3))
    changes.note(np.arange(3), [decided(0, 0, 0)], first=True)
    assert [changes.since(row, 0) for row in range(3)] == [1e9] * 3


@pytest.mark.usefixtures("clock")
def test_the_future_is_not_believed() -> None:
    changes = fresh(Journal(None))
    parts = {"arm": np.zeros((1, 1), np.uint8), "time": np.full((1, 1), 2**32 - 1, np.uint32)}
    changes.load({"since": Section({"arms": [["default"]]}, parts)}, np.arange(1))
    assert changes.since(0, 0) == 1e9


def learnt_path(tuner: Tuner) -> None:
    counted = {"closed": 200, "sent_segments": 20_000, "first_windows": 200, "first_window_segments": 2000}
    for arm, log_time in ((0, 18), (1, 16)):
        absorb(tuner, "203.0.113.0/24", arm=arm, log_time=log_time, transfers=200, **counted)
    tuner.decide(time.monotonic())


def test_explain_says_since_when_also_after_a_restart(tmp_path: Path, clock: Clock) -> None:
    tuner = still_tuner()
    learnt_path(tuner)
    before = {each["name"]: (each["chosen"], each["since"]) for each in explain(tuner, ADDRESS)["dimensions"]}
    assert before[INITIAL_WINDOW] == ("iw14", 1e9)
    save(tmp_path, tuner.learnt(time.monotonic()), now=1e9)
    clock(1e9 + 60)
    saved = load(tmp_path)
    assert saved is not None
    reborn = Tuner(CONFIG, StillKernel(), Journal(None), dry_run=False, learnt=saved.learnt)  # type: ignore[arg-type]
    after = {each["name"]: (each["chosen"], each["since"]) for each in explain(reborn, ADDRESS)["dimensions"]}
    assert after == before
    reborn.reconfigure(CONFIG.model_copy(update={"initial_window": InitialWindow(max=40)}))
    assert explain(reborn, ADDRESS)["dimensions"][0]["since"] == 1e9
    assert explain(reborn, ip_address("192.0.2.1"))["dimensions"][0]["since"] is None


def test_an_administrator_who_sets_the_congestion_control_wins(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> None:
    monkeypatch.setattr(features, "algorithms", lambda: ("reno", "cubic", "bbr"))
    monkeypatch.setattr(features, "host_congestion", lambda: "cubic")
    told: dict[str, object] = {}
    kernel = StillKernel()
    monkeypatch.setattr(kernel, "control", lambda **fields: told.update(fields))
    monkeypatch.setattr(kernel, "drain", lambda: (np.zeros(0), np.zeros(0)), raising=False)
    tuner = Tuner(CONFIG, kernel, Journal(None), dry_run=False)  # type: ignore[arg-type]
    monkeypatch.setattr(tuner, "_absorb", lambda *_: None)
    learnt_path(tuner)
    window = explain(tuner, ADDRESS)["dimensions"][0]

    tuner.sample(time.monotonic())
    assert tuner.override is None
    assert [arm.name for arm in tuner.dimensions[1].arms] == ["default", "bbr", "paced", "bbr-paced"]

    clock(1e9 + 60)
    monkeypatch.setattr(features, "host_congestion", lambda: "reno")
    tuner.sample(time.monotonic())
    assert [arm.name for arm in tuner.dimensions[1].arms] == ["default"]
    assert told["host_congestion"] == b"reno"
    (entry,) = (entry for entry in tuner.journal.recent if entry.dimension == CONGESTION)
    assert (entry.time, entry.before, entry.after) == (1e9 + 60, "cubic", "reno")
    # The other dimensions go on with what they know.
    assert explain(tuner, ADDRESS)["dimensions"][0]["chosen"] == window["chosen"] == "iw14"

    why = "an administrator set net.ipv4.tcp_congestion_control to reno at 2001-09-09 01:47:40 UTC: left alone until"
    assert explain(tuner, ADDRESS)["dimensions"][1]["reason"].startswith(why)
    assert paths(tuner, limit=1, offset=0, group=None)["paths"][0]["reasons"][CONGESTION].startswith(why)
    facts = status(take(tuner, Health()))
    assert facts["override"]["text"].startswith(why)
    assert why in render(facts, ready=True, paths=None, findings=(), refresh=False)
    registry = CollectorRegistry()
    registry.register(Exporter(lambda: take(tuner, Health())))
    assert registry.get_sample_value("tcptuned_administrator_override", {"dimension": CONGESTION}) == 1

    # Back to what it was is an order too; only a reload tunes it again.
    monkeypatch.setattr(features, "host_congestion", lambda: "cubic")
    tuner.sample(time.monotonic())
    assert [arm.name for arm in tuner.dimensions[1].arms] == ["default"]
    tuner.reconfigure(CONFIG)
    assert tuner.override is None
    assert [arm.name for arm in tuner.dimensions[1].arms] == ["default", "bbr", "paced", "bbr-paced"]
