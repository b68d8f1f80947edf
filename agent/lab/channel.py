"""A control channel between the laboratory and its processes: one JSON value a line over a Unix socket pair."""

from __future__ import annotations

import ctypes
import json
import os
import select
import signal
import socket
import sys
import threading
import time
from typing import Any

from agent.errors import LabError

__all__ = ["Channel", "die_with_parent"]

_PR_SET_PDEATHSIG = 1  # include/uapi/linux/prctl.h
_CHUNK = 1 << 16


class Channel:
    """One end. Sending is safe from several threads; receiving belongs to one thread."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._buffer = b""
        self._lock = threading.Lock()

    @classmethod
    def pair(cls) -> tuple[Channel, socket.socket]:
        """This process's end, and the socket to hand to a child."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        return cls(ours), theirs

    def fileno(self) -> int:
        return self._socket.fileno()

    def send(self, message: Any) -> None:
        """Raises OSError when the other end is gone."""
        data = json.dumps(message, separators=(",", ":")).encode() + b"\n"
        with self._lock:
            self._socket.sendall(data)

    def receive(self, timeout: float | None = None) -> Any:
        """The next message; None when the other end is gone (no message is ever null).

        Waits at most `timeout` seconds (None: for ever), then raises LabError.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        while b"\n" not in self._buffer:
            left = None if deadline is None else max(deadline - time.monotonic(), 0.0)
            if not select.select([self._socket], [], [], left)[0]:
                raise LabError(f"a process of the laboratory did not answer within {timeout:g} s")
            try:
                data = self._socket.recv(_CHUNK)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return json.loads(line)

    def ask(self, message: dict[str, Any], timeout: float = 15.0) -> dict[str, Any]:
        """Sends a request and waits for its answer. Raises LabError for an error, a late answer or a dead process."""
        try:
            self.send(message)
            answer = self.receive(timeout)
        except OSError as error:
            raise LabError(f"a process of the laboratory has ended: {error}") from error
        if answer is None:
            raise LabError("a process of the laboratory has ended; what it said is on stderr")
        if "error" in answer:
            raise LabError(answer["error"])
        found: dict[str, Any] = answer
        return found

    def shutdown(self) -> None:
        """Tells the other end to finish, and wakes a thread of this process that waits for a message."""
        with self._lock:
            try:
                self._socket.shutdown(socket.SHUT_RDWR)
            except OSError:  # the other end was faster
                return

    def close(self) -> None:
        """Ends the connection; doing it twice does nothing."""
        self.shutdown()
        self._socket.close()


def die_with_parent() -> None:
    """Has the kernel kill this process when its parent dies, however that happens (prctl(2), PR_SET_PDEATHSIG).

    The parent is the *thread* that started this process: a laboratory must not be made on a thread that ends before it.
    """
    parent = os.getppid()
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0):
        raise LabError(f"prctl: {os.strerror(ctypes.get_errno())}")
    if os.getppid() != parent:  # it died in between
        sys.exit(1)
