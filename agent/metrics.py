"""The metrics: what each is called, what it means, and how it is computed from a snapshot.

Base units (seconds, bytes) or things counted. No address is ever a label: groups, arms, programs and maps are few.
Every function takes a snapshot and yields metric families; the exporter calls them one by one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from importlib.metadata import version

import numpy as np
from prometheus_client.metrics_core import HistogramMetricFamily, InfoMetricFamily, Metric

from agent.bpf_source import constants
from agent.dimensions import CONGESTION, INITIAL_WINDOW
from agent.effect import ALL
from agent.families import PREFIX, counter, gauge
from agent.metrics_effect import guard, uplift
from agent.metrics_fleet import experience, reading
from agent.metrics_kernel import kernel_side
from agent.snapshot import Snapshot
from agent.totals import TREATMENTS

__all__ = ["PREFIX", "SECTIONS"]

SIDES = ("active", "passive")
ACTIONS = ("up", "down")

# Sums of `struct row` over both sides: name, field, unit per unit of the field, help.
_BY_GROUP = (
    ("sent_bytes", "sent_bytes", 1.0, "Bytes of data sent and acknowledged by the peer."),
    ("received_bytes", "received_bytes", 1.0, "Bytes of data received in order."),
    ("sent_segments", "sent_segments", 1.0, "Segments with data sent, retransmissions included."),
    ("received_segments", "received_segments", 1.0, "Segments with data received."),
    ("retransmitted_segments", "retransmitted_segments", 1.0, "Segments that were retransmissions."),
    ("pure_acks_sent", "pure_acks", 1.0, "Segments without data sent: ACKs, and a SYN and a FIN per connection."),
    ("acks_thinned", "thinned_acks", 1.0, "Those of them that were dropped on their way out (ack.thinning)."),
    ("retransmission_timeouts", "timeouts", 1.0, "Retransmission timeouts (RTO)."),
    ("first_windows", "first_windows", 1.0, "Closed connections that filled their first window."),
    ("first_window_segments", "first_window_segments", 1.0, "Segments that closed connections sent in first windows."),
    ("first_window_losses", "first_window_losses", 1.0, "Segments lost from first windows (RFC 9040, appendix C)."),
    ("first_windows_lossy", "first_window_lossy", 1.0, "Closed connections that lost a segment of their first window."),
    ("rounds", "rounds", 1.0, "Round trips measured while data was in flight."),
    ("round_seconds", "rtt_us", 1e-6, "Sum of the round-trip times of all rounds."),
    ("round_base_seconds", "base_rtt_us", 1e-6, "Sum over all rounds of the connection's least round-trip time then."),
    ("delivered_segments", "delivered_segments", 1.0, "Segments delivered during the kernel's delivery rate samples."),
    ("delivery_seconds", "delivery_us", 1e-6, "Length of the kernel's delivery rate samples."),
    ("busy_seconds", "busy_us", 1e-6, "Time that connections spent transferring; pauses are not counted."),
)

_TREATED = {
    "observed": "Connections that were only observed: dry run, or the lease had lapsed.",
    "holdout": "Connections left at the kernel's defaults for comparison.",
    "treated": "Connections for which arms were drawn.",
}


def connections(snapshot: Snapshot) -> Iterator[Metric]:
    """How many, how they were treated, and what they carried."""
    for field in ("opened", "closed"):
        sums = snapshot.total(field)
        family = counter(f"connections_{field}", f"Connections {field}, by who opened them.", ("group", "side"))
        for group, row in zip(snapshot.groups, sums, strict=True):
            for side, value in zip(SIDES, row, strict=True):
                family.add_metric((group, side), float(value))
        yield family
    for column, treatment in enumerate(TREATMENTS):
        family = counter(f"connections_{treatment}", _TREATED[treatment], ("group",))
        for group, row in zip(snapshot.groups, snapshot.connections, strict=True):
            family.add_metric((group,), float(row[column]))
        yield family


def traffic(snapshot: Snapshot) -> Iterator[Metric]:
    """The plain sums by group."""
    for name, field, unit, text in _BY_GROUP:
        family = counter(name, text, ("group",))
        for group, row in zip(snapshot.groups, snapshot.total(field), strict=True):
            family.add_metric((group,), float(row.sum()) * unit)
        yield family


def round_trips(snapshot: Snapshot) -> Iterator[Metric]:
    """The RTT histogram: all buckets, inclusive upper bounds, exact sum (bpf/consts.h, RTT_*)."""
    limits = constants()
    bounds = [str((limits["RTT_FIRST_US"] << slot) / 1e6) for slot in range(limits["RTT_SLOTS"] - 1)]
    family = HistogramMetricFamily(
        f"{PREFIX}rtt_seconds", "Round-trip times of data segments, sampled once a round trip.", labels=("group",)
    )
    for group, (slots, microseconds) in zip(snapshot.groups, snapshot.rtt, strict=True):
        counts = [float(count) for count in np.cumsum(slots)]
        family.add_metric((group,), list(zip([*bounds, "+Inf"], counts, strict=True)), microseconds / 1e6)
    yield family


def arms(snapshot: Snapshot) -> Iterator[Metric]:
    """What the arms achieved, and on how many paths each is held to be the best."""
    texts = ("Transfers longer than the default first window", "Bytes of these transfers", "Time these transfers took")
    for column, (name, text) in enumerate(zip(("transfers", "transfer_bytes", "transfer_seconds"), texts, strict=True)):
        help_text = f"{text}, by the arm drawn for the treated; as dimension {ALL}: the treated and the holdout."
        family = counter(name, help_text, ("group", "dimension", "arm"))
        for dimension, names, sums in zip(snapshot.dimensions, snapshot.arms, snapshot.transfers, strict=True):
            for group, rows in zip(snapshot.groups, sums, strict=True):
                for arm, row in zip(names, rows, strict=True):
                    family.add_metric((group, dimension, arm), float(row[column]))
        for group, rows in zip(snapshot.groups, snapshot.compared, strict=True):
            for side, row in zip(TREATMENTS[1:], rows, strict=True):
                family.add_metric((group, ALL, side), float(row[column]))
        yield family

    known = gauge("paths", "Paths (remote networks) with evidence.", ("group",))
    for group, count in zip(snapshot.groups, snapshot.paths_by_group, strict=True):
        known.add_metric((group,), float(count))
    yield known

    best = gauge("arm_paths", "Paths on which the arm is held to be the best.", ("group", "dimension", "arm"))
    for dimension, names, chosen in zip(snapshot.dimensions, snapshot.arms, snapshot.chosen, strict=True):
        for group, row in zip(snapshot.groups, chosen, strict=True):
            for arm, count in zip(names, row, strict=True):
                best.add_metric((group, dimension, arm), float(count))
    yield best


def chosen_values(snapshot: Snapshot) -> Iterator[Metric]:
    """The chosen arms as people speak of them: segments, and algorithms."""
    position = {name: number for number, name in enumerate(snapshot.dimensions)}
    windows = gauge(
        "initial_window_segments", "Mean over the group's paths of the chosen initial window.", ("group",)
    )  # fmt: skip
    kernel = constants()["INITIAL_WINDOW_KERNEL"]
    number = position[INITIAL_WINDOW]
    segments = np.array([value or kernel for value in snapshot.values[number]])
    for group, counts in zip(snapshot.groups, snapshot.chosen[number], strict=True):
        # Without a path there is no mean.
        if counts.sum():
            windows.add_metric((group,), float(counts @ segments / counts.sum()))
    yield windows

    algorithms = gauge(
        "congestion_control_selected",
        "Paths on which the congestion control is held to be the best; arm 0 is the host's own.",
        ("group", "congestion_control"),
    )
    number = position[CONGESTION]
    names = (snapshot.host_congestion, *snapshot.arms[number][1:])
    for group, counts in zip(snapshot.groups, snapshot.chosen[number], strict=True):
        for name, count in zip(names, counts, strict=True):
            algorithms.add_metric((group, name), float(count))
    yield algorithms


def decisions(snapshot: Snapshot) -> Iterator[Metric]:
    """What the controllers did."""
    changes = counter(
        "decisions",
        "Changes of the arm held to be the best on a path: up is away from the kernel's default.",
        ("controller", "action"),
    )
    failures = counter("controller_failures", "Steps in which a controller failed.", ("controller",))
    for dimension, law in zip(snapshot.dimensions, snapshot.laws, strict=True):
        controller = f"{dimension}_{law}"
        for action in ACTIONS:
            changes.add_metric((controller, action), float(snapshot.decisions.get((dimension, action), 0)))
        failures.add_metric((controller,), float(snapshot.controller_failures.get(dimension, 0)))
    failures.add_metric(("guard",), float(snapshot.controller_failures.get("guard", 0)))
    yield changes
    yield failures


def health(snapshot: Snapshot) -> Iterator[Metric]:
    """How the agent itself is."""
    now = snapshot.health
    for name, text, value in (
        ("attached_cgroups", "Cgroups whose connections are tuned.", len(snapshot.attached)),
        ("dry_run", "1 when nothing is applied.", snapshot.dry_run),
        ("last_sample_timestamp_seconds", "When the kernel's statistics were read last; 0 is never.", now.last_sample),
        ("sample_duration_seconds", "How long the last reading took.", now.sample_seconds),
        ("decision_duration_seconds", "How long the last decisions took.", now.decide_seconds),
        ("state_last_save_timestamp_seconds", "When what was learnt was saved last; 0 is never.", now.state_saved),
        ("state_file_bytes", "Size of the state file as it was saved last.", now.state_bytes),
        ("state_restored_paths", "Paths known from before the start.", now.state_restored),
        ("config_last_reload_successful", "1 when the last load of it was good.", now.reload_successful),
        ("config_last_reload_success_timestamp_seconds", "When what is in force was loaded.", now.reload_time),
    ):
        family = gauge(name, text)
        family.add_metric((), float(value))
        yield family
    failures = counter("sample_failures", "Samples and decisions that failed.")
    failures.add_metric((), float(now.sample_failures))
    yield failures
    unsaved = counter("state_save_failures", "Times that what was learnt could not be saved.")
    unsaved.add_metric((), float(now.state_failures))
    yield unsaved
    yield InfoMetricFamily(
        f"{PREFIX}build",
        "Which tcptuned this is, on which kernel.",
        {"version": version("tcptuned"), "kernel": os.uname().release},
    )


SECTIONS: tuple[Callable[[Snapshot], Iterable[Metric]], ...] = (
    connections, traffic, round_trips, arms, experience, uplift, guard, chosen_values, decisions, kernel_side, reading,
    health,
)  # fmt: skip
