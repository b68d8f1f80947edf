"""The short-lived process that compiles with BCC and hands over what it loaded.

A process that has compiled with BCC holds about 125 MB, most of it LLVM. So a child does it, sends the file descriptors
of programs and maps through the socket it was given, with the layout of every map, and exits.

Protocol, one message: a JSON object `{"programs": [name...], "maps": [{"name", "key", "leaf"}...], "no_iterator":
reason, "remote_clock": whether peers' clocks are asked for}` with the descriptors of the programs, then of the maps, as
SCM_RIGHTS; or `{"error": message, "text": compiler's output, "errno": number}`. The iterator, if there is no reason
against it, is the last program.
Layouts are lists of `[name, format, shape, offset]` in numpy's terms with the total size, nested for structs.
"""

from __future__ import annotations

import ctypes
import json
import os
import socket
import sys
import tempfile
from typing import Any

from agent import features
from agent.bpf_source import FOLDER, expand

__all__ = ["ITERATOR", "PROGRAMS", "SOURCES", "main"]

# name, program type, expected attach type (include/uapi/linux/bpf.h); -1: none
PROGRAMS = (
    ("tcptuned_ops", 13, -1),
    ("tcptuned_choice", 25, 22),
    ("tcptuned_arrival", 8, 0),
    ("tcptuned_thin", 8, 1),
)
MAPS = (
    "policies", "arms", "control", "rows_a", "rows_b", "rtt", "counters",
    "sends", "honoured", "algorithms", "extensions", "adoptable",
)  # fmt: skip
# BCC optimizes what clang hands over (src/cc/bpf_module.cc): once is enough, and takes a third of the time less. The
# programs come out as long as before.
_UNOPTIMIZED = ("-Xclang", "-disable-llvm-passes")
# BPF_PROG_TYPE_TRACING; BCC takes what it iterates over from the name
ITERATOR = ("bpf_iter__tcp", 26)

# By main file: what it holds.
SOURCES = {
    "tcptuned.c": (PROGRAMS, MAPS),
    "bench_options.c": (
        tuple((f"{where}_{what}", 13, -1) for where in ("syn", "every") for what in ("insert", "parse", "set")),
        ("done",),
    ),
}


def describe(kind: Any) -> dict[str, Any]:
    """A ctypes type as JSON from which numpy's dtype can be made."""
    shape: list[int] = []
    while issubclass(kind, ctypes.Array) and kind._type_ is not ctypes.c_char:
        shape.append(kind._length_)
        kind = kind._type_
    if issubclass(kind, ctypes.Structure):
        fields = [[name, describe(member), getattr(kind, name).offset] for name, member, *_ in kind._fields_]
        return {"fields": fields, "shape": shape, "size": ctypes.sizeof(kind)}
    if issubclass(kind, ctypes.Array):
        return {"format": f"S{kind._length_}", "shape": shape}
    signed = kind(-1).value < 0
    return {"format": f"{'i' if signed else 'u'}{ctypes.sizeof(kind)}", "shape": shape}


def load(source: str, defines: dict[str, int]) -> tuple[dict[str, Any], list[int]]:
    """Compiles and loads everything of a main file; returns the message and the descriptors.

    What the verifier finds too large is tried again without the peers' clocks (bpf/clock.h).
    """
    try:
        return _load(source, defines)
    except Exception as error:  # a bare one of BCC's
        if "Argument list too long" not in str(error):
            raise
    return _load(source, {**defines, "REMOTE_CLOCK": 0})


def _load(source: str, defines: dict[str, int]) -> tuple[dict[str, Any], list[int]]:
    programs, names = SOURCES[source]
    os.environ["BCC_KERNEL_SOURCE"] = str(FOLDER / "stubs")
    from bcc import BPF  # noqa: PLC0415  only here: BCC reads the variable when it is imported

    flags = [f"-D{name}={value}" for name, value in defines.items()]
    bpf = BPF(text=expand(source).encode(), cflags=[*flags, *_UNOPTIMIZED])
    descriptors = [bpf.load_func(name.encode(), kind, attach_type=attach).fd for name, kind, attach in programs]
    loaded = [name for name, *_ in programs]
    no_iterator = "kernel"
    if source == "tcptuned.c":
        try:
            descriptors.append(load_iterator(bpf))
            loaded.append(ITERATOR[0])
        except NoIteratorError as error:
            no_iterator = str(error)
    maps = []
    for name in names:
        table = bpf[name.encode()]
        descriptors.append(table.map_fd)
        leaf = getattr(table, "sLeaf", table.Leaf)  # per-CPU tables keep one processor's type there
        maps.append({"name": name, "key": describe(table.Key), "leaf": describe(leaf)})
    remote_clock = bool(defines.get("REMOTE_CLOCK", 1))
    return {"programs": loaded, "maps": maps, "no_iterator": no_iterator, "remote_clock": remote_clock}, descriptors


class NoIteratorError(Exception):
    """Sockets cannot be iterated over: `capability` or `kernel`."""


def load_iterator(bpf: Any) -> int:
    """The descriptor of the program that adopts sockets; raises NoIteratorError."""
    capabilities = features.effective_capabilities()
    if not (capabilities >> features.CAP_PERFMON | capabilities >> features.CAP_SYS_ADMIN) & 1:
        raise NoIteratorError("capability")
    try:
        return int(bpf.load_func(ITERATOR[0].encode(), ITERATOR[1]).fd)
    except Exception as error:  # a bare one of BCC's: no BTF in the kernel, or lockdown
        raise NoIteratorError("kernel") from error


def main() -> int:
    """argv: the socket's descriptor, the main file, the defines as JSON."""
    channel = socket.socket(fileno=int(sys.argv[1]))
    # The compiler and the verifier write to descriptor 2; keep it for the error's text.
    with tempfile.TemporaryFile() as output:
        os.dup2(output.fileno(), 2)
        try:
            message, descriptors = load(sys.argv[2], json.loads(sys.argv[3]))
        except ImportError as error:
            message, descriptors = {"error": "import", "text": str(error), "errno": 0}, []
        except Exception as error:  # BCC raises bare Exception; whatever it is, the agent reports it
            output.seek(0)
            text = output.read()[-20_000:].decode(errors="replace")
            message = {"error": str(error), "text": text, "errno": ctypes.get_errno()}
            descriptors = []
    socket.send_fds(channel, [json.dumps(message).encode()], descriptors)
    channel.close()
    # Skip the interpreter's shutdown: it would close BCC's module slowly for nothing.
    os._exit(0)


if __name__ == "__main__":
    main()
