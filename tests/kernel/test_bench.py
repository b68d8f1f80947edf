"""The bench on one path, for real."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from running import require_root

from agent.lab.bench import command as bench
from agent.lab.bench import competing


@pytest.mark.timeout(240)
def test_a_path_is_measured_once_and_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One path with a window to gain by: fixed windows help as they are known to, the default twice is alike."""
    require_root()
    monkeypatch.setattr(bench, "_QUICK_BUDGET", 6.0)

    def run() -> dict[str, object]:
        code = bench.show_bench(only=["18"], workloads=[], paths=None, quick=True, output=tmp_path, as_json=True)
        assert code == 0
        answer: dict[str, object] = json.loads(capsys.readouterr().out)
        return answer

    first = run()
    [found] = first["workloads"]  # type: ignore[misc]
    columns = [column["name"] for column in found["tables"][0]["columns"]]
    row = dict(zip(columns, found["tables"][0]["rows"][0], strict=True))
    # 60 ms RTT, 12 Mb/s, 100 KB: 282 ms by the default, 211 ms with a first window of 40
    assert 0.9 < row["null"]["value"] < 1.1
    assert row["cubic-iw40"]["value"] < 0.85
    assert row["best static"]["value"] <= row["cubic-iw40"]["high"]
    assert "<svg" in (tmp_path / "index.html").read_text(encoding="utf-8")

    [cell] = (tmp_path / "cells").iterdir()
    written = cell.stat().st_mtime_ns
    assert run()["workloads"][0]["tables"] == found["tables"]  # type: ignore[index]
    assert cell.stat().st_mtime_ns == written
    print({name: each["value"] if isinstance(each, dict) else each for name, each in row.items()})


def shown(capsys: pytest.CaptureFixture[str], **options: Any) -> dict[str, Any]:
    """What the command prints as JSON."""
    given = {"only": [], "workloads": [], "paths": None, "quick": True, "output": None, "as_json": True, **options}
    assert bench.show_bench(**given) == 0
    answer: dict[str, Any] = json.loads(capsys.readouterr().out)
    return answer


@pytest.mark.timeout(120)
@pytest.mark.long
def test_a_path_of_ones_own_may_follow_traces(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """12 Mb/s in bursts of four opportunities; two fixed contenders besides those who always take part."""
    require_root()
    monkeypatch.setattr(bench, "_QUICK_BUDGET", 5.0)
    times = [at for at in range(4, 201, 4) for _ in range(4)]
    (tmp_path / "made.trace").write_text("".join(f"{at}\n" for at in times), encoding="ascii")
    file = tmp_path / "paths.yaml"
    trace = "{down: made.trace, up: made.trace}"
    file.write_text(f"- {{id: made, trace: {trace}, delay_ms: 20, queue_packets: 200}}\n", encoding="utf-8")
    [found] = shown(capsys, paths=file, contenders=["null", "cubic-iw40"])["workloads"]
    columns = [column["name"] for column in found["tables"][0]["columns"]]
    row = dict(zip(columns, found["tables"][0]["rows"][0], strict=True))
    assert row["path"] == "made"
    assert {"null", "cubic-iw40", "tcptuned"} == set(columns) & {"null", "cubic-iw40", "bbr-iw10", "tcptuned"}
    # 100 KB take 67 ms at 12 Mb/s, and the default four round trips of 40 ms
    assert 0.12 < row["default"] < 0.4
    assert 0.85 < row["null"]["value"] < 1.15
    assert row["cubic-iw40"]["value"] < 0.95


@pytest.mark.timeout(120)
@pytest.mark.long
def test_a_flow_of_somebody_else_is_measured_beside_both_senders(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    require_root()
    monkeypatch.setattr(competing, "_SLOT", 4.0)
    answer = shown(capsys, only=["18"], workloads=["competing"])
    [path, rate, beside_default, beside_tuned, ratio] = answer["workloads"][0]["tables"][0]["rows"][0]
    print(path, rate, beside_default, beside_tuned, ratio)
    assert (path, rate) == ("18", 12)
    # A quarter of the path is asked for by the objects.
    assert 4.0 < beside_default < 11.5
    assert 4.0 < beside_tuned < 11.5
    assert 0.6 < ratio["value"] < 1.5
    assert answer["summary"]["tables"][0]["rows"][0][2] == ">= 0.9"


@pytest.mark.long
@pytest.mark.timeout(300)
def test_the_quick_bench_takes_three_minutes_at_most(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    require_root()
    began = time.monotonic()
    answer = shown(capsys, output=tmp_path)
    assert time.monotonic() - began < 180
    assert [row[0] for row in answer["workloads"][0]["tables"][0]["rows"]] == ["4", "15", "18", "geometric mean"]
    promises = [row[0] for row in answer["summary"]["tables"][0]["rows"]]
    assert "100KB: tcptuned by the best static arm, mean" in promises
