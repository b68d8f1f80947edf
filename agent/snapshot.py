"""What the loop shows to everything beside it: an immutable picture, made after every sample.

The exporter, the status page and the commands read the last snapshot, so they never wait for the loop nor hold it up.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from agent.administrator import Override
from agent.dimensions import against
from agent.fleet import FleetState
from agent.guarding import Watch
from agent.journal import Entry
from agent.libbpf import Array
from agent.totals import ROW_FIELDS
from agent.tuner import Tuner
from controllers.fleet import Experience
from controllers.uplift import Uplift

__all__ = ["Health", "Snapshot", "take"]


@dataclass
class Health:
    """How the agent itself is; the service writes it, the snapshot copies it."""

    started: float = field(default_factory=time.time)  # seconds since 1970
    last_sample: float = 0.0  # seconds since 1970; 0: none yet
    sample_seconds: float = 0.0  # of the last one
    decide_seconds: float = 0.0
    sample_failures: int = 0
    reload_successful: bool = True
    reload_time: float = 0.0  # seconds since 1970 of the last good load of the configuration
    state_saved: float = 0.0  # seconds since 1970; 0: not yet
    state_bytes: int = 0  # of the state file, as it was saved last
    state_failures: int = 0
    state_restored: int = 0  # paths known from before the start
    fleet: FleetState = field(default_factory=FleetState)


@dataclass(frozen=True)
class Snapshot:
    """All arrays are copies.

    `rows` (groups, 2 sides, ROW_FIELDS) counts since the start; `connections` (groups, 3) by treatment: observed,
    holdout, treated. `arms` and `transfers` go by dimension: arm names, and (groups, arms, 3) of transfers, bytes,
    seconds.
    `compared` is (groups, 2, 3): the same of the holdout and the treated. `uplifts` goes by name (agent/effect.py).
    `chosen` goes by dimension: how many paths hold which arm to be best, (groups, arms). `rtt` goes by group: counts
    by slot, and the sum in microseconds. `values` are the arms' numbers: segments, or RTT divisors.
    `host_congestion` is what the default arm of congestion control means in the agent's own network namespace.
    `experience` goes by dimension; `against` names what its arms are compared with.
    """

    health: Health
    dry_run: bool
    attached: tuple[Path, ...]
    groups: tuple[str, ...]
    dimensions: tuple[str, ...]
    arms: tuple[tuple[str, ...], ...]
    values: tuple[tuple[int, ...], ...]
    laws: tuple[str, ...]
    host_congestion: str
    rows: Array
    connections: Array
    transfers: tuple[Array, ...]
    compared: Array
    uplifts: Mapping[str, Uplift]
    out_of_comparison: Array  # connections, by dimension
    chosen: tuple[Array, ...]
    experience: tuple[Experience, ...]
    against: tuple[str, ...]
    rtt: tuple[tuple[Array, int], ...]
    counters: Mapping[str, int]
    extensions: Mapping[tuple[str, str], int]  # extension, outcome
    adoption_obstacle: str  # a key of adoption.OBSTACLES, or empty
    sockets_left: Mapping[str, int]  # by reason
    programs: Mapping[str, tuple[int, int]]  # runs, nanoseconds
    linked: frozenset[str]  # those that are attached
    map_entries: Mapping[str, tuple[int, int]]  # entries, capacity
    paths: int
    paths_by_group: Array
    decisions: Mapping[tuple[str, str], int]  # dimension, up or down
    controller_failures: Mapping[str, int]
    fleet_arms: int  # arms that begin with what other hosts told
    journal: tuple[Entry, ...]
    watch: Watch
    override: Override | None = None

    def total(self, name: str) -> Array:
        """One field of `struct row` by group and side, shape (groups, 2); side 0 is active, 1 passive."""
        column: Array = self.rows[:, :, ROW_FIELDS.index(name)]
        return column


def take(tuner: Tuner, health: Health) -> Snapshot:
    """A picture of the tuner as it is now; called by the thread that runs it."""
    store, kernel = tuner.store, tuner.kernel
    groups = len(tuner.groups)
    group_of_path = store.identity["group"][store.groups :].astype(np.intp)
    chosen = []
    for dimension, decision in zip(tuner.dimensions, tuner.decisions, strict=True):
        counts = np.zeros((groups, len(dimension.arms)), np.int64)
        # Paths that came since the last decision have none yet.
        best = decision.chosen[store.groups :]
        np.add.at(counts, (group_of_path[: len(best)], best), 1)
        chosen.append(counts)
    config = tuner.config
    return Snapshot(
        health=Health(**vars(health)),
        dry_run=tuner.dry_run,
        attached=tuple(kernel.attached),
        groups=tuner.groups,
        dimensions=tuple(dimension.name for dimension in tuner.dimensions),
        arms=tuple(tuple(arm.name for arm in dimension.arms) for dimension in tuner.dimensions),
        values=tuple(tuple(arm.value for arm in dimension.arms) for dimension in tuner.dimensions),
        laws=tuple(dimension.law_name for dimension in tuner.dimensions),
        host_congestion=tuner.host_congestion,
        rows=tuner.totals.by_side.copy(),
        connections=tuner.totals.connections_by_treatment.copy(),
        out_of_comparison=tuner.totals.out_of_comparison.copy(),
        transfers=tuple(sums.copy() for sums in tuner.totals.by_arm),
        compared=tuner.totals.compared.copy(),
        uplifts=dict(tuner.effect.uplifts),
        chosen=tuple(chosen),
        experience=tuple(tuner.networks.experience(number) for number in range(len(tuner.dimensions))),
        against=tuple(against(dimension, tuner.host_congestion) for dimension in tuner.dimensions),
        rtt=tuple(kernel.rtt(number) for number in range(groups)),
        counters=kernel.counters(),
        extensions=kernel.extension_counts(),
        adoption_obstacle=tuner.adoption.obstacle,
        sockets_left=dict(tuner.adoption.left),
        programs=kernel.program_costs(),
        linked=kernel.linked(),
        map_entries={
            "policies": (tuner.publisher.entries, tuner.policy_capacity),
            "rows": (tuner.last_rows, config.sampling.rows),
        },
        paths=len(store) - store.groups,
        paths_by_group=np.bincount(group_of_path, minlength=groups),
        decisions=dict(tuner.changes.counts),
        controller_failures={**tuner.failures, "guard": tuner.guarding.failures},
        fleet_arms=len(tuner.knowledge.totals) if tuner.knowledge else 0,
        journal=tuple(tuner.journal.recent),
        watch=tuner.guarding.watch(),
        override=tuner.override,
    )
