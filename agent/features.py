"""What this kernel has, read without changing anything."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

__all__ = ["CAP_BPF", "CAP_NET_ADMIN", "CAP_PERFMON", "CAP_SYS_ADMIN", "algorithms", "effective_capabilities",
           "host_congestion", "jiffy_us", "kernel_version", "module_known", "receive_buffer", "setting",
           "tells_pacing"]  # fmt: skip

# include/uapi/linux/capability.h
CAP_NET_ADMIN = 12
CAP_SYS_ADMIN = 21
CAP_PERFMON = 38
CAP_BPF = 39

_CLOCK_MONOTONIC_COARSE = 6  # include/uapi/linux/time.h; Python has no name for it
_IPV4 = Path("/proc/sys/net/ipv4")


def algorithms() -> tuple[str, ...]:
    """The congestion controls registered in the kernel; modules not loaded yet are not among them."""
    return tuple((_IPV4 / "tcp_available_congestion_control").read_text(encoding="ascii").split())


def host_congestion() -> str:
    """The default congestion control of this network namespace."""
    return (_IPV4 / "tcp_congestion_control").read_text(encoding="ascii").strip()


def kernel_version() -> tuple[int, int]:
    """Major and minor number of the running kernel."""
    major, minor = os.uname().release.split(".")[:2]
    return int(major), int("".join(character for character in minor if character.isdigit()) or 0)


def tells_pacing() -> bool:
    """Whether programs can ask for a socket's SO_MAX_PACING_RATE (bpf_getsockopt of SOL_SOCKET, since 6.1)."""
    return kernel_version() >= (6, 1)


def effective_capabilities() -> int:
    """The effective capabilities of this process as a bit mask."""
    for line in Path("/proc/self/status").read_text(encoding="ascii").splitlines():
        if line.startswith("CapEff:"):
            return int(line.split()[1], 16)
    return 0


def jiffy_us() -> int:
    """The kernel's tick in microseconds (1,000,000 / HZ), at most 10,000.

    The resolution of the coarse clock is exactly one tick, whatever the kernel's configuration.
    """
    return min(10_000, math.ceil(time.clock_getres(_CLOCK_MONOTONIC_COARSE) * 1e6))


def setting(name: str) -> str:
    """A setting below /proc/sys, such as "net/core/bpf_jit_enable"; OSError if it is not there or not readable."""
    return (Path("/proc/sys") / name).read_text(encoding="ascii").strip()


def receive_buffer() -> tuple[int, int, int]:
    """net.ipv4.tcp_rmem of this network namespace: least, initial and greatest receive buffer in bytes."""
    least, initial, greatest = map(int, setting("net/ipv4/tcp_rmem").split())
    return least, initial, greatest


def module_known(name: str) -> bool:
    """Whether `modprobe NAME` would find a module for the running kernel (man 5 modules.dep)."""
    try:
        text = Path("/lib/modules", os.uname().release, "modules.dep").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    files = (line.partition(":")[0].rpartition("/")[2] for line in text.splitlines())
    return any(file.partition(".ko")[0].replace("-", "_") == name for file in files)
