"""What BPF can do here, found by doing it: the programs are built, loaded and attached to a cgroup made for that."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import time
from collections.abc import Iterator
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from importlib.util import find_spec
from pathlib import Path

from agent import cgroups, features, libbpf
from agent.adoption import OBSTACLES
from agent.config import Config
from agent.connect import agent_url, connect
from agent.detach import OWN_NAMES, own_links
from agent.errors import CompileError, KernelError, TcptunedError, UsageError
from agent.finding import Check, Finding, unseen
from agent.kernel import Kernel
from agent.loader import BCC_CURE, Loader
from agent.preflight import missing_capabilities
from agent.sockets import tcp_sockets

__all__ = ["BPF_CHECKS"]

# include/uapi/linux/bpf.h
_ATTACH_TYPES = {"sock_ops": 3, "setsockopt": 22}
_QUERY_EFFECTIVE = 1
_MAP_ARRAY = 2
_MOST_PROGRAMS = 64  # the kernel's own limit (BPF_CGROUP_MAX_PROGS)

_SMALL = {"POLICY_ENTRIES": 64, "ROW_ENTRIES": 64, "HONOURED_ENTRIES": 16}
_SLOW = 10.0  # seconds to build
_TIMEOUT = 3.0  # seconds


def _bcc(_config: Config) -> Iterator[Finding]:
    spec = find_spec("bcc")
    if spec is None or not spec.submodule_search_locations:
        yield Finding("BCC", "missing", "not there", BCC_CURE)
        return
    folder = Path(spec.submodule_search_locations[0])
    if not (folder / "libbcc.py").exists():
        cure = "a package of the same name hides BCC: pip uninstall bcc, or make the environment anew with ./run"
        yield Finding("BCC", "missing", f"{folder} is not BCC", cure)
        return
    # Read, not imported: this process should not load LLVM.
    file = folder / "version.py"
    version = file.read_text(encoding="utf-8").partition("=")[2].strip().strip("'\"") if file.exists() else "unknown"
    yield Finding("BCC", "ok", version, "builds the programs, without kernel headers")


def _libbpf(_config: Config) -> Iterator[Finding]:
    try:
        library = ctypes.CDLL("libbpf.so.1")
    except OSError as error:
        cure = f"maps cannot be read: install libbpf 1 (libbpf1 on Debian and Ubuntu, where BCC brings it): {error}"
        yield Finding("libbpf", "missing", "not there", cure)
        return
    library.libbpf_version_string.restype = ctypes.c_char_p
    yield Finding("libbpf", "ok", library.libbpf_version_string().decode(), "reads and writes the maps")


def _system_call(_config: Config) -> Iterator[Finding]:
    library = ctypes.CDLL("libbpf.so.1")
    fd = library.bpf_map_create(_MAP_ARRAY, b"tcptuned_doctor", 4, 4, 1, None)
    if fd >= 0:
        os.close(fd)
        yield Finding("bpf system call", "ok", "usable", "maps can be made")
    elif fd == -errno.ENOSYS:
        yield Finding("bpf system call", "missing", "not there", "this kernel was built without CONFIG_BPF_SYSCALL")
    elif missing := missing_capabilities():
        yield unseen("bpf system call", f"{' and '.join(missing)} missing; use sudo")
    else:
        cure = "a security module, seccomp or lockdown forbids BPF here; in a container, allow the bpf system call"
        yield Finding("bpf system call", "missing", os.strerror(-fd), cure)


def _programs(_config: Config) -> Iterator[Finding]:
    """Building, loading, attaching and reading, in this order; each needs the one before."""
    steps = ("programs", "attaching", "batches")
    if missing := missing_capabilities():
        for step in steps:
            yield unseen(step, f"{' and '.join(missing)} missing; use sudo")
        return
    begin = time.monotonic()
    try:
        kernel = Kernel(Loader(_SMALL).finish())
    except TcptunedError as error:
        detail = error.text if isinstance(error, CompileError) else ""
        yield Finding("programs", "missing", "do not load", str(error), detail)
        for step in steps[1:]:
            yield unseen(step, "the programs do not load")
        return
    took = time.monotonic() - begin
    try:
        text = "the agent starts slowly: is this machine busy?" if took > _SLOW else "they load; the verifier took them"
        yield Finding("programs", "limited" if took > _SLOW else "ok", f"built in {took:.1f} s", text)
        yield _adopting(kernel)
        yield _attaching(kernel)
        try:
            kernel.drain()
            yield Finding("batches", "ok", "yes", "statistics are read in a few calls, however many paths there are")
        except KernelError as error:
            yield Finding("batches", "missing", "no", f"statistics cannot be read: {error}; a later kernel can")
    finally:
        kernel.close()


def _adopting(kernel: Kernel) -> Finding:
    obstacle = kernel.no_iterator
    if not obstacle:
        try:
            list(tcp_sockets(listening=True, connected=False))
        except OSError:
            obstacle = "sock_diag"
    if obstacle:
        return Finding("older sockets", "limited", "left alone", OBSTACLES[obstacle])
    text = "listeners and connections older than the agent are adopted, in this network namespace"
    return Finding("older sockets", "ok", "can be adopted", text)


def _attaching(kernel: Kernel) -> Finding:
    folder = cgroups.mount_point() / f"tcptuned-doctor-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        return unseen("attaching", f"no cgroup can be made to try it on ({error.strerror})")
    try:
        kernel.attach([folder], packets=True)
    except KernelError as error:
        cure = "a program of another tool is attached there exclusively, or a security module forbids it"
        return Finding("attaching", "missing", "refused", f"{error}: {cure}")
    finally:
        kernel.detach()
        folder.rmdir()
    return Finding("attaching", "ok", "works", "tried on an empty cgroup made for it; detaches when the agent ends")


def _neighbours(config: Config) -> Iterator[Finding]:
    """Programs of others on the configured cgroups, inherited ones included."""
    if missing := missing_capabilities():
        yield unseen("other programs", f"{' and '.join(missing)} missing; use sudo")
        return
    found = [
        f"{name} ({kind})"
        for folder in cgroups.resolve(config.attach.cgroups)
        for kind, number in _ATTACH_TYPES.items()
        for name in _attached(folder, number)
        if name not in OWN_NAMES
    ]
    if found:
        yield Finding(
            "other programs", "limited", ", ".join(sorted(set(found))),
            "they run beside ours; if they set the same options, the last to run wins: bpftool cgroup tree shows them",
        )  # fmt: skip
    else:
        yield Finding("other programs", "ok", "none", "nothing else sets TCP options from these cgroups")


def _attached(folder: Path, kind: int) -> list[str]:
    """The names of the programs of an attach type in force on a cgroup."""
    library = ctypes.CDLL("libbpf.so.1")
    programs, count = (ctypes.c_uint32 * _MOST_PROGRAMS)(), ctypes.c_uint32(_MOST_PROGRAMS)
    target = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        result = library.bpf_prog_query(target, kind, _QUERY_EFFECTIVE, None, programs, ctypes.byref(count))
    finally:
        os.close(target)
    if result < 0:
        raise KernelError("cannot list the programs of a cgroup", -result)
    return [libbpf.program_name(identity) or f"program {identity}" for identity in programs[: count.value]]


def _running(config: Config) -> Iterator[Finding]:
    """An agent that answers, and programs of ours whoever holds them."""
    try:
        url = agent_url(config)
    except UsageError as error:
        url, answer = "", ""
        yield unseen("running agent", error)
    else:
        answer = _answer(connect(config, _TIMEOUT))
        consequence = "tcptuned status shows what it does" if answer else "start it: systemctl start tcptuned"
        yield Finding("running agent", "ok", f"{answer} on {url}" if answer else "none", consequence)
    if not features.effective_capabilities() >> features.CAP_SYS_ADMIN & 1:
        yield unseen("our programs", "CAP_SYS_ADMIN missing; use sudo")
        return
    count = len(own_links())
    if count and not answer:
        yield Finding(
            "our programs", "limited", f"{count} attached",
            f"but no agent answers{f' on {url}' if url else ''}: it hangs, or has another configuration; "
            "tcptuned detach takes them off",
        )  # fmt: skip
    else:
        text = "they are the running agent's" if count else "new connections have the kernel's defaults"
        yield Finding("our programs", "ok", f"{count} attached", text)


def _answer(connection: HTTPConnection) -> str:
    """What answers; empty if nothing does."""
    try:
        connection.request("GET", "/api/v1/status")
        response = connection.getresponse()
        if response.status != HTTPStatus.OK:
            return f"something that refuses (HTTP {response.status})"
        facts = json.load(response)
        return f"version {facts['version']}, {'ready' if facts['ready'] else 'not ready'},"
    except PermissionError:
        return "one that answers root only, use sudo,"
    except (OSError, HTTPException):
        return ""
    except (ValueError, KeyError, TypeError):
        return "something that is not tcptuned"
    finally:
        connection.close()


BPF_CHECKS: tuple[tuple[str, Check], ...] = (
    ("BCC", _bcc),
    ("libbpf", _libbpf),
    ("bpf system call", _system_call),
    ("programs", _programs),
    ("other programs", _neighbours),
    ("running agent", _running),
)
