"""A host's first row: what treatment does to transfers."""

from __future__ import annotations

from grafana.expressions import EACH, TOGETHER, of, quotient, rate
from grafana.panels import Query, Row, graph, shares

__all__ = ["EFFECT"]

RTT = f"sum by (le) ({rate('tcptuned_rtt_seconds_bucket')})"


def _by_group(above: str, below: str) -> Query:
    return Query(quotient(rate(above), rate(below), "group"), "{{group}}")


def _saved(bound: str, legend: str) -> Query:
    return Query(f"avg by (group) ({of(f'tcptuned_uplift{bound}_ratio', TOGETHER)})", legend)


EFFECT = Row("Effect", (
    graph(
        "Time saved",
        "Share of the transfer time that treatment saves against the holdout, compared path by path, with the bounds "
        "of the 95 % interval. Below zero: treatment makes transfers slower.",
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
        Query(f"avg by (group, dimension) ({of('tcptuned_uplift_ratio', EACH)})", "{{group}} {{dimension}}"),
        width=12,
    ),
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
