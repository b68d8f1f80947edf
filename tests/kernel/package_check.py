#!/usr/bin/env python3
"""Installs, reloads, hangs, upgrades, removes and purges the Debian package on the machine that it runs on.

    sudo tests/kernel/package_check.py --this-machine-is-thrown-away tcptuned_VERSION_ARCHITECTURE.deb

Meant for a fresh virtual machine with systemd as PID 1, a network or what the package depends on, bpftool and iproute2.
Standard library only. A line a check, then what was measured; the exit code is 0 if all passed, 1 if not, 2 if refused.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

CONFIGURATION = Path("/etc/tcptuned/tcptuned.yaml")
STATE = Path("/var/lib/tcptuned")
WEB = "http://127.0.0.1:9877"
CLIENT, SERVER = "198.51.100.2", "198.51.100.1"
OBJECTS = 20
PATIENCE = 180.0  # seconds; emulated machines are slow
TWO = f"{1 << 12 | 1 << 39:016x}"  # CAP_NET_ADMIN and CAP_BPF as /proc shows them
# dpkg's and apt's own books.
BOOKS = ("/var/lib/dpkg", "/var/lib/apt")


class Checks:
    """What passed and failed, with the time since the start, and what was measured."""

    def __init__(self) -> None:
        self.failed: list[str] = []
        self.figures: list[str] = []
        self._begin = time.monotonic()

    def that(self, name: str, passed: object, shown: object = "") -> None:
        """One check; `shown` is printed if it fails."""
        seconds = time.monotonic() - self._begin
        print(f"{'pass' if passed else 'FAIL'}  {seconds:5.0f} s  {name}", flush=True)
        if not passed:
            self.failed.append(name)
            print("      " + str(shown).strip().replace("\n", "\n      "), flush=True)

    def runs(self, name: str, *command: object) -> None:
        """`command` ends with 0."""
        done = run(*command)
        self.that(name, done.returncode == 0, done.stdout + done.stderr)

    def becomes(self, name: str, condition: Callable[[], object]) -> None:
        """`condition` is met in time."""
        deadline = time.monotonic() + PATIENCE
        while not (met := condition()) and time.monotonic() < deadline:
            time.sleep(0.2)
        self.that(name, met, f"not within {PATIENCE:.0f} s")

    def took(self, what: str, begin: float) -> None:
        """Notes the seconds since `begin` (monotonic)."""
        self.figures.append(f"{what}: {time.monotonic() - begin:.1f} s")


def run(*command: object) -> subprocess.CompletedProcess[str]:
    words, nothing = [str(word) for word in command], subprocess.DEVNULL
    return subprocess.run(words, capture_output=True, text=True, check=False, stdin=nothing)


def apt(action: str, what: object) -> list[object]:
    # As unattended upgrades and Ansible do: an edited configuration stays.
    return ["apt-get", action, "--yes", "--quiet", "-o", "Dpkg::Options::=--force-confold", what]


def shown(name: str) -> str:
    """A property of the unit."""
    return run("systemctl", "show", "--value", "--property", name, "tcptuned").stdout.strip()


def main_pid() -> int:
    return int(shown("MainPID"))


def active() -> bool:
    return shown("ActiveState") == "active"


def journal() -> str:
    return run("journalctl", "--unit", "tcptuned", "--no-pager", "--output", "cat").stdout


def ask(target: str) -> str | None:
    """The agent's answer, None without a good one."""
    try:
        with urllib.request.urlopen(WEB + target, timeout=20) as answer:
            return str(answer.read().decode())
    except OSError:
        return None


def ready() -> bool:
    return ask("/-/ready") is not None


def metrics(name: str) -> dict[str, float]:
    """The samples of one metric, by their labels."""
    prefix = f"tcptuned_{name}"
    lines = [line.rsplit(" ", 1) for line in (ask("/metrics") or "").splitlines() if line.startswith(prefix)]
    return {sample.removeprefix(prefix): float(value) for sample, value in lines}


def counted() -> float:
    """The connections that the agent saw opened."""
    return sum(metrics("connections_opened_total").values())


def loaded() -> float:
    """When the configuration was loaded last, by the agent."""
    return sum(metrics("config_last_reload_success_timestamp_seconds").values())


def known() -> bool:
    """The client's network is a path with evidence."""
    done = run("tcptuned", "explain", "--json", CLIENT)
    return done.returncode == 0 and json.loads(done.stdout)["known"] is True


def programs() -> set[str]:
    """The BPF programs in the kernel but systemd's own."""
    loaded: list[dict[str, Any]] = json.loads(run("bpftool", "prog", "show", "--json").stdout)
    return {f"{one['type']} {name}" for one in loaded if not (name := one.get("name", "")).startswith("sd_")}


def files() -> set[str]:
    """Every name where a package may leave something; byte code comes and goes with other programs."""
    found: set[str] = set()
    for top in ("/etc", "/usr", "/opt", "/root", "/home", "/var", "/run/systemd/system", "/run/tcptuned", "/tmp"):
        for folder, folders, names in os.walk(top):
            folders[:] = [name for name in folders if name != "__pycache__" and f"{folder}/{name}" not in BOOKS]
            found.update(f"{folder}/{name}" for name in (*folders, *names))
    passing = ("/var/log/", "/var/cache/", "/tmp/systemd-", "/var/tmp/systemd-", "/tmp/package-check-")
    return {name for name in found if not name.startswith(passing)}


def accounts() -> str:
    return "".join(Path("/etc", name).read_text() for name in ("passwd", "group", "shadow", "gshadow"))


def refusal(options: argparse.Namespace) -> str | None:
    if os.geteuid() != 0 or not Path("/run/systemd/system").exists():
        return "it needs root and systemd as PID 1"
    if missing := [name for name in ("apt-get", "bpftool", "ip") if shutil.which(name) is None]:
        return f"install what has {' and '.join(missing)}"
    if run("getent", "passwd", "tcptuned").returncode == 0 or CONFIGURATION.exists():
        return "tcptuned was installed here before; take a fresh machine"
    return None if options.package.exists() else f"there is no {options.package}"


def check_installed(checks: Checks) -> None:
    checks.that("the unit is active", active(), journal())
    checks.runs("it starts at boot", "systemctl", "is-enabled", "tcptuned")
    conffiles = run("dpkg-query", "--show", "--showformat=${Conffiles}", "tcptuned").stdout
    checks.that("the configuration is a conffile", str(CONFIGURATION) in conffiles, conffiles)
    process = Path("/proc", str(main_pid()))
    checks.that("it runs as its own user", process.owner() == "tcptuned", process.owner())
    status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines())
    for name in ("CapPrm", "CapEff", "CapBnd", "CapAmb"):
        checks.that(f"{name} has BPF and NET_ADMIN, no others", status[name] == TWO, status[name])
    checks.becomes("it is ready", ready)
    sockets = run("ss", "--no-header", "--listening", "--tcp", "--numeric", "sport = :9877").stdout
    addresses = [line.split()[3] for line in sockets.splitlines()]
    checks.that("it listens on loopback alone", addresses == [WEB.removeprefix("http://")], sockets)
    attached = metrics("bpf_program_attached")
    checks.that("its programs are attached", attached and any(attached.values()), attached)
    checks.runs("commands reach it", "tcptuned", "status")
    present = Path("/proc/sys/net/ipv4/tcp_available_congestion_control").read_text()
    checks.that("it had bbr loaded, a module that was not", "bbr" in present.split(), present)
    checks.that("its directory is its own", STATE.owner() == "tcptuned" and STATE.stat().st_mode & 0o7777 == 0o750)


def check_traffic(checks: Checks, work: Path) -> None:
    """A client behind a link of its own, since loopback is left alone."""
    for line in (
        "netns add client", "link add agent type veth peer name client netns client",
        f"address add {SERVER}/24 dev agent", "link set agent up",
        f"-n client address add {CLIENT}/24 dev client", "-n client link set client up",
    ):  # fmt: skip
        checks.runs(f"ip {line}", "ip", *line.split())
    (work / "object").write_bytes(bytes(40_000))
    before = counted()
    fetch = f"""
import time, urllib.request
for _ in range({OBJECTS}):
    assert len(urllib.request.urlopen("http://{SERVER}:8000/object", timeout=20).read()) == 40_000
"""
    command = [sys.executable, "-m", "http.server", "--directory", str(work), "--bind", SERVER, "8000"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as server:
        time.sleep(3)
        checks.runs("a client is served", "ip", "netns", "exec", "client", sys.executable, "-c", fetch)
        server.terminate()
    # Both ends are this machine's, in its cgroups.
    checks.becomes("both ends of every connection are counted", lambda: counted() == before + 2 * OBJECTS)
    checks.becomes("the client's network is known", known)


def check_reload(checks: Checks) -> bytes:
    """Returns the edited configuration, which is in force."""
    pid, last = main_pid(), loaded()
    CONFIGURATION.write_text(CONFIGURATION.read_text().replace("half_life: 10m", "half_life: 11m"))
    edited = CONFIGURATION.read_bytes()
    checks.runs("a good file is loaded", "systemctl", "reload", "tcptuned")
    checks.becomes("and is in force", lambda: loaded() > last)
    last = loaded()
    CONFIGURATION.write_bytes(edited + b"nonsense: 1\n")
    place = f"{CONFIGURATION}:{len(edited.splitlines()) + 1}:1: nonsense"
    done = run("systemctl", "reload", "tcptuned")
    checks.that("a bad file makes the reload fail", done.returncode != 0, done.stderr)
    checks.that("the journal names the mistake's place", place in journal(), journal())
    time.sleep(3)
    checks.that("the agent goes on", active() and main_pid() == pid and ready(), journal())
    checks.that("with what it had", loaded() == last)
    CONFIGURATION.write_bytes(edited)
    checks.runs("the mended file is loaded", "systemctl", "reload", "tcptuned")
    checks.becomes("and is in force too", lambda: loaded() > last)
    checks.that("by the same process", main_pid() == pid)
    return edited


def check_life(checks: Checks, before: set[str]) -> None:
    """Stop, start, hang, kill."""
    begin = time.monotonic()
    checks.runs("it stops", "systemctl", "stop", "tcptuned")
    checks.took("stop", begin)
    checks.becomes("stopped, no program is left", lambda: programs() <= before)
    begin = time.monotonic()
    checks.runs("it starts", "systemctl", "start", "tcptuned")
    checks.took("start until attached", begin)
    checks.becomes("what was learnt is there again", known)
    for name, number in (("hung", signal.SIGSTOP), ("killed", signal.SIGKILL)):
        pid, begin = main_pid(), time.monotonic()
        os.kill(pid, number)
        checks.becomes(f"{name}, it is started again", lambda: active() and main_pid() not in (0, pid))  # noqa: B023
        checks.took(f"{name} until it runs again", begin)
    checks.that("the journal tells of the watchdog", "watchdog" in journal().lower(), journal())
    checks.becomes("it is ready again", ready)


def newer(package: Path, work: Path) -> Path:
    """The same package with a higher version and another default configuration."""
    tree, result = work / "newer", work / "newer.deb"
    run("dpkg-deb", "--raw-extract", package, tree)
    control = tree / "DEBIAN" / "control"
    control.write_text("".join(
        line.rstrip("\n") + ("+newer\n" if line.startswith("Version: ") else "\n") for line in control.open()
    ))  # fmt: skip
    with (tree / CONFIGURATION.relative_to("/")).open("a") as file:
        file.write("# newer\n")
    run("dpkg-deb", "--build", "--root-owner-group", "-Znone", tree, result)
    shutil.rmtree(tree)
    return result


def check_upgrade(checks: Checks, package: Path, edited: bytes) -> None:
    pid, begin = main_pid(), time.monotonic()
    checks.runs("apt upgrades it", *apt("install", package))
    checks.took("upgrade", begin)
    checks.that("the new one runs", active() and main_pid() != pid, journal())
    checks.becomes("and is ready", ready)
    checks.that("and knows what was learnt", known())
    checks.that("the edited configuration is kept", CONFIGURATION.read_bytes() == edited)
    checks.that("the new default lies beside it", CONFIGURATION.with_suffix(".yaml.dpkg-dist").exists())


def check_removal(checks: Checks, package: Path, before: tuple[set[str], set[str], str], edited: bytes) -> None:
    checks.runs("apt removes it", *apt("remove", "tcptuned"))
    checks.becomes("removed, it does not run", lambda: not active())
    checks.becomes("removed, no program is left", lambda: programs() <= before[0])
    checks.that("the configuration is kept", CONFIGURATION.read_bytes() == edited)
    checks.that("and what was learnt", (STATE / "learnt.state").stat().st_size > 0)
    checks.runs("apt installs it once more", *apt("install", package))
    checks.that("it runs once more", active(), journal())
    checks.becomes("and knows what was learnt", known)
    checks.runs("an administrator switches it off", "systemctl", "disable", "--now", "tcptuned")
    checks.runs("another upgrade", "/var/lib/dpkg/info/tcptuned.postinst", "configure", "0.0.1")
    checks.that("leaves it off", not active() and shown("UnitFileState") == "disabled", shown("UnitFileState"))
    begin = time.monotonic()
    checks.runs("apt purges it", *apt("purge", "tcptuned"))
    checks.took("purge", begin)
    checks.becomes("purged, no program is left", lambda: programs() <= before[0])
    checks.that("no file is left", not (left := files() - before[1]), "\n".join(sorted(left)))
    checks.that("no user is left", accounts() == before[2], accounts())
    checks.that("no unit is left", shown("LoadState") == "not-found", shown("LoadState"))


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--this-machine-is-thrown-away", action="store_true", required=True)
    parser.add_argument("package", type=Path)
    options = parser.parse_args()
    if reason := refusal(options):
        print(f"{sys.argv[0]}: {reason}", file=sys.stderr)
        return 2
    os.environ |= {"LC_ALL": "C.UTF-8", "DEBIAN_FRONTEND": "noninteractive"}
    checks, package = Checks(), options.package.resolve()
    with tempfile.TemporaryDirectory(prefix="package-check-") as folder:
        work = Path(folder)
        before = programs(), files(), accounts()
        begin = time.monotonic()
        checks.runs("apt installs it", *apt("install", package))
        checks.took("install, until attached", begin)
        check_installed(checks)
        check_traffic(checks, work)
        edited = check_reload(checks)
        check_life(checks, before[0])
        following = newer(package, work)
        check_upgrade(checks, following, edited)
        memory = [line for line in Path(f"/proc/{main_pid()}/status").read_text().splitlines() if "VmRSS" in line]
        checks.figures.append(f"memory of the agent: {' '.join(memory[0].split()[1:])}")
        check_removal(checks, following, before, edited)
    print("\n".join(checks.figures))
    print(f"{len(checks.failed)} failed" if checks.failed else "all passed")
    return min(len(checks.failed), 1)


if __name__ == "__main__":
    sys.exit(main())
