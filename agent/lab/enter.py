"""Enters a network namespace and a cgroup: for this thread, or for a whole program before it starts.

    python -m agent.lab.enter --netns NAME --cgroup PATH -- COMMAND ARGUMENT...

`ip netns exec` would do the first half, but it also remounts /sys, which hides the cgroup hierarchy.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from agent.errors import LabError
from agent.lab.channel import die_with_parent

__all__ = ["enter_namespace", "in_namespace", "join_cgroup", "main"]

_CLONE_NEWNET = 0x40000000  # include/uapi/linux/sched.h
_NAMESPACES = Path("/run/netns")

T = TypeVar("T")


def enter_namespace(name: str) -> None:
    """Moves the calling thread into the named network namespace, for good (setns(2); Python 3.12 has os.setns).

    In a process with one thread this moves the process. Raises LabError.
    """
    try:
        descriptor = os.open(_NAMESPACES / name, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise LabError(f"namespace {name}: {error.strerror}") from error
    try:
        if ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET):
            raise LabError(f"namespace {name}: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(descriptor)


def in_namespace(name: str, action: Callable[[], T]) -> T:
    """What `action()` returns when called inside the namespace, on a thread of its own that ends with it."""
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            enter_namespace(name)
            results.append(action())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, name=f"in {name}")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


def join_cgroup(group: Path) -> None:
    """Moves this process into a cgroup. Raises LabError."""
    try:
        (group / "cgroup.procs").write_text(str(os.getpid()), encoding="ascii")
    except OSError as error:
        raise LabError(f"{group}: {error.strerror}") from error


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="agent.lab.enter", description="Runs a command in a namespace and a cgroup.")
    parser.add_argument("--netns", help="name of a network namespace, as `ip netns list` shows it")
    parser.add_argument("--cgroup", type=Path, help="directory of a cgroup")
    parser.add_argument("command", nargs="+")
    options = parser.parse_args(arguments)
    die_with_parent()
    try:
        if options.cgroup:
            join_cgroup(options.cgroup)
        if options.netns:
            enter_namespace(options.netns)
        os.execvp(options.command[0], options.command)
    except (LabError, OSError) as error:
        sys.exit(f"enter: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
