"""What the host offers, read without changing anything: kernel, rights, cgroups, congestion controls, settings."""

from __future__ import annotations

import os
from collections.abc import Iterator

from agent import cgroups, features
from agent.config import Config
from agent.dimensions import congestion_names
from agent.errors import UsageError
from agent.finding import Check, Finding
from agent.preflight import OLDEST_KERNEL

__all__ = ["HOST_CHECKS"]

_SEGMENT = 1460  # bytes of a full segment without options


def _kernel(_config: Config) -> Iterator[Finding]:
    release, version = os.uname().release, features.kernel_version()
    if version < OLDEST_KERNEL:
        yield Finding("kernel", "missing", release, "too old: Linux 5.15 is the first with all that the programs use")
    else:
        yield Finding("kernel", "ok", release, "has all that the programs use (5.15 or later)")


def _capabilities(_config: Config) -> Iterator[Finding]:
    effective = features.effective_capabilities()
    administrator = bool(effective >> features.CAP_SYS_ADMIN & 1)
    for name, bit, use in (
        ("CAP_BPF", features.CAP_BPF, "loads programs and maps"),
        ("CAP_NET_ADMIN", features.CAP_NET_ADMIN, "attaches the programs to cgroups"),
    ):
        if effective >> bit & 1 or (administrator and bit == features.CAP_BPF):
            yield Finding(name, "ok", "yes", use)
        else:
            yield Finding(name, "missing", "no", f"{use}: use sudo, or the systemd service, which is given it")
    if effective >> features.CAP_PERFMON & 1 or administrator:
        yield Finding("CAP_PERFMON", "ok", "yes", "sockets older than the agent can be adopted")
    else:
        yield Finding(
            "CAP_PERFMON", "ok", "no",
            "the agent does without it, and leaves sockets alone that are older; it lets a process read kernel memory, "
            "so weigh it: systemctl edit tcptuned, [Service], CapabilityBoundingSet=CAP_PERFMON, "
            "AmbientCapabilities=CAP_PERFMON, RestrictAddressFamilies=AF_NETLINK",
        )  # fmt: skip


def _jit(_config: Config) -> Iterator[Finding]:
    name, slow = "BPF JIT", "programs are interpreted, several times slower: sysctl -w net.core.bpf_jit_enable=1"
    on = features.setting("net/core/bpf_jit_enable") != "0"
    yield Finding(name, "ok", "on", "programs run as machine code") if on else Finding(name, "limited", "off", slow)


def _cgroup_mount(_config: Config) -> Iterator[Finding]:
    try:
        folder = cgroups.mount_point()
    except UsageError as error:
        yield Finding("cgroup v2", "missing", "not mounted", str(error))
        return
    lines = cgroups.MOUNTS.read_text(encoding="utf-8").splitlines()
    hybrid = any(line.partition(" - ")[2].split()[0] == "cgroup" for line in lines)
    kind = "hybrid, version 1 is mounted beside it" if hybrid else "unified"
    yield Finding("cgroup v2", "ok", f"{folder} ({kind})", "the programs attach there; either kind will do")


def _configured_cgroups(config: Config) -> Iterator[Finding]:
    for name in config.attach.cgroups:
        try:
            (folder,) = cgroups.resolve([name])
        except (UsageError, OSError) as error:
            yield Finding(f"cgroup {name}", "missing", "not there", str(error))
        else:
            scope = "all connections of this host" if name == cgroups.AUTO else "connections of processes below it"
            yield Finding(f"cgroup {name}", "ok", str(folder), f"{scope} can be tuned")


def _congestion(config: Config) -> Iterator[Finding]:
    default, present = features.host_congestion(), features.algorithms()
    yield Finding("default congestion control", "ok", default, "what others are compared with; the holdout keeps it")
    tried = congestion_names(config, algorithms=present, host_congestion=default, paces=features.tells_pacing())
    for name in config.congestion.allowed:
        if name in (*tried, default):
            text = "can be chosen"
            if name == "bbr":
                text += "; it paces by itself, the fq queueing discipline is not needed (since 4.13)"
            yield Finding(f"congestion control {name}", "ok", "registered", text)
            continue
        if name == "dctcp" and name in present:
            yield Finding(f"congestion control {name}", "ok", "registered", "granted to peers that ask, never tried")
            continue
        if name in present:
            text = f"is not tried: there is room for {', '.join(tried)}; name it before them in congestion.allowed"
            yield Finding(f"congestion control {name}", "limited", "registered", text)
            continue
        module = f"tcp_{name}"
        if features.module_known(module):
            cure = f"is loaded when the agent starts; if it runs already: modprobe {module}"
        else:
            cure = f"is never chosen: this kernel has no module {module}; use the distribution's full kernel"
        yield Finding(f"congestion control {name}", "limited", "not registered", cure)


def _measures(_config: Config) -> Iterator[Finding]:
    """What later kernels tell or let do; the version decides where only a running program could ask."""
    for name, since, there, missing in (
        (
            "pacing", (6, 1), "algorithms may be held to a path's rate",
            "algorithms are not paced: the kernel hides a rate that an application set",
        ),
        ("RTT samples", (6, 10), "single round trips are measured", "the smoothed RTT stands in for single ones"),
        (
            "callbacks on open connections", (6, 12), "with CAP_PERFMON, connections older than the agent are counted",
            "connections opened before the agent stay unseen until they close",
        ),
    ):  # fmt: skip
        known = features.kernel_version() >= since
        version = ".".join(map(str, since))
        yield Finding(
            name, "ok" if known else "limited", "yes" if known else f"no, since {version}", there if known else missing
        )


def _run_costs(_config: Config) -> Iterator[Finding]:
    if features.setting("kernel/bpf_stats_enabled") != "0":
        yield Finding("run costs", "ok", "measured", "runs and seconds of the programs are in /metrics")
    else:
        yield Finding(
            "run costs", "limited", "not measured",
            "tuning is the same; to see runs and seconds in /metrics: sysctl -w kernel.bpf_stats_enabled=1",
        )  # fmt: skip


def _receive_window(config: Config) -> Iterator[Finding]:
    least, initial, greatest = features.receive_buffer()
    # Half of the buffer is window, the rest is for the kernel's own overhead (net.ipv4.tcp_adv_win_scale).
    segments, wanted = initial // 2 // _SEGMENT, config.initial_window.max
    value = f"tcp_rmem {initial:,}, {segments} segments"
    if segments >= wanted:
        yield Finding("receive window", "ok", value, f"peers may begin with {wanted} segments towards this host")
        return
    needed = 1 << (2 * wanted * _SEGMENT - 1).bit_length()
    yield Finding(
        "receive window", "limited", value,
        f"what this host sends is not affected; a peer can begin with {segments} segments at most towards it: "
        f"sysctl -w net.ipv4.tcp_rmem='{least} {needed} {max(greatest, needed)}' allows {wanted}",
    )  # fmt: skip


HOST_CHECKS: tuple[tuple[str, Check], ...] = (
    ("kernel", _kernel),
    ("capabilities", _capabilities),
    ("BPF JIT", _jit),
    ("cgroup v2", _cgroup_mount),
    ("configured cgroups", _configured_cgroups),
    ("congestion controls", _congestion),
    ("socket options", _measures),
    ("receive window", _receive_window),
    ("run costs", _run_costs),
)
