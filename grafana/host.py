"""The dashboard of a host, or of several hosts added up."""

from __future__ import annotations

from grafana.expressions import BY_HOST, of, quotient, rate
from grafana.panels import Panel, Query, Row, graph, shares, value

__all__ = ["ROWS"]

RTT = f"sum by (le) ({rate('tcptuned_rtt_seconds_bucket')})"


def _by_group(above: str, below: str) -> Query:
    return Query(quotient(rate(above), rate(below), "group"), "{{group}}")


def _chosen(title: str, dimension: str, what: str) -> Panel:
    paths = of("tcptuned_arm_paths", f'dimension="{dimension}"')
    return shares(
        title,
        f"Paths by the {what} held to be the best for them. `default` is the kernel's own.",
        "short",
        Query(f"sum by (arm) ({paths})", "{{arm}}"),
    )


EFFECT = Row("Effect", (
    graph(
        "Round-trip time",
        "Round trips of data segments: the half that is faster and the slowest twentieth begins here.",
        "s",
        *(Query(f"histogram_quantile({share}, {RTT})", name) for share, name in ((0.5, "median"), (0.95, "95 %"))),
    ),
    graph(
        "Round-trip time over its least",
        "Mean round-trip time as a multiple of the least that the connection had seen: how much of it is queueing.",
        "none",
        _by_group("tcptuned_round_seconds_total", "tcptuned_round_base_seconds_total"),
    ),
    graph(
        "Speed while transferring",
        "Bytes sent by the time that connections spent transferring; pauses are not counted.",
        "Bps",
        _by_group("tcptuned_sent_bytes_total", "tcptuned_busy_seconds_total"),
    ),
    graph(
        "Retransmitted segments",
        "Share of the data segments sent that were retransmissions.",
        "percentunit",
        _by_group("tcptuned_retransmitted_segments_total", "tcptuned_sent_segments_total"),
    ),
    graph(
        "Lost from first windows",
        "Share of the segments of first windows that were lost: RFC 9040's sign of too large an initial window.",
        "percentunit",
        _by_group("tcptuned_first_window_losses_total", "tcptuned_first_window_segments_total"),
    ),
    graph(
        "Retransmission timeouts",
        "Timeouts a second: the costliest way to lose a segment.",
        "cps",
        Query(f"sum by (group) ({rate('tcptuned_retransmission_timeouts_total')})", "{{group}}"),
    ),
    shares(
        "Connections by treatment",
        "New connections a second. The holdout is left at the kernel's defaults for comparison; observed ones had "
        "nothing applied: a dry run, or a lapsed lease.",
        "cps",
        *(
            Query(f"sum ({rate(f'tcptuned_connections_{treatment}_total')})", treatment)
            for treatment in ("treated", "holdout", "observed")
        ),
    ),
    graph(
        "Connections by side",
        "Connections opened a second, by who opened them: active is this host.",
        "cps",
        Query(f"sum by (side) ({rate('tcptuned_connections_opened_total')})", "{{side}}"),
    ),
    graph(
        "Traffic",
        "Data sent and acknowledged, and data received in order.",
        "Bps",
        Query(f"sum ({rate('tcptuned_sent_bytes_total')})", "sent"),
        Query(f"sum ({rate('tcptuned_received_bytes_total')})", "received"),
    ),
))  # fmt: skip

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
        "Segments without data sent for each segment with data received: what the ACK policy changes.",
        "none",
        _by_group("tcptuned_pure_acks_sent_total", "tcptuned_received_segments_total"),
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
        "Peers' options a second that changed nothing, by reason, and own ones that a segment had no room for.",
        "cps",
        Query(
            f"sum by (extension, reason) ({rate('tcptuned_extension_rejected_total')})", "{{extension}} {{reason}}"
        ),
        Query(f"sum by (extension) ({rate('tcptuned_extension_no_room_total')})", "{{extension}} no room"),
    ),
))  # fmt: skip

HEALTH = Row("Agent's health", (
    value("Answering", "Yes: Prometheus gets answers.", "bool_yes_no", Query(f"min ({of('up')})", ""), good_from=1),
    value(
        "Cgroups",
        "Cgroups whose connections are tuned; 0: the programs were detached from outside.",
        "short",
        Query(f"sum ({of('tcptuned_attached_cgroups')})", ""),
        good_from=1,
    ),
    value(
        "Last reading",
        "How long ago the kernel's statistics were read.",
        "s",
        Query(f"time() - min ({of('tcptuned_last_sample_timestamp_seconds')})", ""),
        bad_from=180,
    ),
    value("Dry run", "Yes: nothing is applied.", "bool_yes_no", Query(f"max ({of('tcptuned_dry_run')})", "")),
    value(
        "Configuration",
        "Yes: the last load of it was good.",
        "bool_yes_no",
        Query(f"min ({of('tcptuned_config_last_reload_successful')})", ""),
        good_from=1,
    ),
    value(
        "Age of the configuration",
        "How long ago what is in force was loaded.",
        "s",
        Query(f"time() - min ({of('tcptuned_config_last_reload_success_timestamp_seconds')})", ""),
    ),
    graph(
        "Time of the jobs",
        "How long the last reading of the statistics and the last decisions took. Both have to stay well below their "
        "intervals.",
        "s",
        Query(f"max ({of('tcptuned_sample_duration_seconds')})", "reading"),
        Query(f"max ({of('tcptuned_decision_duration_seconds')})", "deciding"),
    ),
    graph(
        "Failures",
        "Failures a second of readings, of controllers, of parts of scrapes, and of the kernel to set an option. The "
        "log says why.",
        "cps",
        Query(f"sum ({rate('tcptuned_sample_failures_total')})", "readings and decisions"),
        Query(f"sum by (controller) ({rate('tcptuned_controller_failures_total')})", "{{controller}}"),
        Query(f"sum ({rate('tcptuned_exporter_failures_total')})", "parts of scrapes"),
        Query(f"sum by (option) ({rate('tcptuned_option_set_failures_total')})", "setting {{option}}"),
    ),
    graph(
        "Options set",
        "Socket options set on connections a second.",
        "cps",
        Query(f"sum by (option) ({rate('tcptuned_option_sets_total')})", "{{option}}"),
    ),
    graph(
        "Room in the kernel's tables",
        "Share of the entries in use. Rows that find no room are lost.",
        "percentunit",
        Query(
            f"max by (map) ({of('tcptuned_bpf_map_entries')} / {of('tcptuned_bpf_map_capacity_entries')})", "{{map}}"
        ),
    ),
    graph(
        "Statistics lost",
        "Rows a second that found no room (raise sampling.rows), and connections for which the kernel had no memory.",
        "cps",
        Query(f"sum ({rate('tcptuned_rows_lost_total')})", "rows"),
        Query(f"sum ({rate('tcptuned_connections_unmeasured_total')})", "connections"),
    ),
    graph(
        "Programs attached",
        "Cgroup programs of the agent that are attached.",
        "short",
        Query(f"sum by (program) ({of('tcptuned_bpf_program_attached')})", "{{program}}"),
    ),
    graph(
        "Processor",
        "Share of a core that the agent takes, and its programs in the kernel; these are counted while the sysctl "
        "kernel.bpf_stats_enabled is 1.",
        "percentunit",
        Query(f"{BY_HOST} ({rate('process_cpu_seconds_total')})", "agent {{instance}}"),
        Query(f"{BY_HOST} ({rate('tcptuned_bpf_program_run_seconds_total')})", "kernel {{instance}}"),
    ),
    graph(
        "Runs of the programs",
        "Callbacks a second, counted while the sysctl kernel.bpf_stats_enabled is 1.",
        "cps",
        Query(f"sum by (program) ({rate('tcptuned_bpf_program_runs_total')})", "{{program}}"),
    ),
    graph(
        "Memory",
        "Resident memory of the agent.",
        "bytes",
        Query(f"{BY_HOST} ({of('process_resident_memory_bytes')})", "{{instance}}"),
    ),
))  # fmt: skip

ROWS = (EFFECT, DECISIONS, HEALTH)
