"""The dashboard of all hosts. Sums over hosts come from the recording rules of config/prometheus/rules.yml."""

from __future__ import annotations

from grafana.expressions import BY_HOST, EACH, TOGETHER, of, quotient, rate, recorded
from grafana.panels import Panel, Query, Row, graph, hosts_table, shares, value

__all__ = ["ROWS"]

RTT = f"sum by (le) ({recorded('group_le:tcptuned_rtt_seconds_bucket:rate5m')})"
HOST = (
    "/d/tcptuned-host?var-instance=${__data.fields.Host}&${job:queryparam}&${datasource:queryparam}&${__url_time_range}"
)


def _by_group(above: str, below: str) -> Query:
    return Query(quotient(recorded(above), recorded(below), "group"), "{{group}}")


def _chosen(title: str, dimension: str, what: str) -> Panel:
    paths = recorded("group_dimension_arm:tcptuned_arm_paths:sum", f'dimension="{dimension}"')
    return shares(
        title,
        f"Paths by the {what} held to be the best for them, over all hosts. `default` is the kernel's own.",
        "short",
        Query(f"sum by (arm) ({paths})", "{{arm}}"),
    )


def _saved(bound: str, legend: str) -> Query:
    rule = recorded(f"group_dimension:tcptuned_uplift{bound}_ratio:avg", TOGETHER)
    return Query(f"avg by (group) ({rule})", legend)


EFFECT = Row("Effect", (
    graph(
        "Time saved",
        "Share of the transfer time that treatment saves against the holdout, with the bounds of the 95 % interval: "
        "the mean of the hosts, each weighing as much as it has transfers.",
        "percentunit",
        _saved("", "{{group}}"),
        _saved("_lower", "{{group}}, at least"),
        _saved("_upper", "{{group}}, at most"),
        width=12,
    ),
    graph(
        "Time saved by dimension",
        "Share of the transfer time that each dimension's other arms save against its default among the treated.",
        "percentunit",
        Query(
            f"avg by (group, dimension) ({recorded('group_dimension:tcptuned_uplift_ratio:avg', EACH)})",
            "{{group}} {{dimension}}",
        ),
        width=12,
    ),
    graph(
        "Round-trip time",
        "Round trips of data segments on all hosts: the half that is faster and the slowest twentieth begins here.",
        "s",
        *(Query(f"histogram_quantile({share}, {RTT})", name) for share, name in ((0.5, "median"), (0.95, "95 %"))),
    ),
    graph(
        "Retransmitted segments",
        "Share of the data segments sent that were retransmissions.",
        "percentunit",
        _by_group("group:tcptuned_retransmitted_segments:rate5m", "group:tcptuned_sent_segments:rate5m"),
    ),
    graph(
        "Lost from first windows",
        "Share of the segments of first windows that were lost: RFC 9040's sign of too large an initial window.",
        "percentunit",
        _by_group("group:tcptuned_first_window_losses:rate5m", "group:tcptuned_first_window_segments:rate5m"),
    ),
    shares(
        "Connections by treatment",
        "New connections a second. The holdout is left at the kernel's defaults for comparison; observed ones had "
        "nothing applied: a dry run, or a lapsed lease.",
        "cps",
        *(
            Query(f"sum ({recorded(f'group:tcptuned_connections_{treatment}:rate5m')})", treatment)
            for treatment in ("treated", "holdout", "observed")
        ),
    ),
    graph(
        "Connections by side",
        "Connections opened a second, by who opened them: active are the hosts themselves.",
        "cps",
        Query(f"sum by (side) ({recorded('group_side:tcptuned_connections_opened:rate5m')})", "{{side}}"),
    ),
    graph(
        "Traffic",
        "Data sent and acknowledged, and data received in order.",
        "Bps",
        Query(f"sum ({recorded('group:tcptuned_sent_bytes:rate5m')})", "sent"),
        Query(f"sum ({recorded('group:tcptuned_received_bytes:rate5m')})", "received"),
    ),
))  # fmt: skip

DECISIONS = Row("Decisions", (
    _chosen("Initial windows", "initial_window", "initial window"),
    _chosen("Congestion controls", "congestion", "congestion control"),
    _chosen("ACK policies", "ack", "ACK policy"),
    graph(
        "Transfers by arm",
        "Transfers a second longer than the default first window, by the arm that was drawn.",
        "cps",
        Query(
            f"sum by (dimension, arm) ({recorded('group_dimension_arm:tcptuned_transfers:rate5m')})",
            "{{dimension}} {{arm}}",
        ),
    ),
    graph(
        "Time of a megabyte by arm",
        "What the traffic of an arm got in the last hour. Arms run on unlike paths, so this does not tell which arm is "
        "better on a path.",
        "s",
        Query(
            "1e6 * "
            + quotient(
                recorded("group_dimension_arm:tcptuned_transfer_seconds:increase1h"),
                recorded("group_dimension_arm:tcptuned_transfer_bytes:increase1h"),
                "dimension",
                "arm",
            ),
            "{{dimension}} {{arm}}",
        ),
    ),
    graph(
        "What hosts teach each other",
        "How much better an arm does within a path than what it is compared with, as log2 (1 is twice as good): the "
        "mean of the hosts. Agents with `fleet.prometheus_url` begin with it.",
        "short",
        Query(
            quotient(
                recorded("group_dimension_arm:tcptuned_arm_gain:weighted_sum"),
                recorded("group_dimension_arm:tcptuned_arm_gain_precision:sum"),
                "group", "dimension", "arm", "against",
            ),
            "{{group}} {{dimension}} {{arm}} against {{against}}",
        ),
    ),
    graph(
        "Paths in quarantine",
        "Share of the paths that the guards keep at the kernel's defaults for a while.",
        "percentunit",
        _by_group("group:tcptuned_paths_quarantined:sum", "group:tcptuned_paths:sum"),
    ),
    graph(
        "Changes of mind",
        "Changes a second of the arm held to be the best on a path. Up is away from the kernel's default.",
        "cps",
        Query(
            f"sum by (controller, action) ({recorded('controller_action:tcptuned_decisions:rate5m')})",
            "{{controller}} {{action}}",
        ),
    ),
))  # fmt: skip

HEALTH = Row("Agents' health", (
    value("Agents", "Agents that Prometheus knows.", "short", Query(f"count ({of('up')})", "")),
    value(
        "Not answering",
        "Agents that Prometheus gets no answer from.",
        "short",
        Query(f"count ({of('up')}) - sum ({of('up')})", ""),
        bad_from=1,
    ),
    value(
        "Slower",
        "Agents with a group whose treated transfers are slower than the holdout's with 95 % confidence.",
        "short",
        Query(f"sum (min by (job, instance) ({of('tcptuned_uplift_upper_ratio', TOGETHER)}) < bool 0)", ""),
        bad_from=1,
    ),
    value(
        "Stopped by the guard",
        "Agents that apply nothing for a while because all their paths together were worse than the holdout.",
        "short",
        Query(f"sum ({of('tcptuned_guard_off')})", ""),
        bad_from=1,
    ),
    value(
        "Detached",
        "Agents whose programs were detached from outside.",
        "short",
        Query(f"sum ({of('tcptuned_attached_cgroups')} == bool 0)", ""),
        bad_from=1,
    ),
    value(
        "Not saving",
        "Agents that did not save what they learnt for half an hour.",
        "short",
        Query(f"sum (time() - {of('tcptuned_state_last_save_timestamp_seconds')} > bool 1800)", ""),
        bad_from=1,
    ),
    value("Dry runs", "Agents that apply nothing.", "short", Query(f"sum ({of('tcptuned_dry_run')})", "")),
    value(
        "Bad configurations",
        "Agents that refused the last load of their configuration.",
        "short",
        Query(f"sum ({of('tcptuned_config_last_reload_successful')} == bool 0)", ""),
        bad_from=1,
    ),
    value(
        "Oldest reading",
        "How long ago the slowest agent read its kernel's statistics.",
        "s",
        Query(f"time() - min ({of('tcptuned_last_sample_timestamp_seconds')})", ""),
        bad_from=180,
    ),
    shares(
        "Versions",
        "Agents by version of tcptuned and kernel.",
        "short",
        Query(f"count by (version, kernel) ({of('tcptuned_build_info')})", "{{version}} on {{kernel}}"),
    ),
    graph(
        "Failures",
        "Failures a second of readings, of controllers and of parts of scrapes, on all hosts.",
        "cps",
        Query(f"sum ({rate('tcptuned_sample_failures_total')})", "readings and decisions"),
        Query(f"sum ({rate('tcptuned_controller_failures_total')})", "controllers"),
        Query(f"sum ({rate('tcptuned_exporter_failures_total')})", "parts of scrapes"),
    ),
    graph(
        "Paths",
        "Remote networks with evidence, over all hosts.",
        "short",
        Query(f"sum by (group) ({recorded('group:tcptuned_paths:sum')})", "{{group}}"),
    ),
    hosts_table(
        "Hosts",
        "Now. A click on a host opens its dashboard.",
        "short",
        {
            "Time saved": (f"avg by (job, instance) ({of('tcptuned_uplift_ratio', TOGETHER)})", "percentunit"),
            "Connections a second": (f"{BY_HOST} ({rate('tcptuned_connections_opened_total')})", "cps"),
            "Paths": (f"{BY_HOST} ({of('tcptuned_paths')})", "short"),
            "Last reading": (f"time() - min by (job, instance) ({of('tcptuned_last_sample_timestamp_seconds')})", "s"),
            "Failures a second": (f"{BY_HOST} ({rate('tcptuned_sample_failures_total')})", "cps"),
            "Processor": (f"{BY_HOST} ({rate('process_cpu_seconds_total')})", "percentunit"),
            "Memory": (f"{BY_HOST} ({of('process_resident_memory_bytes')})", "bytes"),
        },
        link=HOST,
    ),
))  # fmt: skip

ROWS = (EFFECT, DECISIONS, HEALTH)
