"""What the report tells: from the running agent, or from what it saved when none runs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import numpy as np

from agent.archive import DamagedError
from agent.config import Config
from agent.display import moment
from agent.errors import TcptunedError, UnreachableError
from agent.history import History
from agent.journal import FILE as JOURNAL
from agent.learnt import Learnt
from agent.libbpf import Array
from agent.path_facts import arm_facts
from agent.rules import network_name
from agent.show import ask
from agent.state import FILE, Saved, read
from controllers import Arm, Evidence, Field

__all__ = ["collect"]

_SIDES = ("holdout", "treated")
_PATHS = 20  # told in detail
_ENTRIES = 500
_JOURNAL_BYTES = 1 << 20
_LATEST = 4e9  # seconds since 1970
_ENTRY = {"time": float, "path": str, "group": str, "dimension": str, "before": str, "after": str, "reason": str}


def collect(config: Config) -> dict[str, Any]:
    """All facts, ready for JSON; `source` is "agent" or "file", `note` says so in a sentence.

    `status` is that of /api/v1/status, None without an agent; `history` that of /api/v1/history. `paths` has `total`
    and, as `shown`, the busiest as /api/v1/paths?address= tells them. `journal` is newest first. Raises TcptunedError
    if there is neither an agent nor a file.
    """
    try:
        facts = _from_agent(config)
    except UnreachableError as error:
        facts = _from_file(config, str(error))
    entries, note = _journal(config.state_dir, (facts["status"] or {}).get("journal", []))
    return {"made": time.time(), **facts, "journal": entries, "journal_note": note}


def _from_agent(config: Config) -> dict[str, Any]:
    status = ask(config, "/api/v1/status", "groups")
    listed = ask(config, f"/api/v1/paths?order=transfers&limit={_PATHS}", "paths")
    try:
        shown = [
            {**one, **ask(config, f"/api/v1/paths?address={ip_network(one['path']).network_address}", "dimensions")}
            for one in listed["paths"]
        ]
        return {
            "source": "agent",
            "note": "From the running agent.",
            "status": status,
            "history": ask(config, "/api/v1/history", "groups"),
            "paths": {"total": int(listed["total"]), "shown": shown},
        }
    except (KeyError, TypeError, ValueError) as error:
        raise TcptunedError("the running agent is of another version than this command: restart the agent") from error


def _from_file(config: Config, refusal: str) -> dict[str, Any]:
    folder = config.state_dir
    try:
        saved = read(folder)
    except FileNotFoundError:
        raise TcptunedError(f"{refusal}; nor is there anything saved in {folder}") from None
    except PermissionError:
        raise TcptunedError(f"{refusal}; what it saved in {folder} only its user may read: try sudo") from None
    except (OSError, DamagedError) as error:
        raise TcptunedError(f"{refusal}; and {folder / FILE} cannot be used: {error}") from None
    history = History()
    if section := saved.learnt.sections.get("history"):
        history.load(section, saved.time)
    return {
        "source": "file",
        "note": f"No agent runs: this is what it knew when it saved last, {moment(saved.time)} UTC.",
        "status": None,
        "history": history.facts(),
        "paths": _saved_paths(saved),
    }


def _saved_paths(saved: Saved) -> dict[str, Any]:
    learnt = saved.learnt
    names = [field.name for field in Field]
    if not set(names) <= set(learnt.fields):
        raise TcptunedError("the state file is of another version than this command; start the agent and try again")
    columns = [learnt.fields.index(name) for name in names]
    transfers = np.zeros(len(learnt.groups) + learnt.paths)
    sides = [number for number, name in enumerate(learnt.slots) if name.partition("/")[0] in _SIDES]
    mine = np.isin(learnt.slot, sides)
    np.add.at(transfers, learnt.row[mine], learnt.sums[mine, columns[Field.TRANSFERS]])
    busiest = np.argsort(-transfers[len(learnt.groups) :], kind="stable")[:_PATHS]
    return {"total": learnt.paths, "shown": [_saved_path(learnt, int(path), columns) for path in busiest]}


def _saved_path(learnt: Learnt, path: int, columns: list[int]) -> dict[str, Any]:
    """Like agent.path_facts.explain, as far as evidence alone tells: the arm used most stands for the chosen one."""
    here = np.flatnonzero(learnt.row == len(learnt.groups) + path)
    sums = np.zeros((len(learnt.slots), len(columns)), np.float32)
    sums[learnt.slot[here]] = learnt.sums[here][:, columns]
    known = dict(_by_dimension(learnt.slots, sums))
    dimensions = [
        {
            "name": name,
            "chosen": arms[int(evidence[:, Field.CLOSED].argmax())],
            "reason": "used most; the decision itself is not saved",
            "arms": arm_facts(Evidence(tuple(map(Arm, arms)), evidence[None])),
        }
        for name, (arms, evidence) in known.items()
        if name not in _SIDES
    ]
    comparison = []
    if known.keys() >= set(_SIDES):
        sides = np.stack([known[side][1].sum(axis=0) for side in _SIDES])
        comparison = arm_facts(Evidence(tuple(map(Arm, _SIDES)), sides[None]))
    return {
        "path": network_name(learnt.address[path].tobytes(), int(learnt.bits[path])),
        "group": None,
        "connections": sum(one["connections"] for one in comparison),
        "transfers": sum(one["transfers"] for one in comparison),
        "idle_seconds": float(learnt.idle[path]),
        "dimensions": dimensions,
        "comparison": comparison,
    }


def _by_dimension(slots: tuple[str, ...], sums: Array) -> Iterator[tuple[str, tuple[list[str], Array]]]:
    """Arms and their sums by what stands before the slash of a slot's name."""
    heads = [slot.partition("/")[0] for slot in slots]
    for head in dict.fromkeys(heads):
        numbers = [number for number, one in enumerate(heads) if one == head]
        yield head, ([slots[number].partition("/")[2] for number in numbers], sums[numbers])


def _journal(folder: Path, remembered: Any) -> tuple[list[dict[str, Any]], str]:
    """The last entries of the journal's file; without it, those that the agent remembers. And a sentence about it."""
    path = folder / JOURNAL
    lines: list[bytes] = []
    try:
        for part in (path.with_name(f"{JOURNAL}.1"), path):
            if part == path or part.exists():
                with part.open("rb") as file:
                    file.seek(max(0, part.stat().st_size - _JOURNAL_BYTES))
                    lines += file.read(_JOURNAL_BYTES).splitlines()
    except FileNotFoundError:
        note = f"There is no journal in {folder}: these are the decisions that the agent remembers."
    except OSError as error:
        note = f"The journal cannot be read ({error.strerror}; try sudo): these are the last decisions of the agent."
    else:
        entries = [entry for line in reversed(lines) if (entry := _entry(line))]
        return entries[:_ENTRIES], f"The last {_ENTRIES} of {path}." if len(entries) > _ENTRIES else f"From {path}."
    return [entry for each in remembered if (entry := _known(each))], note


def _entry(line: bytes) -> dict[str, Any] | None:
    try:
        return _known(json.loads(line))
    except (ValueError, RecursionError):
        return None  # the first line is cut, the last may be under way


def _known(entry: Any) -> dict[str, Any] | None:
    """What belongs into an entry; None if something is missing."""
    if not isinstance(entry, Mapping) or any(not isinstance(entry.get(name), kind) for name, kind in _ENTRY.items()):
        return None
    # Beyond these times there is no date.
    return {name: entry[name] for name in _ENTRY} if 0.0 < entry["time"] < _LATEST else None
