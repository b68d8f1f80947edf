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

from agent.lab.lab import Lab
from agent.lab.spec import PathSpec

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


@pytest.mark.long
def test_the_rtt_tells_the_algorithms_apart(tmp_path: Path) -> None:
    found = experiment(tmp_path, "congestion")
    [table] = found["tables"]
    assert column(table, "asked for") == ["reno", "cubic", "bbr"]
    reno, cubic, bbr = column(table, "over the path's own")
    # bbr keeps the deep queue empty; the others fill it.
    assert bbr < 1.6
    assert min(reno, cubic) > 2
    [figure] = found["figures"]
    for series in figure["series"]:
        assert len(series["x"]) > 100
        assert series["x"] == sorted(series["x"])
        assert 39 < min(series["y"]) < max(series["y"]) < 400


@pytest.mark.long
def test_pages_are_faster_with_the_window_asked_for(tmp_path: Path) -> None:
    found = experiment(tmp_path, "window")
    long, near, short_queue = found["tables"]
    for table in (long, near, short_queue):
        assert len(column(table, "asked for")) == 6
    # Asked for what the kernel does anyway, nothing changes; nothing is lost on the long path.
    two, four, ten, twenty, forty = values(column(long, "ratio"))
    assert two > four > 1.05
    assert ten == pytest.approx(1, abs=0.03)
    assert forty < twenty < 1
    assert max(column(long, "lost %")) == 0
    assert max(column(short_queue, "lost %")) > 1


def test_the_client_takes_sizes_and_the_server_samples() -> None:
    require_root()
    with Lab([PathSpec.symmetric("p", rate_mbps=20, delay_ms=10)]) as lab:
        done = lab.fetch("p", 0, 5, 2, sizes=(1000, 20_000, 300), keep=True)
        assert sorted(each.bytes for each in done) == [300, 1000, 1000, 20_000, 20_000]
        assert len({each.port for each in done}) == 2
        [watched] = lab.fetch("p", 1_000_000, state=True, watch_ms=10)
    assert watched.state is not None
    times = [at for at, _ in watched.state["samples"]]
    # 1 MB at 20 Mb/s takes 0.4 s and a bit.
    assert 25 < len(times) < 60
    assert times == sorted(times)
    assert all(sample["rtt"] > 19_000 and sample["snd_cwnd"] >= 10 for _, sample in watched.state["samples"])


@pytest.mark.long
def test_fewer_acks_are_asked_for_and_come(tmp_path: Path) -> None:
    found = experiment(tmp_path, "ack")
    assert [table["title"].partition(":")[0] for table in found["tables"]] == [
        "all links", "scenario 18", "long", "lossy",
    ]  # fmt: skip
    for table in found["tables"]:
        assert min(column(table, "objects")) >= 5
    # Where nothing is lost at random: there every ACK that says so passes.
    for table in found["tables"][1:3]:
        every, ten, hundred = values(column(table, "ACKs"))
        assert max(ten, hundred) < 0.8
        assert every > 0.9
    assert any("against its targets" in note for note in found["notes"])
