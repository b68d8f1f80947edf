"""The metrics, read back through the registry and by Prometheus' own parsers."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from dataclasses import replace

import numpy as np
import pytest
from handmade import CONFIG, absorb, still_tuner
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse

from agent.bpf_source import constants, counter_names
from agent.config import Config
from agent.exporter import registry
from agent.snapshot import Health, Snapshot, take
from agent.totals import ROW_FIELDS
from controllers.fleet import Experience
from controllers.uplift import Uplift


def _value(found: CollectorRegistry, name: str, **labels: str) -> float | None:
    return found.get_sample_value(f"tcptuned_{name}", labels)


@pytest.fixture
def quiet() -> Snapshot:
    """Nothing happened yet; groups default and cdn."""
    return take(still_tuner(CONFIG), Health())


@pytest.fixture
def busy(quiet: Snapshot) -> Snapshot:
    """Every number is another one, so that no metric can show the wrong field."""
    rows = np.arange(quiet.rows.size, dtype=np.float64).reshape(quiet.rows.shape) * 7 + 1000
    slots = np.arange(1, constants()["RTT_SLOTS"] + 1, dtype=np.uint64)
    # Which algorithms there are is this host's affair; the test has its own.
    arms = (quiet.arms[0], ("default", "cubic", "bbr"), quiet.arms[2])
    known = tuple(
        Experience(*(np.arange(2.0 * len(names)).reshape(2, -1) + part for part in (0.125, 0.25, 0.375, 0.5)))
        for names in arms
    )
    known[2].precision[1] = 0
    chosen = [np.zeros((2, len(names)), np.int64) for names in arms]
    chosen[0][0, 0], chosen[0][0, 3] = 1, 2  # default, and iw28 on two paths
    chosen[1][1, 2] = 5
    return replace(
        quiet,
        rows=rows,
        connections=np.array([[3.0, 5.0, 7.0], [11.0, 13.0, 17.0]]),
        rtt=((slots, 1_500_000), (slots * 0, 0)),
        arms=arms,
        experience=known,
        against=("default", "reno", "default"),
        values=(quiet.values[0], (0, 0, 0), quiet.values[2]),
        compared=np.arange(12.0).reshape(2, 2, 3) + 0.25,
        uplifts={
            "all": Uplift(np.array([0.25, np.nan]), np.array([-0.5, np.nan]), np.array([0.5, np.nan])),
            "ack": Uplift(np.array([np.nan, -0.125]), np.array([np.nan, -1.0]), np.array([np.nan, 0.0625])),
        },
        chosen=tuple(chosen),
        transfers=tuple(np.arange(6.0 * len(names)).reshape(2, -1, 3) + 0.5 for names in arms),
        paths_by_group=np.array([3, 5]),
        host_congestion="reno",
        counters={name: 101 + number for number, name in enumerate(counter_names())},
        programs={"tcptuned_ops": (19, 2_500_000_000)},
        map_entries={"rows": (23, 29)},
        decisions={("initial_window", "up"): 31},
        controller_failures={"congestion": 37},
        health=Health(
            last_sample=1e9 + 0.5, sample_seconds=0.25, decide_seconds=0.5, sample_failures=41,
            reload_successful=False, reload_time=1e9 + 0.25,
        ),
    )  # fmt: skip


def test_sums_by_group_and_side(busy: Snapshot) -> None:
    found = registry(lambda: busy)
    opened = ROW_FIELDS.index("opened")
    for number, group in enumerate(("default", "cdn")):
        for position, side in enumerate(("active", "passive")):
            shown = _value(found, "connections_opened_total", group=group, side=side)
            assert shown == busy.rows[number, position, opened]
    for name, field, unit in (
        ("sent_bytes", "sent_bytes", 1), ("received_bytes", "received_bytes", 1), ("sent_segments", "sent_segments", 1),
        ("received_segments", "received_segments", 1), ("retransmitted_segments", "retransmitted_segments", 1),
        ("pure_acks_sent", "pure_acks", 1), ("retransmission_timeouts", "timeouts", 1),
        ("first_windows", "first_windows", 1), ("round_base_seconds", "base_rtt_us", 1e-6),
        ("first_window_segments", "first_window_segments", 1), ("first_window_losses", "first_window_losses", 1),
        ("busy_seconds", "busy_us", 1e-6), ("round_seconds", "rtt_us", 1e-6),
    ):  # fmt: skip
        expected = busy.rows[1, :, ROW_FIELDS.index(field)].sum() * unit
        assert _value(found, f"{name}_total", group="cdn") == expected


def test_no_field_of_the_rows_and_no_counter_is_forgotten(busy: Snapshot) -> None:
    values = {sample.value for family in registry(lambda: busy).collect() for sample in family.samples}
    for number, name in enumerate(ROW_FIELDS):
        sides = busy.rows[0, :, number]
        assert {float(sides.sum()), float(sides.sum() * 1e-6), float(sides[0])} & values, name
    for name, count in busy.counters.items():
        assert float(count) in values, name


def test_treatments_are_metrics_of_their_own(busy: Snapshot) -> None:
    found = registry(lambda: busy)
    assert [_value(found, f"connections_{name}_total", group="cdn") for name in ("observed", "holdout", "treated")] == [
        11, 13, 17,
    ]  # fmt: skip


def test_histogram_is_cumulative_and_exact(busy: Snapshot) -> None:
    found = registry(lambda: busy)
    last = constants()["RTT_SLOTS"]
    assert _value(found, "rtt_seconds_bucket", group="default", le="6.4e-05") == 1
    assert _value(found, "rtt_seconds_bucket", group="default", le="0.000128") == 1 + 2
    assert _value(found, "rtt_seconds_bucket", group="default", le="8.388608") == sum(range(last))
    assert _value(found, "rtt_seconds_bucket", group="default", le="+Inf") == sum(range(last + 1))
    assert _value(found, "rtt_seconds_count", group="default") == sum(range(last + 1))
    assert _value(found, "rtt_seconds_sum", group="default") == 1.5
    assert _value(found, "rtt_seconds_sum", group="cdn") == 0


@pytest.mark.parametrize("microseconds", [1, 64, 65, 128, 129, 4_194_304, 8_388_608, 8_388_609, 10**8])
def test_a_sample_is_in_the_bucket_whose_bound_is_not_below_it(quiet: Snapshot, microseconds: int) -> None:
    first, slots = constants()["RTT_FIRST_US"], constants()["RTT_SLOTS"]
    # bpf/observe.h, count_rtt
    slot = min(((microseconds - 1) // first).bit_length() if microseconds > first else 0, slots - 1)
    counts = np.zeros(slots, np.uint64)
    counts[slot] = 1
    filled = replace(quiet, rtt=((counts, microseconds),) * len(quiet.groups))
    bounds = [
        float(sample.labels["le"])
        for family in registry(lambda: filled).collect()
        for sample in family.samples
        if sample.name == "tcptuned_rtt_seconds_bucket" and sample.labels["group"] == "cdn" and sample.value == 1
    ]
    assert min(bounds) >= microseconds / 1e6
    assert min(bounds) / 2 < microseconds / 1e6 or min(bounds) in (64e-6, float("inf"))


def test_arms_and_choices(busy: Snapshot) -> None:
    found = registry(lambda: busy)
    for number, group in enumerate(("default", "cdn")):
        first = 3 * (number * len(busy.arms[0]) + busy.arms[0].index("iw14")) + 0.5
        for column, name in enumerate(("transfers", "transfer_bytes", "transfer_seconds")):
            shown = _value(found, f"{name}_total", group=group, dimension="initial_window", arm="iw14")
            assert shown == first + column
    assert _value(found, "paths", group="cdn") == 5
    assert _value(found, "arm_paths", group="default", dimension="initial_window", arm="iw28") == 2
    assert _value(found, "initial_window_segments", group="default") == (10 + 28 + 28) / 3
    # No path, no mean; the sums of paths are there all the same.
    assert _value(found, "initial_window_segments", group="cdn") is None
    assert _value(found, "congestion_control_selected", group="default", congestion_control="reno") == 0
    assert _value(found, "congestion_control_selected", group="cdn", congestion_control="bbr") == 5


def test_what_a_host_tells_others(busy: Snapshot) -> None:
    found = registry(lambda: busy)
    for name, part in (("gain", 0.125), ("gain_precision", 0.25), ("safe_paths", 0.375), ("unsafe_paths", 0.5)):
        labels = {"dimension": "congestion", "arm": "bbr", "against": "reno"}
        assert _value(found, f"arm_{name}", group="default", **labels) == 2 + part
        assert _value(found, f"arm_{name}", group="cdn", **labels) == 5 + part
        labels = {"dimension": "ack", "arm": "delay", "against": "default"}
        assert _value(found, f"arm_{name}", group="default", **labels) == 1 + part
        # Nothing is known, or nothing is compared.
        assert _value(found, f"arm_{name}", group="cdn", **labels) is None
        assert _value(found, f"arm_{name}", group="cdn", **labels | {"arm": "default"}) is None


def test_uplift_where_it_is_known(busy: Snapshot) -> None:
    found = registry(lambda: busy)
    for name, default, cdn in (("ratio", 0.25, -0.125), ("lower_ratio", -0.5, -1.0), ("upper_ratio", 0.5, 0.0625)):
        assert _value(found, f"uplift_{name}", group="default", dimension="all") == default
        assert _value(found, f"uplift_{name}", group="cdn", dimension="ack") == cdn
        assert _value(found, f"uplift_{name}", group="cdn", dimension="all") is None
        assert _value(found, f"uplift_{name}", group="default", dimension="congestion") is None


def test_prometheus_alone_can_compare_the_treated_with_the_holdout(busy: Snapshot) -> None:
    found = registry(lambda: busy)
    for column, name in enumerate(("transfers", "transfer_bytes", "transfer_seconds")):
        shown = [
            _value(found, f"{name}_total", group=group, dimension="all", arm=arm)
            for group in ("default", "cdn")
            for arm in ("holdout", "treated")
        ]
        assert shown == [column + 0.25, column + 3.25, column + 6.25, column + 9.25]


def test_decisions_kernel_side_and_health(busy: Snapshot) -> None:
    found = registry(lambda: busy)
    assert _value(found, "decisions_total", controller="initial_window_trial", action="up") == 31
    assert _value(found, "decisions_total", controller="initial_window_trial", action="down") == 0
    assert _value(found, "controller_failures_total", controller="congestion_thompson") == 37
    assert _value(found, "option_sets_total", option="ack_policy") == busy.counters["set_ack"]
    assert _value(found, "option_set_failures_total", option="congestion_control") == busy.counters["failed_congestion"]
    assert _value(found, "connections_untouched_total", reason="own_window") == busy.counters["left_own_window"]
    assert _value(found, "rows_lost_total") == busy.counters["lost_rows_full"]
    assert _value(found, "bpf_map_entries", map="rows") == 23
    assert _value(found, "bpf_map_capacity_entries", map="rows") == 29
    assert _value(found, "bpf_program_attached", program="tcptuned_ops") == 1
    assert _value(found, "bpf_program_runs_total", program="tcptuned_ops") == 19
    assert _value(found, "bpf_program_run_seconds_total", program="tcptuned_ops") == 2.5
    assert _value(found, "last_sample_timestamp_seconds") == 1e9 + 0.5
    assert _value(found, "sample_duration_seconds") == 0.25
    assert _value(found, "decision_duration_seconds") == 0.5
    assert _value(found, "sample_failures_total") == 41
    assert _value(found, "config_last_reload_successful") == 0
    assert _value(found, "config_last_reload_success_timestamp_seconds") == 1e9 + 0.25
    assert _value(found, "dry_run") == 0
    assert _value(found, "exporter_failures_total") == 0
    assert found.get_sample_value("process_resident_memory_bytes")


def test_detached_programs_are_shown_as_such(quiet: Snapshot) -> None:
    found = registry(lambda: replace(quiet, attached=(), linked=frozenset()))
    assert _value(found, "bpf_program_attached", program="tcptuned_ops") == 0
    assert _value(found, "attached_cgroups") == 0


def test_both_formats_parse_and_no_series_comes_twice(busy: Snapshot) -> None:
    found = registry(lambda: busy)
    plain = [sample for family in parse(generate_latest(found).decode()) for sample in family.samples]
    modern = [sample for family in parse_openmetrics(generate_openmetrics(found).decode()) for sample in family.samples]
    for samples in (plain, modern):
        series = [(sample.name, frozenset(sample.labels.items())) for sample in samples]
        assert len(series) == len(set(series))
    assert len(plain) == len(modern)


def test_names_and_labels_keep_to_the_conventions(busy: Snapshot) -> None:
    for family in registry(lambda: busy).collect():
        assert family.documentation
        if not family.name.startswith(("process_", "python_")):
            assert family.name.startswith("tcptuned_")
        for sample in family.samples:
            allowed = {"le"} if family.type == "histogram" else set()
            forbidden = {"type", "le", "quantile", "instance", "job", "region", "service", "result", "address", "path"}
            assert not (forbidden - allowed) & set(sample.labels), sample
            assert not sample.name.endswith("_created")
            for value in sample.labels.values():
                assert re.search(r"\d+\.\d+\.\d+\.\d+/|::", value) is None


@pytest.mark.long  # tests/prom has it with real connections
def test_few_series_and_quick_scrapes_with_5000_networks() -> None:
    """With the default configuration: at most 1,000 series, and a scrape takes at most 30 ms at the 99th percentile.

    Measured in time of the processor, so that what else the machine does is not in it.
    """
    tuner = still_tuner(Config())
    for number in range(5000):
        network = f"10.{number >> 8}.{number & 255}.0/24"
        absorb(tuner, network, arm=number % 7, opened=3, closed=2, rounds=5)
        absorb(tuner, network, treatment="HOLDOUT", opened=3, closed=2, rounds=5)
    for now in range(1, 5):  # each compares one dimension
        tuner.decide(now)
    picture = take(tuner, Health())
    assert picture.paths_by_group.tolist() == [5000]
    found = registry(lambda: picture)
    count = sum(len(family.samples) for family in found.collect())
    assert 100 < count <= 1000
    seconds = []
    for _ in range(200):
        begin = time.thread_time()
        generate_latest(found)
        seconds.append(time.thread_time() - begin)
    quick = float(np.percentile(seconds, 99))
    print(f"{count} series; a scrape takes {quick * 1e3:.1f} ms of the processor at the 99th percentile")
    assert quick < 0.030


def test_promtool_has_nothing_to_say(busy: Snapshot) -> None:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is missing; Debian's package prometheus has it")
    text = generate_latest(registry(lambda: busy))
    done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_one_broken_section_hides_only_itself(busy: Snapshot, caplog: pytest.LogCaptureFixture) -> None:
    found = registry(lambda: replace(busy, counters={}))
    first = generate_latest(found).decode()
    assert "tcptuned_exporter_failures_total 1.0" in first
    assert "tcptuned_option_sets_total" not in first
    assert "tcptuned_rtt_seconds_bucket" in first
    assert "tcptuned_build_info" in first
    assert "kernel_side" in caplog.text
    assert "tcptuned_exporter_failures_total 2.0" in generate_latest(found).decode()


def test_without_a_snapshot_the_process_is_still_shown(caplog: pytest.LogCaptureFixture) -> None:
    def none_yet() -> Snapshot:
        raise AttributeError("snapshot")

    text = generate_latest(registry(none_yet)).decode()
    assert "tcptuned_exporter_failures_total 1.0" in text
    assert "process_resident_memory_bytes" in text
    assert "the snapshot" in caplog.text
