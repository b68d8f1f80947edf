"""Controllers: they turn evidence into decisions, and nothing else. One per dimension, found here by its law's name."""

from __future__ import annotations

from collections.abc import Callable

from controllers.ack import AckThompson
from controllers.base import Arm, Controller, Decision, Evidence, Field
from controllers.congestion import CongestionThompson
from controllers.initial_window import InitialWindowTrial

__all__ = ["LAWS", "Arm", "Controller", "Decision", "Evidence", "Field"]

LAWS: dict[tuple[str, str], Callable[[], Controller]] = {
    ("initial_window", "trial"): InitialWindowTrial,
    ("congestion", "thompson"): CongestionThompson,
    ("ack", "thompson"): AckThompson,
}
