"""The report: from a real server, from the state file, and from hostile facts; one file that asks for nothing."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from handmade import StillAgent, absorb, still_tuner

from agent import state
from agent.config import Config, Web
from agent.effect import COMPARED
from agent.errors import TcptunedError
from agent.history import MINUTE
from agent.journal import Entry, Journal
from agent.report import show_report
from agent.report_facts import collect
from agent.report_page import render
from agent.report_plots import COLOURS, Interval, bars, changes, intervals, over_time
from agent.snapshot import Health, take
from agent.theme import THEMES
from agent.web import WebServer

NOBODY = Web(listen="127.0.0.1:1")


@pytest.fixture
def agent() -> StillAgent:
    """Ten minutes of two paths; treated transfers take half as long as the holdout's."""
    tuner, now = still_tuner(), time.monotonic()
    made = StillAgent(tuner)
    begin = time.time() - 11 * MINUTE
    for minute in range(11):
        for network, times in (("203.0.113.0/24", 3), ("2001:db8::/48", 1)):
            sent = {"closed": 6, "opened": 6, "sent_segments": 600, "retransmitted_segments": 6, "now": now}
            absorb(tuner, network, transfers=times * 6, log_time=17, **sent)
            absorb(tuner, network, transfers=times * 6, log_time=17, arm=1, **sent)
            absorb(tuner, network, transfers=times * 3, log_time=18, treatment="HOLDOUT", closed=3, opened=3, now=now)
        tuner.decide(now)
        for _ in COMPARED:
            tuner.effect.step(tuner.store)
        made.history.note(take(tuner, Health()), begin + minute * MINUTE)
    snapshot = take(tuner, Health(started=begin, last_sample=time.time()))
    made.picture = lambda: snapshot
    return made


def entry(when: float, path: str = "203.0.113.0/24", reason: str = "because") -> Entry:
    return Entry(when, path, "default", "ack", "default", "delay", reason)


@pytest.fixture
def config(agent: StillAgent, tmp_path: Path) -> Iterator[Config]:
    """The configuration of an agent that runs, with three decisions in its journal."""
    journal = Journal(tmp_path)
    for number in range(3):
        journal.write(entry(time.time() - number, reason=f"why {number}"))
    journal.close()
    server = WebServer(Web(listen="127.0.0.1:0"), agent)
    server.start()
    yield Config(web=Web(listen=server.url.removeprefix("http://")), state_dir=tmp_path)
    server.stop()


def stopped(agent: StillAgent, config: Config) -> Config:
    """The configuration of the same agent once it has saved and ended."""
    learnt = agent.tuner.learnt(time.monotonic())
    learnt = dataclasses.replace(learnt, sections={"history": agent.history.dump()})
    state.save(config.state_dir, learnt, now=time.time())
    return Config(web=NOBODY, state_dir=config.state_dir)


class Page(HTMLParser):
    """What a browser makes of a page: elements with attributes, and its text."""

    VOID = frozenset({"meta"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(self.text)


def harmless(html: str) -> Page:
    """The page, once it is known to run nothing and to ask for nothing."""
    page = Page(html)
    allowed = {
        "html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "p", "div", "table", "thead", "tbody",
        "tr", "th", "td", "figure", "figcaption", "details", "summary", "svg", "g", "path", "use", "defs", "text",
        "clippath", "rect", "tspan",
    }  # fmt: skip
    for tag, attributes in page.elements:
        assert tag in allowed
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name != "src"
            if name in ("href", "xlink:href"):
                assert (value or "").startswith("#")
            assert not re.search(r"url\((?!#)", value or "")
    assert "http:" not in html
    assert "https:" not in html
    assert "@import" not in html
    # What a part of a plot refers to is there.
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    assert set(re.findall(r'(?:url\(|href=")#([^")]+)', html)) == ids
    return page


def test_from_the_running_agent(config: Config) -> None:
    facts = collect(config)
    assert facts["source"] == "agent"
    page = harmless(render(facts))
    assert sum(tag == "svg" for tag, _ in page.elements) >= 8
    for text in ("From the running agent", "all 50 % faster", "203.0.113.0/24", "2001:db8::/48", "why 2", "iw14"):
        assert text in re.sub(r"\s+", " ", page.words)
    # The busiest first.
    assert [path["path"] for path in facts["paths"]["shown"]] == ["203.0.113.0/24", "2001:db8::/48"]


def test_from_the_state_file(agent: StillAgent, config: Config) -> None:
    running, facts = collect(config), collect(stopped(agent, config))
    assert facts["source"] == "file"
    assert facts["status"] is None
    assert facts["history"] == running["history"]
    assert facts["journal"] == running["journal"]
    page = harmless(render(facts))
    for text in ("No agent runs: this is what it knew when it saved last", "all 50 % faster", "2001:db8::/48", "why 2"):
        assert text in re.sub(r"\s+", " ", page.words)
    live, saved = running["paths"]["shown"], facts["paths"]["shown"]
    assert [path["path"] for path in saved] == [path["path"] for path in live]
    for mine, other in zip(saved, live, strict=True):
        assert mine["comparison"][1]["time_ratio"] == pytest.approx(other["comparison"][1]["time_ratio"], rel=1e-3)
        assert mine["dimensions"][0]["chosen"] in ("default", "iw14")
        arms = {arm["name"]: arm["connections"] for arm in mine["dimensions"][0]["arms"]}
        expected = {arm["name"]: arm["connections"] for arm in other["dimensions"][0]["arms"]}
        assert arms == pytest.approx(expected, rel=0.05)
        assert [one["name"] for one in mine["dimensions"]] == [one["name"] for one in other["dimensions"]]


def test_nothing_known_yet(tmp_path: Path) -> None:
    server = WebServer(Web(listen="127.0.0.1:0"), StillAgent(still_tuner()))
    server.start()
    try:
        config = Config(web=Web(listen=server.url.removeprefix("http://")), state_dir=tmp_path)
        page = harmless(render(collect(config)))
    finally:
        server.stop()
    assert "No path has evidence yet" in page.words
    assert "None yet. There is no journal" in page.words
    state.save(tmp_path, still_tuner().learnt(0.0), now=time.time())
    assert "No minute with connections" in harmless(render(collect(Config(web=NOBODY, state_dir=tmp_path)))).words


def test_neither_an_agent_nor_a_file(tmp_path: Path) -> None:
    with pytest.raises(TcptunedError, match=r"no agent answers .* nor is there anything saved"):
        collect(Config(web=NOBODY, state_dir=tmp_path))
    (tmp_path / state.FILE).write_bytes(b"nonsense")
    with pytest.raises(TcptunedError, match="cannot be used: it is no file of this program"):
        collect(Config(web=NOBODY, state_dir=tmp_path))
    assert (tmp_path / state.FILE).exists()  # only the agent sets it aside


def test_the_command_writes_one_file(
    config: Config, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    show_report(config, None, as_json=False)
    assert (tmp_path / "tcptuned-report.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    assert "tcptuned-report.html" in capsys.readouterr().out
    show_report(config, Path("other.html"), as_json=False)
    assert (tmp_path / "other.html").exists()
    capsys.readouterr()
    show_report(config, None, as_json=True)
    assert json.loads(capsys.readouterr().out)["source"] == "agent"
    show_report(config, Path("facts.json"), as_json=True)
    assert json.loads((tmp_path / "facts.json").read_text(encoding="utf-8"))["source"] == "agent"
    with pytest.raises(TcptunedError, match="--output"):
        show_report(config, tmp_path / "missing" / "report.html", as_json=False)


HOSTILE = (
    "<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "$\\frac{1}{0}$", "</text><script>",
    "\0\x1b[31m\ud800", "あ" * 400, "", 'x" id="figure_1" onclick="alert(1)',
)  # fmt: skip
MORE_HOSTILE = (
    "'/><svg onload=alert(1)>", "$x$", "--><script>", "]]>", "{}%s%n", "_hidden", "\u202egnp.exe", " ", "&lt;b&gt;",
    "javascript:alert(1)", "#010101",
)  # fmt: skip


def poisoned(value: Any, poison: str) -> Any:
    """Every text replaced, also names, as far as they are free to choose."""
    if isinstance(value, str):
        return poison
    if isinstance(value, list):
        return [poisoned(one, poison) for one in value]
    if isinstance(value, dict):
        return {key: poisoned(one, poison) for key, one in value.items()}
    return value


@pytest.mark.parametrize("poison", [*HOSTILE, *(pytest.param(one, marks=pytest.mark.long) for one in MORE_HOSTILE)])
def test_no_text_becomes_markup(config: Config, poison: str) -> None:
    facts = collect(config)
    evil = poisoned(copy.deepcopy(facts), poison)
    # Names that link facts to each other must still agree, and be different.
    status, names = evil["status"], [f"{poison}{number}" for number in range(3)]
    for number, group in enumerate(status["groups"]):
        group["name"] = names[number]
        group["chosen"] = {poison: dict.fromkeys(names, 1)}
        group["uplift"] = {poison: {"ratio": 0.1, "lower": 0.0, "upper": 0.2}}
    status["dimensions"] = [{**status["dimensions"][0], "arms": [{"name": name, "transfers": 5} for name in names]}]
    evil["history"]["groups"] = {poison: facts["history"]["groups"]["default"]}
    for path, known in zip(evil["paths"]["shown"], facts["paths"]["shown"], strict=True):
        path["comparison"] = known["comparison"]
    html = render(evil).encode(errors="replace").decode()
    page = harmless(html)
    if poison.isprintable() and poison.strip():
        assert poison in page.words
        # Between svg's tags, too: there names are labels.
        assert sum(poison[:30].lstrip("_") in text for text in page.text) > 10


def test_what_the_guard_did_has_a_place_of_its_own(config: Config) -> None:
    facts = collect(config)
    assert "What the guard did" not in harmless(render(facts)).words
    took = dataclasses.replace(entry(1.7e9, reason="<b>harm</b>"), dimension="guard")
    facts["journal"].append(dataclasses.asdict(took))
    html = render(facts)
    assert "What the guard did" in harmless(html).words
    part = html[html.index("What the guard did") : html.index("<h2>Decisions")]
    assert "&lt;b&gt;harm&lt;/b&gt;" in part
    assert "why" not in part.replace("why</th>", "")


def test_a_journal_of_nonsense_is_left_out(config: Config) -> None:
    good = json.dumps(dataclasses.asdict(entry(1.7e9, reason="the only one")))
    lines = ["", "{", "[]", "5", "{}", "[" * 100_000, good.replace('"default"', "{}"), good]
    lines += [good.replace("1700000000.0", when) for when in ("1e300", "NaN", "-1.0", "Infinity")]
    content = b"\xff\xfe\n" + "\n".join(lines).encode() + b"\n" + good.encode()[:50]
    (config.state_dir / "journal.jsonl").write_bytes(content)
    facts = collect(config)
    assert [each["reason"] for each in facts["journal"]] == ["the only one"]
    assert "the only one" in harmless(render(facts)).words


def test_a_long_journal_goes_on_in_the_file_before_and_is_cut(config: Config) -> None:
    def lines(first: int, count: int) -> str:
        entries = (entry(1.7e9 + number, f"path{number}", "x" * 3000) for number in range(first, first + count))
        return "".join(json.dumps(dataclasses.asdict(each)) + "\n" for each in entries)

    (config.state_dir / "journal.jsonl.1").write_text(lines(0, 700), encoding="utf-8")
    (config.state_dir / "journal.jsonl").write_text(lines(700, 5), encoding="utf-8")
    facts = collect(config)
    assert [each["path"] for each in facts["journal"]][:7] == [f"path{number}" for number in range(704, 697, -1)]
    assert 300 < len(facts["journal"]) <= 500
    assert len(render(facts)) < 1_500_000


def test_facts_of_another_version_are_one_sentence(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    facts = collect(config)
    for part, name in (("status", "groups"), ("history", "groups"), ("paths", "shown"), ("status", "dimensions")):
        for nonsense in ("nonsense", [5], [{}]):
            broken = copy.deepcopy(facts)
            broken[part][name] = nonsense
            monkeypatch.setattr("agent.report.collect", lambda _, broken=broken: broken)
            with pytest.raises(TcptunedError, match="another version"):
                show_report(config, config.state_dir / "report.html", as_json=False)


def luminance(colour: str) -> float:
    """Relative luminance, WCAG 2.2."""
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("theme", THEMES)
def test_everything_stands_out_from_the_page(theme: str) -> None:
    colours = THEMES[theme]
    assert set(COLOURS) < set(colours)
    for name in set(colours) - {"page", "grid"}:
        low, high = sorted((luminance(colours[name]), luminance(colours["page"])))
        assert (high + 0.05) / (low + 0.05) >= 4.5


def test_plots_use_the_pages_colours_alone(config: Config) -> None:
    html = render(collect(config))
    drawn = html[html.index("<body>") :]
    assert set(re.findall(r"var\(--(\w+)\)", drawn)) <= set(COLOURS)
    assert not re.findall(r"(?:fill|stroke): #", drawn)
    assert "font-family" not in drawn
    assert "prefers-color-scheme:dark" in html
    assert 'name="viewport"' in html


def test_a_line_ends_where_the_agent_was_away() -> None:
    def strokes(end: list[float], values: list[float | None]) -> int:
        svg = over_time(end, {"line": values}, unit="%", step=60.0)
        (path,) = (found for found in re.findall(r'<path d="([^"]*)"[^>]*stroke: var\(--first\)', svg))
        return len(re.findall("M ", path))

    minutes = [1.7e9 + 60 * minute for minute in range(10)]
    assert strokes(minutes, [1.0] * 10) == 1
    assert strokes([*minutes[:5], *(minute + 1800 for minute in minutes[5:])], [1.0] * 10) == 2
    assert strokes(minutes, [1.0, 1.0, None, 1.0, 1.0, 1.0, None, None, 1.0, 1.0]) == 3


def test_the_same_plot_is_the_same_text() -> None:
    for make in (
        lambda: over_time([1.7e9, 1.7e9 + 60], {"a": [1.0, 2.0], "b": [None, 2.0]}, unit="%", step=60.0),
        lambda: intervals([Interval("a", 0.5, 0.4, 0.6)], unit="x", reference=1.0),
        lambda: bars({"a": 1.0, "b": 0.0}, unit="x"),
        lambda: changes({"a": [1.7e9], "b": [1.7e9, 1.7e9 + 1]}, unit="x"),
    ):
        assert make() == make()
