"""Totals since the start, for Prometheus: they only grow, and no address is in them."""

from __future__ import annotations

import numpy as np

from agent.bpf_source import constants
from agent.dimensions import ACK, Dimension
from agent.libbpf import Array

__all__ = ["ROW_FIELDS", "Totals"]

# The plain sums of `struct row`, in its order.
ROW_FIELDS = (
    "opened", "closed", "sent_bytes", "received_bytes", "sent_segments", "received_segments", "retransmitted_segments",
    "pure_acks", "thinned_acks", "timeouts", "first_windows", "first_window_segments", "first_window_losses",
    "first_window_lossy", "rounds", "rtt_us", "base_rtt_us", "busy_us", "delivered_segments", "delivery_us",
)  # fmt: skip
TREATMENTS = ("observed", "holdout", "treated")
DEFAULT_GROUP = 0  # its number: the configuration's first


class Totals:
    """Sums by group and side, connections by treatment, and transfers by treatment, and by dimension and arm."""

    def __init__(self, dimensions: tuple[Dimension, ...], groups: int) -> None:
        self.dimensions = dimensions
        self.by_side = np.zeros((groups, 2, len(ROW_FIELDS)))
        self.connections_by_treatment = np.zeros((groups, len(TREATMENTS)))
        self.compared = np.zeros((groups, 2, 3))
        """Of the holdout and the treated, (groups, 2, 3): transfers sent, their bytes, their seconds."""
        self.by_arm = [np.zeros((groups, len(dimension.arms), 3)) for dimension in dimensions]
        """For each dimension (groups, arms, 3): transfers, their bytes, their seconds."""
        self.out_of_comparison = np.zeros(len(dimensions))
        """By dimension: treated connections with no arm in it."""

    def absorb(self, keys: Array, rows: Array, generation: int) -> None:
        """Adds drained rows.

        Connections older than the last change of groups or arms still count, but their group's number may mean another
        by now, or none: they go to the default group.
        """
        current = keys["generation"] == generation
        group = np.where(current, keys["group"], DEFAULT_GROUP)
        values = np.stack([rows[name] for name in ROW_FIELDS], axis=-1).astype(np.float64)
        np.add.at(self.by_side, (group, keys["side"]), values)
        np.add.at(self.connections_by_treatment, (group, keys["treatment"]), rows["opened"])
        some = current & (keys["treatment"] != constants()["TREATMENT_OBSERVED"]) & ~granted(keys)
        side = keys["treatment"][some] - constants()["TREATMENT_HOLDOUT"]
        np.add.at(self.compared, (group[some], side), _transfers(rows["sent"][some]))
        applied = keys["treatment"] == constants()["TREATMENT_APPLIED"]
        for number in range(len(self.dimensions)):
            left = applied & (keys["arms"][:, number] >= constants()["ARM_GRANTED"])
            self.out_of_comparison[number] += float(rows["opened"][left].sum())
        drawn = current & applied
        for number, dimension in enumerate(self.dimensions):
            arm = keys["arms"][:, number].astype(np.intp)
            mine = drawn & (arm < len(dimension.arms))
            sums = _transfers(rows["received" if dimension.name == ACK else "sent"][mine])
            np.add.at(self.by_arm[number], (group[mine], arm[mine]), sums)


def granted(keys: Array) -> Array:
    """Which rows are of connections that had something a peer asked for, (rows,)."""
    found: Array = (keys["arms"] == constants()["ARM_GRANTED"]).any(axis=1)
    return found


def _transfers(sums: Array) -> Array:
    """(rows, 3): how many, their bytes, their seconds."""
    return np.stack([sums["count"], sums["bytes"], sums["time_us"] / 1e6], axis=-1)
