"""What installs tcptuned: the DaemonSet, the playbook and the Debian package's scripts."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent import config_file

CONFIG = Path(__file__).parents[2] / "config"
KUBERNETES = CONFIG / "kubernetes" / "tcptuned.yaml"
PLAYBOOK = CONFIG / "ansible" / "playbook.yml"


@pytest.fixture(scope="module")
def kinds() -> dict[str, Any]:
    return {one["kind"]: one for one in yaml.safe_load_all(KUBERNETES.read_text())}


def test_the_daemonset_has_the_rights_it_needs_and_no_others(kinds: dict[str, Any]) -> None:
    pod = kinds["DaemonSet"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    context = container["securityContext"]
    assert pod["hostNetwork"] is True
    assert context["capabilities"] == {"drop": ["ALL"], "add": ["BPF", "NET_ADMIN"]}
    assert (context["privileged"], context["allowPrivilegeEscalation"]) == (False, False)
    assert context["readOnlyRootFilesystem"] is True
    lines = [line.strip() for line in KUBERNETES.read_text().splitlines()]
    for name in context["capabilities"]["add"]:
        assert lines[lines.index(f"- {name}") - 1].startswith("# "), name


def test_the_daemonset_mounts_the_cgroups_read_only_and_keeps_the_state(kinds: dict[str, Any]) -> None:
    pod = kinds["DaemonSet"]["spec"]["template"]["spec"]
    mounts = {one["name"]: one for one in pod["containers"][0]["volumeMounts"]}
    volumes = {one["name"]: one for one in pod["volumes"]}
    assert mounts.keys() == volumes.keys()
    assert volumes["cgroup"]["hostPath"]["path"] == "/sys/fs/cgroup"
    assert mounts["cgroup"]["readOnly"] is True
    assert "hostPath" in volumes["state"]


def test_probes_and_podmonitor_reach_the_configured_port(kinds: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "tcptuned.yaml"
    file.write_text(kinds["ConfigMap"]["data"]["tcptuned.yaml"])
    config = config_file.load(file)
    spec = kinds["DaemonSet"]["spec"]
    (container,) = spec["template"]["spec"]["containers"]
    mounts = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
    assert config.attach.cgroups == (mounts["cgroup"],)
    assert str(config.state_dir) == mounts["state"]
    assert container["args"] == ["run", "--config", f"{mounts['configuration']}/tcptuned.yaml"]
    (port,) = container["ports"]
    assert (config.web.host, config.web.port) == ("0.0.0.0", port["containerPort"])
    probes = {name: container[name]["httpGet"] for name in ("livenessProbe", "readinessProbe", "startupProbe")}
    assert {one["port"] for one in probes.values()} == {port["name"]}
    assert [one["path"] for one in probes.values()] == ["/-/healthy", "/-/ready", "/-/ready"]
    monitor = kinds["PodMonitor"]["spec"]
    assert [one["port"] for one in monitor["podMetricsEndpoints"]] == [port["name"]]
    labels = spec["template"]["metadata"]["labels"]
    assert monitor["selector"]["matchLabels"].items() <= labels.items()
    assert labels[monitor["jobLabel"]] == "tcptuned"  # the job that rules and alerts look for


def test_the_playbook_checks_the_configuration_before_it_replaces_the_old_one() -> None:
    (play,) = yaml.safe_load(PLAYBOOK.read_text())
    assert play["serial"][0] == 1
    (copied,) = (one["ansible.builtin.copy"] for one in play["tasks"] if one.get("notify"))
    assert copied["dest"] == "/etc/tcptuned/tcptuned.yaml"
    assert copied["validate"] == "tcptuned check --config %s"
    handlers = {one["name"] for one in play["handlers"]}
    assert {one["notify"] for one in play["tasks"] if "notify" in one} == handlers
    if (ansible := shutil.which("ansible-playbook")) is not None:
        subprocess.run([ansible, "--syntax-check", "-i", CONFIG / "ansible" / "hosts.ini", PLAYBOOK], check=True)


def test_shellcheck_has_nothing_to_say_about_the_package() -> None:
    scripts = sorted((CONFIG / "debian").iterdir())
    assert [one.name for one in scripts] == ["build", "postinst", "postrm", "prerm"]
    done = subprocess.run(["shellcheck", *scripts], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
