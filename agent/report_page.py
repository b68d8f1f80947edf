"""The report as one HTML document: no script, nothing from outside, every text escaped, readable on a phone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from agent.display import NOTHING, moment, percent, seconds, uplift, whole
from agent.markup import number, table
from agent.report_plots import Interval, bars, changes, intervals, over_time
from agent.theme import variables

__all__ = ["render"]

_GROUPS = 6  # with plots of their own: those with most connections
_ENTRIES = 100  # of the journal, in the table
_STYLE = """
*{stroke-linejoin:round;stroke-linecap:butt}
body{font:16px/1.5 system-ui,sans-serif;max-width:72rem;margin:1.5rem auto;padding:0 1rem;
color:var(--text);background:var(--page)}
h1{font-size:1.5rem;margin:0}h2{font-size:1.2rem;margin:2.2rem 0 .4rem}h3{font-size:1rem;margin:1.2rem 0 .3rem}
p{margin:.3rem 0 .7rem;max-width:48rem}
.quiet,figcaption{color:var(--quiet)}.scroll{overflow-x:auto}
.figures{display:grid;gap:1rem 2rem;grid-template-columns:repeat(auto-fill,minmax(min(100%,22rem),1fr))}
figure{margin:0 0 .8rem;max-width:36rem}figcaption{font-size:.9rem}svg{width:100%;height:auto}
table{border-collapse:collapse;font-size:.92rem}
th,td{text-align:left;padding:.2rem .9rem .2rem 0;border-bottom:1px solid var(--grid);vertical-align:top}
td.number,th.number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
summary{cursor:pointer;padding:.3rem 0}
@media print{details>*{display:block}}
"""


def render(facts: Mapping[str, Any]) -> str:
    """The page for `agent.report_facts.collect`; KeyError, TypeError or ValueError if these are not such facts."""
    parts = (
        _header(facts),
        "<h2>What it gains</h2>", _gain(facts),
        "<h2>Over time</h2>", _time(facts["history"]),
        "<h2>Path by path</h2>", _paths(facts["paths"]),
        "<h2>Arms tried</h2>", _arms(facts["status"]),
        _guard(facts["journal"]),
        "<h2>Decisions</h2>", _journal(facts),
    )  # fmt: skip
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">"
        f"<title>tcptuned report</title><style>{variables()}{_STYLE}</style></head>"
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _header(facts: Mapping[str, Any]) -> str:
    status = facts["status"]
    text = f"<h1>tcptuned report</h1><p>{escape(moment(facts['made']))} UTC. {escape(facts['note'])}</p>"
    if status is None:
        return text
    mode = "dry run: everything is decided, nothing is applied" if status["dry_run"] else "tuning"
    since = moment(status["health"]["started"])
    return f"{text}<p>{escape(mode)} since {since} UTC; version {escape(status['version'])}.</p>"


# --- what it gains ----------------------------------------------------------------------------------------------------


def _gain(facts: Mapping[str, Any]) -> str:
    found = _uplifts(facts)
    rows = [(group, name, uplift(each)) for group, names in found.items() for name, each in names.items()]
    plotted = [
        Interval(name if len(found) == 1 else f"{group}: {name}", *(100 * each[key] for key in _BOUNDS))
        for group, names in list(found.items())[:_GROUPS]
        for name, each in names.items()
        if each
    ]
    note = (
        "All: connections that were treated against the holdout, which keeps the kernel's defaults. A dimension: its "
        "other arms against its default among the treated. Compared path by path; 95 % intervals."
    )
    plot = intervals(plotted, unit="time saved (%)", reference=0.0) if plotted else ""
    return (
        f'{_quiet(note)}<div class="figures">{_figure(plot, "Share of the transfer time that is saved.")}'
        f"<div>{table(('group', 'dimension', 'treated are'), rows)}</div></div>"
        + (_comparison(facts["status"]["groups"]) if facts["status"] else "")
    )


_BOUNDS = ("ratio", "lower", "upper")


def _uplifts(facts: Mapping[str, Any]) -> dict[str, dict[str, Mapping[str, float] | None]]:
    """By group and what is compared, from the agent or from the last minute that was saved."""
    if facts["status"]:
        return {group["name"]: dict(group["uplift"]) for group in facts["status"]["groups"]}
    found: dict[str, dict[str, Mapping[str, float] | None]] = {}
    for group, columns in facts["history"]["groups"].items():
        names = [name.removesuffix("_ratio") for name in columns if name.endswith("_ratio")]
        last = {name: {bound: columns[f"{name}_{bound}"][-1] for bound in _BOUNDS} for name in names}
        found[group] = {name: None if None in each.values() else each for name, each in last.items()}
    return found


def _comparison(groups: Sequence[Mapping[str, Any]]) -> str:
    columns = (
        "group", "paths", "treated", "holdout", "observed only", "retransmitted", "first-window loss", "mean RTT",
    )  # fmt: skip
    return table(
        columns,
        (
            (
                group["name"], group["paths"], *(group["connections"][name] for name in ("treated", "holdout")),
                group["connections"]["observed"], number(percent(group["retransmission"])),
                number(percent(group["first_window_loss"])), number(seconds(group["rtt_seconds"])),
            )
            for group in groups
        ),
        numbers=len(columns) - 1,
    )  # fmt: skip


# --- over time --------------------------------------------------------------------------------------------------------


def _time(history: Mapping[str, Any]) -> str:
    def connections(columns: Mapping[str, Any]) -> float:
        return float(sum(count or 0.0 for name in ("treated", "holdout", "observed") for count in columns[name]))

    busy = {name: total for name, columns in history["groups"].items() if (total := connections(columns)) > 0}
    if not busy:
        return _quiet("No minute with connections yet. The history reaches back a day.")
    names = sorted(busy, key=lambda name: -busy[name])
    parts = []
    for name in names[:_GROUPS]:
        plots = "".join(_plots(history["groups"][name], float(history["interval_seconds"])))
        parts.append(f'<h3>Group {escape(name)}</h3><div class="figures">{plots}</div>')
    if len(names) > _GROUPS:
        parts.append(_quiet(f"{len(names) - _GROUPS} more groups, with fewer connections, are not shown."))
    return "".join(parts)


def _plots(columns: Mapping[str, Any], step: float) -> Iterator[str]:
    saved = {bound: [_percent(value) for value in columns[f"all_{bound}"]] for bound in _BOUNDS}
    rtt = _means(columns["rtt_us"], columns["rounds"], 1e-3)
    losses = {
        "retransmitted": _means(columns["retransmitted_segments"], columns["sent_segments"], 100.0),
        "lost from first windows": _means(columns["first_window_losses"], columns["first_window_segments"], 100.0),
    }
    counts = {name: columns[name] for name in ("treated", "holdout", "observed") if any(columns[name])}
    band = (saved["lower"], saved["upper"])
    for lines, around, unit, caption in (
        ({"time saved": saved["ratio"]}, band, "time saved (%)", "Treated against the holdout, with 95 % interval."),
        (counts, None, "connections a minute", "New connections."),
        (losses, None, "of segments (%)", "Loss."),
        ({"mean": rtt}, None, "RTT (ms)", "Mean round-trip time."),
    ):
        if any(value is not None for values in lines.values() for value in values):
            yield _figure(over_time(columns["end"], lines, unit=unit, step=step, band=around), caption)


def _percent(value: float | None) -> float | None:
    return None if value is None else 100 * max(-10.0, min(value, 1.0))


def _means(sums: Sequence[float | None], counts: Sequence[float | None], scale: float) -> list[float | None]:
    return [
        None if sum_ is None or not count else scale * sum_ / count for sum_, count in zip(sums, counts, strict=True)
    ]


# --- paths ------------------------------------------------------------------------------------------------------------


def _paths(paths: Mapping[str, Any]) -> str:
    shown = paths["shown"]
    if not shown:
        return _quiet("No path has evidence yet.")
    rows = []
    plotted = []
    for path in shown:
        treated = next((side for side in path["comparison"] if side["name"] == "treated"), None)
        if treated and treated["time_ratio"] is not None:
            bounds = (treated[key] for key in ("time_ratio", "time_ratio_low", "time_ratio_high"))
            plotted.append(Interval(path["path"], *(min(value, 8.0) for value in bounds)))
        chosen = ", ".join(f"{one['name']}: {one['chosen']}" for one in path["dimensions"])
        rows.append((path["path"], path["group"] or NOTHING, chosen, number(f"{path['transfers']:,.0f}"),
                     number(whole(path["idle_seconds"]) + " s")))  # fmt: skip
    columns = ("path", "group", "held to be best", "transfers", "idle for")
    note = f"The {len(shown)} busiest of {whole(paths['total'])} paths. Counts fade with the half-life of the evidence."
    caption = "Time of treated transfers to that of the holdout's, with one standard error. Left of 1 is faster."
    plot = intervals(plotted, unit="time to the holdout's", reference=1.0) if plotted else ""
    return (
        f'{_quiet(note)}<div class="figures">{_figure(plot, caption)}</div>{table(columns, rows, numbers=2)}'
        f"<h3>The arms of each</h3>{''.join(map(_path, shown))}"
    )


def _path(path: Mapping[str, Any]) -> str:
    parts = []
    columns = ("arm", "share", "connections", "transfers", "time to default's", "first-window loss", "retransmitted")
    for dimension in path["dimensions"]:
        text = f"{dimension['name']}: {dimension['chosen']} ({dimension['reason']})"
        rows = [
            (
                arm["name"], number(percent(arm.get("probability"))), number(f"{arm['connections']:,.1f}"),
                number(f"{arm['transfers']:,.1f}"), number(_ratio(arm)), number(percent(arm["first_window_loss"])),
                number(percent(arm["retransmission"])),
            )
            for arm in dimension["arms"]
        ]  # fmt: skip
        parts.append(f"<h3>{escape(text)}</h3>{table(columns, rows, numbers=len(columns) - 1)}")
    return f"<details><summary>{escape(path['path'])}</summary>{''.join(parts)}</details>"


def _ratio(arm: Mapping[str, Any]) -> str:
    if arm["time_ratio"] is None:
        return NOTHING
    return f"{arm['time_ratio']:.2f} ({arm['time_ratio_low']:.2f} to {arm['time_ratio_high']:.2f})"


# --- arms and decisions -----------------------------------------------------------------------------------------------


def _arms(status: Mapping[str, Any] | None) -> str:
    if status is None:
        return _quiet("Counts by arm are the running agent's; what each path tried is above.")
    figures = []
    for dimension in status["dimensions"]:
        counts = {arm["name"]: float(arm["transfers"]) for arm in dimension["arms"]}
        best = {arm: sum(group["chosen"][dimension["name"]][arm] for group in status["groups"]) for arm in counts}
        held = ", ".join(f"{arm} on {whole(count)}" for arm, count in best.items() if count) or "no paths yet"
        caption = f"{dimension['name']} ({dimension['law']}). Held to be best: {held}."
        figures.append(_figure(bars(counts, unit="transfers since the start"), caption))
    return f'<div class="figures">{"".join(figures)}</div>'


def _guard(entries: Sequence[Mapping[str, Any]]) -> str:
    found = [entry for entry in entries if entry["dimension"] == "guard"][:_ENTRIES]
    if not found:
        return ""
    keys = ("path", "group", "before", "after", "reason")
    rows = ((moment(entry["time"]), *(entry[key] for key in keys)) for entry in found)
    return f"<h2>What the guard did</h2>{table(('when (UTC)', 'path', 'group', 'from', 'to', 'why'), rows)}"


def _journal(facts: Mapping[str, Any]) -> str:
    entries = facts["journal"]
    if not entries:
        return _quiet(f"None yet. {facts['journal_note']}")
    times: dict[str, list[float]] = defaultdict(list)
    for entry in entries:
        times[entry["dimension"]].append(entry["time"])
    plot = changes(dict(list(times.items())[:4]), unit="changes")
    columns = ("when (UTC)", "path", "group", "dimension", "from", "to", "why")
    keys = ("path", "group", "dimension", "before", "after", "reason")
    rows = ((moment(entry["time"]), *(entry[key] for key in keys)) for entry in entries[:_ENTRIES])
    more = f" The first {_ENTRIES} of {len(entries)} are shown." if len(entries) > _ENTRIES else ""
    return (
        _quiet(f"{facts['journal_note']}{more}")
        + f'<div class="figures">{_figure(plot, "Changes of what is held to be best on a path.")}</div>'
        + table(columns, rows)
    )


def _figure(plot: str, caption: str) -> str:
    return f"<figure>{plot}<figcaption>{escape(caption)}</figcaption></figure>" if plot else ""


def _quiet(text: str) -> str:
    return f'<p class="quiet">{escape(text)}</p>'
