"""The history: a row a minute and group, through jumps of the clock, reloads, restarts and hostile files."""

from __future__ import annotations

import dataclasses
import json
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from handmade import absorb, still_tuner

from agent import archive, state
from agent.effect import COMPARED
from agent.history import COLUMNS, MINUTE, MOST_ROWS, History
from agent.section import Section
from agent.snapshot import Health, Snapshot, take
from agent.tuner import Tuner

BEGIN = 1.7e9


def snapshot(tuner: Tuner) -> Snapshot:
    return take(tuner, Health())


def taught() -> History:
    """Three minutes of two groups: 5, 0 and 7 treated connections of the first."""
    tuner, history = still_tuner(), History()
    history.note(snapshot(tuner), BEGIN)
    for minute, opened in enumerate((5, 0, 7), 1):
        absorb(tuner, "203.0.113.0/24", opened=opened, sent_segments=100 * opened, retransmitted_segments=opened)
        history.note(snapshot(tuner), BEGIN + MINUTE * minute)
    return history


def column(history: History, name: str, group: str = "default") -> list[Any]:
    return list(history.facts()["groups"].get(group, {name: []})[name])


def test_a_row_a_minute_holds_what_happened_in_it() -> None:
    history = taught()
    assert column(history, "end") == [BEGIN + MINUTE * minute for minute in (1, 2, 3)]
    assert column(history, "treated") == [5, 0, 7]
    assert column(history, "sent_segments") == [500, 0, 700]
    assert column(history, "retransmitted_segments") == [5, 0, 7]
    assert column(history, "treated", "cdn") == [0, 0, 0]
    json.dumps(history.facts(), allow_nan=False)


def test_the_uplift_is_in_it() -> None:
    tuner, history = still_tuner(), History()
    history.note(snapshot(tuner), BEGIN)
    absorb(tuner, "203.0.113.0/24", transfers=100, closed=100, log_time=17)
    absorb(tuner, "203.0.113.0/24", transfers=100, closed=100, log_time=18, treatment="HOLDOUT")
    for _ in COMPARED:
        tuner.effect.step(tuner.store)
    history.note(snapshot(tuner), BEGIN + MINUTE)
    assert column(history, "all_ratio") == [pytest.approx(0.5, abs=0.01)]
    assert column(history, "all_lower")[0] < 0.5 < column(history, "all_upper")[0]
    assert column(history, "congestion_ratio") == [None]
    assert column(history, "all_ratio", "cdn") == [None]


def test_between_the_minutes_nothing_is_added() -> None:
    tuner, history = still_tuner(), History()
    for second in range(int(MINUTE)):
        history.note(snapshot(tuner), BEGIN + second)
    assert len(history) == 0
    history.note(snapshot(tuner), BEGIN + MINUTE)
    assert len(history) == 2


def test_counts_that_begin_anew_are_not_negative() -> None:
    tuner, history = still_tuner(), History()
    absorb(tuner, "203.0.113.0/24", opened=50)
    history.note(snapshot(tuner), BEGIN)
    fresh = still_tuner()
    absorb(fresh, "203.0.113.0/24", opened=3)
    history.note(snapshot(fresh), BEGIN + MINUTE)
    assert column(history, "treated") == [3]


def test_the_clock_may_jump() -> None:
    tuner, history = still_tuner(), History()
    times = [0, 60, 120, 3720, 180, 240]
    for seconds in times:
        history.note(snapshot(tuner), BEGIN + seconds)
    # What was told at 3720 lay ahead once the clock had stepped back.
    assert column(history, "end") == [BEGIN + seconds for seconds in (60, 120, 180, 240)]
    history.note(snapshot(tuner), BEGIN + 1e6)
    assert column(history, "end") == [BEGIN + 1e6]


def test_it_is_bounded() -> None:
    tuner, history = still_tuner(), History()
    picture = snapshot(tuner)
    many = dataclasses.replace(
        picture, groups=tuple(f"group{number}" for number in range(62)),
        uplifts={}, rows=np.repeat(picture.rows, 31, axis=0), connections=np.repeat(picture.connections, 31, axis=0),
    )  # fmt: skip
    for minute in range(400):
        history.note(many, BEGIN + MINUTE * minute)
    assert len(history) == MOST_ROWS
    assert sum(array.nbytes for array in history.dump().arrays.values()) < 2e6
    day = History()
    for minute in range(2000):
        day.note(picture, BEGIN + MINUTE * minute)
    assert len(day) == 2 * 1440


def test_it_comes_back_through_the_state_file(tmp_path: Path) -> None:
    before = taught()
    learnt = dataclasses.replace(still_tuner().learnt(0.0), sections={"history": before.dump()})
    state.save(tmp_path, learnt, now=BEGIN)
    saved = state.load(tmp_path)
    assert saved is not None
    after = History()
    after.load(saved.learnt.sections["history"], BEGIN + 1000)
    assert after.facts() == before.facts()
    # Rows that lie ahead by the clock of today, and those of long ago, are left.
    for now, kept in ((BEGIN + 130, [BEGIN + 60, BEGIN + 120]), (BEGIN + 86_400 + 150, [BEGIN + 180]), (0.0, [])):
        after = History()
        after.load(saved.learnt.sections["history"], now)
        assert column(after, "end") == kept
    # It goes on from there.
    after.load(saved.learnt.sections["history"], BEGIN + 1000)
    tuner = still_tuner()
    for minute in (20, 21):
        after.note(snapshot(tuner), BEGIN + MINUTE * minute)
    assert column(after, "end") == [BEGIN + MINUTE * minute for minute in (1, 2, 3, 21)]


def test_an_empty_history_comes_back_too(tmp_path: Path) -> None:
    archive.write(tmp_path / "file", {}, History().dump().arrays)
    after = History()
    after.load(Section(dict(History().dump().facts), archive.read(tmp_path / "file", 1 << 20)[1]), BEGIN)
    assert len(after) == 0
    assert after.facts()["groups"] == {}


def test_columns_of_another_version_go_by_name() -> None:
    section = taught().dump()
    columns = [f"old_{name}" if name == "rtt_us" else name for name in reversed(COLUMNS)]
    values = section.arrays["values"][:, ::-1]
    other = Section({**section.facts, "columns": columns}, {**section.arrays, "values": values})
    history = History()
    history.load(other, BEGIN + 1000)
    assert column(history, "treated") == [5, 0, 7]
    assert column(history, "rtt_us") == [None] * 3


Change = Callable[[dict[str, Any], dict[str, Any]], object]
NOT_SOUND: dict[str, Change] = {
    "no groups": lambda facts, _: facts.pop("groups"),
    "groups no texts": lambda facts, _: facts.update(groups=[1, 2]),
    "an endless name": lambda facts, _: facts.update(groups=["x" * 1_000_000, "y"]),
    "fewer groups": lambda facts, _: facts.update(groups=["default"]),
    "fewer columns": lambda facts, _: facts.update(columns=["treated"]),
    "no times": lambda _, arrays: arrays.pop("end"),
    "one array more": lambda _, arrays: arrays.update(more=np.zeros(3)),
    "times disordered": lambda _, arrays: arrays.update(end=arrays["end"][::-1]),
    "times endless": lambda _, arrays: arrays.update(end=arrays["end"] * np.inf),
    "another type": lambda _, arrays: arrays.update(group=arrays["group"].astype(np.float32)),
    "another length": lambda _, arrays: arrays.update(group=arrays["group"][1:]),
    "another shape": lambda _, arrays: arrays.update(values=arrays["values"].ravel()),
}


@pytest.mark.parametrize("name", NOT_SOUND)
def test_what_does_not_fit_together_is_left(name: str) -> None:
    section = taught().dump()
    facts, arrays = dict(section.facts), dict(section.arrays)
    NOT_SOUND[name](facts, arrays)
    history = History()
    history.load(Section(facts, arrays), BEGIN + 1000)
    assert len(history) == 0


def test_of_endless_rows_only_the_last_are_read() -> None:
    count = 50 * MOST_ROWS
    arrays = {"end": BEGIN + np.arange(count) / count, "group": np.zeros(count, np.uint16),
              "values": np.zeros((count, 0), np.float32)}  # fmt: skip
    history = History()
    tracemalloc.start()
    history.load(Section({"groups": ["default"], "columns": []}, arrays), BEGIN + 1000)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(history) == MOST_ROWS
    assert most < 40e6
