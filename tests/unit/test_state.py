"""The state file and what it holds: evidence by name, through other configurations, other clocks and hostile files."""

from __future__ import annotations

import dataclasses
import logging
import os
import threading
import time
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from handmade import CONFIG, StillKernel, absorb, still_tuner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent import archive, state
from agent.config import Ack, Config, Congestion, InitialWindow, PathRule, Paths
from agent.dimensions import dimensions
from agent.evidence import EvidenceStore
from agent.journal import Journal
from agent.learnt import MOST_CELLS, Learnt, gather, restore, worth_keeping
from agent.rules import packed, rules
from agent.section import Section
from agent.snapshot import Health
from agent.state import Keeper
from agent.tuner import Tuner
from controllers import Field

NOW = 1000.0


def taught() -> Tuner:
    """Two paths of two groups, in some arms."""
    tuner = still_tuner()
    tuner.store.age(NOW)
    absorb(tuner, "203.0.113.0/24", arm=2, closed=30, sent_segments=900, now=NOW)
    absorb(tuner, "203.0.113.0/24", arm=0, closed=10, now=NOW)
    absorb(tuner, "203.0.113.0/24", treatment="HOLDOUT", closed=5, now=NOW)
    absorb(tuner, "2001:db8::/48", arm=1, closed=7, now=NOW - 50)
    absorb(tuner, "198.51.100.0/24", group=1, arm=4, closed=11, now=NOW)
    return tuner


def gathered(store: EvidenceStore, now: float) -> Learnt:
    return gather(store, worth_keeping(store), ("default",), "cubic", now=now)


def reborn(config: Config, learnt: Learnt, *, worth: float = 1.0) -> Tuner:
    return Tuner(config, StillKernel(), Journal(None), dry_run=False, learnt=learnt, worth=worth)  # type: ignore[arg-type]


def closed(tuner: Tuner, network: str) -> dict[str, float]:
    """Closed connections by arm of the initial window, of a path that must be known by itself."""
    match = tuner.match(ip_network(network).network_address)
    assert not match.inherited
    evidence = tuner.store.of(0)
    counts = evidence[Field.CLOSED][match.row]
    return {arm.name: float(count) for arm, count in zip(evidence.arms, counts, strict=True) if count}


def known(tuner: Tuner) -> set[str]:
    return {tuner.name(row) for row in range(tuner.store.groups, len(tuner.store))}


def through_file(folder: Path, learnt: Learnt) -> Learnt:
    state.save(folder, learnt, now=1e9)
    saved = state.load(folder)
    assert saved is not None
    assert saved.time == 1e9
    return saved.learnt


def test_everything_comes_back_through_a_file(tmp_path: Path) -> None:
    before = taught()
    after = reborn(CONFIG, through_file(tmp_path, before.learnt(NOW)))
    assert after.groups == before.groups
    assert known(after) == {"203.0.113.0/24", "2001:db8::/48", "198.51.100.0/24"}
    for row in range(len(before.store)):
        identity = before.store.identity[row]
        found = row if row < 2 else after.store.find(
            identity["address"].tobytes(), int(identity["bits"]), int(identity["group"])
        )  # fmt: skip
        np.testing.assert_array_equal(after.store.sums[found], before.store.sums[row])
    seen = {after.name(row): float(after.store.seen[row]) for row in range(2, 5)}
    assert seen["203.0.113.0/24"] - seen["2001:db8::/48"] == pytest.approx(50.0)
    assert seen["203.0.113.0/24"] == pytest.approx(time.monotonic(), abs=5.0)
    # And from the first step on the policy is the same.
    before.decide(NOW)
    row = before.match(ip_network("203.0.113.0/24").network_address).row
    other = after.match(ip_network("203.0.113.0/24").network_address).row
    for old, new in zip(before.decisions, after.decisions, strict=True):
        np.testing.assert_allclose(new.probabilities[other], old.probabilities[row], atol=1e-6)


def test_a_restart_writes_no_decisions_that_nobody_made() -> None:
    tuner = reborn(CONFIG, taught().learnt(NOW))
    tuner.decide(time.monotonic())
    assert not tuner.journal.recent


def test_evidence_is_worth_less_after_a_pause() -> None:
    tuner = reborn(CONFIG, taught().learnt(NOW), worth=0.25)
    assert closed(tuner, "203.0.113.0/24") == {"default": 2.5, "iw20": 7.5}


@pytest.mark.parametrize(
    ("away", "worth"),
    [(0.0, 1.0), (600.0, 0.5), (1200.0, 0.25), (-1.0, 1.0), (-1e12, 1.0), (1e12, 0.125), (float("nan"), 1.0)],
)
def test_no_clock_makes_evidence_more_than_it_was_nor_less_than_an_eighth(away: float, worth: float) -> None:
    assert state.remaining(away, 600.0) == worth


def test_arms_are_found_by_name_when_their_numbers_change() -> None:
    config = Config(paths=CONFIG.paths, initial_window=InitialWindow(min=20, max=56))
    tuner = reborn(config, taught().learnt(NOW))
    assert tuner.dimensions[0].arms[1].name == "iw20"
    assert closed(tuner, "203.0.113.0/24") == {"default": 10.0, "iw20": 30.0}
    assert closed(tuner, "2001:db8::/48") == {}  # it had tried 14 only, which is an arm no more


def test_groups_are_found_by_name_and_paths_go_where_the_rules_say() -> None:
    rule = [
        PathRule(match=(ip_network("192.0.2.0/24"),), group="new"),
        PathRule(match=(ip_network("203.0.113.0/24"),), group="cdn"),
    ]
    tuner = reborn(Config(paths=Paths(rules=tuple(rule))), taught().learnt(NOW))
    assert tuner.groups == ("default", "new", "cdn")
    assert tuner.match(ip_network("203.0.113.0/24").network_address).group == "cdn"
    assert closed(tuner, "203.0.113.0/24") == {"default": 10.0, "iw20": 30.0}
    assert tuner.match(ip_network("198.51.100.0/24").network_address).group == "default"
    assert closed(tuner, "198.51.100.0/24") == {"iw40": 11.0}
    by_group = tuner.store.of(0)[Field.CLOSED][:3].sum(axis=1)
    assert by_group.tolist() == [47.0, 0.0, 11.0]


def test_what_is_no_path_any_more_is_left() -> None:
    rule = [
        PathRule(match=(ip_network("203.0.113.0/24"),), exclude=True),
        PathRule(match=(ip_network("198.51.100.0/24"),), ipv4_prefix=32),
    ]
    learnt = taught().learnt(NOW)
    assert known(reborn(Config(paths=Paths(rules=tuple(rule))), learnt)) == {"2001:db8::/48"}
    assert known(reborn(Config(paths=Paths(ipv6_prefix=56)), learnt)) == {"203.0.113.0/24", "198.51.100.0/24"}
    assert known(reborn(Config(paths=Paths(ipv6_prefix=40, ipv4_prefix=16)), learnt)) == set()


def test_the_hosts_own_algorithm_goes_by_its_name() -> None:
    """bbr was an arm against the host's cubic; now it is the host's default, and cubic an arm."""
    chosen = [
        dimensions(Config(), algorithms=("cubic", "bbr"), host_congestion=host) for host in ("cubic", "bbr")
    ]  # fmt: skip
    stores = [EvidenceStore(one, groups=1, most_paths=100, half_life=600.0) for one in chosen]
    rule = rules(Paths(), ("default",))
    address = np.frombuffer(packed(ip_network("203.0.113.0/24").network_address), np.uint8).reshape(1, 16)
    row = stores[0].extend(address, np.array([120]), np.array([0]), np.array([NOW]))
    sums = np.ones((stores[0].sums.shape[1], len(Field)), np.float32) * np.arange(1, 16)[:, None]
    stores[0].fill(row.repeat(15), np.arange(15), sums)
    restore(gathered(stores[0], NOW), stores[1], ("default",), rule, "bbr", now=NOW)
    before, after = (store.of(1)[Field.CLOSED][1].tolist() for store in stores)
    assert after == [before[1], before[0], before[3], before[2]]
    sides = stores[1].sums[1, [stores[1].holdout_slot, stores[1].treated_slot]]
    assert (sides == 0).all()  # compared with cubic as the default


def test_dimensions_that_are_switched_off_and_on() -> None:
    learnt = taught().learnt(NOW)
    off = Config(paths=CONFIG.paths, congestion=Congestion(enabled=False), ack=Ack(enabled=False))
    tuner = reborn(off, learnt)
    assert closed(tuner, "203.0.113.0/24") == {"default": 10.0, "iw20": 30.0}
    assert closed(reborn(CONFIG, tuner.learnt(NOW)), "203.0.113.0/24") == {"default": 10.0, "iw20": 30.0}


def test_a_field_of_another_version_is_left_and_a_missing_one_leaves_all() -> None:
    learnt = taught().learnt(NOW)
    more = dataclasses.replace(
        learnt, fields=("NEW", *learnt.fields), sums=np.insert(learnt.sums, 0, np.float32(5), axis=1)
    )
    assert closed(reborn(CONFIG, more), "203.0.113.0/24") == {"default": 10.0, "iw20": 30.0}
    fewer = dataclasses.replace(learnt, fields=learnt.fields[1:], sums=learnt.sums[:, 1:])
    assert known(reborn(CONFIG, fewer)) == set()


def test_the_paths_idle_for_longest_have_no_room() -> None:
    tuner = still_tuner()
    for number in range(150):
        absorb(tuner, f"203.0.{number}.0/24", closed=1, now=NOW + number)
    found = reborn(Config(paths=Paths(max=100)), tuner.learnt(NOW + 200))
    assert known(found) == {f"203.0.{number}.0/24" for number in range(50, 150)}


def test_a_reload_keeps_evidence_by_name() -> None:
    tuner = still_tuner()
    absorb(tuner, "203.0.113.0/24", arm=2, closed=30, now=time.monotonic())
    generation = tuner.generation
    rule = PathRule(match=(ip_network("203.0.113.0/24"),), group="branch")
    tuner.reconfigure(Config(paths=Paths(rules=(rule,)), initial_window=InitialWindow(min=20)))
    assert tuner.generation == generation + 1
    assert closed(tuner, "203.0.113.0/24") == {"iw20": pytest.approx(30, rel=1e-3)}
    assert tuner.match(ip_network("203.0.113.0/24").network_address).group == "branch"


def test_sections_come_back(tmp_path: Path) -> None:
    section = Section({"since": 5.0, "names": ["a", "b"]}, {"numbers": np.arange(3, dtype=np.uint32)})
    learnt = dataclasses.replace(taught().learnt(NOW), sections={"guard": section, "guarded": Section({}, {})})
    found = through_file(tmp_path, learnt).sections
    assert found["guard"].facts == section.facts
    assert found["guard"].arrays["numbers"].tolist() == [0, 1, 2]
    assert (found["guarded"].facts, found["guarded"].arrays) == ({}, {})


def test_no_file_is_no_mistake(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert state.load(tmp_path) is None
    assert state.load(tmp_path / "missing") is None
    assert not caplog.records


def test_damaged_files_are_set_aside_with_one_warning_each_and_few_are_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        monkeypatch.setattr(time, "gmtime", lambda number=number: time.struct_time((2025, 1, 1, 0, 0, number, 2, 1, 0)))
        (tmp_path / state.FILE).write_bytes(b"nonsense" + bytes([number]))
        caplog.clear()
        assert state.load(tmp_path) is None
        assert len(caplog.records) == 1
        assert "learning begins anew" in caplog.text
    kept = sorted(path.read_bytes()[-1] for path in tmp_path.iterdir())
    assert kept == [3, 4, 5]


def test_a_folder_that_cannot_be_written_is_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "file"
    folder.write_text("no folder", encoding="utf-8")
    health = Health()
    keeper = Keeper(folder, health, taught_learnt)
    with caplog.at_level(logging.WARNING):
        keeper.save()
        keeper.save()
    assert (health.state_failures, health.state_saved) == (2, 0.0)
    assert len(caplog.records) == 1
    assert state.load(folder) is None


def taught_learnt() -> Learnt:
    return taught().learnt(NOW)


def test_the_keeper_saves_at_its_end(tmp_path: Path) -> None:
    health = Health()
    keeper = Keeper(tmp_path, health, taught_learnt)
    keeper.start()
    keeper.end(5.0)
    assert health.state_bytes == (tmp_path / state.FILE).stat().st_size
    assert health.state_saved == pytest.approx(time.time(), abs=60)
    assert state.load(tmp_path) is not None


def test_a_disk_that_hangs_holds_up_the_end_no_longer_than_it_may(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state, "INTERVAL", 0.0)
    hangs, goes_on = threading.Event(), threading.Event()

    def stuck(descriptor: int) -> None:
        del descriptor
        hangs.set()
        goes_on.wait(30)

    monkeypatch.setattr(os, "fsync", stuck)
    keeper = Keeper(tmp_path, Health(), taught_learnt)
    keeper.start()
    assert hangs.wait(10)
    keeper.end(0.1)
    assert "what was learnt last is lost" in caplog.text
    assert not (tmp_path / state.FILE).exists()
    goes_on.set()
    keeper.end(10)
    assert state.load(tmp_path) is not None


def test_the_keeper_saves_again_and_again_but_large_files_less_often(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(state, "save", lambda *_, **__: len(waits) * 64_000_000)
    health = Health()
    keeper = Keeper(tmp_path, health, taught_learnt)

    def wait(seconds: float) -> bool:
        waits.append(seconds)
        return len(waits) == 4

    monkeypatch.setattr(keeper._stop, "wait", wait)
    keeper._run()
    assert waits == [20.0, 250.0, 500.0, 750.0]


def forge(folder: Path, **changes: Any) -> None:
    """A file with a good checksum whose facts or arrays are replaced; None leaves one out."""
    state.save(folder, taught_learnt(), now=1e9)
    facts, arrays = archive.read(folder / state.FILE, 1 << 30)
    for name, value in changes.items():
        where: dict[str, Any] = facts if name in facts else arrays
        where[name] = value
        if value is None:
            del where[name]
    archive.write(folder / state.FILE, facts, arrays)


NOT_SOUND: dict[str, dict[str, Any]] = {
    "no groups": {"groups": None}, "groups no list": {"groups": "default"}, "group no text": {"groups": [["a"], "b"]},
    "fewer groups than rows": {"groups": []}, "fewer slots": {"slots": ["one"]}, "twice": {"slots": ["a"] * 13},
    "fields": {"fields": ["CLOSED"]}, "no array": {"sums": None}, "other type": {"bits": np.zeros(3, np.float32)},
    "other shape": {"bits": np.zeros((3, 1), np.uint8)}, "other length": {"bits": np.zeros(4, np.uint8)},
    "addresses": {"address": np.zeros((3, 15), np.uint8)}, "prefix": {"bits": np.array([120, 129, 120], np.uint8)},
    "time": {"saved": "yesterday"}, "time no number": {"saved": True}, "sections": {"sections": []},
    "section": {"sections": {"guard": 5}}, "idle": {"idle": np.array([0, -1, 0.0])},
    "idle without end": {"idle": np.array([0, np.inf, 0])},
}  # fmt: skip


@pytest.mark.parametrize("name", NOT_SOUND)
def test_a_whole_file_that_does_not_fit_together_is_refused(
    tmp_path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    forge(tmp_path, **NOT_SOUND[name])
    assert state.load(tmp_path) is None
    assert "fit together" in caplog.text


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), -1.0, 1e30])
def test_sums_that_nobody_measured_are_refused(tmp_path: Path, value: float) -> None:
    sums = taught_learnt().sums.copy()
    sums[1, Field.SEGMENTS] = value
    forge(tmp_path, sums=sums)
    assert state.load(tmp_path) is None


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=100)
@given(seed=st.integers(0, 1 << 32), paths=st.integers(0, 40), cells=st.integers(0, 60))
def test_whatever_a_sound_file_holds_the_agent_starts(tmp_path: Path, seed: int, paths: int, cells: int) -> None:
    """Networks that are none, the same one twice, sums of any size: still policies that are probabilities."""
    random = np.random.default_rng(seed)
    base = taught_learnt()
    address = random.integers(0, 256, (paths, 16), np.uint8)
    address[: paths // 2, :12] = np.frombuffer(bytes(10) + b"\xff\xff", np.uint8)
    address[: paths // 2, 15] = 0
    address[:, 6:] *= random.integers(0, 2, (paths, 1), np.uint8)
    sums = (10.0 ** random.uniform(-30, 19, (cells, len(Field)))).astype(np.float32)
    sums[:, 1:6] *= random.choice([-1, 1], (cells, 5))
    learnt = dataclasses.replace(
        base, address=address, bits=random.choice([0, 48, 120, 128], paths).astype(np.uint8),
        idle=random.uniform(0, 1e9, paths), row=random.integers(0, 2 + paths, cells).astype(np.uint32),
        slot=random.integers(0, len(base.slots), cells).astype(np.uint16), sums=sums,
    )  # fmt: skip
    tuner = reborn(CONFIG, through_file(tmp_path, learnt))
    assert not tuner.failures
    for decision in tuner.decisions:
        assert np.isfinite(decision.probabilities).all()
        np.testing.assert_allclose(decision.probabilities.sum(axis=1), 1.0, atol=1e-6)


def busy_store(paths: int) -> EvidenceStore:
    """Every arm of every path has evidence."""
    chosen = dimensions(Config(), algorithms=("cubic", "bbr"), host_congestion="cubic")
    store = EvidenceStore(chosen, groups=1, most_paths=paths, half_life=600.0)
    address = np.zeros((paths, 16), np.uint8)
    address[:, 10:12] = 255
    address[:, 12:15] = np.arange(paths, dtype=">u4").view(np.uint8).reshape(-1, 4)[:, 1:]
    rows = store.extend(address, np.full(paths, 120), np.zeros(paths), np.arange(paths, dtype=float))
    slots = store.sums.shape[1]
    sums = np.random.default_rng(1).uniform(1, 100, (paths * slots, len(Field))).astype(np.float32)
    store.fill(rows.repeat(slots), np.tile(np.arange(slots), paths), sums)
    return store


def test_a_hundred_thousand_busy_paths(tmp_path: Path) -> None:
    """The loop waits for `gather` alone, less than for one decision; the file is written beside it."""
    store = busy_store(100_000)
    fastest = float("inf")
    for _ in range(3):
        began = time.perf_counter()
        learnt = gathered(store, 1e6)
        fastest = min(fastest, time.perf_counter() - began)
    began = time.perf_counter()
    size = state.save(tmp_path, learnt, now=1e9)
    saving = time.perf_counter() - began
    saved = state.load(tmp_path)
    assert saved is not None
    loading = time.perf_counter() - began - saving
    other = EvidenceStore(store.dimensions, groups=1, most_paths=100_000, half_life=600.0)
    restore(saved.learnt, other, ("default",), rules(Paths(), ("default",)), "cubic", now=1e6)
    restoring = time.perf_counter() - began - saving - loading
    print(f"gather {fastest:.3f} s, save {saving:.3f} s, load {loading:.3f} s, restore {restoring:.3f} s; {size:,} B")
    assert other.sums.sum(dtype=np.float64) == pytest.approx(store.sums.sum(dtype=np.float64))
    assert size < 110e6
    assert fastest < 1.0  # 0.06 s were measured; the margin is for a busy machine


def test_paths_without_evidence_are_kept_if_somebody_needs_them() -> None:
    tuner = taught()
    absorb(tuner, "203.0.114.0/24", now=NOW, transfers=0)
    row = tuner.match(ip_network("203.0.114.0/24").network_address).row
    assert row not in worth_keeping(tuner.store)
    rows = worth_keeping(tuner.store, np.array([row]))
    assert row in rows
    learnt = gather(tuner.store, rows, tuner.groups, "cubic", now=NOW)
    assert "203.0.114.0/24" in known(reborn(CONFIG, learnt))
    assert len(rows) == len(learnt.groups) + learnt.paths


def test_the_file_is_bounded_and_the_busiest_paths_are_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    # Row, slot and sums of every cell, and a million paths.
    assert MOST_CELLS * (6 + 4 * len(Field)) + 25 * 1_000_000 < state._MOST_BYTES
    monkeypatch.setattr("agent.learnt.MOST_CELLS", 150)
    learnt = gathered(busy_store(50), 1e6)
    assert learnt.paths == 10
    assert len(learnt.row) == 150
    assert learnt.address[:, 14].tolist() == list(range(40, 50))


def test_the_file_belongs_to_the_agent_alone(tmp_path: Path) -> None:
    state.save(tmp_path, taught_learnt(), now=1e9)
    found = (tmp_path / state.FILE).stat()
    assert (found.st_mode & 0o777, found.st_uid) == (0o600, os.geteuid())
