"""Names and passwords: who is admitted, what a check costs, and that its time tells nothing."""

from __future__ import annotations

import statistics
import threading
import time
from base64 import b64encode

import pytest
from certificates import hashed

from agent.basic_auth import Users

COST = 8  # 16 ms: enough to be measured beside all else


def basic(name: str, password: str) -> str:
    """The header a client sends."""
    return "Basic " + b64encode(f"{name}:{password}".encode()).decode()


@pytest.fixture
def users() -> Users:
    hashes = {"alice": "wonder:land", "bob": "", "zoë": "naïve", "long": "x" * 72}
    return Users({name: hashed(password).encode() for name, password in hashes.items()})


@pytest.mark.parametrize(
    "header",
    [
        basic("alice", "wonder:land"), basic("bob", ""), basic("zoë", "naïve"), basic("long", "x" * 72),
        basic("long", "x" * 80),  # what hashes passwords cuts there, so does what checks them
        basic("alice", "wonder:land").replace("Basic", "bAsIc"),
    ],
)  # fmt: skip
def test_users_are_admitted(users: Users, header: str) -> None:
    assert users.admit(header) is True
    assert users.admit(header) is True


@pytest.mark.parametrize(
    "header",
    [
        None, "", "Basic", "Basic ", "Basic !!!", "Basic \u20ac", "Bearer abc", "Basic " + b64encode(b"alice").decode(),
        "Basic " + b64encode(b"\xff\xfe:\x00").decode(), basic("alice", "wonder"), basic("alice", ""),
        basic("alice", "wonder:land\0"), basic("Alice", "wonder:land"), basic("", ""), basic("long", "x" * 71),
        basic("nobody", "wonder:land"), basic("bob", "wonder:land"),
    ],
)  # fmt: skip
def test_others_are_not(users: Users, header: str | None) -> None:
    for name, password in (("alice", "wonder:land"), ("bob", "")):
        assert users.admit(basic(name, password)) is True  # what is remembered admits nobody else
    assert users.admit(header) is False


def _seconds(users: Users, header: str) -> float:
    begin = time.perf_counter()
    users.admit(header)
    return time.perf_counter() - begin


def test_a_scrape_is_cheap_once_its_password_was_right() -> None:
    users = Users({"alice": hashed("right", COST).encode()})
    first = _seconds(users, basic("alice", "right"))
    assert first > 20 * statistics.median(_seconds(users, basic("alice", "right")) for _ in range(9))


def test_unknown_users_cost_what_known_ones_do() -> None:
    users = Users({"alice": hashed("right", COST).encode()})
    users.admit(basic("alice", "right"))
    known, unknown = [], []
    for number in range(9):
        known.append(_seconds(users, basic("alice", f"wrong{number}")))
        unknown.append(_seconds(users, basic(f"nobody{number}", "right")))
    assert 0.5 < statistics.median(unknown) / statistics.median(known) < 2


def test_where_costs_differ_an_unknown_user_has_one_of_them_for_good() -> None:
    hashes = [hashed("right", cost).encode() for cost in (4, 9)]  # 1 and 33 ms
    users = Users({"cheap": hashes[0], "costly": hashes[1]})
    dear = {name: [_seconds(users, basic(name, "x")) > 0.015 for _ in range(2)] for name in map(str, range(24))}
    assert {len(set(each)) for each in dear.values()} == {1}
    assert {each[0] for each in dear.values()} == {True, False}


def test_one_check_at_a_time_and_those_remembered_wait_for_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("agent.basic_auth._PATIENCE", 0.05)
    users = Users({"alice": hashed("right", 12).encode()})
    assert users.admit(basic("alice", "right")) is True
    found: list[bool | None] = []
    others = [threading.Thread(target=lambda: found.append(users.admit(basic("eve", "x")))) for _ in range(4)]
    for thread in others:
        thread.start()
    slowest = max(_seconds(users, basic("alice", "right")) for _ in range(5))
    for thread in others:
        thread.join()
    assert slowest < 0.1
    assert sorted(found, key=str) == [False, None, None, None]
