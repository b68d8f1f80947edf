"""The status page: one HTML document without script, every text escaped, made for phones and screen readers too."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import Any
from urllib.parse import quote

from agent.display import moment, percent, seconds, size, uplift, whole
from agent.finding import Finding
from agent.page_plots import Scale, bar, interval, scale
from agent.page_style import STYLE

__all__ = ["PATHS", "render"]

PATHS = 9  # the busiest, whose arms are shown with their reasons
_REFRESH = 10  # seconds
_GROUPS = 12  # the ones with most connections

_LINKS = ("/metrics", "/api/v1/status", "/api/v1/paths", "/api/v1/history", "/-/healthy", "/-/ready")


def render(
    facts: Mapping[str, Any], *, ready: bool, paths: Mapping[str, Any] | None, findings: Sequence[Finding],
    refresh: bool,
) -> str:  # fmt: skip
    """The page for `facts` of `status.status`; `ready` as /-/ready says.

    `paths` is what `path_facts.paths` says of the busiest, None while the loop is busy. With `refresh` the page loads
    itself again every few seconds.
    """
    parts = (
        _header(facts, ready=ready, refresh=refresh), "<main>",
        _section("What it gains", _groups(facts["groups"])),
        _section("What is tuned, and why", _paths(paths)),
        _section("Arms tried", _arms(facts)),
        _section("Last decisions", _journal(facts["journal"])),
        _section("What this host can do", _abilities(findings)),
        _section("The agent", _agent(facts)), "</main>", _footer(),
    )  # fmt: skip
    again = f'<meta http-equiv="refresh" content="{_REFRESH}">' if refresh else ""
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8">{again}'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>tcptuned: {'ready' if ready else 'not ready'}</title><style>{STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _section(title: str, content: str) -> str:
    name = title.lower().replace(",", "").replace(" ", "-")
    return f'<section aria-labelledby="{name}"><h2 id="{name}">{escape(title)}</h2>{content}</section>'


def _header(facts: Mapping[str, Any], *, ready: bool, refresh: bool) -> str:
    state = '<span class="good">ready</span>' if ready else '<span class="bad">not ready</span>'
    mode = "dry run: everything is decided, nothing is applied" if facts["dry_run"] else "tuning"
    attached = ", ".join(facts["attached"]) or "no cgroup"
    # Whoever reads with a screen reader or a magnifier must be able to stop it (WCAG 2.2, 2.2.2).
    link = '<a href="/?refresh=off">stop that</a>' if refresh else f'<a href="/">every {_REFRESH} seconds</a>'
    how = f"Loads itself again every {_REFRESH} seconds; {link}." if refresh else f"Load this page again {link}."
    off = ""
    if facts["guard"]["off"]:
        until, why = moment(facts["guard"]["until"]), facts["guard"]["because"]
        off = f'<p class="bad">Everything is switched off until {escape(until)} UTC, because {escape(why)}.</p>'
    if facts["override"]:
        off += f'<p class="bad">Congestion control is not tuned: {escape(facts["override"]["text"])}.</p>'
    return (
        f'<header><h1>tcptuned <span class="quiet">{escape(facts["version"])}</span></h1>'
        f"<p>{state} · {escape(mode)} · attached to {escape(attached)} · paths: {whole(facts['paths'])}</p>"
        f'<p class="quiet">As of {escape(moment(facts["health"]["last_sample"]))} UTC. {how}</p>{off}</header>'
    )


def _footer() -> str:
    links = "".join(f'<a href="{link}">{link}</a>' for link in _LINKS)
    return f'<footer><nav aria-label="For programs">{links}</nav></footer>'


def _quiet(text: str) -> str:
    return f'<p class="quiet">{escape(text)}</p>'


def _pairs(rows: Iterable[tuple[str, str]], *, numbers: bool = False) -> str:
    body = "".join(f"<dt>{escape(name)}</dt><dd>{escape(text)}</dd>" for name, text in rows)
    kind = ' class="numbers"' if numbers else ""
    return f"<dl{kind}>{body}</dl>"


def _cards(cards: Iterable[tuple[str, str]]) -> str:
    """Cards of title and body, both markup."""
    items = "".join(f'<li class="card"><h3>{title}</h3>{body}</li>' for title, body in cards)
    return f'<ul class="cards">{items}</ul>'


def _plot(name: str, text: str, svg: str) -> str:
    return f'<div class="plot"><p><span>{escape(name)}</span><span>{escape(text)}</span></p>{svg}</div>'


# --- what it gains ----------------------------------------------------------------------------------------------------


def _groups(groups: Sequence[Mapping[str, Any]]) -> str:
    ordered = sorted(groups, key=lambda group: -sum(group["connections"].values()))
    shown = ordered[:_GROUPS]
    on = scale(found for group in shown for found in group["uplift"].values() if found)
    cards = ((f"group {escape(group['name'])}", _uplifts(group["uplift"], on) + _traffic(group)) for group in shown)
    reach = f"{100 * on.low:.0f} to {100 * on.high:.0f} %"
    note = (
        "All: the treated against the holdout. A dimension: its other arms against its default among the treated. "
        f"Compared path by path. Plots reach from {reach} of the time saved, with a line at 0."
    )
    more = f" The busiest {_GROUPS} of {len(groups)} groups." if len(groups) > _GROUPS else ""
    return _quiet(note + more) + _cards(cards)


def _uplifts(found: Mapping[str, Mapping[str, float] | None], on: Scale) -> str:
    return "".join(
        _plot(name, uplift(each), interval(each, on)) if each else _plot(name, "not known yet", "")
        for name, each in found.items()
    )


def _traffic(group: Mapping[str, Any]) -> str:
    connections, opened = group["connections"], group["opened"]
    rows = (
        ("paths", whole(group["paths"])),
        ("in quarantine", whole(group["quarantined"])),
        ("treated", whole(connections["treated"])),
        ("holdout", whole(connections["holdout"])),
        ("only observed", whole(connections["observed"])),
        ("opened, accepted", f"{whole(opened['active'])}, {whole(opened['passive'])}"),
        ("sent, received", f"{size(group['sent_bytes'])}, {size(group['received_bytes'])}"),
        ("retransmitted", percent(group["retransmission"])),
        ("lost of first windows", percent(group["first_window_loss"])),
        ("mean RTT", seconds(group["rtt_seconds"])),
    )
    return _pairs(rows, numbers=True)


# --- what is tuned ----------------------------------------------------------------------------------------------------


def _paths(paths: Mapping[str, Any] | None) -> str:
    if paths is None:
        return _quiet("The agent is busy; load this page again.")
    if not paths["paths"]:
        return _quiet("No path yet: connections of this host's cgroups will show here.")
    cards = (
        (
            escape(path["path"]),
            _quiet(f"group {path['group']}, {path['transfers']:,.0f} transfers")
            + _pairs((name, f"{arm}: {path['reasons'][name]}") for name, arm in path["chosen"].items())
            + _evidence(path["path"]),
        )
        for path in paths["paths"]
    )
    note = f"The busiest {len(paths['paths'])} of {whole(paths['total'])} paths, and what is held to be best on each."
    return _quiet(f"{note} For another: tcptuned explain ADDRESS.") + _cards(cards)


def _evidence(path: str) -> str:
    address = path.partition("/")[0]
    link = f"/api/v1/paths?address={quote(address, safe='')}"
    return f'<p><a href="{escape(link)}" aria-label="evidence of {escape(path)}">evidence</a></p>'


def _arms(facts: Mapping[str, Any]) -> str:
    cards = []
    for dimension in facts["dimensions"]:
        name, arms = dimension["name"], dimension["arms"]
        most = max((arm["transfers"] for arm in arms), default=0) or 1
        plots = (
            _plot(arm["name"], _used(arm, _best(facts["groups"], name, arm["name"])), bar(arm["transfers"] / most))
            for arm in arms
        )
        failed = [("failed steps", whole(dimension["failures"]))] if dimension["failures"] else []
        cards.append((f"{escape(name)} ({escape(dimension['law'])})", "".join(plots) + _pairs(failed)))
    note = "Bars are transfers, over all paths. Paths differ, so arms are compared path by path, never here."
    return _quiet(note) + _cards(cards)


def _best(groups: Iterable[Mapping[str, Any]], dimension: str, arm: str) -> int:
    return sum(int(group["chosen"][dimension][arm]) for group in groups)


def _used(arm: Mapping[str, Any], best: int) -> str:
    return f"{whole(arm['transfers'])} transfers, best on {whole(best)} path{'' if best == 1 else 's'}"


def _journal(entries: Sequence[Mapping[str, Any]]) -> str:
    if not entries:
        return _quiet("None yet.")
    items = (
        f'<li><span class="quiet">{escape(moment(entry["time"]))} UTC</span> {escape(entry["path"])} '
        f"({escape(entry['group'])}) {escape(entry['dimension'])}: {escape(entry['before'])} to "
        f'<strong>{escape(entry["after"])}</strong> <span class="quiet">because: {escape(entry["reason"])}</span></li>'
        for entry in entries
    )
    return f'<ul class="plain">{"".join(items)}</ul>'


# --- host and agent ---------------------------------------------------------------------------------------------------


def _abilities(findings: Sequence[Finding]) -> str:
    worse = [finding for finding in findings if finding.state != "ok"]
    items = "".join(
        f'<li><span class="bad">{escape(finding.state)}</span> {escape(finding.name)}: {escape(finding.value)} '
        f'<span class="quiet">{escape(finding.consequence)}</span></li>'
        for finding in worse
    )
    fine = _pairs((finding.name, finding.value) for finding in findings if finding.state == "ok")
    return f'<ul class="plain">{items}</ul>{fine}' if worse else fine


def _agent(facts: Mapping[str, Any]) -> str:
    health = facts["health"]
    rows = [
        ("running since", f"{moment(health['started'])} UTC"),
        ("last sample took", seconds(health["sample_seconds"])),
        ("last decisions took", seconds(health["decide_seconds"])),
        ("failed samples and decisions", whole(health["sample_failures"])),
        ("configuration loaded", f"{moment(health['reload_time'])} UTC"),
    ]
    if not health["reload_successful"]:
        rows.append(("configuration", "the last reload was refused: the log says why; the old one is in force"))
    maps = facts["maps"].items()
    rows += [(f"map {name}", f"{whole(one['entries'])} of {whole(one['capacity'])} entries") for name, one in maps]
    rows += [(name.replace("_", " "), whole(count)) for name, count in facts["counters"].items() if count]
    return _pairs(rows)
