"""What installs tcptuned: the DaemonSet, the playbook and the Debian package's scripts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent import config_file
from agent.connect import socket_path

CONFIG = Path(__file__).parents[2] / "config"
KUBERNETES = CONFIG / "kubernetes" / "tcptuned.yaml"
PLAYBOOK = CONFIG / "ansible" / "playbook.yml"


@pytest.fixture(scope="module")
def kinds() -> dict[str, Any]:
    return {one["kind"]: one for one in yaml.safe_load_all(KUBERNETES.read_text())}


@pytest.fixture(scope="module")
def secrets() -> dict[str, Any]:
    """What the script beside the manifest makes, by name."""
    done = subprocess.run([KUBERNETES.parent / "secrets"], capture_output=True, text=True, check=True)
    assert done.stderr == ""
    return {one["metadata"]["name"]: one["data"] for one in yaml.safe_load_all(done.stdout)}


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


def test_what_the_daemonset_names_is_there(kinds: dict[str, Any], secrets: dict[str, Any], tmp_path: Path) -> None:
    """Files, the port and the socket, by the agent's own reading of the configuration."""
    for name, text in kinds["ConfigMap"]["data"].items():
        (tmp_path / name).write_text(text)
    config = config_file.load(tmp_path / "tcptuned.yaml")
    pod = kinds["DaemonSet"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    mounts = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
    assert config.attach.cgroups == (mounts["cgroup"],)
    assert str(config.state_dir) == mounts["state"]
    assert container["args"] == ["run", "--config", f"{mounts['configuration']}/tcptuned.yaml"]
    assert config.web.config_file == Path(mounts["configuration"], "web.yml")
    web = yaml.safe_load((tmp_path / "web.yml").read_text())["tls_server_config"]
    assert web["client_auth_type"] == "RequireAndVerifyClientCert"
    (certificate,) = (one["secret"] for one in pod["volumes"] if one["name"] == "certificate")
    assert certificate["defaultMode"] == 0o400
    for key in ("cert_file", "key_file", "client_ca_file"):
        folder, _, name = web[key].rpartition("/")
        assert folder == mounts["certificate"]
        assert name in secrets[certificate["secretName"]]
    (port,) = container["ports"]
    assert (config.web.host, config.web.port) == ("0.0.0.0", port["containerPort"])
    for name, page in (("livenessProbe", "healthy"), ("readinessProbe", "ready"), ("startupProbe", "ready")):
        command = container[name]["exec"]["command"]
        assert command[-2:] == [str(socket_path(config)), f"http://localhost/-/{page}"]


def test_the_podmonitor_finds_the_pods_and_has_what_they_ask_for(
    kinds: dict[str, Any], secrets: dict[str, Any]
) -> None:
    template = kinds["DaemonSet"]["spec"]["template"]
    monitor = kinds["PodMonitor"]["spec"]
    labels = template["metadata"]["labels"]
    assert monitor["selector"]["matchLabels"].items() <= labels.items()
    assert labels[monitor["jobLabel"]] == "tcptuned"  # the job that rules and alerts look for
    (endpoint,) = monitor["podMetricsEndpoints"]
    assert endpoint["port"] == template["spec"]["containers"][0]["ports"][0]["name"]
    assert endpoint["scheme"] == "https"
    tls = endpoint["tlsConfig"]
    for wanted in (tls["ca"]["secret"], tls["cert"]["secret"], tls["keySecret"]):
        assert wanted["key"] in secrets[wanted["name"]]


def test_the_playbook_checks_the_configuration_before_it_replaces_the_old_one() -> None:
    (play,) = yaml.safe_load(PLAYBOOK.read_text())
    assert play["serial"][0] == 1
    (copied,) = (
        copy for one in play["tasks"] if (copy := one.get("ansible.builtin.copy", {})).get("dest", "").endswith(".yaml")
    )
    assert copied["dest"] == "/etc/tcptuned/tcptuned.yaml"
    assert copied["validate"] == "tcptuned check --config %s"
    handlers = {one["name"] for one in play["handlers"]}
    assert {one["notify"] for one in play["tasks"] if "notify" in one} == handlers


def test_the_playbook_starts_nothing_before_the_configuration_is_there() -> None:
    (play,) = yaml.safe_load(PLAYBOOK.read_text())
    names = [next(key for key in one if key.startswith("ansible.builtin.")) for one in play["tasks"]]
    (installed,) = (one["ansible.builtin.apt"] for one in play["tasks"] if "ansible.builtin.apt" in one)
    assert installed["policy_rc_d"] == 101
    copied = len(names) - 1 - names[::-1].index("ansible.builtin.copy")
    assert names.index("ansible.builtin.apt") < copied < names.index("ansible.builtin.meta")


def test_ansible_finds_no_mistakes_in_the_playbook(tmp_path: Path) -> None:
    program = Path(sys.executable).with_name("ansible-playbook")
    done = subprocess.run(
        [program, "--syntax-check", "-i", CONFIG / "ansible" / "hosts.ini", PLAYBOOK],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"ANSIBLE_HOME": str(tmp_path), "LC_ALL": "C.UTF-8"},
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_shellcheck_has_nothing_to_say() -> None:
    scripts = [*sorted((CONFIG / "debian").iterdir()), CONFIG / "kubernetes" / "secrets"]
    assert [one.name for one in scripts] == ["build", "postinst", "postrm", "prerm", "secrets"]
    done = subprocess.run(["shellcheck", *scripts], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
