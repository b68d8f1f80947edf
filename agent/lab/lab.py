"""A WAN laboratory on one machine: real TCP connections of this kernel over emulated paths.

    spec = PathSpec.symmetric("clean", rate_mbps=50, delay_ms=50, queue_packets=400)
    with Lab([spec]) as lab:
        completions = lab.fetch("clean", size=100_000, count=100, concurrency=4)

Needs root, and a thread that lives as long as the laboratory: its processes end with the thread that made it.
"""

from __future__ import annotations

import atexit
import dataclasses
import itertools
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self, overload

from agent.errors import LabError
from agent.lab.jobs import Job, Jobs, Progress, wait_all
from agent.lab.link import Counters
from agent.lab.processes import Processes, enter_command
from agent.lab.spec import LinkSpec, PathSpec
from agent.lab.topology import SERVER_V4, SERVER_V6, Topology, sweep
from agent.lab.workload import PORT, Completion, ServerOptions, Transfer

__all__ = ["EmulatorCounters", "Lab", "PathCounters"]

_numbers = itertools.count(1)


@dataclass(frozen=True)
class PathCounters:
    """Both directions of a path."""

    down: Counters
    up: Counters


@dataclass(frozen=True)
class EmulatorCounters:
    """What the emulator did since the laboratory was opened.

    paths     by name
    unrouted  packets of no path: none, unless a program in the namespaces talks to other addresses
    refused   packets the kernel did not take back from the emulator
    late_max  seconds the latest packet was delivered behind its time since the last reading: above a few milliseconds
              the machine is too busy for its measurements to mean anything
    """

    paths: Mapping[str, PathCounters]
    unrouted: int
    refused: int
    late_max: float


@dataclass(frozen=True)
class _Networks:
    v4: IPv4Network
    v6: IPv6Network


class Lab:
    """Namespaces, emulator, server and client, from `with` to the end of its block.

    paths              what to emulate; their names differ
    server, client     congestion control the two namespaces have as default
    server_options     how the server listens
    client_sysctls, server_sysctls   further settings below /proc/sys/net of the namespaces, such as
                       {"ipv4/tcp_rmem": "4096 262144 33554432"}
    seed               of all random numbers: losses, jitter, service times

    Everything raises LabError. `close` also runs at the interpreter's exit; what a killed process left is removed when
    the next laboratory opens.
    """

    def __init__(
        self,
        paths: Sequence[PathSpec],
        *,
        server_congestion: str = "cubic",
        client_congestion: str = "cubic",
        server_options: ServerOptions | None = None,
        server_sysctls: Mapping[str, str] | None = None,
        client_sysctls: Mapping[str, str] | None = None,
        seed: int = 1,
    ) -> None:
        if len({path.name for path in paths}) != len(paths) or not paths:
            raise LabError("a laboratory needs paths, each with a name of its own")
        self._paths = {path.name: path for path in paths}
        self._networks = {path.name: _networks(index, path) for index, path in enumerate(paths, start=1)}
        _check_distinct(self._networks)
        self._congestion = server_congestion, client_congestion
        self._sysctls = dict(server_sysctls or {}), dict(client_sysctls or {})
        self._server_options = server_options or ServerOptions()
        self._seed = seed
        self.name = f"tcptuned-{os.getpid()}-{next(_numbers)}"
        self._topology = Topology(self.name)
        self._processes = Processes()
        self._jobs: Jobs | None = None
        self._opened = False

    # --- life -------------------------------------------------------------------------------------------------------

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def open(self) -> None:
        """Builds everything and starts the processes; on an error, what was built is removed again."""
        sweep()
        self._opened = True
        atexit.register(self.close)
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        topology = self._topology
        clients = [client for path in self._paths for family in (4, 6) for client in self.addresses(path, family)]
        topology.open(clients)
        for namespace, algorithm, settings in zip(
            (topology.server_namespace, topology.client_namespace), self._congestion, self._sysctls, strict=True
        ):
            topology.sysctl(namespace, settings)
            topology.set_congestion(namespace, algorithm)
        self._emulator = self._processes.start(
            "agent.lab.emulator", descriptors=(topology.client_device, topology.server_device)
        )
        topology.close_devices()
        self._server = self._processes.start("agent.lab.server", self._entering("server"))
        self._jobs = Jobs(self._processes.start("agent.lab.client", self._entering("client")))
        paths = [
            {
                "name": path.name, "ipv4": str(self.network(path.name, 4)), "ipv6": str(self.network(path.name, 6)),
                "down": path.down.to_json(), "up": path.up.to_json(), "seed": self._seed,
            }
            for path in self._paths.values()
        ]  # fmt: skip
        self._emulator.ask({"do": "paths", "paths": paths})
        self.listen(self._server_options)

    def close(self) -> None:
        """Ends the processes and removes namespaces, devices and cgroups. Doing it twice does nothing."""
        if not self._opened:
            return
        self._opened = False
        atexit.unregister(self.close)
        if self._jobs:
            self._jobs.close()
        self._processes.close()
        self._topology.close()

    def _entering(self, side: str) -> list[str]:
        topology = self._topology
        if side == "server":
            return enter_command(topology.server_namespace, topology.server_cgroup)
        if side == "client":
            return enter_command(topology.client_namespace, topology.client_cgroup)
        raise LabError(f"a side of the laboratory is server or client, not {side}")

    # --- facts ------------------------------------------------------------------------------------------------------

    @property
    def server_cgroup(self) -> Path:
        """The cgroup v2 directory the server runs in."""
        return self._topology.server_cgroup

    @property
    def client_cgroup(self) -> Path:
        """The cgroup v2 directory the client runs in."""
        return self._topology.client_cgroup

    @property
    def server_namespace(self) -> str:
        """Name of the server's network namespace."""
        return self._topology.server_namespace

    @property
    def client_namespace(self) -> str:
        """Name of the client's network namespace."""
        return self._topology.client_namespace

    @property
    def server_port(self) -> int:
        """Where the server listens, at `server_address`."""
        return PORT

    def server_address(self, family: int = 4) -> IPv4Address | IPv6Address:
        """The server's address in family 4 or 6."""
        return SERVER_V4 if family == 4 else SERVER_V6

    @overload
    def network(self, path: str, family: Literal[4] = 4) -> IPv4Network: ...

    @overload
    def network(self, path: str, family: int) -> IPv4Network | IPv6Network: ...

    def network(self, path: str, family: int = 4) -> IPv4Network | IPv6Network:
        """The clients' network: a /24 or a /48."""
        networks = self._networks[self._known(path)]
        return networks.v4 if family == 4 else networks.v6

    def addresses(self, path: str, family: int = 4) -> list[IPv4Address | IPv6Address]:
        """The clients' addresses."""
        network = self.network(path, family)
        return [network.network_address + 1 + index for index in range(self._paths[path].addresses)]

    def address(self, path: str, family: int = 4) -> IPv4Address | IPv6Address:
        """The first client's address."""
        return self.addresses(path, family)[0]

    def _known(self, path: str) -> str:
        if path not in self._paths:
            raise LabError(f"no path {path}; there are {', '.join(self._paths)}")
        return path

    # --- work -------------------------------------------------------------------------------------------------------

    def start(self, transfer: Transfer, *, progress: Progress | None = None) -> Job:
        """Begins a transfer and returns at once; `progress` is called with every completion, on another thread."""
        if self._jobs is None or not self._opened:
            raise LabError("the laboratory is not open")
        prefix = "::ffff:" if transfer.mapped else ""
        sources = [f"{prefix}{each}" for each in self.addresses(transfer.path, transfer.family)]
        return self._jobs.start(transfer, sources, f"{prefix}{self.server_address(transfer.family)}", progress)

    def run(
        self, transfers: Sequence[Transfer], *, timeout: float = 300.0, progress: Progress | None = None
    ) -> list[list[Completion]]:
        """Does several transfers side by side; the completions of each, in the same order."""
        return wait_all([self.start(transfer, progress=progress) for transfer in transfers], timeout)

    def fetch(
        self, path: str, size: int, count: int | None = 1, concurrency: int = 1, *,
        timeout: float = 300.0, progress: Progress | None = None, **options: Any,
    ) -> list[Completion]:  # fmt: skip
        """Downloads `count` objects of `size` bytes; `options` are those of Transfer, except that `timeout` is here the
        time for all of it, in seconds."""
        transfer = Transfer(path=path, size=size, count=count, concurrency=concurrency, **options)
        return self.run([transfer], timeout=timeout, progress=progress)[0]

    def upload(self, path: str, size: int, count: int = 1, concurrency: int = 1, **options: Any) -> list[Completion]:
        """Like `fetch`, from the client to the server."""
        return self.fetch(path, size, count, concurrency, upload=True, **options)

    def bulk(self, path: str, seconds: float, *, concurrency: int = 1, **options: Any) -> list[Completion]:
        """Downloads without end over `concurrency` connections and cuts them after `seconds`; `Completion.mbps` and
        `goodput_mbps` tell the goodput."""
        options = {"seconds": seconds, "cut": True, "timeout": seconds + 60.0, **options}
        size = options.pop("size", 1 << 50)
        return self.fetch(path, size, concurrency, concurrency, **options)

    def listen(self, options: ServerOptions) -> None:
        """Replaces the server's listeners; connections it accepted before go on."""
        self._server.ask({"listen": dataclasses.asdict(options)})

    def change(self, path: str, *, down: LinkSpec | None = None, up: LinkSpec | None = None) -> None:
        """Gives a path other properties from now on; a direction left out stays as it is."""
        specs = {"down": down.to_json() if down else None, "up": up.to_json() if up else None}
        self._emulator.ask({"do": "change", "path": self._known(path), **specs})

    def counters(self) -> EmulatorCounters:
        """Reads the emulator's counters."""
        answer = self._emulator.ask({"do": "counters"})
        paths = {
            name: PathCounters(down=Counters(**links["down"]), up=Counters(**links["up"]))
            for name, links in answer["paths"].items()
        }
        return EmulatorCounters(paths, answer["unrouted"], answer["refused"], answer["late_max"])

    def flush_metrics(self) -> None:
        """Empties the caches of TCP metrics of both namespaces."""
        self._topology.flush_metrics()

    def run_in(self, side: str, command: Sequence[str], **options: Any) -> subprocess.Popen[Any]:
        """Starts a program in the namespace and the cgroup of a side, "server" or "client".

        `options` go to subprocess.Popen. The program ends with this process, and at the latest with the laboratory.
        """
        return self._processes.run([*self._entering(side), *command], options)


def _networks(index: int, path: PathSpec) -> _Networks:
    try:
        v4 = ip_network(path.ipv4 or f"10.77.{index}.0/24")
        v6 = ip_network(path.ipv6 or f"fd77:{index:x}::/48")
    except ValueError as error:
        raise LabError(f"path {path.name}: {error}") from error
    if not isinstance(v4, IPv4Network) or not isinstance(v6, IPv6Network) or (v4.prefixlen, v6.prefixlen) != (24, 48):
        raise LabError(f"path {path.name}: its networks are an IPv4 /24 and an IPv6 /48, not {v4} and {v6}")
    return _Networks(v4, v6)


def _check_distinct(networks: Mapping[str, _Networks]) -> None:
    taken = [network for each in networks.values() for network in (each.v4, each.v6)]
    if len(set(taken)) != len(taken):
        raise LabError("two paths have the same network")
