"""The stand of the overhead experiment: two ends joined by a veth pair, on one processor, and programs to attach."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path
from typing import Literal

import numpy as np

from agent import libbpf
from agent.kernel import possible_processors
from agent.lab.channel import Channel
from agent.lab.processes import Processes, enter_command
from agent.lab.topology import SERVER_V4, Topology, sweep
from agent.loader import Loader, Objects

__all__ = ["BUNDLE", "Load", "Rig", "Sample", "rig"]

Load = Literal["bulk", "short"]

BUNDLE = 65535  # segments of a packet on its way down: the kernel's own limit (GSO_MAX_SEGS)
_CLIENT = IPv4Address("10.77.1.1")
_BPF_CGROUP_SOCK_OPS = 3  # include/uapi/linux/bpf.h
_PATIENCE = 30.0  # seconds a run may take beyond its time


@dataclass(frozen=True)
class Sample:
    """One run: units (bytes or connections) a second, processor seconds a unit, and how many options were inserted,
    parsed and set a unit."""

    rate: float
    cost: float
    done: Sequence[float]


class Rig:
    """Runs loads with one of bench_options.c's programs attached, or none."""

    def __init__(self, topology: Topology, objects: Objects, cgroup: int, server: Channel, clients: list[Channel]):
        self._topology = topology
        self._objects = objects
        self._cgroup = cgroup
        self._server = server
        self._clients = clients

    def bundle(self, segments: int) -> None:
        """At most so many segments a packet from now on."""
        self._topology.bundle(segments)

    def run(self, load: Load, program: str | None, seconds: float, *, loopback: bool = False) -> Sample:
        """One run, over the veth pair or, with `loopback`, inside the server's namespace. LabError, KernelError."""
        client = self._clients[loopback]
        with self._attached(program):
            # The listener is new, so that the program sees it begin and has it keep the SYNs.
            self._server.ask({"do": "listen", "address": str(SERVER_V4)})
            done, used = self._done(), self._used(client)
            request = {"do": load, "address": str(SERVER_V4), "seconds": seconds}
            answer = client.ask(request, seconds + _PATIENCE)
            amount = answer["amount"]
            cost = (self._used(client) - used) / amount
            return Sample(amount / answer["seconds"], cost, ((self._done() - done) / amount).tolist())

    @contextmanager
    def _attached(self, program: str | None) -> Iterator[None]:
        if program is None:
            yield
            return
        link = libbpf.create_link(self._objects.programs[program], self._cgroup, _BPF_CGROUP_SOCK_OPS)
        try:
            yield
        finally:
            os.close(link)

    def _used(self, client: Channel) -> float:
        return sum(float(end.ask({"do": "used"})["seconds"]) for end in (client, self._server))

    def _done(self) -> libbpf.Array:
        """What the programs did so far: inserted, parsed, set; over all processors."""
        counts = np.zeros((3, possible_processors()), np.uint64)
        for index, count in enumerate(counts):
            libbpf.lookup(self._objects.maps["done"].fd, np.array([index], np.uint32), count)
        total: libbpf.Array = counts.sum(axis=1)
        return total


@contextmanager
def rig() -> Iterator[Rig]:
    """Builds it, and removes it at the end of the block. Raises LabError, CompileError, UsageError."""
    sweep()
    loader = Loader({}, "bench_options.c")
    topology = Topology(f"tcptuned-{os.getpid()}-overhead", direct=True)
    processes = Processes()
    with ExitStack() as stack:
        objects = loader.finish()
        stack.callback(objects.close)
        stack.callback(topology.close)
        stack.callback(processes.close)
        topology.open([_CLIENT])
        cgroup = os.open(topology.cgroup, os.O_RDONLY | os.O_DIRECTORY)
        stack.callback(os.close, cgroup)

        def start(namespace: str, group: Path) -> Channel:
            end = processes.start("agent.lab.paper.load", enter_command(namespace, group))
            end.ask({"do": "pin", "processor": max(os.sched_getaffinity(0))})
            return end

        server = start(topology.server_namespace, topology.server_cgroup)
        namespaces = topology.client_namespace, topology.server_namespace
        clients = [start(namespace, topology.client_cgroup) for namespace in namespaces]
        yield Rig(topology, objects, cgroup, server, clients)
