"""The kernel side as the agent sees it: attach, publish, drain, read. The only module that touches BPF maps."""

from __future__ import annotations

import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from agent import cgroups, libbpf
from agent.bpf_source import constants, counter_names, outcome_names
from agent.errors import KernelError
from agent.libbpf import Array
from agent.loader import Map, Objects

__all__ = ["EXTENSIONS", "Kernel", "possible_processors"]

logger = logging.getLogger(__name__)

# The options in the kernel's order (bpf/consts.h, EXTENSION_*).
EXTENSIONS = ("user_timeout", "congestion_request", "window_request", "ack_request", "ack_announcement")

# include/uapi/linux/bpf.h
_ATTACH_TYPES = {"tcptuned_ops": 3, "tcptuned_choice": 22}
# For every packet, so only where ACKs may be thinned.
_PACKET_TYPES = {"tcptuned_arrival": 0, "tcptuned_thin": 1}
_BATCH = 4096  # entries a batch: bounds the buffers to 1.2 MB


class Kernel:
    """Programs and maps in use. Not thread-safe: one thread samples, publishes and closes."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._maps = objects.maps
        self._links: dict[Path, list[int]] = {}
        self._packet_links: dict[Path, list[int]] = {}
        self._wanted: tuple[Path, ...] = ()
        self._packets = False
        self.attached: dict[Path, int] = {}  # the cgroups' numbers
        self.row_key = self._maps["rows_a"].key
        self.row = self._maps["rows_a"].leaf
        self.policy = self._maps["policies"].leaf
        self.prefix_key = self._maps["policies"].key
        self.arm = self._maps["arms"].leaf
        self.sends = self._maps["sends"].leaf
        self._control = np.zeros(1, self._maps["control"].leaf)
        self._keys = np.zeros(_BATCH, self.row_key)
        self._rows = np.zeros(_BATCH, self.row)
        self._processors = possible_processors()

    def attach(self, folders: Sequence[Path], *, packets: bool = False) -> None:
        """Attaches the programs to every cgroup by links, which vanish with this process.

        `packets`: those too that see every packet, to thin ACKs.
        """
        self._wanted = tuple(folders)
        for folder in folders:
            self._attach(folder)
        self.watch_packets(packets)

    def watch_packets(self, wanted: bool) -> None:
        """Attaches or detaches the programs that see every packet; before `attach` there is nothing to do."""
        try:
            for folder in self.attached:
                if wanted and folder not in self._packet_links:
                    self._packet_links[folder] = self._linked(folder, _PACKET_TYPES)
        except BaseException:
            _close(self._packet_links)
            self._packets = False
            raise
        if not wanted:
            _close(self._packet_links)
        self._packets = wanted

    def _attach(self, folder: Path) -> None:
        number = folder.stat().st_ino
        self._links[folder] = self._linked(folder, _ATTACH_TYPES)
        self.attached[folder] = number

    def _linked(self, folder: Path, kinds: dict[str, int]) -> list[int]:
        """Links of these programs to a cgroup."""
        links: list[int] = []
        target = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            for name, kind in kinds.items():
                links.append(libbpf.create_link(self._objects.programs[name], target, kind))
        except BaseException:
            _close({folder: links})
            raise
        finally:
            os.close(target)
        return links

    def follow(self) -> list[Path]:
        """Lets go of cgroups that are gone, and attaches to those made anew, as a restarted service's is: returns them.

        A link ends with its cgroup, and holds for no other of the same name.
        """
        for folder in [folder for folder, number in self.attached.items() if cgroups.number(folder) != number]:
            for links in (self._packet_links, self._links):
                _close({folder: links.pop(folder, [])})
            del self.attached[folder]
        anew = []
        for folder in self._wanted:
            if folder in self.attached or not cgroups.number(folder):
                continue
            try:
                self._attach(folder)
                self.watch_packets(self._packets)
            except (OSError, KernelError) as error:  # gone again, or somebody does not let us: the others go on
                logger.warning("%s was made anew, but cannot be attached to: %s", folder, error)
                continue
            anew.append(folder)
        if not self._wanted:  # detached meanwhile, at the end
            self.detach()
        return anew

    def notice_detached(self) -> bool:
        """Whether somebody took our programs off from outside; `attached` is empty then, and stays so."""
        for folder, number in self.attached.items():
            links = [*self._links[folder], *self._packet_links.get(folder, ())]
            # In this order: the links of a cgroup that is gone end after it is.
            if not all(libbpf.link_cgroup(link) for link in links) and cgroups.number(folder) == number:
                self.detach()
                return True
        return False

    def detach(self) -> None:
        """Takes the programs off; maps stay readable, so that what is left can still be drained."""
        self._wanted = ()
        _close(self._packet_links)
        _close(self._links)
        self.attached.clear()

    def close(self) -> None:
        """Detaches and frees everything."""
        self.detach()
        self._objects.close()

    def control(self, **fields: Any) -> None:
        """Changes the named fields of `struct control` (bpf/structs.h) and writes it."""
        for name, value in fields.items():
            self._control[name] = value
        libbpf.update(self._maps["control"].fd, np.zeros(1, np.uint32), self._control)

    def publish_arms(self, arms: Array) -> None:
        """Writes the meaning of every arm; shape (dimensions * arms,), dtype `self.arm`."""
        libbpf.update_batch(self._maps["arms"].fd, np.arange(len(arms), dtype=np.uint32), arms)

    def publish(self, keys: Array, policies: Array) -> None:
        """Writes policies; dtypes `self.prefix_key` and `self.policy`."""
        libbpf.update_batch(self._maps["policies"].fd, keys, policies)

    def withdraw(self, keys: Array) -> None:
        """Deletes policies: their networks inherit from the next shorter prefix."""
        libbpf.delete_batch(self._maps["policies"].fd, keys)

    def publish_extensions(self, sends: Array, algorithms: Array, honoured: Array, before: Array) -> None:
        """Writes what the options need (agent/extensions.py); `before` are the networks honoured until now.

        A network of both is honoured all along: a reload refuses nobody.
        """
        libbpf.update_batch(self._maps["sends"].fd, np.arange(len(sends), dtype=np.uint32), sends)
        libbpf.update_batch(self._maps["algorithms"].fd, np.arange(len(algorithms), dtype=np.uint32), algorithms)
        libbpf.delete_batch(self._maps["honoured"].fd, np.setdiff1d(before, honoured))
        libbpf.update_batch(self._maps["honoured"].fd, honoured, np.ones(len(honoured), np.uint32))

    @property
    def no_iterator(self) -> str:
        """Why sockets older than the agent cannot be adopted: `capability`, `kernel`, or empty if they can."""
        iterator = self._objects.iterator
        return iterator if isinstance(iterator, str) else ""

    def adopt(self, cookies: Array, kinds: Array) -> None:
        """Adopts the sockets with these cookies (uint64); kinds are ADOPT_LISTENER or ADOPT_CONNECTION (uint32).

        Only sockets of this thread's network namespace are found. Does nothing where there is an obstacle.
        """
        iterator, most = self._objects.iterator, constants()["ADOPT_ENTRIES"]
        if isinstance(iterator, str):
            return
        adoptable = self._maps["adoptable"].fd
        for first in range(0, len(cookies), most):
            part = slice(first, first + most)
            libbpf.update_batch(adoptable, cookies[part], kinds[part])
            try:
                libbpf.iterate(iterator)
            finally:
                libbpf.drain(adoptable, np.zeros(most, np.uint64), np.zeros(most, np.uint32))

    def drain(self) -> tuple[Array, Array]:
        """What connections did since it was drained last: keys and rows, dtypes `self.row_key` and `self.row`.

        Reads the map that was written before the last call, which by now no program still holds a pointer into, then
        makes it the one to be written. So what happens is returned by the second call after it at the latest.
        """
        idle = 1 - int(self._control["active_rows"][0])
        batches = self._drain(self._maps["rows_b" if idle else "rows_a"])
        self.control(active_rows=idle)
        return _joined(batches, self.row_key, self.row)

    def drain_all(self) -> tuple[Array, Array]:
        """Both maps; for the end, when the programs are detached."""
        return _joined(self._drain(self._maps["rows_a"]) + self._drain(self._maps["rows_b"]), self.row_key, self.row)

    def _drain(self, rows: Map) -> list[tuple[Array, Array]]:
        return libbpf.drain(rows.fd, self._keys, self._rows)

    def counters(self) -> dict[str, int]:
        """The counters of consts.h, summed over processors."""
        values = np.zeros(self._processors, np.uint64)
        totals = {}
        for index, name in enumerate(counter_names()):
            libbpf.lookup(self._maps["counters"].fd, np.array([index], np.uint32), values)
            totals[name] = int(values.sum())
        return totals

    def extension_counts(self) -> dict[tuple[str, str], int]:
        """What happened to the options, by extension and outcome (bpf/consts.h)."""
        values = np.zeros(self._processors, np.uint64)
        counts = {}
        for number, extension in enumerate(EXTENSIONS):
            for position, outcome in enumerate(outcome_names()):
                index = np.array([number * constants()["OUTCOME_ROOM"] + position], np.uint32)
                libbpf.lookup(self._maps["extensions"].fd, index, values)
                counts[extension, outcome] = int(values.sum())
        return counts

    def rtt(self, group: int) -> tuple[Array, int]:
        """The RTT histogram of a group: counts by slot (bpf/consts.h), and the sum of all samples in microseconds."""
        leaf = self._maps["rtt"].leaf
        values = np.zeros(self._processors, leaf)
        libbpf.lookup(self._maps["rtt"].fd, np.array([group], np.uint32), values)
        slots, last = values["slots"].sum(axis=0), constants()["RTT_SLOTS"] - 1
        return np.append(slots[:last], slots[last:].sum()), int(values["sum_us"].sum())

    def clear_rtt(self) -> None:
        """Empties the RTT histograms of all groups: their numbers mean other groups from now on."""
        values = np.zeros(self._processors, self._maps["rtt"].leaf)
        for group in range(constants()["GROUPS"]):
            libbpf.update(self._maps["rtt"].fd, np.array([group], np.uint32), values)

    @property
    def remote_clock(self) -> bool:
        """Whether transfers are timed by the peers' clocks where these tell (bpf/clock.h)."""
        return self._objects.remote_clock

    def linked(self) -> frozenset[str]:
        """The programs that are attached to a cgroup."""
        watching = _PACKET_TYPES if self._packet_links else {}
        return frozenset([*_ATTACH_TYPES, *watching] if self.attached else [])

    def program_costs(self) -> dict[str, tuple[int, int]]:
        """Runs and nanoseconds by program; zero unless the sysctl kernel.bpf_stats_enabled is on."""
        costs = {}
        for name, fd in self._objects.programs.items():
            fields = dict(
                line.split(":", 1) for line in Path(f"/proc/self/fdinfo/{fd}").read_text(encoding="ascii").splitlines()
            )
            costs[name] = int(fields.get("run_cnt", 0)), int(fields.get("run_time_ns", 0))
        return costs


def _close(links: dict[Path, list[int]]) -> None:
    while links:
        _, ended = links.popitem()
        for link in ended:
            os.close(link)


def _joined(batches: list[tuple[Array, Array]], key: np.dtype[Any], leaf: np.dtype[Any]) -> tuple[Array, Array]:
    if not batches:
        return np.zeros(0, key), np.zeros(0, leaf)
    return np.concatenate([keys for keys, _ in batches]), np.concatenate([rows for _, rows in batches])


def possible_processors() -> int:
    """Per-CPU values come for every possible processor, online or not."""
    last = Path("/sys/devices/system/cpu/possible").read_text(encoding="ascii").strip().rpartition("-")[2]
    return int(last.rpartition(",")[2]) + 1
