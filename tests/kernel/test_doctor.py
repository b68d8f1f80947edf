"""The doctor on this kernel: as root, as nobody, and beside what should worry it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from running import readable_by_all

from agent import bpf_findings, features, host_findings
from agent.cgroups import mount_point
from agent.config import Attach, Config, Congestion, Web
from agent.doctor import show_doctor
from agent.finding import Finding, examine

ROOT = Path(__file__).resolve().parents[2]
NOBODY = ["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]
COMMAND = [sys.executable, "-m", "agent", "doctor"]


@pytest.fixture(autouse=True)
def _root() -> None:
    assert os.geteuid() == 0, "the doctor's tests need root; they are not skipped, so that nobody misses them"


def run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*command], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)


def as_nobody(*arguments: str) -> subprocess.CompletedProcess[str]:
    with readable_by_all() as (place, interpreter):
        command = [*NOBODY, interpreter, "-m", "agent", "doctor", *arguments]
        return subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=60, check=False)


def by_name(findings: list[Finding]) -> dict[str, Finding]:
    return {finding.name: finding for finding in findings}


def assert_complete(facts: dict[str, Any]) -> dict[str, dict[str, str]]:
    assert facts["can_run"] == all(finding["state"] != "missing" for finding in facts["findings"])
    for finding in facts["findings"]:
        assert finding["state"] in {"ok", "limited", "missing"}
        assert all(finding[key].strip() for key in ("name", "value", "consequence"))
    names = [finding["name"] for finding in facts["findings"]]
    assert len(set(names)) == len(names)
    return {finding["name"]: finding for finding in facts["findings"]}


def test_as_root_the_programs_are_built_and_attached_and_nothing_stays() -> None:
    done = run(*COMMAND, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    found = assert_complete(json.loads(done.stdout))
    for name in ("kernel", "CAP_BPF", "CAP_NET_ADMIN", "cgroup v2", "cgroup auto", "BCC", "libbpf", "bpf system call",
                 "programs", "older sockets", "attaching", "batches"):  # fmt: skip
        assert found[name]["state"] == "ok", found[name]
    assert found["kernel"]["value"] == os.uname().release
    assert not list(mount_point().glob("tcptuned-doctor-*"))


def test_as_nobody_it_says_what_it_could_not_look_at() -> None:
    done = as_nobody("--json")
    assert (done.returncode, done.stderr) == (1, "")
    found = assert_complete(json.loads(done.stdout))
    assert found["CAP_BPF"]["state"] == found["CAP_NET_ADMIN"]["state"] == "missing"
    for name in ("programs", "attaching", "batches", "bpf system call", "other programs", "our programs"):
        assert found[name]["state"] == "limited", found[name]
        assert "sudo" in found[name]["consequence"]
    assert found["kernel"]["state"] == "ok"


def test_a_pipe_gets_plain_text() -> None:
    done = as_nobody()
    assert (done.returncode, done.stderr) == (1, "")
    assert "\x1b" not in done.stdout
    assert "the agent cannot run here: 2 missing" in done.stdout


def test_what_the_configuration_asks_for_and_the_host_lacks() -> None:
    config = Config(
        attach=Attach(cgroups=("no/such/group",)), congestion=Congestion(allowed=("cubic", "nosuch")),
        web=Web(listen="127.0.0.1:0"),
    )  # fmt: skip
    found = by_name(examine(config, (*host_findings.HOST_CHECKS, *bpf_findings.BPF_CHECKS[-1:])))
    assert found["cgroup no/such/group"].state == "missing"
    assert found["congestion control nosuch"].state == "limited"
    assert "tcp_nosuch" in found["congestion control nosuch"].consequence
    assert found["congestion control cubic"].state == "ok"
    assert "port 0" in found["running agent"].consequence


def test_algorithms_that_there_is_no_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel that has more of them than this one."""
    many = ("cubic", "bbr", "reno", "htcp", "vegas", "dctcp")
    monkeypatch.setattr(features, "algorithms", lambda: many)
    monkeypatch.setattr(features, "host_congestion", lambda: "cubic")
    found = by_name(examine(Config(congestion=Congestion(allowed=many)), host_findings.HOST_CHECKS))
    assert [found[f"congestion control {name}"].state for name in many] == ["ok"] * 4 + ["limited", "ok"]
    assert found["congestion control vegas"].consequence.startswith("is not tried: there is room for bbr, reno, htcp;")
    assert "never tried" in found["congestion control dctcp"].consequence


def test_a_check_that_raises_is_a_finding() -> None:
    def bad(_config: Config) -> Iterator[Finding]:
        yield Finding("first", "ok", "seen", "stays")
        raise ZeroDivisionError("strange")

    first, second = examine(Config(), [("bad", bad)])
    assert first.value == "seen"
    assert (second.name, second.state) == ("bad", "limited")
    assert "strange" in second.consequence


def test_sources_that_do_not_compile_show_the_compilers_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # A size that is no number: the compiler stumbles over the map's declaration.
    sizes = {"POLICY_ENTRIES": "missing_size", "ROW_ENTRIES": 64, "HONOURED_ENTRIES": 16}
    monkeypatch.setattr(bpf_findings, "_SMALL", sizes)
    assert show_doctor(Config(), as_json=True) == 1
    found = assert_complete(json.loads(capsys.readouterr().out))
    assert found["programs"]["state"] == "missing"
    assert "missing_size" in found["programs"]["detail"]
    assert found["attaching"]["value"] == "unknown"
    assert show_doctor(Config(), as_json=False) == 1
    assert "missing_size" in capsys.readouterr().out


def test_a_program_of_another_tool_is_named() -> None:
    group = mount_point() / f"tcptuned-doctor-test-{os.getpid()}"
    script = (
        "import os, sys, time; from bcc import BPF\n"
        "bpf = BPF(text='int other_tool(struct bpf_sock_ops *skops) { return 1; }')\n"
        "bpf.attach_func(bpf.load_func('other_tool', 13), os.open(sys.argv[1], os.O_RDONLY), 3)\n"
    )
    environment = {**os.environ, "BCC_KERNEL_SOURCE": str(ROOT / "bpf/stubs")}
    group.mkdir()
    try:
        # Attached without a link, the program stays until its cgroup goes.
        subprocess.run([sys.executable, "-c", script, str(group)], check=True, timeout=60, env=environment)
        found = by_name(examine(Config(attach=Attach(cgroups=(str(group),))), bpf_findings.BPF_CHECKS))
    finally:
        group.rmdir()
    assert found["other programs"].state == "limited"
    assert found["other programs"].value == "other_tool (sock_ops)"
