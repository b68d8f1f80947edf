"""A host's second row: what was decided."""

from __future__ import annotations

from grafana.expressions import of, quotient, rate
from grafana.panels import Panel, Query, Row, graph, shares

__all__ = ["DECISIONS"]


def _chosen(title: str, dimension: str, what: str) -> Panel:
    paths = of("tcptuned_arm_paths", f'dimension="{dimension}"')
    return shares(
        title,
        f"Paths by the {what} held to be the best for them. `default` is the kernel's own.",
        "short",
        Query(f"sum by (arm) ({paths})", "{{arm}}"),
    )


DECISIONS = Row("Decisions", (
    _chosen("Initial windows", "initial_window", "initial window"),
    shares(
        "Congestion controls",
        "Paths by the congestion control held to be the best for them.",
        "short",
        Query(f"sum by (congestion_control) ({of('tcptuned_congestion_control_selected')})", "{{congestion_control}}"),
    ),
    _chosen("ACK policies", "ack", "ACK policy"),
    graph(
        "Mean initial window",
        "Segments, the mean over the paths of a group.",
        "short",
        Query(f"avg by (group) ({of('tcptuned_initial_window_segments')})", "{{group}}"),
    ),
    graph(
        "Changes of mind",
        "Changes a second of the arm held to be the best on a path. Up is away from the kernel's default.",
        "cps",
        Query(f"sum by (controller, action) ({rate('tcptuned_decisions_total')})", "{{controller}} {{action}}"),
    ),
    graph(
        "Gain by arm",
        "How much better an arm does within a path than what it is compared with, as log2 (1 is twice as good). What "
        "other hosts told is not in it.",
        "short",
        Query(
            f"avg by (group, dimension, arm, against) ({of('tcptuned_arm_gain')})",
            "{{group}} {{dimension}} {{arm}} against {{against}}",
        ),
    ),
    graph(
        "Guard",
        "Paths put back to the kernel's defaults a second, because their treated transfers were worse than the "
        "holdout's.",
        "cps",
        Query(f"sum by (group) ({rate('tcptuned_guard_trips_total')})", "{{group}}"),
    ),
    graph(
        "Paths in quarantine",
        "Share of the paths that the guard keeps at the kernel's defaults for a while.",
        "percentunit",
        Query(quotient(of("tcptuned_paths_quarantined"), of("tcptuned_paths"), "group"), "{{group}}"),
    ),
    graph(
        "Paths",
        "Remote networks with evidence.",
        "short",
        Query(f"sum by (group) ({of('tcptuned_paths')})", "{{group}}"),
    ),
    graph(
        "Transfers by arm",
        "Transfers a second longer than the default first window, by the arm that was drawn. Arms under "
        "trial have some, too.",
        "cps",
        Query(f"sum by (dimension, arm) ({rate('tcptuned_transfers_total')})", "{{dimension}} {{arm}}"),
    ),
    graph(
        "Time of a megabyte by arm",
        "What the traffic of an arm got. Arms run on unlike paths, so this does not tell which arm is better on a "
        "path; `tcptuned explain ADDRESS` does.",
        "s",
        Query(
            "1e6 * "
            + quotient(
                rate("tcptuned_transfer_seconds_total"), rate("tcptuned_transfer_bytes_total"), "dimension", "arm"
            ),
            "{{dimension}} {{arm}}",
        ),
    ),
    graph(
        "ACKs sent",
        "Segments without data for each segment with data received, the thinned ones included.",
        "none",
        Query(
            quotient(rate("tcptuned_pure_acks_sent_total"), rate("tcptuned_received_segments_total"), "group"),
            "{{group}}",
        ),
    ),
    graph(
        "ACKs thinned",
        "Share of the segments without data that were dropped on their way out, because a later one says the same.",
        "percentunit",
        Query(
            quotient(rate("tcptuned_acks_thinned_total"), rate("tcptuned_pure_acks_sent_total"), "group"), "{{group}}"
        ),
    ),
    graph(
        "Not compared",
        "Connections a second that tell nothing about the arms of a dimension: a peer's request was granted, the "
        "application chose for itself, or setting failed.",
        "cps",
        Query(f"sum by (dimension) ({rate('tcptuned_connections_out_of_comparison_total')})", "{{dimension}}"),
    ),
    graph(
        "Left alone",
        "Connections a second on which nothing was set, or one dimension was left alone, by reason.",
        "cps",
        Query(f"sum by (reason) ({rate('tcptuned_connections_untouched_total')})", "{{reason}}"),
    ),
    graph(
        "TCP options",
        "Options a second that were sent to peers, understood from peers, and granted.",
        "cps",
        *(
            Query(f"sum by (extension) ({rate(f'tcptuned_extension_{outcome}_total')})", f"{{{{extension}}}} {outcome}")
            for outcome in ("sent", "received", "granted")
        ),
    ),
    graph(
        "TCP options without effect",
        "Peers' options a second that changed nothing, by reason, own ones that a segment had no room for, and SYNs "
        "that the kernel kept nothing of.",
        "cps",
        Query(
            f"sum by (extension, reason) ({rate('tcptuned_extension_rejected_total')})", "{{extension}} {{reason}}"
        ),
        Query(f"sum by (extension) ({rate('tcptuned_extension_no_room_total')})", "{{extension}} no room"),
        Query(f"sum({rate('tcptuned_syns_not_kept_total')})", "SYN not kept"),
    ),
))  # fmt: skip
