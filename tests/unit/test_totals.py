"""Totals since the start."""

from __future__ import annotations

from typing import Any

import numpy as np
from handmade import KEY, ROW

from agent.bpf_source import constants
from agent.config import Config
from agent.dimensions import dimensions
from agent.totals import ROW_FIELDS, Totals

LIMITS = constants()
OBSERVED, HOLDOUT, APPLIED = (LIMITS[f"TREATMENT_{name}"] for name in ("OBSERVED", "HOLDOUT", "APPLIED"))
ACTIVE, PASSIVE = LIMITS["SIDE_ACTIVE"], LIMITS["SIDE_PASSIVE"]
NOW = 4


def new_totals(groups: int = 3) -> Totals:
    return Totals(dimensions(Config(), algorithms=("cubic", "bbr"), host_congestion="cubic"), groups)


def keys_of(count: int, **fields: Any) -> Any:
    keys = np.zeros(count, KEY)
    keys["generation"], keys["treatment"] = NOW, APPLIED
    for name, value in fields.items():
        keys[name] = value
    return keys


def column(totals: Totals, name: str) -> Any:
    return totals.by_side[:, :, ROW_FIELDS.index(name)]


def test_every_field_by_group_and_side() -> None:
    rows = np.zeros(3, ROW)
    for number, name in enumerate(ROW_FIELDS):
        rows[name] = [1000 + number, 2000 + number, 3000 + number]
    totals = new_totals()
    for _ in range(2):
        totals.absorb(keys_of(3, group=[0, 2, 2], side=[ACTIVE, PASSIVE, PASSIVE]), rows, NOW)
    for number, name in enumerate(ROW_FIELDS):
        expected = [[2 * (1000 + number), 0], [0, 0], [0, 2 * (5000 + 2 * number)]]
        assert column(totals, name).tolist() == expected, name


def test_opened_connections_by_treatment() -> None:
    rows = np.zeros(4, ROW)
    rows["opened"], rows["closed"] = [2, 3, 5, 7], 100
    totals = new_totals()
    totals.absorb(keys_of(4, group=[0, 0, 1, 1], treatment=[OBSERVED, HOLDOUT, APPLIED, APPLIED]), rows, NOW)
    assert totals.connections_by_treatment.tolist() == [[2, 3, 0], [0, 0, 12], [0, 0, 0]]


def test_transfers_by_arm_of_those_that_were_treated() -> None:
    rows = np.zeros(4, ROW)
    rows["sent"]["count"], rows["sent"]["bytes"], rows["sent"]["time_us"] = [1, 2, 3, 4], 1000, 500_000
    rows["received"]["count"], rows["received"]["bytes"], rows["received"]["time_us"] = 7, 70, 7_000_000
    none = LIMITS["ARM_NONE"]
    arms = [(2, 1, 1), (2, none, 0), (3, 0, 0), (4, 1, 1)]
    totals = new_totals()
    keys = keys_of(4, arms=arms, treatment=[APPLIED, APPLIED, HOLDOUT, OBSERVED])
    totals.absorb(keys, rows, NOW)
    windows, congestion, ack = (sums[0] for sums in totals.by_arm)
    assert windows.tolist() == [[0, 0, 0], [0, 0, 0], [3, 2000, 1], *[[0, 0, 0]] * 4]
    assert congestion.tolist() == [[0, 0, 0], [1, 1000, 0.5], [0, 0, 0], [0, 0, 0]]
    assert ack.tolist() == [[7, 70, 7], [7, 70, 7]]
    assert [sums[1:].any() for sums in totals.by_arm] == [False] * 3
    keys["group"] = [2, 1, 0, 0]
    totals.absorb(keys, rows, NOW)
    assert totals.by_arm[0][:, 2, 0].tolist() == [3, 2, 1]


def test_transfers_of_the_holdout_and_the_treated() -> None:
    rows = np.zeros(4, ROW)
    rows["sent"]["count"], rows["sent"]["bytes"], rows["sent"]["time_us"] = [1, 2, 3, 4], 1000, 500_000
    rows["received"]["count"] = 7
    totals = new_totals()
    totals.absorb(keys_of(4, treatment=[APPLIED, HOLDOUT, APPLIED, OBSERVED], group=[0, 0, 2, 0]), rows, NOW)
    assert totals.compared.tolist() == [
        [[2, 1000, 0.5], [1, 1000, 0.5]], [[0, 0, 0], [0, 0, 0]], [[0, 0, 0], [3, 1000, 0.5]],
    ]  # fmt: skip


def test_connections_from_before_a_reload_still_count() -> None:
    """Their group may be gone, their arms meant something else: they go to the default group, and to no arm."""
    rows = np.zeros(2, ROW)
    rows["opened"] = rows["closed"] = [3, 5]
    rows["sent"]["count"] = 1
    totals = new_totals(groups=2)
    totals.absorb(keys_of(2, group=[1, 63], generation=NOW - 1, arms=(6, 1, 1)), rows, NOW)
    assert column(totals, "closed").tolist() == [[8, 0], [0, 0]]
    assert totals.connections_by_treatment.tolist() == [[0, 0, 8], [0, 0, 0]]
    assert [sums.sum() for sums in totals.by_arm] == [0, 0, 0]
    assert totals.compared.sum() == 0


def test_large_counts_stay_exact() -> None:
    rows = np.zeros(1, ROW)
    rows["sent_bytes"] = (1 << 52) + 1
    totals = new_totals()
    totals.absorb(keys_of(1), rows, NOW)
    rows["sent_bytes"] = 1
    totals.absorb(keys_of(1), rows, NOW)
    assert int(column(totals, "sent_bytes")[0, ACTIVE]) == (1 << 52) + 2


def test_nothing_changes_nothing() -> None:
    totals = new_totals()
    totals.absorb(np.zeros(0, KEY), np.zeros(0, ROW), NOW)
    assert totals.by_side.sum() == 0
