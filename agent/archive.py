"""A file of arrays that is whole, or refused: written at once or not at all, checked before memory is taken for it.

Layout: a line with the format's name and version, the header's length (8 bytes), the header (JSON), the arrays one
after the other, BLAKE2b-256 of everything before. All little-endian, arrays in C order. numpy's own .npz would hold the
arrays, but its reader allocates whatever a member claims to be; here all sizes must add up to the file's first.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from agent.errors import TcptunedError
from agent.libbpf import Array

__all__ = ["DamagedError", "read", "write"]

_NAME = b"tcptuned state "
_FIRST_LINE = _NAME + b"1\n"
_LENGTH_BYTES = 8
_DIGEST_BYTES = 32
_MOST_HEADER = 1 << 20
_CHUNK = 1 << 20
_KINDS = ("|u1", "<u2", "<u4", "<i8", "<f4", "<f8")
_MOST_DIMENSIONS = 4


class DamagedError(TcptunedError):
    """A file that is not one of ours, or not whole, or of a version that this program does not know."""


def write(path: Path, facts: Mapping[str, Any], arrays: Mapping[str, Array]) -> int:
    """Replaces the file at `path`: afterwards it is the new one or still the old one, whatever happens meanwhile.

    `facts` are ready for JSON; the arrays' types are those of `_KINDS`. Only the own user may read the file. Returns
    its size in bytes; raises OSError.
    """
    unfinished = path.with_name(f"{path.name}.unfinished")
    with contextlib.suppress(FileNotFoundError):
        unfinished.unlink()  # of an agent that was killed; opening it anew refuses whatever else has the name
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(descriptor, "wb", buffering=0) as file:
            size = _write(file, facts, arrays)
            os.fsync(descriptor)
        unfinished.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)  # or a loss of power may bring the old name back
    finally:
        os.close(folder)
    return size


def _write(file: Any, facts: Mapping[str, Any], arrays: Mapping[str, Array]) -> int:
    kinds = {name: [array.dtype.str, list(array.shape)] for name, array in arrays.items()}
    if unknown := [kind for kind, _ in kinds.values() if kind not in _KINDS]:
        raise ValueError(f"arrays of {unknown[0]} have no place in this format")
    header = json.dumps({"facts": facts, "arrays": kinds}, allow_nan=False).encode()
    if len(header) > _MOST_HEADER:
        raise ValueError(f"a header of {len(header)} bytes")
    digest, size = hashlib.blake2b(digest_size=_DIGEST_BYTES), 0
    start = _FIRST_LINE + len(header).to_bytes(_LENGTH_BYTES, "little") + header
    for chunk in _chunks(start, arrays):
        digest.update(chunk)
        size += _write_all(file, chunk)
    return size + _write_all(file, memoryview(digest.digest()))


def _chunks(start: bytes, arrays: Mapping[str, Array]) -> Iterator[memoryview]:
    for array in (np.frombuffer(start, np.uint8), *arrays.values()):
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8).data
        for position in range(0, len(data), _CHUNK):
            yield data[position : position + _CHUNK]


def _write_all(file: Any, data: memoryview) -> int:
    """A raw file may take less than it is given."""
    done = 0
    while done < len(data):
        done += file.write(data[done:])
    return done


def read(path: Path, most_bytes: int) -> tuple[dict[str, Any], dict[str, Array]]:
    """The facts and arrays (read-only) of a file; no more than `most_bytes` are read.

    Raises FileNotFoundError, another OSError if it cannot be read, and DamagedError.
    """
    found = path.lstat()
    if not stat.S_ISREG(found.st_mode):
        raise DamagedError("it is no regular file")  # opening a FIFO would wait for ever
    if found.st_size > most_bytes:
        raise DamagedError(f"it has {found.st_size:,} bytes, more than the {most_bytes:,} that are ever written")
    with path.open("rb", buffering=0) as file:
        data = bytearray(found.st_size)
        view, done = memoryview(data), 0
        while done < len(data) and (count := file.readinto(view[done:])):
            done += count
    if not data.startswith(_FIRST_LINE):
        raise DamagedError("it is of another version" if data.startswith(_NAME) else "it is no file of this program")
    end = done - _DIGEST_BYTES
    if done < len(data) or hashlib.blake2b(view[:end], digest_size=_DIGEST_BYTES).digest() != data[end:]:
        raise DamagedError("its checksum is wrong")
    return _parse(view[len(_FIRST_LINE) : end])


def _parse(view: memoryview) -> tuple[dict[str, Any], dict[str, Array]]:
    """What stands between the first line and the checksum."""
    length = int.from_bytes(view[:_LENGTH_BYTES], "little")
    begin = _LENGTH_BYTES + length
    if length > _MOST_HEADER or begin > len(view):
        raise DamagedError("its header is longer than it may be")
    try:
        header = json.loads(bytes(view[_LENGTH_BYTES:begin]))
        facts, kinds = header["facts"], header["arrays"].items()
        shapes = {name: (np.dtype(_kind(kind)), _shape(shape)) for name, (kind, shape) in kinds}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        raise DamagedError("its header is malformed") from None
    if not isinstance(facts, dict):
        raise DamagedError("its header is malformed")
    sizes = [kind.itemsize * math.prod(shape) for kind, shape in shapes.values()]
    if sum(sizes) != len(view) - begin:
        raise DamagedError("its arrays are not as long as its header says")
    arrays = {}
    for (name, (kind, shape)), size in zip(shapes.items(), sizes, strict=True):
        try:
            arrays[name] = np.frombuffer(view[begin : begin + size], kind).reshape(shape)
        except ValueError:  # of no size, but longer than numpy counts
            raise DamagedError("its header is malformed") from None
        arrays[name].flags.writeable = False
        begin += size
    return facts, arrays


def _kind(text: object) -> str:
    if text not in _KINDS:
        raise ValueError
    return str(text)


def _shape(numbers: list[object]) -> tuple[int, ...]:
    if not isinstance(numbers, list) or len(numbers) > _MOST_DIMENSIONS:
        raise ValueError
    shape = tuple(number for number in numbers if type(number) is int and 0 <= number < 1 << 40)
    if len(shape) < len(numbers):
        raise ValueError
    return shape
