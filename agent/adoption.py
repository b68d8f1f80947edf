"""Sockets older than the agent: listeners learn to keep SYNs, open connections are observed from now on.

The kernel walks its sockets; which of them are in the attached cgroups it does not tell a program that reads none of
its own structures, but sock_diag does. So the agent lists them first and names those to adopt by their cookies.
"""

from __future__ import annotations

import logging
from collections import Counter

import numpy as np

from agent import cgroups
from agent.bpf_source import constants
from agent.errors import KernelError
from agent.kernel import Kernel
from agent.sockets import tcp_sockets

__all__ = ["OBSTACLES", "Adoption"]

logger = logging.getLogger(__name__)

OBSTACLES = {
    "capability": "CAP_PERFMON is missing: tcptuned doctor tells how to add it",
    "kernel": "this kernel has no iterator over TCP sockets that BCC can use (CONFIG_DEBUG_INFO_BTF)",
    "sock_diag": "the kernel's list of sockets cannot be read; in a systemd unit, RestrictAddressFamilies must allow "
    "AF_NETLINK",
}
_ROOT = 1  # the number of the root of every cgroup hierarchy


class Adoption:
    """Adopts once after every `call`: the thread that samples does it, at the next sample.

    obstacle  why nothing can be adopted, a key of OBSTACLES; empty if nothing is in the way
    left      sockets seen and not adopted, by reason; what the kernel side left is in its counters
    """

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self._seen: set[int] = set()
        self._called = False
        self._listeners: frozenset[str] = frozenset()
        self._connections = True
        self.obstacle = kernel.no_iterator
        self.left: Counter[str] = Counter()

    def call(self, listeners: frozenset[str]) -> None:
        """Asks for adoption: of open connections the first time, of listeners if something is wanted of these.

        Where more is wanted than before, those adopted already are adopted again.
        """
        if listeners - self._listeners:
            self._seen.clear()
        self._called, self._listeners = True, listeners

    def again(self) -> None:
        """Asks for the same once more, as there are new cgroups."""
        self._called = True

    def step(self) -> None:
        """Does what was asked for, once; an obstacle is logged, not raised."""
        if not self._called:
            return
        self._called = False
        self.obstacle = self._kernel.no_iterator  # what kept it before may have passed
        if not self.obstacle:
            try:
                self._adopt()
            except OSError as error:
                logger.warning("the sockets cannot be listed: %s", error)
                self.obstacle = "sock_diag"
            except KernelError as error:
                logger.warning("%s", error)
                self.obstacle = "kernel"
        if self.obstacle:
            logger.info("sockets older than the agent are left alone: %s", OBSTACLES[self.obstacle])

    def _adopt(self) -> None:
        if not self._listeners and not self._connections:
            return
        limits, before = constants(), self._kernel.counters()
        ours = set().union(*(cgroups.ids_below(folder) for folder in self._kernel.attached))
        cookies, kinds = [], []
        for each in tcp_sockets(listening=bool(self._listeners), connected=self._connections):
            if each.cookie in self._seen:
                continue
            if each.listening:
                self._seen.add(each.cookie)
            if each.cgroup not in ours and _ROOT not in ours:
                self.left["other_cgroup"] += 1
            elif each.loopback:
                self.left["loopback"] += 1
            else:
                cookies.append(each.cookie)
                kinds.append(limits["ADOPT_LISTENER" if each.listening else "ADOPT_CONNECTION"])
        self._connections = False
        self._kernel.adopt(np.array(cookies, np.uint64), np.array(kinds, np.uint32))
        new = {name: count - before[name] for name, count in self._kernel.counters().items()}
        logger.info("adopted %d listeners and %d open connections", new["adopted_listener"], new["adopted_connection"])
