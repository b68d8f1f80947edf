"""The journal, on real files."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from agent import journal
from agent.journal import Entry, Journal


def entry(number: int, reason: str = "fastest of the windows tried") -> Entry:
    return Entry(float(number), "203.0.113.0/24", "default", "initial_window", "default", "iw28", reason)


def lines(path: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_entries_are_lines_of_json(tmp_path: Path) -> None:
    book = Journal(tmp_path / "new" / "folder")
    entries = [entry(1), entry(2, "100 % größer, 'quoted' \"twice\"\nand broken"), entry(3)]
    for one in entries:
        book.write(one)
    book.close()
    assert lines(tmp_path / "new" / "folder" / "journal.jsonl") == [asdict(one) for one in entries]
    assert list(book.recent) == entries
    assert (tmp_path / "new" / "folder" / "journal.jsonl").stat().st_mode & 0o777 == 0o600


def test_the_last_ones_are_remembered() -> None:
    book = Journal(None)
    for number in range(500):
        book.write(entry(number))
    book.close()
    assert [one.time for one in book.recent] == list(range(300, 500))


def test_it_goes_on_where_it_ended(tmp_path: Path) -> None:
    for number in range(2):
        book = Journal(tmp_path)
        book.write(entry(number))
        book.close()
    assert [line["time"] for line in lines(tmp_path / "journal.jsonl")] == [0, 1]


def test_old_files_make_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal, "_BYTES", 2000)
    book = Journal(tmp_path)
    for number in range(200):
        book.write(entry(number))
    book.close()
    files = sorted(tmp_path.iterdir())
    assert [path.name for path in files] == ["journal.jsonl", *(f"journal.jsonl.{number}" for number in (1, 2, 3))]
    assert all(path.stat().st_size <= 2000 for path in files)
    # oldest first, without a gap, up to the last
    times = [line["time"] for path in (*reversed(files[1:]), files[0]) for line in lines(path)]
    assert times == list(range(200 - len(times), 200))


@pytest.mark.parametrize("folder", ["file/below", "file"])
def test_a_folder_that_cannot_be_made_costs_only_the_file(
    folder: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    book = Journal(tmp_path / folder)
    book.write(entry(1))
    book.close()
    assert list(book.recent) == [entry(1)]
    assert "decisions are not written to a file" in caplog.text


def test_a_file_that_cannot_be_opened_costs_only_the_file(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "journal.jsonl").mkdir()
    book = Journal(tmp_path)
    book.write(entry(1))
    book.close()
    assert list(book.recent) == [entry(1)]
    assert "Is a directory" in caplog.text


def test_a_full_disk_costs_only_the_lines_and_one_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "journal.jsonl").symlink_to("/dev/full")
    book = Journal(tmp_path)
    for number in range(3):
        book.write(entry(number))
    assert caplog.text.count("No space left on device") == 1
    book.close()
    assert len(book.recent) == 3
