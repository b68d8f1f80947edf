"""Where the cgroup v2 hierarchy is, and the cgroups to attach to."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from agent.errors import UsageError

__all__ = ["AUTO", "ids_below", "mount_point", "number", "resolve"]

AUTO = "auto"
MOUNTS = Path("/proc/self/mountinfo")


def mount_point() -> Path:
    """The mount point of cgroup v2: /sys/fs/cgroup, or a folder below it in the hybrid hierarchy.

    Raises UsageError if it is not mounted.
    """
    for line in MOUNTS.read_text(encoding="utf-8").splitlines():
        before, _, after = line.partition(" - ")
        if after.split()[0] == "cgroup2":
            # man 5 proc: field 5 is the mount point, with octal escapes for blanks
            return Path(before.split()[4].encode().decode("unicode_escape"))
    raise UsageError(
        "cgroup v2 is not mounted; boot with systemd.unified_cgroup_hierarchy=1, or: "
        "mkdir -p /sys/fs/cgroup/unified && mount -t cgroup2 none /sys/fs/cgroup/unified"
    )


def resolve(names: Iterable[str]) -> list[Path]:
    """The folders of the cgroups named: `auto` is the root, others are absolute or below the mount point.

    Raises UsageError if one does not exist or is no cgroup v2 folder, or if one is or lies below another: the kernel
    runs what is attached to all of them, so that its connections would be drawn for twice.
    """
    root = mount_point()
    folders: list[Path] = []
    for name in names:
        folder = root if name == AUTO else root / name  # an absolute name replaces the root
        if not (folder / "cgroup.procs").is_file() or not (folder / "cgroup.controllers").is_file():
            raise UsageError(f"attach.cgroups: {folder} is not a cgroup v2 folder; existing ones are below {root}")
        for other in folders:
            if folder.stat().st_ino in ids_below(other) or other.stat().st_ino in ids_below(folder):
                raise UsageError(f"attach.cgroups: {folder} and {other} overlap; name the one that holds the other")
        folders.append(folder)
    return folders


def number(folder: Path) -> int | None:
    """The kernel's number of a cgroup, its folder's inode (fs/kernfs); None if there is none. No other ever gets it."""
    try:
        return folder.stat().st_ino
    except OSError:
        return None


def ids_below(folder: Path) -> set[int]:
    """The kernel's numbers of a cgroup and all below it."""
    return {found for inside, _, _ in os.walk(folder) if (found := number(Path(inside)))}
