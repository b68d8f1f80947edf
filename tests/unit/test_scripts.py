"""The scripts `run`, `test` and `.ci/run`, for real, on the machine that runs the tests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SCRIPTS = [ROOT / "run", ROOT / "test", ROOT / ".ci" / "run"]
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


def call(*command: str | Path, cwd: Path = ROOT, **variables: str) -> subprocess.CompletedProcess[str]:
    """The finished `command`, run without an input and with `variables` in its environment."""
    return subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=250,
    )


@pytest.fixture(scope="module", autouse=True)
def _set_up() -> None:
    """The first start may install; the tests are about the next ones."""
    call(ROOT / "run", "--help")


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """A tree of its own, readable by everybody, whose tcptuned prints its directory and arguments."""
    tree = tmp_path / "tree"
    tree.mkdir()
    for script in ("run", "test", "pyproject.toml"):
        shutil.copy(ROOT / script, tree / script)
    program = tree / ".venv" / "bin" / "tcptuned"
    program.parent.mkdir(parents=True)
    program.write_text('#!/bin/sh\npwd\nprintf "%s\\n" "$@"\n')
    program.chmod(0o755)
    wanted = call("bash", "-c", f". {tree}/run; stamp").stdout
    (tree / ".venv" / ".stamp-run").write_text(wanted)
    # pytest keeps its three directories above to root; nobody has to get through.
    for directory in (tree, *list(tree.parents)[:3]):
        directory.chmod(0o755)
    return tree


def test_shellcheck_has_nothing_to_say() -> None:
    done = call("shellcheck", *SCRIPTS)
    assert (done.returncode, done.stdout) == (0, "")


def test_scripts_are_executable() -> None:
    assert all(os.access(script, os.X_OK) for script in SCRIPTS)


def test_a_second_start_takes_less_than_two_seconds_and_says_nothing() -> None:
    took = []
    for _ in range(3):
        started = time.monotonic()
        done = call(ROOT / "run", "check", "--config", ROOT / "config" / "tcptuned.yaml", CI="true")
        took.append(time.monotonic() - started)
        assert (done.returncode, done.stderr) == (0, "")
    assert min(took) < 2


def test_the_script_itself_adds_little(tree: Path) -> None:
    took = []
    for _ in range(5):
        started = time.monotonic()
        assert call(tree / "run", "status").returncode == 0
        took.append(time.monotonic() - started)
    assert min(took) < 0.2


@pytest.mark.parametrize(
    ("arguments", "passed"),
    [
        ([], ["run", "--config", "TREE/config/tcptuned.yaml"]),
        (["--dry-run"], ["run", "--config", "TREE/config/tcptuned.yaml", "--dry-run"]),
        (["run", "--dry-run"], ["run", "--config", "TREE/config/tcptuned.yaml", "--dry-run"]),
        (["run", "--config", "a b"], ["run", "--config", "a b"]),
        (["run", "--config=x"], ["run", "--config=x"]),
        (["explain", "203.0.113.7"], ["explain", "--config", "TREE/config/tcptuned.yaml", "203.0.113.7"]),
        (["status", "--config", "x", "--json"], ["status", "--config", "x", "--json"]),
        (["schema"], ["schema"]),
        (["--verbose"], ["run", "--config", "TREE/config/tcptuned.yaml", "--verbose"]),
        (["--verbose", "check", "--config", "x"], ["check", "--config", "x", "--verbose"]),
        (["--help"], ["--help"]),
    ],
)
def test_arguments_from_elsewhere_through_a_link(
    tree: Path, tmp_path: Path, arguments: list[str], passed: list[str]
) -> None:
    link = tmp_path / "link"
    link.symlink_to(tree / "run")
    done = call(link, *arguments, cwd=tmp_path)
    assert done.stdout.splitlines() == [str(tmp_path), *(one.replace("TREE", str(tree)) for one in passed)]
    assert (done.returncode, done.stderr) == (0, "")


def test_without_root_the_agent_is_refused_in_one_sentence(tree: Path) -> None:
    done = call(*NOBODY, tree / "run")
    assert done.returncode == 2
    assert done.stderr == f"tcptuned: run loads BPF programs and needs root: use sudo {tree}/run\n"


@pytest.mark.parametrize("arguments", [["check", "--config", "x"], ["--help"], ["demo", "--help"]])
def test_without_root_the_rest_works(tree: Path, arguments: list[str]) -> None:
    done = call(*NOBODY, tree / "run", *arguments)
    assert done.stdout.splitlines()[1:] == arguments
    assert (done.returncode, done.stderr) == (0, "")


def test_without_root_nothing_can_be_set_up(tree: Path) -> None:
    (tree / "pyproject.toml").write_text("# other needs\n")
    done = call(*NOBODY, tree / "run", "check")
    assert done.returncode == 2
    assert done.stderr == (
        f"tcptuned: the first start installs what is missing and needs root: use sudo {tree}/run\n"
    )


def test_an_unknown_distribution_gets_the_name_of_the_package(tree: Path, tmp_path: Path) -> None:
    """With a PATH that has dnf and no apt-get, and a Python without BCC."""
    commands = tmp_path / "commands"
    commands.mkdir()
    (commands / "dnf").write_text("#!/bin/sh\n")
    (commands / "dnf").chmod(0o755)
    done = call(
        "/bin/bash",
        "-c",
        f". {tree}/run; python=/bin/false; PATH={commands}; install_packages py:bcc python3-bpfcc",
        cwd=tree,
    )
    assert done.returncode == 2
    assert done.stderr == "tcptuned: BCC is missing; install the package python3-bcc with dnf, then start again\n"


def test_packages_that_cannot_be_installed_are_no_secret(tree: Path, tmp_path: Path) -> None:
    """apt-get fails; so the lists are fetched, it is tried again, and what it says is shown."""
    commands = tmp_path / "commands"
    commands.mkdir()
    (commands / "apt-get").write_text(
        f'#!/bin/sh\necho "$1" >>{tmp_path}/log\n[ "$1" = update ] || {{ echo no network; exit 100; }}\n'
    )
    (commands / "apt-get").chmod(0o755)
    script = f". {tree}/run; PATH={commands}:$PATH; install_packages no-such-command no-such-package"
    done = call("bash", "-c", script, cwd=tree)
    assert done.returncode != 0
    assert "no network" in done.stderr
    assert (tmp_path / "log").read_text().split()[-3:] == ["install", "update", "install"]


def test_without_cgroup_v2_the_cure_is_named(tree: Path) -> None:
    """In a mount namespace of its own, without the cgroup v2 mount."""
    script = f"while grep -q ' cgroup2 ' /proc/self/mounts; do umount -l -a -t cgroup2 || exit 77; done; {tree}/run"
    done = call("unshare", "--mount", "bash", "-c", script)
    assert done.returncode == 2
    assert done.stderr.startswith("tcptuned: cgroup v2 is not mounted: mkdir -p ")
    assert done.stderr.count("\n") == 1


def test_a_skip_is_a_failure_in_ci_only(tmp_path: Path) -> None:
    shutil.copy(ROOT / "tests" / "conftest.py", tmp_path / "conftest.py")
    (tmp_path / "test_skips.py").write_text(
        "import pytest\n"
        "def test_good(): pass\n"
        "def test_skipped(): pytest.skip('no kernel here')\n"
        "@pytest.mark.xfail\n"
        "def test_expected(): assert False\n"
    )
    (tmp_path / "test_module.py").write_text("import pytest\npytest.skip('no module', allow_module_level=True)\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", tmp_path]
    relaxed = call(*command, cwd=tmp_path, CI="")
    assert relaxed.returncode == 0, relaxed.stdout
    assert "1 passed, 2 skipped, 1 xfailed" in relaxed.stdout
    strict = call(*command, "--continue-on-collection-errors", cwd=tmp_path, CI="true")
    assert strict.returncode == 1
    assert "1 failed, 1 passed, 1 xfailed, 1 error" in strict.stdout
    assert "CI allows no skips" in strict.stdout
    assert "no kernel here" in strict.stdout
