"""The load of the overhead experiment: bulk uploads and short connections that tell how much processor time they took.

Started as `python -m agent.lab.enter --netns N --cgroup PATH -- python -m agent.lab.paper.load CONTROL` with a file
descriptor, once for each end. Much simpler than the laboratory's own client and server, so that what is measured is the
kernel's work more than Python's. Control messages, one JSON value a line; each gets one answer:

    {"do": "pin", "processor": NUMBER}                    run on this processor only
    {"do": "listen", "address": ADDRESS}                  a new listener instead of the old one
    {"do": "bulk", "address": ADDRESS, "seconds": S}      send over one connection for S seconds
    {"do": "short", "address": ADDRESS, "seconds": S}     one connection of 1 KB after the other for S seconds
    {"do": "used"}                                        -> {"seconds": processor seconds so far}

`bulk` and `short` answer {"amount": bytes or connections, "seconds": elapsed}.
"""

from __future__ import annotations

import os
import select
import socket
import struct
import sys
import time
from typing import Any

from agent.errors import LabError
from agent.lab.channel import Channel, die_with_parent
from agent.lab.workload import PORT

__all__ = ["main"]

_CHUNK = 1 << 18  # bytes a system call
_OBJECT = bytes(1000)  # of a short connection
_TIMEOUT = 10.0  # seconds for any single step
# On closing, a reset instead of a FIN: nothing stays in TIME_WAIT however many connections there were (socket(7)).
_RESET = struct.pack("ii", 1, 0)


def _bulk(address: str, seconds: float) -> tuple[int, float]:
    payload = bytes(_CHUNK)
    sent = 0
    with socket.create_connection((address, PORT), _TIMEOUT) as sock:
        sock.sendall(b"bulk\n")
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            sock.sendall(payload)
            sent += _CHUNK
        sock.shutdown(socket.SHUT_WR)
        sock.recv(1)  # the other end has it all
        return sent, time.monotonic() - began


def _short(address: str, seconds: float) -> tuple[int, float]:
    count = 0
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        with socket.create_connection((address, PORT), _TIMEOUT) as sock:
            sock.sendall(b"some\n")
            left = len(_OBJECT)
            while left:
                got = len(sock.recv(left))
                if not got:
                    raise LabError("the other end closed early")
                left -= got
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        count += 1
    return count, time.monotonic() - began


def _serve(sock: socket.socket, buffer: bytearray) -> None:
    """One connection, to its end."""
    sock.settimeout(_TIMEOUT)
    try:
        if sock.recv(5) == b"bulk\n":
            while sock.recv_into(buffer):
                pass
        else:
            sock.sendall(_OBJECT)
            sock.recv(1)
    except ConnectionResetError:
        return


def _answer(message: dict[str, Any], listener: socket.socket | None) -> tuple[dict[str, Any], socket.socket | None]:
    """The answer to a control message, and the listener from now on."""
    match message["do"]:
        case "listen":
            if listener:
                listener.close()
            return {"ok": True}, socket.create_server((message["address"], PORT), backlog=64)
        case "pin":
            os.sched_setaffinity(0, [message["processor"]])
            return {"ok": True}, listener
        case "used":
            return {"seconds": time.process_time()}, listener
        case "bulk" | "short" as what:
            work = _bulk if what == "bulk" else _short
            amount, seconds = work(message["address"], message["seconds"])
            return {"amount": amount, "seconds": seconds}, listener
    raise LabError(f"unknown request {message}")


def main(arguments: list[str]) -> None:
    die_with_parent()
    control = Channel(socket.socket(fileno=int(arguments[0])))
    buffer = bytearray(_CHUNK)
    listener: socket.socket | None = None
    while True:
        inputs: list[Any] = [control, listener] if listener else [control]
        ready = select.select(inputs, [], [])[0]
        if listener in ready and listener:
            with listener.accept()[0] as sock:
                _serve(sock, buffer)
            continue
        message = control.receive()
        if message is None:
            return
        try:
            reply, listener = _answer(message, listener)
        except (OSError, LabError) as error:
            reply = {"error": f"{message['do']}: {error}"}
        control.send(reply)


if __name__ == "__main__":
    main(sys.argv[1:])
