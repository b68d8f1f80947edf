"""Facts about paths, ready for JSON: the list of them, and one address explained."""

from __future__ import annotations

import math
import time
from ipaddress import IPv4Address, IPv6Address
from typing import Any

import numpy as np

from agent.dimensions import CONGESTION, INITIAL_WINDOW, Dimension
from agent.display import moment
from agent.guard_facts import guard_facts, holdout, in_force
from agent.libbpf import Array
from agent.policy import paced_windows
from agent.prior_facts import prior_facts
from agent.tuner import Match, Tuner
from controllers import Arm, Decision, Evidence, Field
from controllers.estimates import first_window_loss, retransmission
from controllers.inheritance import time_differences

__all__ = ["arm_facts", "explain", "paths"]

# The last paths of a network or group that are looked at to explain what it knows.
_MOST_SIBLINGS = 1000

_SIDES = (Arm("holdout"), Arm("treated"))


def explain(tuner: Tuner, address: IPv4Address | IPv6Address) -> dict[str, Any]:
    """What is known and decided for `address`, and why; the caller holds the service's lock.

    Times are ratios to the default arm (0.8: transfers take a fifth less), with the bounds of one standard error; None
    where one of the two has no transfers. Shares are None where nothing was sent. `since` is when (seconds since
    1970) the chosen arm became that; None where it is inherited. Counts fade with the evidence's half-life, so they are
    not whole. For an unknown path all of these are its network's, or its group's. `prior` tells whose experience a
    dimension inherits, as shares of network, group and fleet (agent/prior_facts.py).
    """
    match = tuner.match(address)
    rows = _rows(tuner, match)
    sides = tuner.store.sums[rows][:, [tuner.store.holdout_slot, tuner.store.treated_slot]]
    return {
        "address": str(address),
        "path": match.path,
        "group": match.group,
        "known": not match.inherited,
        "inherited_from": match.inherited,
        "excluded": match.excluded,
        "applied": _applied(tuner, match, address),
        "guard": guard_facts(tuner, match),
        **_pacing(tuner, match),
        "pipe": _pipe(tuner, match),
        "dimensions": [_explained(tuner, number, match, rows) for number in range(len(tuner.dimensions))],
        "comparison": arm_facts(Evidence(_SIDES, sides)),
    }


def _pacing(tuner: Tuner, match: Match) -> dict[str, float | None]:
    """Bytes a second that the path was seen to deliver, or the fastest one in its network, and the segments that a
    paced connection begins with; None if that is not known."""
    if match.inherited is None:
        rate, pipe = tuner.networks.pacing(np.array([match.row]))
    else:
        network = np.array([match.network])
        rate, pipe = tuner.networks.rates(network), tuner.networks.pipe(network)
    window = paced_windows(tuner.dimensions, rate, pipe)
    return {"rate": round(float(rate[0])) or None, "paced_window": int(window[0]) or None}


def _pipe(tuner: Tuner, match: Match) -> float | None:
    """Segments that fill the path: its rate times its least RTT; None if it was not seen to be filled."""
    pipe = 0.0 if match.inherited else float(tuner.store.pipe(np.array([match.row]))[0])
    return round(pipe, 1) if pipe else None


def _rows(tuner: Tuner, match: Match) -> Array:
    """The rows of the evidence that speak for an address: its path's, or those of its network or group."""
    if match.inherited is None:
        return np.array([match.row])
    above = tuner.networks.parents()
    if match.network >= tuner.store.groups:
        rows = np.flatnonzero(above == match.network)
    else:
        rows = tuner.store.groups + np.flatnonzero(tuner.store.identity["group"][tuner.store.groups :] == match.row)
    return rows[-_MOST_SIBLINGS:]


def paths(
    tuner: Tuner, *, limit: int, offset: int, group: str | None, busiest_first: bool = False
) -> dict[str, Any]:
    """Paths in order of appearance or of their transfers, of one group or all; the caller holds the service's lock."""
    store = tuner.store
    rows = np.arange(store.groups, len(store))
    if group is not None:
        rows = rows[store.identity["group"][store.groups :] == tuner.groups.index(group)]
    if busiest_first:
        transfers = store.sums[rows, store.holdout_slot :, Field.TRANSFERS].sum(axis=1)
        rows = rows[np.argsort(-transfers, kind="stable")]
    shown = rows[offset : offset + limit]
    sums = store.sums[shown, store.holdout_slot] + store.sums[shown, store.treated_slot]
    now = time.monotonic()
    return {
        "total": len(rows),
        "limit": limit,
        "offset": offset,
        "paths": [
            {
                "path": tuner.name(int(row)),
                "group": tuner.groups[tuner.group(int(row))],
                "connections": round(float(known[Field.CLOSED]), 1),
                "transfers": round(float(known[Field.TRANSFERS]), 1),
                "quarantined": tuner.guarding.verdict(int(row)) is not None,
                "idle_seconds": round(max(0.0, now - float(store.seen[row])), 1),
                **_held(tuner, int(row)),
            }
            for row, known in zip(shown, sums, strict=True)
        ],
    }


def _applied(tuner: Tuner, match: Match, address: IPv4Address | IPv6Address) -> str:
    """One sentence: what happens to a connection with this address."""
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    if (mapped or address).is_loopback:
        return "nothing: loopback is left alone"
    if match.excluded:
        return "nothing: a rule of paths.rules excludes it"
    if tuner.dry_run:
        return "nothing: this is a dry run"
    if not tuner.kernel.attached:
        return "nothing: the programs are attached to no cgroup"
    verdict = in_force(tuner, match)
    if verdict is not None:
        return f"nothing: quarantined until {moment(verdict.until)} UTC, because {verdict.because}"
    share = round(100 * holdout(tuner, match), 1)
    return f"arms are drawn for {100 - share:g}% of the connections; {share:g}% keep the kernel's defaults"


def _explained(tuner: Tuner, number: int, match: Match, rows: Array) -> dict[str, Any]:
    """One dimension of an address."""
    dimension = tuner.dimensions[number]
    facts: dict[str, Any] = {"name": dimension.name, "law": dimension.law_name}
    facts["prior"] = prior_facts(tuner, number, match)
    # A few rows only: the estimates of all paths would take long, and the loop waits.
    arms = arm_facts(Evidence(dimension.arms, tuner.store.part(number, rows)))
    probabilities: list[float] = [1.0] + [0.0] * (len(arms) - 1)
    chosen = 0
    if number < len(tuner.decisions):
        decision, row = _decided(tuner, number, match.row, match.network)
        facts["reason"] = _reason(tuner, dimension, decision, row)
        facts["reason"] += _of_paced(tuner, dimension, match.row, match.network)
        chosen = int(decision.chosen[row])
        probabilities = [float(share) for share in decision.probabilities[row]]
    else:
        facts["reason"] = "nothing is decided yet"
    facts["chosen"] = dimension.arms[chosen].name
    facts["since"] = None if match.inherited else tuner.changes.since(match.row, number)
    facts["arms"] = [
        {"name": arm["name"], "probability": round(share, 4), **arm}
        for arm, share in zip(arms, probabilities, strict=True)
    ]
    return facts


def _decided(tuner: Tuner, number: int, row: int, network: int) -> tuple[Decision, int]:
    """What holds for a row: its network's decision, if it is no path or came since the last decision."""
    decision = tuner.decisions[number]
    if tuner.store.groups <= row < len(decision.chosen):
        return decision, row
    unknown = tuner.decider.unknown[number]
    return unknown, network if network < len(unknown.chosen) else tuner.group(row)


def _reason(tuner: Tuner, dimension: Dimension, decision: Decision, row: int) -> str:
    if dimension.name == CONGESTION and tuner.override is not None:
        return tuner.override.text
    reason: str = decision.reasons[decision.reason[row]]
    return reason


def _of_paced(tuner: Tuner, dimension: Dimension, row: int, network: int) -> str:
    """What a reason for a window leaves out: where a paced algorithm is chosen, most connections begin with another."""
    numbers = {one.name: number for number, one in enumerate(tuner.dimensions)}
    congestion = numbers[CONGESTION]
    if dimension.name != INITIAL_WINDOW or row < tuner.store.groups or congestion >= len(tuner.decisions):
        return ""
    decision, where = _decided(tuner, congestion, row, network)
    if tuner.dimensions[congestion].arms[int(decision.chosen[where])].variant_of is None:
        return ""
    window = int(paced_windows(tuner.dimensions, *tuner.networks.pacing(np.array([row])))[0])
    return f"; paced connections begin with {window}" if window else ""


def _held(tuner: Tuner, row: int) -> dict[str, dict[str, str]]:
    """What is held to be best on a path, by dimension, and why."""
    chosen = {dimension.name: dimension.arms[0].name for dimension in tuner.dimensions}
    reasons = dict.fromkeys(chosen, "nothing is decided yet")
    network = int(tuner.networks.parents()[row])
    for number, dimension in enumerate(tuner.dimensions[: len(tuner.decisions)]):
        decision, where = _decided(tuner, number, row, network)
        chosen[dimension.name] = dimension.arms[int(decision.chosen[where])].name
        reasons[dimension.name] = _reason(tuner, dimension, decision, where)
        reasons[dimension.name] += _of_paced(tuner, dimension, row, network)
    return {"chosen": chosen, "reasons": reasons}


def arm_facts(evidence: Evidence) -> list[dict[str, Any]]:
    """The evidence of each arm over some paths; the first arm is what the others are compared with.

    Times are compared within the paths, so that a slow path says nothing against the arms that happened to be used on
    it; everything else is added up.
    """
    difference, error = time_differences(evidence)
    together = Evidence(evidence.arms, evidence.sums.sum(axis=0, keepdims=True))
    first_window, again = first_window_loss(together), retransmission(together)
    facts = []
    for number, arm in enumerate(evidence.arms):
        more, doubt = float(difference[number]), float(error[number])
        comparable = number > 0 and math.isfinite(doubt)
        facts.append(
            {
                "name": arm.name,
                "connections": _count(together[Field.CLOSED], number),
                "transfers": _count(together[Field.TRANSFERS], number),
                "time_ratio": _factor(more) if comparable else None,
                "time_ratio_low": _factor(more - doubt) if comparable else None,
                "time_ratio_high": _factor(more + doubt) if comparable else None,
                "first_window_loss": _of(together[Field.FIRST_WINDOW_SEGMENTS], first_window, number),
                "retransmission": _of(together[Field.SEGMENTS], again, number),
            }
        )
    return facts


def _factor(log_ratio: float) -> float:
    """2 to the power of `log_ratio`, within what JSON and people can hold."""
    return round(math.exp2(min(max(log_ratio, -50.0), 50.0)), 4)


def _count(field: Array, number: int) -> float:
    return round(float(field[0, number]), 1)


def _of(whole: Array, share: Array, number: int) -> float | None:
    """A share, unless there is nothing that it is a share of."""
    return round(float(share[0, number]), 5) if whole[0, number] > 0 else None
