"""The compiler child: what it tries again (real verifiers that refuse are too old to be here), and what it imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agent import bcc_child
from agent.child import environment


@pytest.mark.parametrize(("refusal", "tries"), [("Argument list too long", 2), ("Permission denied", 1)])
def test_what_is_too_large_is_tried_again_without_clocks(
    monkeypatch: pytest.MonkeyPatch, refusal: str, tries: int
) -> None:
    asked: list[dict[str, int]] = []

    def refused(_source: str, defines: dict[str, int]) -> Any:
        asked.append(defines)
        raise Exception(f"Failed to load BPF program b'tcptuned_ops': {refusal}")

    monkeypatch.setattr(bcc_child, "_load", refused)
    with pytest.raises(Exception, match=refusal):
        bcc_child.load("tcptuned.c", {"ROW_ENTRIES": 5})
    assert asked == [{"ROW_ENTRIES": 5}, {"ROW_ENTRIES": 5, "REMOTE_CLOCK": 0}][:tries]


def test_nothing_is_imported_from_the_current_directory(tmp_path: Path) -> None:
    """Whoever may write there would run code with the rights of the agent."""
    mark = tmp_path / "imported"
    for name in ("json.py", "agent/__init__.py", "agent/bcc_child.py"):
        trap = tmp_path / name
        trap.parent.mkdir(exist_ok=True)
        trap.write_text(f"open({str(mark)!r}, 'w')\n", encoding="utf-8")
    script = "from agent.loader import Loader\nLoader({}, 'bench_options.c').finish()\n"
    done = subprocess.run(
        [sys.executable, "-P", "-c", script], cwd=tmp_path, env=environment(), capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert not mark.exists(), done.stderr
