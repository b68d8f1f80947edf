"""What `tcptuned status` and `tcptuned explain` print: they ask the running agent, and change nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from http.client import HTTPException
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from agent.config import Config
from agent.connect import agent_url, connect
from agent.display import NOTHING, moment, percent, seconds, size, uplift, whole
from agent.errors import TcptunedError, UnreachableError, UsageError

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Draw", "ask", "ask_status", "draw", "draw_status", "show_explain", "show_status"]

Draw = Callable[["Console", Mapping[str, Any]], None]

_TIMEOUT = 3.0  # seconds
_MOST_BYTES = 16 << 20


def show_status(config: Config, *, as_json: bool) -> None:
    """Prints what the agent does."""
    _show(ask_status(config), draw_status, as_json=as_json)


def show_explain(config: Config, address: str, *, as_json: bool) -> None:
    """Prints what is known and decided for `address`, and why."""
    try:
        wanted = ip_address(address)
    except ValueError:
        raise UsageError(f"not an IPv4 or IPv6 address: {address[:60]!r}; try: tcptuned explain 203.0.113.7") from None
    if "%" in address:
        raise UsageError("paths have no zones: leave out the part from % on; try: tcptuned explain 203.0.113.7")
    facts = ask(config, f"/api/v1/paths?address={quote(str(wanted))}", "dimensions")
    _show(facts, _print_explanation, as_json=as_json)


def _show(facts: Mapping[str, Any], text: Draw, *, as_json: bool) -> None:
    if as_json:
        print(json.dumps(facts, ensure_ascii=False))
    else:
        from agent.terminal import open_console  # noqa: PLC0415  --json does without

        draw(open_console(), facts, text)


def draw(console: Console, facts: Mapping[str, Any], text: Draw) -> None:
    """Prints `facts` by `text`; TcptunedError if the agent that told them is of another version."""
    try:
        text(console, facts)
    except (KeyError, TypeError, ValueError) as error:
        raise TcptunedError("the running agent is of another version than this command: restart the agent") from error


def ask_status(config: Config) -> dict[str, Any]:
    """What the agent does; errors as in `ask`."""
    return ask(config, "/api/v1/status", "groups")


def ask(config: Config, target: str, key: str) -> dict[str, Any]:
    """The agent's answer, which has a `key`. Raises UnreachableError if there is no agent, or another TcptunedError."""
    where = agent_url(config)
    try:
        facts = json.loads(_ask(config, where, target))
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict) or key not in facts:
        cure = "is web.listen right? Name the file with --config"
        raise TcptunedError(f"what answers on {where} is not tcptuned: {cure}")
    return facts


def _ask(config: Config, where: str, target: str) -> bytes:
    connection = connect(config, _TIMEOUT)
    try:
        connection.request("GET", target)
        response = connection.getresponse()
        body = response.read(_MOST_BYTES)
    except PermissionError:
        raise TcptunedError(f"only root and the agent's own user may ask on {where}: use sudo") from None
    except (OSError, HTTPException) as error:
        text = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise UnreachableError(
            f"no agent answers on {where} ({text.lower()}): start it with `systemctl start tcptuned` or "
            "`tcptuned run`, or name its configuration with --config"
        ) from None
    finally:
        connection.close()
    if response.status != HTTPStatus.OK:
        said = _refusal(body) or f"HTTP {response.status} {response.reason}"
        raise TcptunedError(f"the agent on {where} refused: {said}")
    return body


def _refusal(body: bytes) -> str:
    """The sentence in the agent's own refusals; empty if this is another one."""
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return ""


def _table(
    console: Console, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]], *, texts: int
) -> None:
    """Prints a table; after the first `texts` columns come numbers."""
    from rich.table import Table  # noqa: PLC0415  as above

    table = Table(box=None, pad_edge=False)
    for number, name in enumerate(columns):
        table.add_column(name, justify="left" if number < texts else "right", overflow="fold")
    for row in rows:
        table.add_row(*(whole(cell) if isinstance(cell, int) else str(cell) for cell in row))
    console.print()
    # Not the table's own title, which would be broken at the table's width.
    console.print(title, style="bold")
    console.print(table)


def draw_status(console: Console, facts: Mapping[str, Any]) -> None:
    """Prints the agent's answer of /api/v1/status."""
    health = facts["health"]
    state = "ready" if facts["ready"] else "NOT READY"
    mode = "dry run, nothing is applied" if facts["dry_run"] else "tuning"
    console.print(f"tcptuned {facts['version']}: {state}, {mode}; paths: {whole(facts['paths'])}")
    console.print(f"attached to {', '.join(facts['attached']) or 'no cgroup'}")
    console.print(
        f"running since {moment(health['started'])} UTC; last sample {moment(health['last_sample'])} UTC, "
        f"took {seconds(health['sample_seconds'])}; failures: {whole(health['sample_failures'])}"
    )
    if facts["override"]:
        console.print(f"congestion control is not tuned: {facts['override']['text']}")
    fleet = health["fleet"]
    if fleet["url"] is not None:
        read = f"read {moment(fleet['read'])} UTC, {whole(fleet['arms'])} arms" if fleet["read"] else "not read yet"
        console.print(f"fleet: {fleet['url']}, {read}" + (f"; now: {fleet['problem']}" if fleet["problem"] else ""))
    if facts["guard"]["off"]:
        console.print(f"EVERYTHING IS SWITCHED OFF {_until(facts['guard'])}")
    if not health["reload_successful"]:
        console.print("the last reload of the configuration was refused: the log says why; the old one is in force")

    _table(
        console, "Groups",
        (
            "group", "paths", "quarantined", "active", "passive", "treated", "holdout", "sent", "received", "resent",
            "RTT",
        ),
        [
            (
                group["name"], group["paths"], group["quarantined"],
                group["opened"]["active"], group["opened"]["passive"],
                group["connections"]["treated"], group["connections"]["holdout"], size(group["sent_bytes"]),
                size(group["received_bytes"]), percent(group["retransmission"]), seconds(group["rtt_seconds"]),
            )
            for group in facts["groups"]
        ],
        texts=1,
    )  # fmt: skip
    _table(
        console, "Time of transfers: all treatment against the holdout, each dimension against its default",
        ("group", "dimension", "treated are"),
        [
            (group["name"], dimension, uplift(found))
            for group in facts["groups"]
            for dimension, found in group["uplift"].items()
        ],
        texts=3,
    )  # fmt: skip
    _table(
        console, "Chosen arms, by number of paths", ("group", "dimension", "law", "held to be best"),
        [
            (group["name"], dimension["name"], dimension["law"], _chosen(group["chosen"][dimension["name"]]))
            for group in facts["groups"]
            for dimension in facts["dimensions"]
        ],
        texts=4,
    )  # fmt: skip
    if facts["journal"]:
        _table(
            console, "Last decisions", ("when (UTC)", "path", "dimension", "from", "to", "why"),
            [
                (moment(entry["time"]), *(entry[key] for key in ("path", "dimension", "before", "after", "reason")))
                for entry in facts["journal"]
            ],
            texts=6,
        )  # fmt: skip


def _until(verdict: Mapping[str, Any]) -> str:
    return f"until {moment(verdict['until'])} UTC, because {verdict['because']}"


def _chosen(arms: Mapping[str, int]) -> str:
    return ", ".join(f"{arm} {whole(count)}" for arm, count in arms.items() if count) or "no paths yet"


def _print_explanation(console: Console, facts: Mapping[str, Any]) -> None:
    console.print(f"{facts['address']} belongs to the path {facts['path']}, group {facts['group']}")
    if not facts["known"]:
        console.print(f"nothing is known of this path itself: what follows is of {facts['inherited_from']}")
    console.print(f"applied: {facts['applied']}")
    if facts["rate"] is not None:
        filled = "" if facts["pipe"] is None else f", filled by {facts['pipe']:,.3g} segments"
        window = "" if facts["paced_window"] is None else f" and begin with {facts['paced_window']} segments"
        paced = f"paced connections send no faster{window}"
        console.print(f"fastest seen: {8e-6 * facts['rate']:,.3g} Mb/s{filled}; {paced}")
    if facts["guard"]["state"] == "probation":
        console.print(
            "on probation until there is enough to compare, or a gain is beyond doubt: its holdout is larger, unless "
            "sibling paths gain much"
        )
    columns = ("arm", "share", "connections", "transfers", "time to default's", "lost first", "resent")
    for dimension in facts["dimensions"]:
        _table(
            console,
            f"{dimension['name']}: {dimension['chosen']}{_since(dimension)} ({dimension['reason']}){_lent(dimension)}",
            columns,
            [(arm["name"], percent(arm["probability"]), *_evidence(arm)) for arm in dimension["arms"]],
            texts=1,
        )  # fmt: skip
    _table(
        console, "Treated against the holdout", ("side", *columns[2:4], "time to holdout's", *columns[5:]),
        [(side["name"], *_evidence(side)) for side in facts["comparison"]],
        texts=1,
    )  # fmt: skip
    console.print("\nTime is that of a transfer of the path's usual size, with one standard error to either side.")
    console.print("Lost first: of the segments of first windows. Counts fade with the half-life of the evidence.")


def _since(dimension: Mapping[str, Any]) -> str:
    return "" if dimension["since"] is None else f" since {moment(dimension['since'])} UTC"


def _lent(dimension: Mapping[str, Any]) -> str:
    """Whose experience the path inherits, where other hosts have a part in it."""
    prior = dimension["prior"]
    if prior is None or not prior["fleet"]:
        return ""
    return "; inherits from " + ", ".join(f"{source} {share:.0%}" for source, share in prior.items() if share)


def _evidence(arm: Mapping[str, Any]) -> tuple[str, ...]:
    ratio = NOTHING
    if arm["time_ratio"] is not None:
        ratio = f"{arm['time_ratio']:.2f} ({arm['time_ratio_low']:.2f} to {arm['time_ratio_high']:.2f})"
    return (
        f"{arm['connections']:,.1f}", f"{arm['transfers']:,.1f}", ratio,
        percent(arm["first_window_loss"]), percent(arm["retransmission"]),
    )  # fmt: skip
