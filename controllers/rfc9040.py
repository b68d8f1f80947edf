"""The initial window by shared state, after RFC 9040, appendix C: slowly up, fast down, by loss alone.

The RFC adds two segments after every 1,000 connections of which at most 5 % lost a segment of their initial window, and
halves the window otherwise; connections that ended before filling it do not count. Here the steps are those of the
ladder, and since evidence fades, a step takes 200 connections within about a half-life.
"""

from __future__ import annotations

import numpy as np

from controllers.base import ARM_DEFAULT, Decision, Evidence, Field, Measure
from controllers.initial_window import windows_of

__all__ = ["REASONS", "InitialWindowRfc9040"]

STEP_AFTER = 200.0  # connections that filled the window
JUDGED_AFTER = 20.0  # fewer say nothing about 5 %
LOSSY_SHARE = 0.05

REASONS = (
    "no evidence yet: the kernel's default",
    "at most 5 % of the connections lost in their first round: one step up for every 200",
    "more than 5 % of the connections lost in their first round: half the window",
)
UNKNOWN, UP, DOWN = range(len(REASONS))


class InitialWindowRfc9040:
    """The law `rfc9040`; see the module. Every connection gets the same window: nothing is tried."""

    def measure(self, evidence: Evidence) -> None:
        """Nothing is inherited: every path begins at the kernel's window."""
        del evidence

    def step(self, now: float, evidence: Evidence, measure: Measure | None = None) -> Decision:
        """Probabilities for every window of every path."""
        del now, measure  # evidence ages by itself
        paths, arms = len(evidence), len(evidence.arms)
        filled = evidence[Field.FIRST_WINDOWS].astype(np.float64)
        judged = filled >= JUDGED_AFTER
        lossy = judged & (evidence[Field.FIRST_WINDOW_LOSSY] > LOSSY_SHARE * filled)

        windows = windows_of(evidence.arms)
        half = np.searchsorted(windows, windows / 2, side="right") - 1
        first_lossy = np.where(lossy.any(axis=1), lossy.argmax(axis=1), arms)
        limit = np.where(first_lossy < arms, np.maximum(half[np.minimum(first_lossy, arms - 1)], ARM_DEFAULT), arms - 1)
        # The highest window with evidence, and the next one where it is enough.
        reached = np.where(judged, np.arange(arms), ARM_DEFAULT).max(axis=1)
        ready = filled[np.arange(paths), reached] >= STEP_AFTER
        chosen = np.minimum(np.minimum(reached + ready, arms - 1), limit)

        probabilities = np.zeros((paths, arms))
        probabilities[np.arange(paths), chosen] = 1.0
        reason = np.where(first_lossy < arms, DOWN, UP)
        reason[~(filled > 0).any(axis=1)] = UNKNOWN
        return Decision(probabilities, chosen, reason, REASONS, first_lossy)
