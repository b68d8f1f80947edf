"""The experiments of `bench paper` for real, as short as they can be."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from running import require_root

ROOT = Path(__file__).resolve().parents[2]


def bench(folder: Path, *arguments: str, expected: int = 0) -> tuple[str, str]:
    """What `bench paper` says on both outputs."""
    require_root()
    done = subprocess.run(
        [sys.executable, "-m", "agent", "bench", "paper", *arguments],
        cwd=ROOT, env={**os.environ, "TMPDIR": str(folder)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == expected, done.stderr
    return done.stdout, done.stderr


def experiment(folder: Path, name: str) -> dict[str, Any]:
    """A quick run of one experiment as JSON; its folder of files is complete."""
    output = folder / "output"
    said, complaints = bench(folder, "--quick", "--json", "--only", name, "--output", str(output))
    assert complaints == ""
    result = json.loads(said)
    [found] = result["experiments"]
    assert found["name"] == name
    assert json.loads((output / "results.json").read_text()) == result
    page = (output / "index.html").read_text()
    assert page.count("<svg") == len(found["figures"]) > 0
    for figure in found["figures"]:
        assert (output / f"{figure['name']}.svg").read_text().startswith("<?xml")
    return dict(found)


def column(table: dict[str, Any], name: str) -> list[Any]:
    """A column's cells."""
    index = [each["name"] for each in table["columns"]].index(name)
    return [row[index] for row in table["rows"]]


def values(cells: Sequence[Any]) -> list[float]:
    """The ratios' values."""
    return [each["value"] for each in cells if each is not None]


def test_overhead_measures_what_it_says(tmp_path: Path) -> None:
    found = experiment(tmp_path, "overhead")
    short, *bulk = found["tables"]
    # On a connection of 1 KB: the SYN alone, or every segment; nothing at all without a program.
    assert column(short, "inserted")[:4] == pytest.approx([0, 1, 1, 1], abs=0.01)
    assert column(short, "parsed")[:4] == pytest.approx([0, 0, 1, 1], abs=0.01)
    assert column(short, "set")[:4] == pytest.approx([0, 0, 0, 1], abs=0.01)
    assert min(column(short, "inserted")[4:]) > 5
    for table in (short, *bulk):
        *_, nothing_parsed, nothing_set, all_set = column(table, "set")
        assert nothing_parsed == nothing_set == 0
        assert all_set > 0
        # Neither free nor the end of the world; the machine may be busy.
        assert all(0.5 < ratio < 3 for ratio in values(column(table, "time")))


def test_an_unknown_experiment_is_refused_at_once(tmp_path: Path) -> None:
    _, complaints = bench(tmp_path, "--only", "everything", expected=2)
    assert "there are overhead" in complaints
