"""What must be true before anything is started; each refusal is one sentence with its cure."""

from __future__ import annotations

import sys

from agent import features
from agent.cgroups import mount_point
from agent.errors import UsageError

__all__ = ["OLDEST_KERNEL", "missing_capabilities", "require_system"]

# What the programs use came one by one; 5.15 is the oldest long-term kernel that has all of it.
OLDEST_KERNEL = (5, 15)


def missing_capabilities() -> list[str]:
    """The capabilities that this process lacks of the two that the agent needs."""
    effective = features.effective_capabilities()
    if effective >> features.CAP_SYS_ADMIN & 1 and effective >> features.CAP_NET_ADMIN & 1:
        return []  # CAP_SYS_ADMIN includes CAP_BPF (include/linux/capability.h)
    needed = {"CAP_BPF": features.CAP_BPF, "CAP_NET_ADMIN": features.CAP_NET_ADMIN}
    return [name for name, bit in needed.items() if not effective >> bit & 1]


def require_system() -> None:
    """Raises UsageError on a system where the agent cannot work."""
    if sys.platform != "linux":
        raise UsageError("tcptuned needs Linux 5.15 or later")
    if features.kernel_version() < OLDEST_KERNEL:
        major, minor = features.kernel_version()
        raise UsageError(f"this kernel is {major}.{minor}; tcptuned needs 5.15 or later")
    if missing := missing_capabilities():
        raise UsageError(f"not permitted: {' and '.join(missing)} missing; run with sudo, or as the systemd service")
    mount_point()
