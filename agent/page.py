"""The status page: one HTML document from the facts of `status.status`; no script, and every text escaped."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from agent.display import NOTHING, moment, percent, seconds, size, uplift, whole
from agent.markup import number, table

__all__ = ["STYLE_HASH", "render"]

_REFRESH = 10  # seconds

_STYLE = """
:root{color-scheme:light dark}
body{font:15px/1.45 system-ui,sans-serif;max-width:75rem;margin:1.5rem auto;padding:0 1rem}
h1{font-size:1.4rem;margin:0}h2{font-size:1.1rem;margin:1.8rem 0 .4rem}
.scroll{overflow-x:auto}table{border-collapse:collapse}
th,td{text-align:left;padding:.2rem .9rem .2rem 0;border-bottom:1px solid #8884;vertical-align:top}
td.number,th.number{text-align:right;font-variant-numeric:tabular-nums}
.good{color:#1a7f37}.bad{color:#d1242f}.quiet{opacity:.7}
"""
# For the Content-Security-Policy: this style sheet, and no other, may be inline.
STYLE_HASH = "sha256-" + base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()

_LINKS = ("/metrics", "/api/v1/status", "/api/v1/paths", "/api/v1/history", "/-/healthy", "/-/ready")


def render(facts: Mapping[str, Any], *, ready: bool) -> str:
    """The page for `facts`; `ready` as /-/ready says."""
    parts = (
        _header(facts, ready=ready),
        "<h2>Groups</h2>", _groups(facts["groups"]),
        "<h2>Effect on the time of transfers</h2>", _effect(facts["groups"]),
        "<h2>Chosen arms</h2>", _chosen(facts),
        "<h2>Transfers by arm</h2>", _transfers(facts["dimensions"]),
        "<h2>Last decisions</h2>", _journal(facts["journal"]),
        "<h2>The agent</h2>", _agent(facts),
    )  # fmt: skip
    links = " · ".join(f'<a href="{link}">{link}</a>' for link in _LINKS)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="refresh" content="{_REFRESH}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>tcptuned</title><style>{_STYLE}</style></head><body>{''.join(parts)}<p>{links}</p></body></html>\n"
    )


def _header(facts: Mapping[str, Any], *, ready: bool) -> str:
    state = '<span class="good">ready</span>' if ready else '<span class="bad">not ready</span>'
    mode = "dry run: everything is decided, nothing is applied" if facts["dry_run"] else "tuning"
    attached = ", ".join(facts["attached"]) or "no cgroup"
    return (
        f'<h1>tcptuned <span class="quiet">{escape(facts["version"])}</span></h1>'
        f"<p>{state} · {escape(mode)} · attached to {escape(attached)} · paths: {whole(facts['paths'])}</p>"
    )


def _groups(groups: Sequence[Mapping[str, Any]]) -> str:
    columns = (
        "group", "paths", "opened by us", "opened by peers", "closed", "treated", "holdout", "observed", "sent",
        "received", "retransmitted", "first-window loss", "mean RTT",
    )  # fmt: skip
    return table(
        columns,
        (
            (
                group["name"], group["paths"], group["opened"]["active"], group["opened"]["passive"], group["closed"],
                *(group["connections"][name] for name in ("treated", "holdout", "observed")),
                number(size(group["sent_bytes"])), number(size(group["received_bytes"])),
                number(percent(group["retransmission"])), number(percent(group["first_window_loss"])),
                number(seconds(group["rtt_seconds"])),
            )
            for group in groups
        ),
        numbers=len(columns) - 1,
    )  # fmt: skip


def _effect(groups: Sequence[Mapping[str, Any]]) -> str:
    rows = [(group["name"], name, uplift(found)) for group in groups for name, found in group["uplift"].items()]
    note = (
        '<p class="quiet">All: the treated against the holdout. A dimension: its other arms against its default among '
        "the treated. Compared path by path.</p>"
    )
    return table(("group", "dimension", "treated are"), rows) + note


def _chosen(facts: Mapping[str, Any]) -> str:
    rows = []
    for group in facts["groups"]:
        for dimension, arms in group["chosen"].items():
            text = ", ".join(f"{arm} on {whole(count)}" for arm, count in arms.items() if count)
            rows.append((group["name"], dimension, text or "no paths yet"))
    return table(("group", "dimension", "held to be best"), rows)


def _transfers(dimensions: Sequence[Mapping[str, Any]]) -> str:
    rows = []
    for dimension in dimensions:
        for arm in dimension["arms"]:
            count = arm["transfers"]
            mean = (size(arm["bytes"] / count), seconds(arm["seconds"] / count)) if count else (NOTHING, NOTHING)
            rows.append((dimension["name"], arm["name"], count, *(number(text) for text in mean)))
    note = '<p class="quiet">Means over all paths. Paths differ, so arms are compared path by path, never here.</p>'
    return table(("dimension", "arm", "transfers", "mean size", "mean time"), rows, numbers=3) + note


def _journal(entries: Sequence[Mapping[str, Any]]) -> str:
    if not entries:
        return '<p class="quiet">None yet.</p>'
    keys = ("path", "group", "dimension", "before", "after", "reason")
    return table(
        ("when (UTC)", "path", "group", "dimension", "from", "to", "why"),
        ((moment(entry["time"]), *(entry[key] for key in keys)) for entry in entries),
    )


def _agent(facts: Mapping[str, Any]) -> str:
    health, counters = facts["health"], facts["counters"]
    rows = [
        ("running since (UTC)", moment(health["started"])),
        ("last sample (UTC)", moment(health["last_sample"])),
        ("last sample took", seconds(health["sample_seconds"])),
        ("last decisions took", seconds(health["decide_seconds"])),
        ("failed samples and decisions", whole(health["sample_failures"])),
        ("configuration loaded (UTC)", moment(health["reload_time"])),
    ]
    if not health["reload_successful"]:
        rows.append(("configuration", "the last reload was refused: the log says why; the old one is in force"))
    rows += [(f"failed steps of {one['name']}", whole(one["failures"])) for one in facts["dimensions"]]
    maps = facts["maps"].items()
    rows += [(f"map {name}", f"{whole(one['entries'])} of {whole(one['capacity'])} entries") for name, one in maps]
    rows += [(name.replace("_", " "), whole(count)) for name, count in counters.items()]
    return table(("what", "value"), rows)
