"""The status page as people see it, in a real browser: on a phone, in the dark, with the keyboard, without scripts."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest
from chromium import Chromium, chromium
from handmade import StillAgent, absorb, still_tuner

from agent.config import Config, PathRule, Paths, Web
from agent.effect import COMPARED
from agent.journal import Entry
from agent.snapshot import Health, take
from agent.web import WebServer

HOSTILE = '</style><script>window.hacked=1</script><img src=x onerror="window.hacked=1">\'"&'
SIZES = {"phone": (360, True), "small phone": (320, True), "tablet": (768, True), "desk": (1280, False)}

# The least contrast of letters that are seen, (ratio, text) by WCAG 2.2, 1.4.3, and of the plots' marks (1.4.11).
CONTRAST = """(() => {
    const rgb = text => text.match(/[\\d.]+/g).map(Number);
    const light = ([r, g, b]) => [r, g, b].map(c => c / 255).map(
        c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4
    ).reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
    const behind = element => {
        for (; element; element = element.parentElement) {
            const colour = rgb(getComputedStyle(element).backgroundColor);
            if (colour.length < 4 || colour[3] === 1) return colour;
        }
        return [255, 255, 255];
    };
    const ratio = (colour, element) => {
        const [low, high] = [light(rgb(colour)), light(behind(element))].sort((a, b) => a - b);
        return (high + 0.05) / (low + 0.05);
    };
    const letters = [], marks = [];
    const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
    while (walker.nextNode()) {
        const text = walker.currentNode.textContent.trim(), element = walker.currentNode.parentElement;
        if (text) letters.push([ratio(getComputedStyle(element).color, element), text]);
    }
    for (const mark of document.querySelectorAll("rect:not(.track)"))
        marks.push([ratio(getComputedStyle(mark).fill, mark.parentElement), mark.getAttribute("class")]);
    return [letters, marks];
})()"""
# What is wider than the window, or has to be scrolled sideways within itself.
WIDER = """[...document.querySelectorAll("*")].filter(element =>
    element.getBoundingClientRect().right > document.documentElement.clientWidth + 0.5
    || (element.scrollWidth > element.clientWidth + 1 && getComputedStyle(element).display !== "inline"
        && element.clientWidth > 0)
).map(element => element.outerHTML.slice(0, 200))"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Chromium]:
    with chromium(tmp_path_factory.mktemp("chromium")) as opened:
        yield opened


def _agent(groups: int = 2, paths: int = 12) -> StillAgent:
    """An agent that has seen some hours of traffic on some paths; treated transfers take less time."""
    rules = tuple(
        PathRule(match=(ip_network(f"10.{number}.0.0/16"),), group=f"branch_office_{number}")
        for number in range(1, groups)
    )
    tuner, now = still_tuner(Config(paths=Paths(rules=rules))), time.monotonic()
    for number in range(paths):
        group = number % groups
        where = f"10.{group}.{number}.0/24"
        sent = {
            "group": group, "closed": 40, "opened": 40, "sent_segments": 4000, "retransmitted_segments": 20,
            "rounds": 100, "rtt_us": 4_000_000, "sent_bytes": 5_000_000, "first_window_segments": 400,
            "first_windows": 40,
        }  # fmt: skip
        for arm, log_time in ((0, 17), (1, 16), (2, 16), (3, 17)):
            absorb(tuner, where, arm=arm, transfers=40 + number, log_time=log_time, now=now, **sent)
        absorb(tuner, where, transfers=30, log_time=17, treatment="HOLDOUT", group=group, closed=30, opened=30, now=now)
    for step in range(3):
        tuner.decide(now + step)
    for _ in COMPARED:
        tuner.effect.step(tuner.store)
    agent = StillAgent(tuner)
    snapshot = take(tuner, Health(started=time.time() - 9000, last_sample=time.time(), reload_time=time.time() - 9000))
    agent.picture = lambda: snapshot
    return agent


@pytest.fixture(scope="module")
def agent() -> StillAgent:
    return _agent()


@pytest.fixture(scope="module")
def server(agent: StillAgent) -> Iterator[WebServer]:
    made = WebServer(Web(listen="127.0.0.1:0"), agent)
    made.start()
    yield made
    made.stop()


def _show(browser: Chromium, server: WebServer, size: str = "desk", theme: str = "light", target: str = "/") -> None:
    width, phone = SIZES[size]
    browser.window(width, phone=phone)
    browser.theme(theme)
    browser.open(server.url + target)


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_everything_fits_the_window(
    browser: Chromium, server: WebServer, tmp_path: Path, size: str, theme: str
) -> None:
    """The picture stays in pytest's folder for people to look at."""
    _show(browser, server, size, theme)
    assert browser.complaints == []
    width = SIZES[size][0]
    assert browser.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [width, width]
    assert browser.evaluate(WIDER) == []
    picture = tmp_path / f"status page, {size}, {theme}.png"
    browser.picture(picture)
    pixels = struct.unpack(">I", picture.read_bytes()[16:20])[0]
    assert pixels == width * (2 if SIZES[size][1] else 1)
    print(picture)


def test_the_page_says_what_matters(browser: Chromium, server: WebServer) -> None:
    _show(browser, server, target="/?refresh=off")
    words = browser.evaluate("document.body.innerText")
    for text in (
        "ready", "tuning", "/sys/fs/cgroup", "group default", "group branch_office_1", "% faster (95 %:",
        "initial_window", "10.0.10.0/24", "iw14", "because", "default congestion control", "running since",
    ):  # fmt: skip
        assert text in words, text
    # The gain is above all else, and there are plots of it and of the arms.
    gain, tuned = (words.index(text) for text in ("What it gains", "What is tuned, and why"))
    assert gain < tuned
    assert browser.evaluate('document.querySelectorAll("svg .faster").length') >= 2
    assert browser.evaluate('document.querySelectorAll("svg").length') > 10
    assert browser.evaluate("document.title") == "tcptuned: ready"


def test_the_interval_is_drawn_where_its_words_say(browser: Chromium, server: WebServer) -> None:
    _show(browser, server)
    found = browser.evaluate("""(() => {
        const plot = [...document.querySelectorAll(".plot")].find(one => one.innerText.startsWith("all"));
        const box = one => plot.querySelector(one).getBoundingClientRect();
        const [bounds, zero, all] = [box("rect:nth-of-type(2)"), box(".zero"), box("svg")];
        const place = x => (x - all.left) / all.width;
        return [plot.innerText, place(bounds.left), place(bounds.right), place(zero.left),
                document.querySelector("main .quiet").innerText];
    })()""")
    words, left, right, zero, note = found
    low, high = (float(text) / 100 for text in words.split("95 %: ")[1].split(" %)")[0].split(" to "))
    first, last = (float(text) / 100 for text in note.split("reach from ")[1].split(" %")[0].split(" to "))
    assert zero == pytest.approx(-first / (last - first), abs=0.02)
    assert left == pytest.approx((low - first) / (last - first), abs=0.02)
    assert right == pytest.approx((high - first) / (last - first), abs=0.02)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_letters_and_marks_stand_out(browser: Chromium, server: WebServer, agent: StillAgent, theme: str) -> None:
    agent.is_ready = False  # shows the colour of warnings too
    try:
        _show(browser, server, theme=theme)
    finally:
        agent.is_ready = True
    letters, marks = browser.evaluate(CONTRAST)
    assert len(letters) > 100
    assert [one for one in letters if one[0] < 4.5] == []
    assert {name for _, name in marks} >= {"zero", "faster", "unsure"}
    assert [one for one in marks if one[0] < 3.0] == []
    dark = browser.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
    assert dark is (theme == "dark")


def test_every_link_is_reached_by_the_keyboard_and_seen(browser: Chromium, server: WebServer) -> None:
    _show(browser, server, "phone", target="/?refresh=off")
    expected = browser.evaluate('[...document.querySelectorAll("a[href]")].map(link => link.href)')
    assert len(expected) > 10
    reached = []
    for _ in expected:
        browser.press("Tab")
        href, outline, inside, name = browser.evaluate("""(() => {
            const link = document.activeElement, style = getComputedStyle(link), box = link.getBoundingClientRect();
            return [link.href, style.outlineStyle + " " + style.outlineWidth,
                    box.top >= 0 && box.bottom <= innerHeight, link.getAttribute("aria-label") || link.innerText];
        })()""")
        assert (outline, inside) == ("solid 3px", True), href
        assert name.strip()
        reached.append(href)
    assert reached == expected


def test_names_and_landmarks_for_those_who_listen(browser: Chromium, server: WebServer) -> None:
    _show(browser, server)
    tree = browser.call("Accessibility.getFullAXTree")["nodes"]
    names: dict[str, list[str]] = {}
    for node in tree:
        if not node["ignored"]:
            names.setdefault(node["role"]["value"], []).append(node.get("name", {}).get("value", ""))
    assert names["RootWebArea"] == ["tcptuned: ready"]
    assert len(names["main"]) == len(names["banner"]) == len(names["contentinfo"]) == 1
    assert names["region"][:3] == ["What it gains", "What is tuned, and why", "Arms tried"]
    assert names["navigation"] == ["For programs"]
    assert len(set(names["link"])) == len(names["link"])
    assert not {"image", "graphics-document"} & set(names)  # their words are beside them
    assert browser.evaluate("document.documentElement.lang") == "en"


def test_it_loads_itself_again_without_scripts_until_told_not_to(
    browser: Chromium, server: WebServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("agent.page._REFRESH", 1)
    browser.scripts(allowed=False)
    try:
        _show(browser, server)
        browser.wait("Page.loadEventFired", 3)
        _show(browser, server, target="/?refresh=off")
        time.sleep(2.5)
        browser.evaluate("1")  # takes in what came meanwhile
        assert sum(event["method"] == "Page.loadEventFired" for event in browser.events) == 1
    finally:
        browser.scripts(allowed=True)
        browser.open("about:blank")


@pytest.fixture
def hostile() -> Iterator[WebServer]:
    """Whatever can come from outside, as bad as it can be: markup, and words without an end."""
    agent = _agent(groups=40, paths=80)
    taken = agent.snapshot
    long = "x" * 300
    entries = tuple(
        Entry(1e9 + number, *(f"{HOSTILE}{name}{long}" for name in ("path", "group", "dimension", "a", "b", "why")))
        for number in range(30)
    )
    bad = replace(
        taken, journal=entries, groups=tuple(f"{HOSTILE}{name}{long}" for name in taken.groups),
        map_entries={HOSTILE + long: (1, 2)}, counters={HOSTILE + long: 5}, laws=tuple(HOSTILE for _ in taken.laws),
        attached=(Path(HOSTILE + long),),
    )  # fmt: skip
    agent.picture = lambda: bad
    agent.tuner.groups = bad.groups
    made = WebServer(Web(listen="127.0.0.1:0"), agent)
    made.start()
    yield made
    made.stop()


@pytest.mark.parametrize("size", SIZES)
def test_hostile_text_is_text(browser: Chromium, hostile: WebServer, size: str) -> None:
    _show(browser, hostile, size)
    assert browser.complaints == []
    assert browser.evaluate("window.hacked") is None
    assert browser.evaluate('document.querySelectorAll("script, img").length') == 0
    assert browser.evaluate("document.body.innerText").count("<script>window.hacked=1</script>") > 100
    width = SIZES[size][0]
    assert browser.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [width, width]
    assert browser.evaluate(WIDER) == []


def test_the_policy_forbids_what_should_get_through_all_the_same(browser: Chromium, server: WebServer) -> None:
    """Had a text been left unescaped, this is the second wall."""
    _show(browser, server)
    attempts: dict[str, str] = {
        "script": "const one = document.createElement('script'); one.textContent = 'window.hacked = 1'; {add}",
        "handler": "const one = document.createElement('b'); {add}; one.setAttribute('onclick', 'window.hacked = 1'); "
        "one.click()",
        "style": "const one = document.createElement('style'); one.textContent = 'body{{color:red}}'; {add}",
        "image": f"const one = new Image(); one.src = {json.dumps(server.url + '/metrics')}; {{add}}",
    }  # fmt: skip
    for name, attempt in attempts.items():
        before = len(browser.complaints)
        browser.evaluate(f"(() => {{ {attempt.format(add='document.body.append(one)')} }})()")
        deadline = time.monotonic() + 10
        while len(browser.complaints) == before and time.monotonic() < deadline:
            browser.evaluate("new Promise(done => setTimeout(done, 20))")
        assert any("Content Security Policy" in text for text in browser.complaints[before:]), name
    assert browser.evaluate("window.hacked") is None
    assert browser.evaluate("getComputedStyle(document.body).color") != "rgb(255, 0, 0)"
