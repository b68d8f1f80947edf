"""The server of a laboratory: sends as many bytes as it is asked for, takes what it is given, tells its socket's state.

Started as `python -m agent.lab.enter --netns N --cgroup PATH -- python -m agent.lab.server CONTROL` with a file
descriptor. On the control channel `{"listen": SERVER OPTIONS}` makes it listen, instead of where it listened before,
and is answered with {"ok": true}. The protocol of its connections, one line a request:

    GET BYTES [keep] [THINK_MS]   so many bytes; then the server closes, or with `keep` waits for the next line
    PUT BYTES                     reads so many bytes, answers with one, closes
    STATE                         one line of JSON: {"congestion": NAME, "tcp_info": {FIELD: int}}
    WATCH MS                      samples rtt and snd_cwnd every MS until STATE, which then has "samples" too
    OPTION NAME VALUE             the application sets a socket option on this connection, in the middle of its life
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import sys
import threading
import time
from typing import Any

from agent.errors import LabError
from agent.lab.channel import Channel, die_with_parent
from agent.lab.tcpinfo import read_tcp_info
from agent.lab.topology import SERVER_V4, SERVER_V6
from agent.lab.workload import PORT, ServerOptions, set_option

__all__ = ["main"]

_PAYLOAD = memoryview(bytes(range(256)) * 4096)  # 1 MiB
_BUFFER = 1 << 18
_LINE_MAX = 256
_WATCHED = ("rtt", "snd_cwnd")  # of TCP_INFO
_STACK = 1 << 19  # bytes; a thread a connection, hundreds of them


class _Connection:
    """One accepted connection, served on a thread of its own."""

    def __init__(self, sock: socket.socket, options: ServerOptions) -> None:
        self._socket = sock
        self._options = options
        self._rest = b""
        self._watch: _Watch | None = None

    def serve(self) -> None:
        with self._socket:
            try:
                for name, value in self._options.accepted.items():
                    set_option(self._socket, name, value)
                while self._request():
                    pass
            except (OSError, LabError, ValueError, IndexError):
                return  # the client has gone, or does not speak the protocol

    def _request(self) -> bool:
        """Serves one line; whether another one may follow."""
        line = self._line()
        match line.split():
            case ["GET", size, *rest]:
                keep = "keep" in rest
                if think := [word for word in rest if word != "keep"]:
                    time.sleep(float(think[0]) / 1000)
                self._send(int(size))
                return keep
            case ["PUT", size]:
                self._take(int(size))
                self._socket.sendall(b"\n")
                return False
            case ["STATE"]:
                name = self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16)
                state = {
                    "congestion": name.rstrip(b"\0").decode(),
                    "user_timeout": self._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT),
                    "tcp_info": read_tcp_info(self._socket),
                }
                if self._watch:
                    state["samples"] = self._watch.end()
                self._socket.sendall(json.dumps(state).encode() + b"\n")
                return True
            case ["WATCH", interval]:
                self._watch = _Watch(self._socket, float(interval) / 1000)
                return True
            case ["OPTION", name, value]:
                set_option(self._socket, name, value)
                return True
        return False

    def _line(self) -> str:
        while b"\n" not in self._rest:
            data = self._socket.recv(_BUFFER)
            if not data or len(self._rest) > _LINE_MAX:
                return ""
            self._rest += data
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode("ascii")

    def _send(self, size: int) -> None:
        while size > 0:
            part = _PAYLOAD[:size]
            self._socket.sendall(part)
            size -= len(part)

    def _take(self, size: int) -> None:
        size -= len(self._rest)
        self._rest = b""
        buffer = bytearray(min(_BUFFER, max(size, 1)))
        while size > 0:
            got = self._socket.recv_into(buffer, min(size, len(buffer)))
            if not got:
                raise LabError("the client left in the middle of an upload")
            size -= got


class _Watch:
    """Samples a socket on a thread of its own until told to end, or until the socket is closed."""

    def __init__(self, sock: socket.socket, interval: float) -> None:
        self._socket = sock
        self._interval = interval
        self._samples: list[tuple[float, dict[str, int]]] = []
        self._over = threading.Event()
        threading.Thread(target=self._sample, daemon=True).start()

    def end(self) -> list[tuple[float, dict[str, int]]]:
        """(seconds since the beginning, fields of TCP_INFO) of every sample."""
        self._over.set()
        return self._samples

    def _sample(self) -> None:
        began = time.monotonic()
        with contextlib.suppress(OSError):  # closed
            while not self._over.wait(self._interval):
                info = read_tcp_info(self._socket)
                sample = {name: info[name] for name in _WATCHED}
                self._samples.append((round(time.monotonic() - began, 4), sample))


def _listen(options: ServerOptions) -> list[socket.socket]:
    listeners = []
    families = [socket.AF_INET6] if options.dual_stack else [socket.AF_INET, socket.AF_INET6]
    for family in families:
        listener = socket.socket(family, socket.SOCK_STREAM)
        listeners.append(listener)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not options.dual_stack)
        for name, value in options.listener.items():
            set_option(listener, name, value)
        address = str(SERVER_V4) if family == socket.AF_INET else "::" if options.dual_stack else str(SERVER_V6)
        listener.bind((address, PORT))
        listener.listen(options.backlog)
        listener.setblocking(False)
    return listeners


def _accept(listener: socket.socket, options: ServerOptions) -> None:
    while True:
        try:
            sock, _ = listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return
        sock.setblocking(True)
        threading.Thread(target=_Connection(sock, options).serve, daemon=True).start()


def main(arguments: list[str]) -> None:
    die_with_parent()
    threading.stack_size(_STACK)
    sys.setswitchinterval(0.0005)  # a thread that has the next answer ready must not wait the usual 5 ms
    control = Channel(socket.socket(fileno=int(arguments[0])))
    listeners: list[socket.socket] = []
    options = ServerOptions()
    while True:
        inputs: list[Any] = [control, *listeners]
        ready = select.select(inputs, [], [])[0]
        for listener in listeners:
            if listener in ready:
                _accept(listener, options)
        if control not in ready:
            continue
        message: Any = control.receive()
        if message is None:
            return
        for listener in listeners:
            listener.close()
        listeners = []
        options = ServerOptions(**message["listen"])
        try:
            listeners = _listen(options)
        except (OSError, LabError) as error:
            control.send({"error": f"the server cannot listen: {error}"})
        else:
            control.send({"ok": True})


if __name__ == "__main__":
    main(sys.argv[1:])
