"""The file of arrays: what was written comes back, and anything else is refused before it can do harm."""

from __future__ import annotations

import hashlib
import json
import os
import stat
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent import archive
from agent.archive import DamagedError

MOST = 1 << 20
FACTS = {"saved": 1.5e9, "groups": ["default", "branch"]}
ARRAYS = {
    "bytes": np.arange(48, dtype=np.uint8).reshape(3, 16),
    "numbers": np.array([1.5, -0.0, np.inf], np.float32),
    "none": np.zeros((0, 15), np.float64),
    "one": np.array(7, np.int64),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("whole") / "state"
    assert archive.write(path, FACTS, ARRAYS) == path.stat().st_size
    return path.read_bytes()


def forged(header: object, content: bytes = b"", first: bytes = b"tcptuned state 1\n") -> bytes:
    """A file with a good checksum."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    body = first + len(text).to_bytes(8, "little") + text + content
    return body + hashlib.blake2b(body, digest_size=32).digest()


def test_what_was_written_comes_back(tmp_path: Path) -> None:
    path = tmp_path / "state"
    for facts in ({}, FACTS):
        archive.write(path, facts, ARRAYS)
        found, arrays = archive.read(path, MOST)
        assert found == facts
        assert list(arrays) == list(ARRAYS)
        for name, array in ARRAYS.items():
            assert arrays[name].dtype == array.dtype
            assert arrays[name].shape == array.shape
            assert arrays[name].tobytes() == array.tobytes()
    assert [entry.name for entry in tmp_path.iterdir()] == ["state"]


def test_only_the_own_user_may_read_it(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        archive.write(tmp_path / "state", {}, {})
    finally:
        os.umask(old)
    found = (tmp_path / "state").stat()
    assert stat.S_IMODE(found.st_mode) == 0o600
    assert found.st_uid == os.geteuid()


def test_a_write_that_fails_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "state"
    archive.write(path, FACTS, ARRAYS)
    before = path.read_bytes()

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        archive.write(path, {}, {})
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["state"]


def test_what_a_killed_process_left_is_no_obstacle_and_no_trap(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious", encoding="utf-8")
    (tmp_path / "state.unfinished").symlink_to(victim)
    archive.write(tmp_path / "state", FACTS, ARRAYS)
    assert victim.read_text(encoding="utf-8") == "precious"
    assert not (tmp_path / "state").is_symlink()
    assert archive.read(tmp_path / "state", MOST)[0] == FACTS


@pytest.mark.parametrize("array", [np.array(["text"]), np.array([None]), np.zeros(2, np.complex64), np.zeros(1, ">u4")])
def test_other_arrays_are_refused(tmp_path: Path, array: Any) -> None:
    with pytest.raises(ValueError, match="no place"):
        archive.write(tmp_path / "state", {}, {"array": array})
    assert not list(tmp_path.iterdir())


def refused(path: Path, content: bytes) -> str:
    path.write_bytes(content)
    with pytest.raises(DamagedError) as error:
        archive.read(path, MOST)
    return str(error.value)


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=400)
@given(data=st.data())
def test_any_change_of_any_byte_is_noticed(tmp_path: Path, whole: bytes, data: st.DataObject) -> None:
    changed = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        position = data.draw(st.integers(0, len(whole) - 1))
        changed[position] ^= data.draw(st.integers(1, 255))
    if changed != whole:
        refused(tmp_path / "state", bytes(changed))


def test_any_truncation_is_noticed(tmp_path: Path, whole: bytes) -> None:
    for length in range(len(whole)):
        refused(tmp_path / "state", whole[:length])
    refused(tmp_path / "state", whole + b"\0")


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(content=st.binary(max_size=300), ours=st.booleans())
def test_foreign_bytes_are_refused(tmp_path: Path, content: bytes, ours: bool) -> None:
    refused(tmp_path / "state", b"tcptuned state 1\n" + content if ours else content)


DEEP = b'{"facts":' + b"[" * 200_000
HEADERS: dict[str, object] = {
    "no JSON": b"{", "not UTF-8": b"\xff\xfe\xff", "deep": DEEP, "list": [], "number": 5, "empty": {},
    "no arrays": {"facts": {}}, "facts no object": {"facts": [], "arrays": {}},
    "arrays no object": {"facts": {}, "arrays": []},
    "no shape": {"facts": {}, "arrays": {"a": ["<f4"]}},
    "object dtype": {"facts": {}, "arrays": {"a": ["|O", [1]]}},
    "dtype of fields": {"facts": {}, "arrays": {"a": [[["x", "<f4"]], [1]]}},
    "of no size but endless": {"facts": {}, "arrays": {"a": ["<f4", [0, 1 << 39, 1 << 39]], "b": ["|u1", [1]]}},
    "negative": {"facts": {}, "arrays": {"a": ["<f4", [-1]]}},
    "no number": {"facts": {}, "arrays": {"a": ["<f4", ["1"]]}},
    "truth": {"facts": {}, "arrays": {"a": ["|u1", [True]]}},
    "fraction": {"facts": {}, "arrays": {"a": ["|u1", [1.5]]}},
    "endless": {"facts": {}, "arrays": {"a": ["|u1", [float("inf")]]}},
    "too many dimensions": {"facts": {}, "arrays": {"a": ["|u1", [1] * 64]}},
    "huge": {"facts": {}, "arrays": {"a": ["<f8", [1 << 39, 1 << 39]]}},
    "huge but empty": {"facts": {}, "arrays": {"a": ["<f8", [1 << 39, 0]], "b": ["<f8", [1 << 39]]}},
    "longer than the file": {"facts": {}, "arrays": {"a": ["|u1", [2]]}},
    "shorter than the file": {"facts": {}, "arrays": {}},
}  # fmt: skip


@pytest.mark.parametrize("name", HEADERS)
def test_a_hostile_header_with_a_good_checksum_takes_no_memory(tmp_path: Path, name: str) -> None:
    tracemalloc.start()
    try:
        refused(tmp_path / "state", forged(HEADERS[name], b"\0"))
        assert tracemalloc.get_traced_memory()[1] < 8 << 20
    finally:
        tracemalloc.stop()


def test_a_hostile_length_of_the_header(tmp_path: Path) -> None:
    for length in (0, 1, 1 << 20, (1 << 20) + 1, 1 << 63, (1 << 64) - 1):
        body = b"tcptuned state 1\n" + length.to_bytes(8, "little") + b"{}"
        refused(tmp_path / "state", body + hashlib.blake2b(body, digest_size=32).digest())


def test_another_version_is_named(tmp_path: Path) -> None:
    content = forged({"facts": {}, "arrays": {}}, first=b"tcptuned state 2\n")
    assert "another version" in refused(tmp_path / "state", content)
    assert "no file of this program" in refused(tmp_path / "state", b"PK\x03\x04 something else altogether")


def test_a_file_larger_than_any_that_is_written_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "state"
    with path.open("wb") as file:
        file.truncate(1 << 40)  # sparse
    with pytest.raises(DamagedError, match="more than"):
        archive.read(path, MOST)


def test_what_is_no_file_holds_nothing_up(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("/dev/zero")
    for name in ("fifo", "folder", "link"):
        with pytest.raises(DamagedError, match="regular"):
            archive.read(tmp_path / name, MOST)
    with pytest.raises(FileNotFoundError):
        archive.read(tmp_path / "nothing", MOST)
