"""The law `rfc9040`: one step up for every 200 connections without loss, half the window when more than 5 % lost."""

from __future__ import annotations

import numpy as np
import pytest

from controllers import Arm, Evidence, Field
from controllers.rfc9040 import REASONS, InitialWindowRfc9040

WINDOWS = (10, 14, 20, 28, 40, 56, 80)
ARMS = tuple(Arm(f"iw{window}", window) for window in WINDOWS)


def chosen(filled: list[int], lossy: list[int] | None = None) -> tuple[int, str]:
    sums = np.zeros((1, len(ARMS), len(Field)), np.float32)
    sums[0, : len(filled), Field.FIRST_WINDOWS] = filled
    sums[0, : len(lossy or []), Field.FIRST_WINDOW_LOSSY] = lossy or []
    decision = InitialWindowRfc9040().step(0.0, Evidence(ARMS, sums))
    assert decision.probabilities[0, decision.chosen[0]] == 1.0
    return WINDOWS[decision.chosen[0]], REASONS[decision.reason[0]][:9]


@pytest.mark.parametrize(
    ("filled", "lossy", "window"),
    [
        ([], [], 10),
        ([199], [], 10),
        ([200], [9], 14),
        ([200, 150], [], 14),
        ([150, 200], [], 20),
        ([0, 0, 0, 0, 0, 0, 500], [], 80),
        ([200, 200, 200, 200], [0, 0, 0, 11], 14),  # more than 5 % at 28: half of it
        ([200, 19], [0, 19], 14),  # too few to judge
        ([20], [2], 10),  # nothing is below the default
    ],
)
def test_steps(filled: list[int], lossy: list[int], window: int) -> None:
    assert chosen(filled, lossy)[0] == window


def test_reasons() -> None:
    assert chosen([])[1] == "no eviden"
    assert chosen([50])[1] == "at most 5"
    assert chosen([50, 50], [0, 10])[1] == "more than"
