"""The JSON schema for editors: it says what the reader of files says, as far as a schema can."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft7Validator

from agent.cli import main
from agent.config_file import loads
from agent.config_schema import config_schema
from agent.config_words import DEFAULT_FILE, words
from agent.errors import ConfigurationError

FILE = DEFAULT_FILE.with_name("tcptuned.schema.json")
ROOT = DEFAULT_FILE.parent.parent
VALIDATOR = Draft7Validator(config_schema())

RIGHT = [
    "attach: {cgroups: [/sys/fs/cgroup/a.slice, b.slice/c.service]}",
    'web: {listen: "[::1]:0", config_file: /etc/tcptuned/web.yml}',
    "paths: {max: 500, rules: [{match: [10.0.0.0/8, '2001:db8::/32'], group: inside, ipv4_prefix: 16}]}",
    "paths: {rules: [{match: [192.0.2.7], exclude: true}]}",
    "paths: {rules: [{match: [10.0.0.0/8], group: a, extensions: {user_timeout: {send: null}}}]}",
    "control: {interval: 100ms, holdout: 0, half_life: 24h, lease: 1m30s}",
    "initial_window: {enabled: false, law: rfc9040, min: 2, max: 2}",
    "extensions: {exid: 0xFFFF, ack_request: {send: {segments: 4, rtt_divisor: 2}}, ack_announcement: {send: true}}",
    "extensions: {user_timeout: {send: 32767m, min: 1s, max: 1h}, congestion_request: {send: bbr}}",
    'fleet: {prometheus_url: "https://[2001:db8::1]:9090/prefix"}',
]

WRONG = [
    "smapling: {}",
    "ack: {zzz: 1}",
    "ack: {thinning: 1}",
    "sampling: {interval: 1}",
    "sampling: {interval: 5 minutes}",
    "sampling: {rows: 10}",
    "control: {holdout: 0.6}",
    "initial_window: {law: fast}",
    "initial_window: {max: 251}",
    "congestion: {allowed: []}",
    "congestion: {allowed: [Cubic]}",
    "congestion: {allowed: [cubic, cubic]}",
    "state_dir: here",
    "web: {listen: 9877}",
    "web: {listen: localhost}",
    "paths: {ipv4_prefix: 33}",
    "paths: {rules: [{group: a}]}",
    "paths: {rules: [{match: [example.org]}]}",
    "paths: {rules: [{match: [10.0.0.0/8], group: Branch Office}]}",
    "extensions: {exid: 0xF989}",
    "extensions: {ack_request: {send: {segments: 4}}}",
    "extensions: {ack_announcement: {send: false}}",
    "fleet: {prometheus_url: 'prometheus:9090'}",
]


def _faults(text: str) -> list[str]:
    return [error.message for error in VALIDATOR.iter_errors(yaml.safe_load(text))]


def _refused(text: str) -> bool:
    try:
        loads(text.encode(), "f")
    except ConfigurationError:
        return True
    return False


def test_the_file_is_what_the_program_prints(capsys: pytest.CaptureFixture[str]) -> None:
    """If they differ: tcptuned schema > config/tcptuned.schema.json."""
    assert main(["schema"]) == 0
    assert FILE.read_text(encoding="utf-8") == capsys.readouterr().out


def test_it_is_a_schema() -> None:
    Draft7Validator.check_schema(json.loads(FILE.read_text(encoding="utf-8")))


def test_the_default_file_names_it_and_is_valid() -> None:
    text = DEFAULT_FILE.read_text(encoding="utf-8")
    assert text.startswith(f"# yaml-language-server: $schema={FILE.name}\n")
    assert _faults(text) == []


def test_the_configurations_of_the_examples_are_valid() -> None:
    kubernetes = (ROOT / "config" / "kubernetes" / "tcptuned.yaml").read_text(encoding="utf-8")
    inside = [
        text
        for document in yaml.safe_load_all(kubernetes) if document["kind"] == "ConfigMap"
        for name, text in document["data"].items() if name == "tcptuned.yaml"
    ]  # fmt: skip
    assert len(inside) == 1
    assert _faults(inside[0]) == []


@pytest.mark.parametrize("text", RIGHT)
def test_what_is_right_is_right_for_both(text: str) -> None:
    assert _faults(text) == []
    assert not _refused(text)


@pytest.mark.parametrize("text", WRONG)
def test_what_is_wrong_is_wrong_for_both(text: str) -> None:
    assert len(_faults(text)) == 1
    assert _refused(text)


def test_editors_show_the_words_of_the_default_file() -> None:
    def described(part: dict[str, Any]) -> list[str]:
        own = [part["description"]] if "description" in part else []
        inner = [*part.get("properties", {}).values(), *part.get("anyOf", ()), *filter(None, [part.get("items")])]
        return own + [text for one in inner for text in described(one)]

    found = described(config_schema())
    assert set(words().values()) <= set(found)
    assert words()["paths", "rules", "exclude"] == "true: these connections keep the kernel's defaults"
    assert words()["control", "lease"].endswith("at least twice sampling.interval")
    assert words()["web",] == "Prometheus metrics, the status page and its API."


def test_durations_have_their_unit_in_defaults() -> None:
    interval = config_schema()["properties"]["sampling"]["properties"]["interval"]
    assert (interval["type"], interval["default"]) == ("string", "1s")


def test_the_schema_travels_with_the_program() -> None:
    packed = (Path(ROOT) / "pyproject.toml").read_text(encoding="utf-8")
    assert 'config = ["*.yaml", "*.json",' in packed
