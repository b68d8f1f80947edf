"""Whose turn it is in the bench."""

from __future__ import annotations

import itertools
import threading
from dataclasses import replace

from agent.lab.bench.contenders import DEFAULT, TCPTUNED
from agent.lab.bench.tickets import Ticket, TicketQueue

TICKETS = [Ticket("7", each, turn, compared=False) for turn in range(4) for each in (DEFAULT, TCPTUNED)]


def queue(left_out: list[Ticket], *, seconds: float, load: float = 1.0, planned: float = 60.0) -> TicketQueue:
    return TicketQueue(iter(TICKETS), {"7": (load, planned)}, seconds=seconds, least={"7": 2}, left_out=left_out.append)


def test_a_contender_makes_one_connection_at_a_time_on_a_path() -> None:
    waiting = queue([], seconds=60.0)
    first, second = waiting.take(), waiting.take()
    assert [first, second] == TICKETS[:2]
    third: list[Ticket | None] = []
    thread = threading.Thread(target=lambda: third.append(waiting.take()))
    thread.start()
    thread.join(0.2)
    assert not third, "both are busy"
    assert second is not None
    waiting.give_back(second)
    thread.join(10)
    assert third == [TICKETS[3]], "the one who is idle, not the one whose turn it was"


def test_no_more_at_once_than_the_emulator_carries() -> None:
    waiting = queue([], seconds=60.0, load=50.0)
    first = waiting.take()
    thread = threading.Thread(target=waiting.take)
    thread.start()
    thread.join(0.2)
    assert thread.is_alive()
    assert first is not None
    waiting.give_back(first)
    thread.join(10)
    assert not thread.is_alive()


def test_who_carries_little_leaves_room_for_others() -> None:
    """A policed path of 60 Mb/s on which a contender gets a tenth of that."""
    waiting = queue([], seconds=60.0, load=60.0)
    for carried in (6.0, 6.0):
        ticket = waiting.take()
        assert ticket is not None
        waiting.give_back(ticket, carried)
    assert [waiting.take(), waiting.take()] == TICKETS[2:4]  # at once: they are thought to carry 8 Mb/s


def test_who_takes_longer_than_planned_holds_up_nobody() -> None:
    waiting = queue([], seconds=60.0, load=50.0, planned=0.1)
    waiting.take()
    thread = threading.Thread(target=waiting.take)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()


def test_after_its_time_a_path_has_only_its_first_turns() -> None:
    left_out: list[Ticket] = []
    waiting = queue(left_out, seconds=0.0)
    taken = []
    for _ in itertools.count():
        if (ticket := waiting.take()) is None:
            break
        taken.append(ticket)
        waiting.give_back(ticket)
    assert taken == TICKETS[:4]
    assert left_out == TICKETS[4:]


def test_after_its_time_nobody_goes_again_in_the_same_turn() -> None:
    left_out: list[Ticket] = []
    first, again = TICKETS[0], replace(TICKETS[0], again=True)
    loads = {"7": (1.0, 60.0)}
    waiting = TicketQueue(iter([first, again]), loads, seconds=0.0, least={"7": 2}, left_out=left_out.append)
    assert waiting.take() == first
    waiting.give_back(first)
    assert waiting.take() is None
    assert left_out == [again]


def test_who_waits_when_the_time_is_over_is_left_out() -> None:
    left_out: list[Ticket] = []
    waiting = queue(left_out, seconds=0.3)
    first, second = waiting.take(), waiting.take()
    assert first is not None
    assert second is not None
    found: list[Ticket | None] = []
    thread = threading.Thread(target=lambda: found.append(waiting.take()))
    thread.start()  # looks ahead at all the others
    thread.join(0.4)
    waiting.give_back(second)
    thread.join(10)
    assert found == [TICKETS[3]]
    assert left_out == TICKETS[4:], "all tickets that waited, but not the turns that everybody has"
