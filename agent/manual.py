"""The manual pages tcptuned(8) and tcptuned.yaml(5), made from the command line and the configuration's schema.

`tcptuned man` prints them; config/man/ holds what it prints, for packages.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator
from typing import Any

from agent.config_schema import config_schema
from agent.config_words import Key

__all__ = ["PAGES", "manual_page"]

PAGES = ("tcptuned.8", "tcptuned.yaml.5")

_PROGRAM = r"""
.SH DESCRIPTION
An agent that learns, per remote network, which initial window, congestion control and ACK policy serve real TCP
connections best, applies them with BPF, measures the gain against connections left alone, and exports all of it to
Prometheus.
It needs Linux 5.15 or later, cgroup v2, and the capabilities CAP_BPF and CAP_NET_ADMIN.
"""

_PROGRAM_END = r"""
.SH EXIT STATUS
.TP
.B 0
Fine. Ctrl-C ends
.B status --watch
this way too.
.TP
.B 1
Failed; standard error says what to do.
.TP
.B 2
Wrong usage or configuration: mistakes as `file:line:column: key: message`.
.SH SIGNALS
.TP
.B SIGHUP
Reload the configuration, all or nothing.
.TP
.BR SIGTERM ", " SIGINT
Detach and end within 5 seconds. However the agent ends, new connections get the kernel's defaults.
.SH FILES
.TP
.I /etc/tcptuned/tcptuned.yaml
The configuration; without it everything has its default.
.TP
.I /var/lib/tcptuned/learnt.state
What was learnt; it is saved every so often and at the end.
.TP
.I /var/lib/tcptuned/journal.jsonl
Decisions, one a line, at most 16 MB.
.TP
.I /var/lib/tcptuned/agent.sock
How commands reach the agent where `web.config_file` keeps strangers from its port.
.SH SEE ALSO
.BR tcptuned.yaml (5),
.BR tcp (7),
.BR bpf (2),
.BR systemctl (1)
"""

_FILE = r"""
.SH SYNOPSIS
.I /etc/tcptuned/tcptuned.yaml
.SH DESCRIPTION
Every key is optional, and unknown keys are refused.
Durations are numbers with their unit: 250ms, 1s, 10m, 1h30m.
.B tcptuned check --config FILE
lists every mistake with its place.
.PP
SIGHUP, or
.BR "systemctl reload tcptuned" ,
takes over a changed file, all or nothing; `attach`, `web`, `state_dir`, `paths.max` and `sampling.rows` take a restart.
.SH KEYS
"""

_FILE_END = r"""
.SH EXAMPLE
.nf
paths:
  rules:
    - match: [203.0.113.0/24, "2001:db8:12::/48"]
      group: branch_offices
    - match: [198.51.100.0/24]
      exclude: true
congestion:
  allowed: [cubic]
.fi
.SH SEE ALSO
.BR tcptuned (8)
"""


def manual_page(page: str, parser: argparse.ArgumentParser) -> str:
    """One of PAGES as roff."""
    if page == "tcptuned.8":
        lines = [*_head("tcptuned", 8, "tunes TCP per remote network"), *_synopsis(parser)]
        lines += [*_raw(_PROGRAM), ".SH OPTIONS", *_options(parser), ".SH COMMANDS", *_commands(parser, ())]
        lines += _raw(_PROGRAM_END)
    else:
        lines = [*_head("tcptuned.yaml", 5, "configuration of tcptuned"), *_raw(_FILE)]
        lines += [*_keys(config_schema()["properties"], ()), *_raw(_FILE_END)]
    return "\n".join(lines) + "\n"


def _head(name: str, section: int, text: str) -> list[str]:
    return [f'.TH {name.upper()} {section} "" tcptuned', ".SH NAME", rf"{_roff(name)} \- {_roff(text)}"]


def _raw(text: str) -> list[str]:
    """Lines that are roff already, but for dashes, quotes and `code`."""
    return [line if line.startswith(".") and "-" not in line else _inside(line) for line in text.strip().splitlines()]


def _inside(line: str) -> str:
    macro, space, rest = line.partition(" ") if line.startswith(".") else ("", "", line)
    return macro + space + _roff(rest, quotes=not macro)


def _roff(text: str, *, quotes: bool = True) -> str:
    """Plain text for roff; `code` becomes bold."""
    text = text.replace("\\", r"\e").replace("-", r"\-")
    if quotes:
        text = text.replace("'", r"\(aq")
    text = re.sub("`([^`]+)`", r"\\fB\1\\fR", text)
    return rf"\&{text}" if text.startswith((".", "'")) else text


def _synopsis(parser: argparse.ArgumentParser) -> list[str]:
    flags = " ".join(rf"[\fB{_roff(action.option_strings[-1])}\fR]" for action in _named(parser))
    return [".SH SYNOPSIS", rf".B {parser.prog}", rf"{flags} \fICOMMAND\fR ..."]


def _named(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    """The options; --help goes without saying."""
    return [action for action in parser._actions if action.option_strings and action.dest != "help"]


def _subcommands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    found: dict[str, argparse.ArgumentParser] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            found.update(action.choices)
    return found


def _commands(parser: argparse.ArgumentParser, above: tuple[str, ...]) -> Iterator[str]:
    for name, sub in _subcommands(parser).items():
        words = (*above, name)
        positional = [
            action for action in sub._actions
            if not action.option_strings and not isinstance(action, argparse._SubParsersAction)
        ]  # fmt: skip
        shown = "".join(rf" \fI{_roff(_value(action))}\fR" for action in positional)
        yield rf".SS \fB{' '.join(words)}\fR{shown}"
        yield _roff(sub.description or "")
        for action in positional:
            yield from (".TP", rf"\fI{_roff(_value(action))}\fR", _roff(action.help or ""))
        yield from _options(sub)
        yield from _commands(sub, words)


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    for action in _named(parser):
        names = ", ".join(rf"\fB{_roff(name)}\fR" for name in action.option_strings)
        if action.nargs == "?":
            names += rf" [\fI{_roff(_value(action))}\fR]"
        elif action.nargs != 0:
            names += rf" \fI{_roff(_value(action))}\fR"
        yield from (".TP", names, _roff(action.help or ""))


def _value(action: argparse.Action) -> str:
    if isinstance(action.metavar, str):
        return action.metavar
    if action.choices is not None:
        return "|".join(str(choice) for choice in action.choices)
    return action.dest.upper()


def _keys(properties: dict[str, Any], above: Key) -> Iterator[str]:
    for name, part in properties.items():
        key = (*above, name)
        if not above:
            yield f".SS {_roff(name)}"
        if inner := part.get("properties"):
            if text := part.get("description"):
                yield from (".PP", rf"\fB{_roff('.'.join(key))}\fR: {_roff(text)}") if above else (_roff(text),)
            yield from _keys(inner, key)
            continue
        default = f" (default: {_shown(name, part['default'])})" if part.get("default") is not None else ""
        yield from (".TP", rf"\fB{_roff('.'.join(key))}\fR{_roff(default)}")
        yield _roff("; ".join(filter(None, (part.get("description"), _kind(part)))) or "see above")
        if inner := part.get("items", {}).get("properties"):
            yield from _keys(inner, (*above, f"{name}[]"))


def _shown(name: str, value: object) -> str:
    if name == "exid":  # as everybody writes it
        return f"0x{value:04X}"
    return value if isinstance(value, str) else json.dumps(value)


def _kind(part: dict[str, Any]) -> str:
    """What may be written, where that can be said in a few words."""
    told = part.get("description", "")
    options = [_kind(option) for option in part.get("anyOf", ()) if option.get("type") != "null"]
    if options:
        text = options[0]
    elif part.get("enum"):
        text = " or ".join(part["enum"])
    elif "minimum" in part:
        text = f"{part['minimum']} to {part['maximum']}"
    elif part.get("type") == "boolean":
        text = "true or false"
    else:
        text = ""
    # Most of it is in the words already.
    return "" if any(word in told for word in filter(None, re.split(r" to | or ", text))) else text
