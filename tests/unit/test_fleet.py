"""The reader beside the loop: what it knows, for how long, what it counts; and what the loop makes of it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from ipaddress import ip_address
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from handmade import absorb, still_tuner
from prometheus_client import generate_latest

from agent import fleet
from agent.config import Config, Fleet
from agent.exporter import registry
from agent.finding import examine
from agent.fleet import REASONS, FleetReader, Knowledge
from agent.fleet_answer import MOST_AGE, RULES, Key
from agent.fleet_finding import FLEET_CHECKS
from agent.path_facts import explain
from agent.snapshot import Health, take
from agent.status import status
from agent.tuner import Tuner
from controllers.fleet import Total

IW40 = ("default", "initial_window", "iw40", "default")
WANTED = frozenset({IW40})
SUMS = (50.0, 500.0, 300.0, 190.0, 100.0, 0.0)


class Server(ThreadingHTTPServer):
    """Prometheus as far as it is asked; `answer` makes status and body anew for every question."""

    daemon_threads = True

    def __init__(self) -> None:
        self.questions: list[str] = []
        self.answer: Callable[[], tuple[int, bytes]] = lambda: (200, vector())
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                server.questions.append(parse_qs(urlsplit(self.path).query)["query"][0])
                code, body = server.answer()
                self.send_response(code)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


def vector(key: Key = IW40, sums: tuple[float, ...] = SUMS) -> bytes:
    labels = dict(zip(("group", "dimension", "arm", "against"), key, strict=True))
    result = [
        {"metric": {"__name__": name, **labels}, "value": [time.time(), str(sums[total])]}
        for name, total in RULES.items()
    ]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as made:
        thread = threading.Thread(target=made.serve_forever, args=(0.01,))
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.fixture
def reader(monkeypatch: pytest.MonkeyPatch) -> Iterator[FleetReader]:
    monkeypatch.setattr(fleet, "INTERVAL", 0.05)
    made = FleetReader(lambda: WANTED)
    yield made
    made.end()


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_off_by_default_nothing_runs() -> None:
    before = threading.active_count()
    made = FleetReader(lambda: WANTED)
    made.use(Config().fleet.prometheus_url)
    assert threading.active_count() == before
    assert made.knowledge(time.monotonic()) is None
    made.end()


def test_what_was_read_serves_until_it_is_old(server: Server, reader: FleetReader) -> None:
    reader.use(server.url)
    until(lambda: reader.state.read > 0)
    known = reader.knowledge(time.monotonic())
    assert known is not None
    assert known.totals == ((IW40, SUMS),)
    assert reader.knowledge(known.read + MOST_AGE) is not None
    server.answer = lambda: (503, b"")
    until(lambda: reader.state.failures["refused"] >= 2)
    # Down for a while: what is known serves, and then no more.
    last = reader.knowledge(time.monotonic())
    assert last is not None
    assert reader.knowledge(last.read + MOST_AGE + 0.1) is None
    assert reader.state.problem == "the answer is HTTP 503"
    server.answer = lambda: (200, vector(sums=(1, 2, 3, 4, 5, 6)))
    until(lambda: not reader.state.problem)
    again = reader.knowledge(time.monotonic())
    assert again is not None
    assert again.totals == ((IW40, (1, 2, 3, 4, 5, 6)),)
    assert reader.state.arms == 1
    assert reader.state.reads >= 4
    assert 'group=~"default"' in server.questions[0]


def test_a_fleet_that_forgot_teaches_nothing(server: Server, reader: FleetReader) -> None:
    reader.use(server.url)
    until(lambda: reader.state.arms == 1)
    server.answer = lambda: (200, b'{"status":"success","data":{"resultType":"vector","result":[]}}')
    until(lambda: reader.state.arms == 0)
    known = reader.knowledge(time.monotonic())
    assert known is not None
    assert known.totals == ()


def test_another_address_forgets_what_the_first_one_told(server: Server, reader: FleetReader) -> None:
    reader.use(server.url)
    until(lambda: reader.state.arms == 1)
    reader.use("http://127.0.0.1:1")
    assert reader.knowledge(time.monotonic()) is None
    assert (reader.state.url, reader.state.read) == ("http://127.0.0.1:1", 0)
    until(lambda: reader.state.failures["unreachable"] > 0)
    reader.use(None)
    asked = len(server.questions)
    time.sleep(0.2)
    assert reader.state.url is None
    assert len(server.questions) == asked


def test_a_fault_of_our_own_is_counted_and_the_thread_goes_on(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(fleet, "INTERVAL", 0.05)
    faults = [ZeroDivisionError("oh"), KeyError("ah")]

    def wanted() -> frozenset[Key]:
        if faults:
            raise faults.pop()
        return WANTED

    made = FleetReader(wanted)
    made.use(server.url)
    until(lambda: made.state.arms == 1)
    made.end()
    assert made.state.failures["fault"] == 2
    assert caplog.text.count("cannot be read") == 1


def test_nobody_waits_for_a_server_that_does_not_answer(server: Server) -> None:
    stuck = threading.Event()
    server.answer = lambda: (200, vector() if stuck.wait(10) else b"")
    made = FleetReader(lambda: WANTED)
    begin = time.monotonic()
    made.use(server.url)
    until(lambda: bool(server.questions))
    assert made.knowledge(time.monotonic()) is None
    made.use(None)
    made.end()
    assert time.monotonic() - begin < 2.0
    stuck.set()


def taught(tuner: Tuner, sums: tuple[float, ...] = SUMS) -> None:
    tuner.knowledge = Knowledge(((IW40, sums),), 0.0)


def test_the_loop_takes_what_is_known_at_the_next_step_and_gives_it_back() -> None:
    tuner = still_tuner()
    where = tuner.dimensions[0].arms.index(next(arm for arm in tuner.dimensions[0].arms if arm.name == "iw40"))
    tuner.decide(0.0)
    assert tuner.decider.unknown[0].probabilities[0, 0] == 1
    taught(tuner)
    tuner.decide(5.0)
    default, cdn = tuner.decider.unknown[0].probabilities[:2]
    assert default[where] > 0.4
    assert cdn[0] == 1
    # A reload keeps it, in the groups that there are then.
    tuner.reconfigure(Config())
    assert tuner.groups == ("default",)
    assert tuner.decider.unknown[0].probabilities[0, where] > 0.4
    tuner.knowledge = None
    tuner.decide(10.0)
    assert tuner.decider.unknown[0].probabilities[0, 0] == 1


@pytest.mark.parametrize(
    "sums", [(np.nan,) * 6, (1e308,) * 6, (-1e308,) * 6, (5e-324,) * 6, (1.0, 1e-300, 1e300, 1.0, 1.0, 1.0)]
)
def test_no_number_stops_the_loop(sums: tuple[float, ...]) -> None:
    tuner = still_tuner()
    taught(tuner, sums)
    absorb(tuner, "203.0.113.0/24")
    tuner.decide(0.0)
    assert tuner.failures == {}
    assert np.isfinite(tuner.decider.unknown[0].probabilities).all()


def test_explain_says_whose_experience_it_is() -> None:
    tuner = still_tuner()
    tuner.decide(0.0)
    (window, *others) = explain(tuner, ip_address("203.0.113.1"))["dimensions"]
    assert window["prior"] is None
    taught(tuner)
    tuner.decide(5.0)
    (window, *others) = explain(tuner, ip_address("203.0.113.1"))["dimensions"]
    assert window["prior"] == {"network": 0, "group": 0, "fleet": 1}
    assert (window["chosen"], window["reason"]) == ("iw40", "no evidence of its own yet: as others found")
    assert [one["prior"] for one in others] == [None, None]
    # A network nearby that knows comes first.
    for arm in (0, 4):
        absorb(tuner, "203.0.113.0/24", arm=arm, log_time=17 - arm // 4, transfers=50, closed=50, first_windows=50,
               first_window_segments=500)  # fmt: skip
    tuner.decide(70.0)
    (window, *_) = explain(tuner, ip_address("203.0.114.1"))["dimensions"]
    assert window["prior"]["network"] > 0.5 > window["prior"]["fleet"] > 0
    assert window["reason"] == "no evidence of its own yet: as others found"
    # What a path brought into its network it does not inherit.
    (window, *_) = explain(tuner, ip_address("203.0.113.1"))["dimensions"]
    assert window["prior"] == {"network": 0, "group": 0, "fleet": 1}


def test_metrics_and_status(server: Server, reader: FleetReader) -> None:
    reader.use(server.url.replace("://", "://me:secret@"))
    until(lambda: reader.state.arms == 1)
    server.answer = lambda: (500, b"")
    until(lambda: reader.state.failures["refused"] > 0)
    tuner = still_tuner()
    tuner.knowledge = reader.knowledge(time.monotonic())
    snapshot = take(tuner, Health(fleet=reader.state))
    facts = status(snapshot)["health"]["fleet"]
    assert json.loads(json.dumps(facts)) == facts
    assert facts["url"] == server.url
    assert facts["problem"] == "the answer is HTTP 500"
    text = generate_latest(registry(lambda: snapshot)).decode()
    assert "secret" not in text
    assert "tcptuned_fleet_arms 1.0" in text
    shown = registry(lambda: snapshot).get_sample_value("tcptuned_fleet_last_read_timestamp_seconds")
    assert shown == facts["read"] > 0
    for reason in REASONS:
        assert f'tcptuned_fleet_read_failures_total{{reason="{reason}"}} {float(facts["failures"][reason])}' in text


def test_the_doctor_asks_once(server: Server) -> None:
    def found(url: str | None) -> tuple[str, str, str]:
        [finding] = examine(Config(fleet=Fleet(prometheus_url=url)), FLEET_CHECKS)
        return finding.state, finding.value, finding.consequence

    assert found(None)[:2] == ("ok", "off")
    state, value, _ = found(server.url)
    assert (state, value.split(" of ")[0]) == ("ok", "1")
    server.answer = lambda: (200, vector(("nobody", *IW40[1:])))
    assert found(server.url)[:2] == ("limited", "nothing known")
    server.answer = lambda: (404, b"")
    state, value, why = found(server.url.replace("://", "://me:secret@"))
    assert (state, value) == ("limited", "refused")
    assert why == f"this host learns alone: {server.url}: the answer is HTTP 404"


def test_the_order_of_sums_is_that_of_the_rules() -> None:
    assert sorted(RULES.values()) == list(Total)
