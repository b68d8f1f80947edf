"""The metrics of the kernel side: what was applied and left alone, TCP options, older sockets, maps and programs."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.metrics_core import Metric

from agent.adoption import OBSTACLES
from agent.dimensions import ACK, CONGESTION, DIMENSIONS, INITIAL_WINDOW
from agent.families import counter, gauge
from agent.snapshot import Snapshot

__all__ = ["kernel_side"]

OPTIONS = {INITIAL_WINDOW: "initial_window", CONGESTION: "congestion_control", ACK: "ack_policy"}
PACING = "pacing_rate"

def kernel_side(snapshot: Snapshot) -> Iterator[Metric]:
    """What the BPF programs set, left alone and lost, and what they cost."""
    sets = counter("option_sets", "Socket options set on connections.", ("option",))
    failures = counter("option_set_failures", "Socket options that the kernel refused.", ("option",))
    for dimension in DIMENSIONS:
        sets.add_metric((OPTIONS[dimension],), float(snapshot.counters[f"set_{dimension}"]))
        failures.add_metric((OPTIONS[dimension],), float(snapshot.counters[f"failed_{dimension}"]))
    sets.add_metric((PACING,), float(snapshot.counters["set_rate"]))
    failures.add_metric((PACING,), float(snapshot.counters["failed_rate"]))
    yield sets
    yield failures

    untouched = counter(
        "connections_untouched",
        "Connections on which nothing was set, or one dimension was left alone, and why (lease_lapsed: or a dry run).",
        ("reason",),
    )
    for name, count in snapshot.counters.items():
        if name.startswith("left_"):
            untouched.add_metric((name.removeprefix("left_"),), float(count))
    yield untouched
    apart = counter(
        "connections_out_of_comparison",
        "Connections not compared in the dimension: a request was granted, the application chose, or setting failed.",
        ("dimension",),
    )
    for dimension, count in zip(snapshot.dimensions, snapshot.out_of_comparison, strict=True):
        apart.add_metric((dimension,), float(count))
    yield apart

    yield from extensions(snapshot)
    yield from adoption(snapshot)
    rows = counter("rows_lost", "Statistics not kept because the table of rows was full (sampling.rows).")
    rows.add_metric((), float(snapshot.counters["lost_rows_full"]))
    yield rows
    unmeasured = counter("connections_unmeasured", "Connections left alone because the kernel had no memory for them.")
    unmeasured.add_metric((), float(snapshot.counters["lost_no_storage"]))
    yield unmeasured

    entries = gauge("bpf_map_entries", "Entries in use; of rows: those of the last sample.", ("map",))
    capacity = gauge("bpf_map_capacity_entries", "Entries that the map has room for.", ("map",))
    for name, (used, room) in snapshot.map_entries.items():
        entries.add_metric((name,), float(used))
        capacity.add_metric((name,), float(room))
    yield entries
    yield capacity

    attached = gauge("bpf_program_attached", "1 while the program is attached to a cgroup.", ("program",))
    hint = "counted while the sysctl kernel.bpf_stats_enabled is 1"
    runs = counter("bpf_program_runs", f"Runs of the program; {hint}.", ("program",))
    seconds = counter("bpf_program_run_seconds", f"Time the program ran; {hint}.", ("program",))
    for program, (count, nanoseconds) in snapshot.programs.items():
        attached.add_metric((program,), float(program in snapshot.linked))
        runs.add_metric((program,), float(count))
        seconds.add_metric((program,), nanoseconds / 1e9)
    yield attached
    yield runs
    yield seconds


def extensions(snapshot: Snapshot) -> Iterator[Metric]:
    """The TCP options: what was sent, heard, granted, and refused for which reason."""
    texts = {
        "sent": "Options written into segments.",
        "no_room": "Options left out because the segment had no room for them.",
        "received": "Options of peers that were understood.",
        "granted": "Requests of peers that were granted, and user timeouts set.",
    }
    for outcome, text in texts.items():
        metric = counter(f"extension_{outcome}", text, ("extension",))
        for (extension, happened), count in snapshot.extensions.items():
            if happened == outcome:
                metric.add_metric((extension,), float(count))
        yield metric
    unkept = counter(
        "syns_not_kept",
        "Connections whose SYN the kernel had not kept, so that requests in it were not seen: SYN cookies, a listener "
        "older than the agent, or a simultaneous open. Counted while options are configured.",
    )
    unkept.add_metric((), float(snapshot.counters["syn_not_kept"]))
    yield unkept
    rejected = counter("extension_rejected", "Options of peers that changed nothing.", ("extension", "reason"))
    for (extension, happened), count in snapshot.extensions.items():
        if happened.startswith("refused_"):
            rejected.add_metric((extension, happened.removeprefix("refused_")), float(count))
    yield rejected


def adoption(snapshot: Snapshot) -> Iterator[Metric]:
    """Sockets older than the agent."""
    adopted = counter("sockets_adopted", "Sockets older than the agent that it took over.", ("kind",))
    for kind in ("listener", "connection"):
        adopted.add_metric((kind,), float(snapshot.counters[f"adopted_{kind}"]))
    yield adopted
    left = counter("sockets_unadopted", "Sockets older than the agent that it left alone.", ("reason",))
    for reason in ("other_cgroup", "loopback"):
        left.add_metric((reason,), float(snapshot.sockets_left.get(reason, 0)))
    for name, count in snapshot.counters.items():
        if name.startswith("unadopted_"):
            left.add_metric((name.removeprefix("unadopted_"),), float(count))
    yield left
    obstacles = gauge("adoption_obstacle", "1 for what keeps sockets older than the agent from it.", ("reason",))
    for reason in OBSTACLES:
        obstacles.add_metric((reason,), float(reason == snapshot.adoption_obstacle))
    yield obstacles
