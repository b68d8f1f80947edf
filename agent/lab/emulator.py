"""The process that is the network: it reads packets from two TUN devices and carries them over the paths' links.

Started by the laboratory as `python -m agent.lab.emulator CONTROL CLIENT_TUN SERVER_TUN` with three file descriptors.
Which path a packet belongs to is told by the client's address: the source of what the client's device sends, the
destination of what the server's device sends. Control messages (one JSON value a line; each gets one answer):

    {"do": "paths", "paths": [{"name", "ipv4", "ipv6", "down", "up", "seed"}]}    -> {"ok": true}
    {"do": "change", "path": NAME, "down": LINK or null, "up": LINK or null}      -> {"ok": true}
    {"do": "counters"}    -> {"paths": {NAME: {"down": COUNTERS, "up": COUNTERS}}, "unrouted", "refused", "late_max"}
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import os
import select
import socket
import sys
from ipaddress import ip_network
from time import monotonic
from typing import Any

from agent.errors import LabError
from agent.lab.channel import Channel, die_with_parent
from agent.lab.link import Link, Middlebox
from agent.lab.spec import Direction, LinkSpec

__all__ = ["Emulator", "main"]

_READ = 2048  # more than the devices' MTU of 1500
_BATCH = 64  # packets read from one device before the others get their turn
_IDLE = 1.0  # seconds to sleep when nothing is under way
_DIRECTIONS: tuple[Direction, Direction] = ("down", "up")
# The leading bytes of an address, /24 or /48, in an IPv4 (RFC 791) and in an IPv6 header (RFC 8200)
_SOURCE = slice(12, 15), slice(8, 14)
_DESTINATION = slice(16, 19), slice(24, 30)


class Emulator:
    """Links by path, and the loop that feeds them."""

    def __init__(self, client: int, server: int, control: Channel) -> None:
        self._client = client
        self._server = server
        self._control = control
        self._links: dict[str, dict[Direction, Link]] = {}
        # By the bytes of the client's network: 3 for an IPv4 /24, 6 for an IPv6 /48, so both fit in one table.
        self._up: dict[bytes, Link] = {}
        self._down: dict[bytes, Link] = {}
        self._output: dict[Link, int] = {}  # the device at the link's far end
        self._active: dict[Link, None] = {}  # links that carry packets now: the only ones looked at
        self._unrouted = 0
        self._refused = 0
        self._late_max = 0.0

    def run(self) -> None:
        """Carries packets until the control channel closes."""
        inputs = [self._client, self._server, self._control.fileno()]
        while True:
            timeout = self._deliver()
            # select sleeps to the microsecond; epoll, as Python wraps it, rounds up to a millisecond
            ready = select.select(inputs, [], [], timeout)[0]
            if self._server in ready:
                self._take(self._server, self._down, *_DESTINATION)
            if self._client in ready:
                self._take(self._client, self._up, *_SOURCE)
            if inputs[2] in ready and not self._answer():
                return

    def _deliver(self) -> float:
        """Writes what has arrived; the seconds until something arrives next."""
        now = monotonic()
        write = os.write
        emptied = []
        first: float | None = None
        for link in self._active:
            due = link.next_due()
            if due is not None and due <= now:
                self._late_max = max(self._late_max, now - due)
                device = self._output[link]
                for packet in link.due(now):
                    try:
                        write(device, packet)
                    except OSError:
                        self._refused += 1
                due = link.next_due()
            if due is None:
                emptied.append(link)
            elif first is None or due < first:
                first = due
        for link in emptied:
            del self._active[link]
        if first is None:
            return _IDLE
        soonest = first - monotonic()
        return soonest if soonest > 0 else 0.0

    def _take(self, device: int, table: dict[bytes, Link], ipv4: slice, ipv6: slice) -> None:
        """Reads a batch from `device`; the slices are where a header holds the client's network."""
        read = os.read
        active = self._active
        now = monotonic()
        for _ in range(_BATCH):
            try:
                packet = read(device, _READ)
            except BlockingIOError:
                return
            link = table.get(packet[ipv4] if packet[0] >> 4 == 4 else packet[ipv6])
            if link is None:
                self._unrouted += 1
                continue
            link.offer(now, packet)
            active[link] = None

    def _answer(self) -> bool:
        message = self._control.receive()
        if message is None:
            return False
        try:
            reply = self._handle(message)
        except (LabError, ValueError, KeyError, TypeError, ImportError, AttributeError) as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        self._control.send(reply)
        return True

    def _handle(self, message: dict[str, Any]) -> dict[str, Any]:
        match message["do"]:
            case "paths":
                for path in message["paths"]:
                    self._add(path)
            case "change":
                specs = {each: LinkSpec.from_json(message[each]) for each in _DIRECTIONS if message[each]}
                boxes = {each: _middlebox(spec) for each, spec in specs.items()}  # all or nothing: fail before a change
                for direction, spec in specs.items():
                    link = self._links[message["path"]][direction]
                    link.change(monotonic(), spec)
                    link.middlebox = boxes[direction]
            case "counters":
                late, self._late_max = self._late_max, 0.0
                paths = {
                    name: {direction: link.counters.to_json() for direction, link in links.items()}
                    for name, links in self._links.items()
                }
                return {"paths": paths, "unrouted": self._unrouted, "refused": self._refused, "late_max": late}
            case other:
                raise LabError(f"unknown request {other}")
        return {"ok": True}

    def _add(self, path: dict[str, Any]) -> None:
        links = self._links[path["name"]] = {}
        ends = (self._down, self._client), (self._up, self._server)
        for direction, (table, output) in zip(_DIRECTIONS, ends, strict=True):
            spec = LinkSpec.from_json(path[direction])
            link = Link(spec, seed=f"{path['seed']}/{path['name']}/{direction}", middlebox=_middlebox(spec))
            links[direction] = link
            table[ip_network(path["ipv4"]).network_address.packed[:3]] = link
            table[ip_network(path["ipv6"]).network_address.packed[:6]] = link
            self._output[link] = output


def _middlebox(spec: LinkSpec) -> Middlebox | None:
    if spec.middlebox is None:
        return None
    module, _, name = spec.middlebox.partition(":")
    found: Middlebox = getattr(importlib.import_module(module), name)
    return found


def _hurry() -> None:
    """Real-time scheduling, or else a high priority, or else as things are.

    An ordinary process, however nice, may wait for the running one until the next timer tick: 4 ms at 250 Hz. The
    kernel keeps 5 % of the time for others even if this process never slept (sched_rt_runtime_us).
    """
    try:
        os.sched_setscheduler(0, os.SCHED_RR, os.sched_param(1))
    except OSError:
        with contextlib.suppress(OSError):
            os.nice(-15)


def main(arguments: list[str]) -> None:
    control, client, server = map(int, arguments)
    die_with_parent()
    _hurry()
    for device in (client, server):
        os.set_blocking(device, False)
    emulator = Emulator(client, server, Channel(socket.socket(fileno=control)))
    gc.disable()  # nothing here forms cycles, and a collection would delay every packet under way
    emulator.run()


if __name__ == "__main__":
    main(sys.argv[1:])
