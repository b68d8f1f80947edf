"""The calls of libbpf that the agent needs; libbcc depends on it, so it is there wherever BCC is.

Every function raises KernelError with the kernel's errno. Arrays are contiguous numpy arrays, used in place.
"""

from __future__ import annotations

import ctypes
import errno
import os
from functools import cache
from typing import Any

import numpy as np

from agent.errors import KernelError, UsageError

__all__ = [
    "create_link", "delete_batch", "detach_link", "drain", "iterate", "links", "lookup", "program_name", "update",
    "update_batch",
]  # fmt: skip

Array = np.ndarray[Any, np.dtype[Any]]

_ANY = 0
_TRACE_ITER = 28  # BPF_TRACE_ITER (include/uapi/linux/bpf.h)
_U32 = ctypes.c_uint32


class _LinkInfo(ctypes.Structure):
    """struct bpf_link_info (include/uapi/linux/bpf.h), as far as cgroup links need it."""

    _fields_ = (
        ("type", _U32),
        ("id", _U32),
        ("prog_id", _U32),
        ("cgroup_id", ctypes.c_uint64),
        ("attach_type", _U32),
        ("rest", ctypes.c_uint8 * 256),
    )


class _ProgramInfo(ctypes.Structure):
    """struct bpf_prog_info (include/uapi/linux/bpf.h): the name is at byte 64."""

    _fields_ = (("before", ctypes.c_uint8 * 64), ("name", ctypes.c_char * 16), ("rest", ctypes.c_uint8 * 256))


@cache
def _library() -> ctypes.CDLL:
    try:
        return ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError as error:
        raise UsageError(f"libbpf.so.1 is missing; it comes with BCC (Debian, Ubuntu: libbpf1): {error}") from error


def _check(result: int, action: str) -> int:
    if result < 0:
        raise KernelError(action, -result)
    return result


def _pointer(array: Array) -> ctypes.c_void_p:
    return array.ctypes.data_as(ctypes.c_void_p)


def lookup(fd: int, key: Array, value: Array) -> None:
    """Reads one value; of a per-CPU map, `value` has one element (of 8-byte multiples) per possible processor."""
    _check(_library().bpf_map_lookup_elem(fd, _pointer(key), _pointer(value)), "cannot read a BPF map")


def update(fd: int, key: Array, value: Array) -> None:
    """Writes one value."""
    _check(_library().bpf_map_update_elem(fd, _pointer(key), _pointer(value), ctypes.c_uint64(_ANY)),
           "cannot write a BPF map")  # fmt: skip


def update_batch(fd: int, keys: Array, values: Array) -> None:
    """Writes len(keys) values in one call; one by one on kernels without batches for this kind of map."""
    count = _U32(len(keys))
    if not len(keys):
        return
    result = _library().bpf_map_update_batch(fd, _pointer(keys), _pointer(values), ctypes.byref(count), None)
    if result in (-errno.EINVAL, -errno.EOPNOTSUPP, -524):  # 524: the kernel's internal ENOTSUPP
        for index in range(len(keys)):
            update(fd, keys[index : index + 1], values[index : index + 1])
        return
    _check(result, "cannot write a BPF map")


def delete_batch(fd: int, keys: Array) -> None:
    """Deletes every key that is there."""
    for index in range(len(keys)):
        result = _library().bpf_map_delete_elem(fd, _pointer(keys[index : index + 1]))
        if result != -errno.ENOENT:
            _check(result, "cannot delete from a BPF map")


def drain(fd: int, keys: Array, values: Array) -> list[tuple[Array, Array]]:
    """Reads and deletes every entry of a hash map; `keys` and `values` are the buffers of one batch.

    Returns copies, one (keys, values) pair a batch.
    """
    function = _library().bpf_map_lookup_and_delete_batch
    position, following = _U32(0), _U32(0)
    start = None
    batches = []
    while True:
        count = _U32(len(keys))
        result = function(
            fd, start, ctypes.byref(following), _pointer(keys), _pointer(values), ctypes.byref(count), None
        )
        if result not in (0, -errno.ENOENT):
            _check(result, "cannot read a BPF map")
        if count.value:
            batches.append((keys[: count.value].copy(), values[: count.value].copy()))
        if result:
            return batches
        position.value = following.value
        start = ctypes.byref(position)


def create_link(program: int, target: int, attach_type: int) -> int:
    """Attaches a program to a cgroup by a link; the kernel detaches it when the returned descriptor is closed."""
    return _check(_library().bpf_link_create(program, target, attach_type, None), "cannot attach a BPF program")


def iterate(program: int) -> None:
    """Runs an iterator's program once on everything there is in this thread's network namespace."""
    library = _library()
    link = _check(library.bpf_link_create(program, 0, _TRACE_ITER, None), "cannot attach a BPF iterator")
    try:
        walk = _check(library.bpf_iter_create(link), "cannot start a BPF iterator")
        try:
            while os.read(walk, 4096):
                pass
        finally:
            os.close(walk)
    finally:
        os.close(link)


def links() -> list[tuple[int, int, int]]:
    """Every cgroup link on this host as (link id, program id, cgroup id). Needs CAP_SYS_ADMIN."""
    found = []
    identity = _U32(0)
    while (result := _library().bpf_link_get_next_id(identity, ctypes.byref(identity))) != -errno.ENOENT:
        _check(result, "cannot list the attached BPF links (run with sudo)")
        fd = _library().bpf_link_get_fd_by_id(identity)
        if fd == -errno.ENOENT:
            continue
        _check(fd, "cannot look at the attached BPF links")
        info = _LinkInfo()
        _info(fd, info, "cannot look at a BPF link")
        if info.type == 3:  # BPF_LINK_TYPE_CGROUP
            found.append((identity.value, int(info.prog_id), int(info.cgroup_id)))
    return found


def link_cgroup(fd: int) -> int:
    """The cgroup that a link of ours is attached to; 0 once somebody detached it."""
    info = _LinkInfo()
    _read_info(fd, info, "cannot look at a BPF link")
    return int(info.cgroup_id)


def program_name(identity: int) -> str:
    """The name of the program with this id, at most 15 characters; empty if it is gone."""
    fd = _library().bpf_prog_get_fd_by_id(_U32(identity))
    if fd == -errno.ENOENT:
        return ""
    _check(fd, "cannot look at a BPF program")
    info = _ProgramInfo()
    _info(fd, info, "cannot look at a BPF program")
    return bytes(info.name).decode()


def detach_link(identity: int) -> None:
    """Detaches a link whoever holds it. Needs CAP_SYS_ADMIN."""
    fd = _check(_library().bpf_link_get_fd_by_id(_U32(identity)), "cannot open a BPF link")
    try:
        _check(_library().bpf_link_detach(fd), "cannot detach a BPF link")
    finally:
        os.close(fd)


def _info(fd: int, info: ctypes.Structure, action: str) -> None:
    """Fills `info` and closes the descriptor."""
    try:
        _read_info(fd, info, action)
    finally:
        os.close(fd)


def _read_info(fd: int, info: ctypes.Structure, action: str) -> None:
    size = _U32(ctypes.sizeof(info))
    _check(_library().bpf_obj_get_info_by_fd(fd, ctypes.byref(info), ctypes.byref(size)), action)
