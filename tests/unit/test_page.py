"""The status page's parts that need no browser: plots at their edges, a busy loop, and findings that are kept."""

from __future__ import annotations

import re
import time
from email.message import Message

import pytest
from handmade import StillAgent, absorb, still_tuner

from agent import abilities
from agent.abilities import Abilities
from agent.config import Config
from agent.finding import Finding
from agent.page_plots import Scale, bar, interval, scale
from agent.routes import Routes


def found(lower: float, ratio: float, upper: float) -> dict[str, float]:
    return {"ratio": ratio, "lower": lower, "upper": upper}


@pytest.mark.parametrize(
    ("intervals", "expected"),
    [
        ([], Scale(-0.1, 0.1)),
        ([found(0.02, 0.03, 0.04)], Scale(-0.1, 0.1)),
        ([found(-0.31, 0.1, 0.3), found(0.1, 0.2, 0.55)], Scale(-0.4, 0.6)),
        ([found(-7.0, -3.0, 0.99)], Scale(-1.0, 1.0)),
        ([found(float("-inf"), 0.1, 0.2)], Scale(-0.1, 0.2)),
    ],
)
def test_a_scale_holds_all_but_the_absurd(intervals: list[dict[str, float]], expected: Scale) -> None:
    made = scale(intervals)
    assert (made.low, made.high) == (pytest.approx(expected.low), pytest.approx(expected.high))


@pytest.mark.parametrize(
    ("bounds", "kind"),
    [
        (found(0.1, 0.2, 0.3), "faster"), (found(-0.3, -0.2, -0.1), "slower"), (found(-0.1, 0.2, 0.3), "unsure"),
        (found(-9.0, -8.0, -7.0), "slower"),
    ],
)  # fmt: skip
def test_an_interval_stays_within_its_picture(bounds: dict[str, float], kind: str) -> None:
    svg = interval(bounds, scale([bounds]))
    assert svg.count(f'class="{kind}"') == 2
    for left, width in re.findall(r'x="([\d.]+)%" y="5" width="([\d.]+)%"', svg):
        assert 0 <= float(left) <= float(left) + float(width) <= 100.5
    assert "nan" not in svg


def test_a_bar_is_as_long_as_its_share() -> None:
    assert 'width="25.00%"' in bar(0.25)


def _page(agent: StillAgent, query: str = "") -> str:
    return Routes(agent).respond(f"/{query}", Message()).body.decode()


@pytest.fixture
def agent() -> StillAgent:
    tuner = still_tuner()
    absorb(tuner, "203.0.113.0/24", closed=12, opened=12)
    tuner.decide(time.monotonic())
    return StillAgent(tuner)


def test_what_is_tuned_comes_with_its_reason(agent: StillAgent) -> None:
    page = _page(agent)
    assert "<h3>203.0.113.0/24</h3>" in page
    assert "<dt>initial_window</dt><dd>default: " in page
    assert 'href="/api/v1/paths?address=203.0.113.0"' in page


def test_a_busy_loop_costs_the_page_one_part(agent: StillAgent) -> None:
    with agent.lock:
        page = _page(agent)
    assert "The agent is busy" in page
    assert "group default" in page


def test_who_stops_the_refresh_gets_none(agent: StillAgent) -> None:
    assert 'http-equiv="refresh" content="10"' in _page(agent)
    stopped = _page(agent, "?refresh=off")
    assert "http-equiv" not in stopped
    assert '<a href="/">every 10 seconds</a>' in stopped


def test_an_agent_that_knows_nothing_has_a_page() -> None:
    page = _page(StillAgent(still_tuner()))
    for text in ("No path yet", "not known yet", "None yet"):
        assert text in page


def test_findings_are_looked_at_once_in_a_while(monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[Config] = []

    def check(config: Config) -> list[Finding]:
        looked.append(config)
        return [Finding("kernel", "ok", str(len(looked)), "")]

    monkeypatch.setattr(abilities, "HOST_CHECKS", (("kernel", check),))
    kept, one, other = Abilities(), Config(), Config()
    assert [finding.value for _ in range(3) for finding in kept.findings(one)] == ["1"] * 3
    assert kept.findings(other)[0].value == "2"
    later = time.monotonic() + 301
    monkeypatch.setattr(time, "monotonic", lambda: later)
    assert kept.findings(other)[0].value == "3"


def test_findings_of_this_host() -> None:
    assert {"kernel", "CAP_BPF", "default congestion control"} <= {one.name for one in Abilities().findings(Config())}
