"""The bench on one path, for real."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from running import require_root

from agent.lab import bench


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
