"""Controllers: they turn evidence into decisions, and nothing else. One per dimension, found here by its law's name."""

from __future__ import annotations

from collections.abc import Callable

from controllers.ack import AckThompson
from controllers.base import Arm, Controller, Decision, Evidence, Field
from controllers.congestion import CongestionThompson
from controllers.initial_window import InitialWindowTrial
from controllers.rfc9040 import InitialWindowRfc9040

__all__ = ["LAWS", "Arm", "Controller", "Decision", "Evidence", "Field"]

LAWS: dict[tuple[str, str], Callable[[], Controller]] = {
    ("initial_window", "trial"): InitialWindowTrial,
    ("initial_window", "rfc9040"): InitialWindowRfc9040,
    ("congestion", "thompson"): CongestionThompson,
    ("ack", "thompson"): AckThompson,
}
