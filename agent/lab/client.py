"""The client of a laboratory: runs transfers, several at once, and reports every object as soon as it is done.

Started as `python -m agent.lab.enter --netns N --cgroup PATH -- python -m agent.lab.client CONTROL` with a file
descriptor. Control messages, one JSON value a line:

    {"start": ID, "transfer": TRANSFER, "sources": [ADDRESS, ...], "server": ADDRESS}
    {"stop": ID}                                      start no more objects, end those under way
    back: {"job": ID, "completion": COMPLETION} for every object, at the end {"job": ID, "done": true}
"""

from __future__ import annotations

import contextlib
import itertools
import json
import socket
import struct
import sys
import threading
from dataclasses import replace
from time import monotonic
from typing import Any

from agent.lab.channel import Channel, die_with_parent
from agent.lab.workload import PORT, Completion, Transfer, set_option

__all__ = ["main"]

_BUFFER = 1 << 18
_PAYLOAD = memoryview(bytes(1 << 20))
_POLL = 0.25  # seconds a receive call may last before deadlines are looked at
_STACK = 1 << 19
_IP_BIND_ADDRESS_NO_PORT = 24  # include/uapi/linux/in.h: take the port at connect(), so that it is unique per peer only


class _Job:
    """One transfer: as many worker threads as its concurrency."""

    def __init__(self, number: int, transfer: Transfer, ends: tuple[list[str], str], control: Channel) -> None:
        self._number = number
        self._transfer = transfer
        self._sources, self._server = ends
        self._control = control
        self._numbers = itertools.count()
        self._began = monotonic()
        self._stopped = threading.Event()

    def start(self) -> None:
        self._left = self._transfer.concurrency
        self._lock = threading.Lock()
        for _ in range(self._transfer.concurrency):
            threading.Thread(target=self._work, daemon=True).start()

    def stop(self) -> None:
        self._stopped.set()

    def _work(self) -> None:
        transfer = self._transfer
        kept: socket.socket | None = None
        buffer = memoryview(bytearray(_BUFFER))
        with contextlib.suppress(OSError):  # raised when the laboratory has gone
            while (index := self._next()) is not None:
                completion, kept = self._move(index, kept, buffer)
                self._control.send({"job": self._number, "completion": completion.to_json()})
                if transfer.gap_ms and self._stopped.wait(transfer.gap_ms / 1000):
                    break
        if kept is not None:
            kept.close()
        with self._lock:
            self._left -= 1
            last = not self._left
        if last:
            with contextlib.suppress(OSError):
                self._control.send({"job": self._number, "done": True})

    def _next(self) -> int | None:
        if self._stopped.is_set():
            return None
        transfer = self._transfer
        if transfer.seconds is not None and monotonic() - self._began >= transfer.seconds:
            return None
        index = next(self._numbers)
        return index if transfer.count is None or index < transfer.count else None

    def _move(
        self, index: int, kept: socket.socket | None, buffer: memoryview
    ) -> tuple[Completion, socket.socket | None]:
        """Moves one object; what came of it, and the connection if it is kept."""
        transfer = self._transfer
        source = self._sources[index % len(self._sources)]
        completion = Completion(transfer.path, transfer.family, monotonic(), None, 0.0, 0, source, 0)
        sock = kept
        moved = _Moved()
        try:
            if sock is None:
                sock = self._socket(source)
                completion = replace(completion, start=monotonic())
                sock.connect((self._server, PORT))
                completion = replace(completion, connect=monotonic() - completion.start)
            completion = replace(completion, address=sock.getsockname()[0], port=sock.getsockname()[1])
            size = transfer.sizes[index % len(transfer.sizes)] if transfer.sizes else transfer.size
            move = self._upload if transfer.upload else self._download
            move(sock, size, moved, completion.start, buffer)
            completion = replace(completion, seconds=moved.ended - completion.start, bytes=moved.bytes)
            if moved.cut:
                sock.close()
                return completion, None
            if transfer.state:
                completion = replace(completion, state=_ask_state(sock))
            if transfer.keep:
                return completion, sock
            if not transfer.state:
                # The server closes first; a quick close here would cross its FIN. That may be lost: the object is here.
                with contextlib.suppress(OSError):
                    sock.recv_into(buffer)
        except (OSError, ValueError) as error:
            text = "timed out" if isinstance(error, BlockingIOError) else str(error)
            seconds = completion.seconds or monotonic() - completion.start
            completion = replace(completion, seconds=seconds, bytes=moved.bytes, error=text)
        if sock is not None:
            sock.close()
        return completion, None

    def _socket(self, source: str) -> socket.socket:
        family = socket.AF_INET if self._transfer.family == 4 and not self._transfer.mapped else socket.AF_INET6
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
            for name, value in self._transfer.client.items():
                set_option(sock, name, value)
            # Timeouts of the kernel, not of Python: a call can then wait for a whole buffer (MSG_WAITALL)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(self._transfer.timeout))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(_POLL))
            sock.bind((source, 0))
        except BaseException:
            sock.close()
            raise
        return sock

    def _download(self, sock: socket.socket, size: int, moved: _Moved, start: float, buffer: memoryview) -> None:
        transfer = self._transfer
        keep = " keep" if transfer.keep or transfer.state else ""
        think = f" {transfer.think_ms:g}" if transfer.think_ms else ""
        watch = f"WATCH {transfer.watch_ms:g}\n" if transfer.watch_ms else ""
        sock.sendall(f"{self._options()}{watch}GET {size}{keep}{think}\n".encode())
        self._receive(sock, size, moved, start, buffer)

    def _upload(self, sock: socket.socket, size: int, moved: _Moved, start: float, buffer: memoryview) -> None:
        sock.sendall(f"{self._options()}PUT {size}\n".encode())
        while (left := size - moved.bytes) and not self._over(moved, start):
            moved.bytes += sock.send(_PAYLOAD[: min(left, _BUFFER)])
            moved.ended = monotonic()
        if not moved.cut:
            self._receive(sock, 1, _Moved(), start, buffer)
            moved.ended = monotonic()

    def _options(self) -> str:
        return "".join(f"OPTION {name} {value}\n" for name, value in self._transfer.server.items())

    def _receive(self, sock: socket.socket, size: int, moved: _Moved, start: float, buffer: memoryview) -> None:
        """Reads `size` bytes, or until the transfer is cut. MSG_WAITALL: one wake-up a buffer, not one a packet."""
        moved.ended = monotonic()
        while size and not self._over(moved, start):
            try:
                got = sock.recv_into(buffer, min(size, _BUFFER), socket.MSG_WAITALL)
            except BlockingIOError:
                continue
            if not got:
                raise ConnectionError("the server closed early")
            moved.ended = monotonic()
            moved.bytes += got
            size -= got

    def _over(self, moved: _Moved, start: float) -> bool:
        """Whether to stop in the middle of an object; raises BlockingIOError when it took too long."""
        now = monotonic()
        seconds = self._transfer.seconds if self._transfer.cut else None
        if self._stopped.is_set() or (seconds is not None and now - self._began >= seconds):
            moved.cut = True
        elif now - start > self._transfer.timeout:
            raise BlockingIOError
        return moved.cut


class _Moved:
    """How far an object has come."""

    def __init__(self) -> None:
        self.bytes = 0
        self.ended = 0.0
        self.cut = False


def _timeval(seconds: float) -> bytes:
    return struct.pack("ll", int(seconds), int(seconds % 1 * 1e6))  # struct timeval, socket(7)


def _ask_state(sock: socket.socket) -> dict[str, Any]:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(10))
    sock.sendall(b"STATE\n")
    data = b""
    while not data.endswith(b"\n"):
        part = sock.recv(_BUFFER)
        if not part:
            raise ConnectionError("the server closed instead of telling its state")
        data += part
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(_POLL))
    state: dict[str, Any] = json.loads(data)
    return state


def main(arguments: list[str]) -> None:
    die_with_parent()
    threading.stack_size(_STACK)
    sys.setswitchinterval(0.0005)  # the usual 5 ms would show in the times reported
    control = Channel(socket.socket(fileno=int(arguments[0])))
    jobs: dict[int, _Job] = {}
    while (message := control.receive()) is not None:
        if "stop" in message:
            if job := jobs.get(message["stop"]):
                job.stop()
            continue
        number = message["start"]
        ends = message["sources"], message["server"]
        jobs[number] = _Job(number, Transfer(**message["transfer"]), ends, control)
        jobs[number].start()


if __name__ == "__main__":
    main(sys.argv[1:])
