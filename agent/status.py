"""What the agent as a whole does, ready for JSON: for people and programs."""

from __future__ import annotations

import math
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

from agent.guard_facts import verdict_facts
from agent.snapshot import Snapshot
from agent.totals import TREATMENTS
from controllers.uplift import Uplift

__all__ = ["JOURNAL_SHOWN", "status"]

JOURNAL_SHOWN = 20


def status(snapshot: Snapshot) -> dict[str, Any]:
    """What the agent does: health, groups, arms, counters, and the last decisions, newest first."""
    override = snapshot.override
    return {
        "version": version("tcptuned"),
        "dry_run": snapshot.dry_run,
        "attached": [str(folder) for folder in snapshot.attached],
        "host_congestion": snapshot.host_congestion,
        "health": asdict(snapshot.health),
        "override": override and {**asdict(override), "text": override.text},
        "guard": {"off": snapshot.watch.off is not None, **verdict_facts(snapshot.watch.off)},
        "paths": snapshot.paths,
        "groups": [_group(snapshot, number) for number in range(len(snapshot.groups))],
        "dimensions": [_dimension(snapshot, number) for number in range(len(snapshot.dimensions))],
        "counters": dict(snapshot.counters),
        "programs": {
            name: {"runs": runs, "seconds": nanoseconds / 1e9}
            for name, (runs, nanoseconds) in snapshot.programs.items()
        },
        "maps": {
            name: {"entries": int(entries), "capacity": int(capacity)}
            for name, (entries, capacity) in snapshot.map_entries.items()
        },
        "journal": [asdict(entry) for entry in reversed(snapshot.journal[-JOURNAL_SHOWN:])],
    }


def _group(snapshot: Snapshot, number: int) -> dict[str, Any]:
    def total(name: str) -> int:
        return int(snapshot.total(name)[number].sum())

    rounds = total("rounds")
    active, passive = snapshot.total("opened")[number]
    return {
        "name": snapshot.groups[number],
        "paths": int(snapshot.paths_by_group[number]),
        "quarantined": int(snapshot.watch.quarantined[number]),
        "guard_trips": int(snapshot.watch.trips[number]),
        "opened": {"active": int(active), "passive": int(passive)},
        "closed": total("closed"),
        "connections": {name: int(count) for name, count in zip(TREATMENTS, snapshot.connections[number], strict=True)},
        "sent_bytes": total("sent_bytes"),
        "received_bytes": total("received_bytes"),
        "retransmission": _share(total("retransmitted_segments"), total("sent_segments")),
        "first_window_loss": _share(total("first_window_losses"), total("first_window_segments")),
        "timeouts": total("timeouts"),
        "uplift": {name: _uplift(found, number) for name, found in snapshot.uplifts.items()},
        "rtt_seconds": total("rtt_us") / rounds / 1e6 if rounds else None,
        "chosen": {
            dimension: {arm: int(count) for arm, count in zip(arms, chosen[number], strict=True)}
            for dimension, arms, chosen in zip(snapshot.dimensions, snapshot.arms, snapshot.chosen, strict=True)
        },
    }


def _uplift(found: Uplift, group: int) -> dict[str, float] | None:
    """The share of the time saved and its 95 % interval; None where nothing is known."""
    facts = {name: float(getattr(found, name)[group]) for name in ("ratio", "lower", "upper")}
    return None if math.isnan(facts["ratio"]) else facts


def _dimension(snapshot: Snapshot, number: int) -> dict[str, Any]:
    name = snapshot.dimensions[number]
    return {
        "name": name,
        "law": snapshot.laws[number],
        "arms": [
            {
                "name": arm,
                "value": int(value),
                "transfers": int(transfers),
                "bytes": int(size),
                "seconds": float(seconds),
            }
            for arm, value, (transfers, size, seconds) in zip(
                snapshot.arms[number], snapshot.values[number], snapshot.transfers[number].sum(axis=0), strict=True
            )
        ],
        "changes": {action: snapshot.decisions.get((name, action), 0) for action in ("up", "down")},
        "failures": snapshot.controller_failures.get(name, 0),
    }


def _share(part: int, whole: int) -> float | None:
    return part / whole if whole else None
