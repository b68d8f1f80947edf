"""Gets the programs and maps from the child that compiles them (bcc_child.py)."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from agent.child import environment, module_command
from agent.config_extensions import MOST_HONOURED
from agent.errors import CompileError, UsageError

if TYPE_CHECKING:
    import numpy as np

    from agent.config import Config

__all__ = ["Loader", "Map", "Objects", "map_sizes", "most_networks"]

BCC_CURE = (
    "BCC for the system's Python is missing; install the distribution's package: python3-bpfcc on Debian and Ubuntu, "
    "python3-bcc on Fedora, and use an environment made with --system-site-packages"
)
_MESSAGE_BYTES = 1 << 20
_DESCRIPTORS = 64


@dataclass(frozen=True)
class Map:
    """A BPF map: its descriptor and the numpy types of its keys and values (of one processor, if per-CPU)."""

    name: str
    fd: int
    key: np.dtype[Any]
    leaf: np.dtype[Any]


@dataclass(frozen=True)
class Objects:
    """What was loaded: descriptors by program name, maps by name. The descriptors are the caller's to close.

    `iterator` is the program that adopts sockets older than the agent, or why there is none: `capability` (CAP_PERFMON
    is missing) or `kernel`. `remote_clock`: whether transfers are timed by the peers' clocks where these tell.
    """

    programs: dict[str, int]
    maps: dict[str, Map]
    iterator: int | str = "kernel"
    remote_clock: bool = True

    def close(self) -> None:
        """Closes every descriptor; the kernel frees what nothing else holds."""
        iterator = [self.iterator] if isinstance(self.iterator, int) else []
        for fd in [*self.programs.values(), *iterator, *(entry.fd for entry in self.maps.values())]:
            os.close(fd)


def most_networks(paths: int) -> int:
    """How many networks above so many paths are kept; paths of others inherit from their group alone."""
    return max(64, paths // 4)


def map_sizes(config: Config) -> dict[str, int]:
    """The sizes of the kernel's maps, as the C sources name them."""
    entries = config.paths.max + sum(len(rule.match) for rule in config.paths.rules) + 2
    # New paths come in between two control steps before the oldest are dropped.
    return {
        "POLICY_ENTRIES": entries + config.sampling.rows + most_networks(config.paths.max),
        "ROW_ENTRIES": config.sampling.rows,
        "HONOURED_ENTRIES": MOST_HONOURED,  # room for a reload that names more
    }


def dtype(layout: dict[str, Any]) -> np.dtype[Any]:
    """The numpy type that `bcc_child.describe` described."""
    import numpy as np  # noqa: PLC0415  the compiler must be at work before this takes its 0.1 s

    if "fields" in layout:
        names = [name for name, _, _ in layout["fields"]]
        formats = [dtype(member) for _, member, _ in layout["fields"]]
        offsets = [offset for _, _, offset in layout["fields"]]
        base = np.dtype({"names": names, "formats": formats, "offsets": offsets, "itemsize": layout["size"]})
    else:
        base = np.dtype(layout["format"])
    return np.dtype((base, tuple(layout["shape"]))) if layout["shape"] else base


class Loader:
    """Starts compiling at once; `finish` waits for the result, so that the caller can do other things meanwhile."""

    def __init__(self, defines: dict[str, int], source: str = "tcptuned.c") -> None:
        self._channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _MESSAGE_BYTES)
        theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MESSAGE_BYTES)
        with theirs:
            self._child = subprocess.Popen(
                module_command("agent.bcc_child", str(theirs.fileno()), source, json.dumps(defines)),
                pass_fds=[theirs.fileno()],
                env=environment(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
            )

    def finish(self, timeout: float = 60.0) -> Objects:
        """The loaded objects.

        Raises UsageError if BCC is missing, CompileError if it failed or took longer than `timeout` seconds.
        """
        deadline = time.monotonic() + timeout
        try:
            if not select.select([self._channel], [], [], max(0.0, deadline - time.monotonic()))[0]:
                raise CompileError(f"BCC did not finish within {timeout:.0f} s; is the machine overloaded?", "")
            data, descriptors, _, _ = socket.recv_fds(self._channel, _MESSAGE_BYTES, _DESCRIPTORS)
        finally:
            self._channel.close()
            self._child.kill()
            self._child.wait()
        if not data:
            raise CompileError("the BCC process died before it answered", "")
        message = json.loads(data)
        if "error" in message:
            if message["error"] == "import":
                raise UsageError(f"{BCC_CURE} ({message['text']})")
            raise CompileError(_cure(message), message["text"], message["errno"])
        names = message["programs"]
        programs = dict(zip(names, descriptors, strict=False))
        maps = {
            entry["name"]: Map(entry["name"], fd, dtype(entry["key"]), dtype(entry["leaf"]))
            for entry, fd in zip(message["maps"], descriptors[len(names) :], strict=True)
        }
        return Objects(
            programs, maps, programs.pop("bpf_iter__tcp", message["no_iterator"]), message["remote_clock"]
        )  # fmt: skip


def _cure(message: dict[str, Any]) -> str:
    text = message["text"] + message["error"]
    if "Operation not permitted" in text:
        return (
            "the kernel refused to load BPF programs: run as root, or with the capabilities CAP_BPF and CAP_NET_ADMIN"
        )
    last = [line for line in message["text"].splitlines() if line.strip()][-1:]
    return f"BCC could not build the programs: {message['error']}" + (f" ({last[0].strip()})" if last else "")
