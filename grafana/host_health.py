"""A host's third row: how the agent itself is."""

from __future__ import annotations

from grafana.expressions import BY_HOST, of, rate
from grafana.panels import Query, Row, graph, value

__all__ = ["HEALTH"]

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
    value(
        "Last save",
        "How long ago what was learnt was saved; it is every 20 s, or less often where there is much.",
        "s",
        Query(f"time() - min ({of('tcptuned_state_last_save_timestamp_seconds')})", ""),
        bad_from=1800,
    ),
    value(
        "Remembered paths",
        "Paths that the agent knew from before its start.",
        "short",
        Query(f"sum ({of('tcptuned_state_restored_paths')})", ""),
    ),
    value(
        "Stopped by the guard",
        "Yes: all paths together were worse than the holdout, so nothing is applied for a while.",
        "bool_yes_no",
        Query(f"max ({of('tcptuned_guard_off')})", ""),
        bad_from=1,
    ),
    value(
        "Administrator's choice",
        "Yes: somebody changed the host's congestion control, so no other is tried until a reload.",
        "bool_yes_no",
        Query(f"max ({of('tcptuned_administrator_override')})", ""),
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
        "Failures a second of readings, of saving, of controllers, of parts of scrapes, and of the kernel to set an "
        "option. The log says why.",
        "cps",
        Query(f"sum ({rate('tcptuned_sample_failures_total')})", "readings and decisions"),
        Query(f"sum ({rate('tcptuned_state_save_failures_total')})", "saving"),
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
        "Sockets older than the agent",
        "Since its start: sockets that the agent took over, those it left alone, by reason, and 1 for what keeps it "
        "from taking over any.",
        "short",
        Query(f"sum by (kind) ({of('tcptuned_sockets_adopted_total')})", "{{kind}}"),
        Query(f"sum by (reason) ({of('tcptuned_sockets_unadopted_total')})", "left alone: {{reason}}"),
        Query(f"max by (reason) ({of('tcptuned_adoption_obstacle')})", "not possible: {{reason}}"),
    ),
    graph(
        "Other hosts' experience",
        "Questions a second to Prometheus about it, those without an answer that can be used, by reason, and arms of "
        "groups that begin with it (fleet.prometheus_url).",
        "short",
        Query(f"sum ({rate('tcptuned_fleet_reads_total')})", "questions"),
        Query(f"sum by (reason) ({rate('tcptuned_fleet_read_failures_total')})", "{{reason}}"),
        Query(f"sum ({of('tcptuned_fleet_arms')})", "arms"),
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
