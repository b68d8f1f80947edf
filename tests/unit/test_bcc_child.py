"""What is tried again without the peers' clocks; real verifiers that refuse are too old to be here."""

from __future__ import annotations

from typing import Any

import pytest

from agent import bcc_child


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
