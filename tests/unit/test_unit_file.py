"""The systemd unit against systemd's own checks."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

SYSTEMD = Path(__file__).parents[2] / "config" / "systemd"
UNIT = SYSTEMD / "tcptuned.service"


def test_exposure_is_at_most_two() -> None:
    done = subprocess.run(
        ["systemd-analyze", "security", "--offline=true", "--no-pager", str(UNIT)],
        capture_output=True,
        text=True,
        check=True,
    )
    found = re.search(r"Overall exposure level for tcptuned\.service: ([0-9.]+)", done.stdout)
    assert found is not None, done.stdout
    assert float(found[1]) <= 2.0
    # ~@privileged takes bpf out; the unit has to allow it again, or the agent could load nothing.
    assert "e.g. bpf is allowed" in done.stdout


def test_verify_has_nothing_to_say(tmp_path: Path) -> None:
    text = UNIT.read_text()
    program = "/usr/lib/tcptuned/bin/tcptuned"
    assert text.count(f"ExecStart={program} ") == 1
    # The installed program is not here; verify wants one that can be run.
    copy = tmp_path / UNIT.name
    copy.write_text(text.replace(f"={program} ", f"={Path(sys.executable).with_name('tcptuned')} "))
    done = subprocess.run(["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_reload_checks_the_file_that_is_run_before_it_signals() -> None:
    reloads = re.findall(r"^ExecReload=(.*)$", UNIT.read_text(), re.MULTILINE)
    started = re.search(r"^ExecStart=(.*)$", UNIT.read_text(), re.MULTILINE)
    assert started is not None
    assert reloads == [started[1].replace(" run ", " check "), "/bin/kill -HUP $MAINPID"]


def test_the_unit_and_sysusers_name_the_same_user() -> None:
    done = subprocess.run(
        ["systemd-sysusers", "--dry-run", str(SYSTEMD / "tcptuned.sysusers")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not re.search("ignoring|invalid", done.stderr, re.IGNORECASE), done.stderr
    assert re.search(r"^u tcptuned ", (SYSTEMD / "tcptuned.sysusers").read_text(), re.MULTILINE)
    assert "\nUser=tcptuned\n" in UNIT.read_text()


def test_every_relaxed_setting_has_its_reason() -> None:
    """Capabilities, system calls and address families stand right below a comment."""
    lines = UNIT.read_text().splitlines()
    for setting in ("AmbientCapabilities=", "SystemCallFilter=", "RestrictAddressFamilies=", "LimitMEMLOCK="):
        first = next(index for index, line in enumerate(lines) if line.startswith(setting))
        assert lines[first - 1].startswith("# "), setting
