"""The recording rules and alerts, checked by promtool, and that none lacks a test, a severity or a way out."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "config" / "prometheus"


def _rules(name: str) -> list[dict[str, Any]]:
    content = yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))
    return [rule for group in content["groups"] for rule in group["rules"]]


ALERTS = _rules("alerts.yml")
RECORDS = _rules("rules.yml")


def _promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("promtool") is None:
        pytest.skip("promtool is missing; Debian's package prometheus has it")
    return subprocess.run(["promtool", *arguments], cwd=FOLDER, capture_output=True, text=True, check=False)


def test_prometheus_accepts_the_configuration_and_its_rules() -> None:
    done = _promtool("check", "config", "prometheus.yml")
    assert done.returncode == 0, done.stdout + done.stderr
    # It names what it found, so a rule file that is not wired in is noticed.
    assert f"{len(RECORDS)} rules found" in done.stdout
    assert f"{len(ALERTS)} rules found" in done.stdout


@pytest.mark.parametrize("name", ["rules.yml", "alerts.yml"])
def test_promtool_finds_nothing_to_say_about_the_rules(name: str) -> None:
    done = _promtool("check", "rules", name)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["rules_test.yml", "alerts_test.yml"])
def test_rules_do_what_they_say(name: str) -> None:
    done = _promtool("test", "rules", name)
    assert done.returncode == 0, done.stdout + done.stderr


def test_recording_rules_are_named_level_metric_operation_and_lose_the_instance() -> None:
    for rule in RECORDS:
        level, metric, operation = rule["record"].split(":")
        assert re.fullmatch(r"[a-z_]+", level)
        assert metric.startswith("tcptuned_")
        assert not metric.endswith("_total")
        assert re.fullmatch(r"(weighted_(square_)?)?sum|count|avg|(rate|increase)\d+[mh]", operation)
        assert "without (instance" in rule["expr"]
        assert metric in rule["expr"]


def _tested(name: str) -> Iterator[dict[str, Any]]:
    for test in yaml.safe_load((FOLDER / name).read_text(encoding="utf-8"))["tests"]:
        yield from test.get("alert_rule_test", ())
        yield from test.get("promql_expr_test", ())


def test_every_recording_rule_has_a_test() -> None:
    with_samples = {test["expr"] for test in _tested("rules_test.yml") if test["exp_samples"]}
    assert with_samples == {rule["record"] for rule in RECORDS}


def test_every_alert_is_tested_firing_and_not_firing() -> None:
    cases = [(test["alertname"], bool(test["exp_alerts"])) for test in _tested("alerts_test.yml")]
    assert set(cases) == {(alert["alert"], fires) for alert in ALERTS for fires in (True, False)}


def test_alerts_tell_what_is_wrong_how_bad_it_is_and_what_to_do() -> None:
    runbook = (ROOT / "README.md").read_text(encoding="utf-8").split("### Runbook\n")[1].split("\n#")[0]
    named = re.findall(r"^- \*\*(\w+)\*\*", runbook, re.MULTILINE)
    assert named == [alert["alert"] for alert in ALERTS]
    for alert in ALERTS:
        assert re.fullmatch(r"Tcptuned([A-Z][a-z]+)+", alert["alert"])
        assert alert["labels"]["severity"] in {"critical", "warning", "info"}
        assert alert["annotations"]["summary"]
        assert alert["annotations"]["description"].endswith(".")
        assert alert["annotations"]["runbook"] == f"README.md, Runbook: {alert['alert']}"
