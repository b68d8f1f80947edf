"""Two network namespaces joined by two TUN devices, and two cgroups: what a laboratory needs of the kernel.

    namespace NAME-client                                                  namespace NAME-server
    every client address --- device wan === emulator process === device wan --- 10.78.0.1, fd78::1

Both namespaces route everything, IPv4 and IPv6, through one gateway beyond their device, so to the server all client
networks are behind the same gateway. TUN devices without offloads show the emulator the packets as they would be on a
wire. The kernel's defaults stay, the cache of TCP metrics included (net.ipv4.tcp_no_metrics_save): what a connection
learns, such as ssthresh after a loss, is where the next one to the same address starts; `flush_metrics` forgets it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from agent.cgroups import mount_point
from agent.errors import LabError
from agent.lab.enter import in_namespace
from agent.lab.spec import FULL_PACKET

__all__ = ["SERVER_V4", "SERVER_V6", "Topology", "sweep"]

SERVER_V4 = IPv4Address("10.78.0.1")
SERVER_V6 = IPv6Address("fd78::1")
_DEVICE = "wan"
_GATEWAY_V4 = "10.79.0.1"  # answers nothing: the devices have no link layer, so nobody asks for its address
_GATEWAY_V6 = "fd79::1"
_RING = 10_000  # packets a TUN device holds for the emulator; more than any window here, so only links drop
_TUNSETIFF = 0x400454CA  # include/uapi/linux/if_tun.h
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_PROC_NET = Path("/proc/sys/net")
_ALLOWED = _PROC_NET / "ipv4/tcp_allowed_congestion_control"
_PREFIX = "tcptuned-"
_CGROUP_PREFIX = "tcptuned-lab-"
_LOCK = Path("/run/lock/tcptuned-lab")
_COMMAND_TIMEOUT = 20.0  # seconds; these commands take milliseconds


class Topology:
    """Namespaces, devices and cgroups of one laboratory; everything is gone after `close`.

    With `direct` a veth pair joins the namespaces instead, for what no emulator is fast enough; IPv4 only.
    """

    def __init__(self, name: str, *, direct: bool = False) -> None:
        self.name = name
        self._direct = direct
        self.client_namespace = f"{name}-client"
        self.server_namespace = f"{name}-server"
        self.cgroup = mount_point() / name.replace(_PREFIX, _CGROUP_PREFIX, 1)
        self.client_cgroup = self.cgroup / "client"
        self.server_cgroup = self.cgroup / "server"
        self.client_device = -1  # the emulator's ends of the TUN devices
        self.server_device = -1

    def open(self, clients: Sequence[IPv4Address | IPv6Address]) -> None:
        """Makes everything, with these client addresses. Raises LabError; `close` is then still due."""
        if os.geteuid() != 0:
            raise LabError("the laboratory makes network namespaces and cgroups: run it as root")
        try:
            for group in (self.cgroup, self.client_cgroup, self.server_cgroup):
                group.mkdir()
        except OSError as error:
            raise LabError(f"cannot make a cgroup: {error}") from error
        for namespace in (self.client_namespace, self.server_namespace):
            _ip("netns", "add", namespace)
        if self._direct:
            ends = ("netns", self.client_namespace, "type", "veth", "peer", "name", _DEVICE)
            _ip("link", "add", _DEVICE, *ends, "netns", self.server_namespace)
        else:
            self.client_device = in_namespace(self.client_namespace, _open_tun)
            self.server_device = in_namespace(self.server_namespace, _open_tun)
        self._configure(self.client_namespace, clients)
        self._configure(self.server_namespace, [SERVER_V4, SERVER_V6])

    def _configure(self, namespace: str, addresses: Sequence[IPv4Address | IPv6Address]) -> None:
        lines = [
            "link set lo up",
            # no link-local address: nothing but the connections' packets on the wire
            f"link set {_DEVICE} addrgenmode none",
            f"link set {_DEVICE} multicast off mtu {FULL_PACKET} txqueuelen {_RING} up",
        ]
        # nodad: duplicate address detection would hold an address back for a second
        lines += [f"addr add {a}/{a.max_prefixlen} dev {_DEVICE}{' nodad' * (a.version == 6)}" for a in addresses]
        if self._direct:
            lines += [f"route add default dev {_DEVICE}"]
        else:
            lines += [
                f"route add default via {_GATEWAY_V4} dev {_DEVICE} onlink",
                f"route add ::/0 via {_GATEWAY_V6} dev {_DEVICE} onlink",
            ]
        settings = {
            "ipv6/conf/all/accept_ra": "0",
            "ipv6/conf/default/accept_ra": "0",
            f"ipv6/conf/{_DEVICE}/router_solicitations": "0",
            "ipv4/tcp_max_syn_backlog": "8192",
            "core/somaxconn": "8192",
        }
        self.sysctl(namespace, settings)
        _ip("-n", namespace, "-batch", "-", text="\n".join(lines))

    def sysctl(self, namespace: str, settings: dict[str, str]) -> None:
        """Writes settings below /proc/sys/net, such as {"ipv4/tcp_rmem": "4096 131072 33554432"}, in a namespace."""
        in_namespace(namespace, lambda: _write_settings(settings))

    def bundle(self, segments: int) -> None:
        """Lets at most so many segments go down the stack as one packet (GSO); 1: every segment is a packet."""
        for namespace in (self.client_namespace, self.server_namespace):
            _ip("-n", namespace, "link", "set", _DEVICE, "gso_max_segs", str(segments))

    def set_congestion(self, namespace: str, algorithm: str) -> None:
        """Makes `algorithm` the namespace's default.

        A namespace may only choose what tcp_allowed_congestion_control lists (net/ipv4/tcp_cong.c,
        tcp_set_default_congestion_control), and only the initial namespace may write that list. So the algorithm is
        added to the list if need be, for the moment of the choice.
        """
        choose = {"ipv4/tcp_congestion_control": algorithm}
        with _locked():
            allowed = _ALLOWED.read_text(encoding="ascii").split()
            if algorithm in allowed:
                self.sysctl(namespace, choose)
                return
            try:
                _ALLOWED.write_text(" ".join([*allowed, algorithm]), encoding="ascii")
            except OSError as error:
                raise LabError(f"congestion control {algorithm}: not in this kernel") from error
            try:
                self.sysctl(namespace, choose)
            finally:
                _ALLOWED.write_text(" ".join(allowed), encoding="ascii")

    def flush_metrics(self) -> None:
        """Forgets what both namespaces' caches of TCP metrics learned."""
        for namespace in (self.client_namespace, self.server_namespace):
            _ip("-n", namespace, "tcp_metrics", "flush")

    def close_devices(self) -> None:
        """Closes this process's copies of the devices' ends; a device vanishes with its last copy."""
        for descriptor in (self.client_device, self.server_device):
            if descriptor >= 0:
                os.close(descriptor)
        self.client_device = self.server_device = -1

    def close(self) -> None:
        """Removes everything; the processes in it must have ended. Raises LabError naming what could not be removed."""
        self.close_devices()
        _remove([self.client_namespace, self.server_namespace], [self.client_cgroup, self.server_cgroup, self.cgroup])


def sweep() -> None:
    """Removes what laboratories left behind whose process was killed."""
    namespaces = Path("/run/netns")
    for entry in namespaces.glob(f"{_PREFIX}*-*-*") if namespaces.is_dir() else ():
        if _abandoned(entry.name.removeprefix(_PREFIX)):
            _remove([entry.name], [])
    for group in mount_point().glob(f"{_CGROUP_PREFIX}*-*"):
        if _abandoned(group.name.removeprefix(_CGROUP_PREFIX)):
            _remove([], [group / "client", group / "server", group])


def _abandoned(rest: str) -> bool:
    pid = rest.partition("-")[0]
    return pid.isdigit() and not Path("/proc", pid).exists()


def _remove(namespaces: Sequence[str], groups: Sequence[Path]) -> None:
    problems = []
    for namespace in namespaces:
        if Path("/run/netns", namespace).exists():
            try:
                _ip("netns", "del", namespace)
            except LabError as error:
                problems.append(str(error))
    for group in groups:
        try:
            _within(2.0, group.rmdir)
        except FileNotFoundError:
            continue
        except OSError as error:
            problems.append(str(error))
    if problems:
        raise LabError("not removed: " + "; ".join(problems))


def _within(seconds: float, action: Callable[[], None]) -> None:
    """Repeats what fails with EBUSY: a cgroup stays busy for a moment after its last process ended."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            action()
        except FileNotFoundError:
            raise
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _ip(*arguments: str, text: str = "") -> None:
    try:
        done = subprocess.run(
            ["ip", *arguments], input=text, capture_output=True, text=True, timeout=_COMMAND_TIMEOUT, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise LabError(f"ip {' '.join(arguments)}: {error} (Debian and Ubuntu: package iproute2)") from error
    if done.returncode:
        raise LabError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


def _open_tun() -> int:
    """A TUN device in this thread's namespace (Documentation/networking/tuntap.rst)."""
    try:
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", _DEVICE.encode(), _IFF_TUN | _IFF_NO_PI))
    except OSError as error:
        raise LabError(f"cannot make a TUN device: {error}") from error
    return descriptor


def _write_settings(settings: dict[str, str]) -> None:
    for name, value in settings.items():
        try:
            (_PROC_NET / name).write_text(value, encoding="ascii")
        except OSError as error:
            raise LabError(f"sysctl {name} = {value}: {error.strerror}") from error


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    """Held while a setting of the whole machine is changed, so that two laboratories do not mix up the restoring."""
    _LOCK.parent.mkdir(parents=True, exist_ok=True)
    with _LOCK.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
