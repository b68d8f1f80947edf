"""The initial window by trial: climb the ladder while the first window loses nothing, stay where transfers are fastest.

Arms are windows in rising order, arm 0 is the kernel's. A path starts at the default and tries one larger window after
the other, each for a few connections; the first that loses clearly more than the default ends the climb. Among those
tried, the fastest is chosen, the smaller one when there is little between them. The rest of the connections keep every
tried window's evidence fresh. As evidence fades with its half-life, so do verdicts, and the climb begins again.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from controllers.base import ARM_DEFAULT, Decision, Evidence, Field
from controllers.estimates import transfer_time
from controllers.veto import loses_more

__all__ = ["ENOUGH", "REASONS", "InitialWindowTrial", "ladder"]

# The design's ladder: about a factor of sqrt(2) a step.
LADDER = (10, 14, 20, 28, 40, 56, 80, 112, 160, 224)

ENOUGH = 6.0  # connections that filled a window before the next is tried
TOO_SMALL = 4 * ENOUGH  # connections that could not fill it: larger ones would not be filled either
TRIAL_SHARE = 0.5  # of the connections while climbing
FRESH_SHARE = 0.1  # of the connections afterwards, for all other windows together
SMALLER_IS_BETTER = 0.01  # of log2 time per step: less than 1 % faster is not worth a larger burst
DOUBT = 0.5  # standard errors added to every mean: the better known of two equals wins

REASONS = (
    "no evidence yet: the kernel's default",
    "trying a larger window: the smaller ones lost no more than the default",
    "larger windows lose more than the default in their first round",
    "fastest of the windows tried",
    "no window is clearly faster than the default",
    "transfers are too short to fill a larger window",
)
UNKNOWN, CLIMBING, LOSS, FASTEST, NO_GAIN, SHORT = range(len(REASONS))


def ladder(least: int, most: int, *, arms: int) -> tuple[int, ...]:
    """The windows to try, in segments, rising, within the bounds; at most `arms` - 1, as arm 0 is the default of 10.

    Windows below the default are not on the ladder: `least` above 10 leaves out the steps below it.
    """
    steps = [window for window in LADDER if window > LADDER[0] and least <= window < most]
    steps.append(max(most, least))
    return tuple(dict.fromkeys(steps[-(arms - 1) :])) if most > LADDER[0] else ()


class InitialWindowTrial:
    """The law `trial`; see the module."""

    def step(self, now: float, evidence: Evidence) -> Decision:
        """Probabilities for every window of every path."""
        del now  # evidence ages by itself
        paths, arms = len(evidence), len(evidence.arms)
        rows, index = np.arange(paths), np.arange(arms)
        filled = evidence[Field.FIRST_WINDOWS].astype(np.float64)

        # Where one window loses, larger ones are not tried.
        loses = loses_more(evidence[Field.FIRST_WINDOW_LOSSES], evidence[Field.FIRST_WINDOW_SEGMENTS], at_least=2.0)
        vetoed = _and_larger(loses)
        tried = filled >= ENOUGH
        short = ~tried & (evidence[Field.CLOSED] >= TOO_SMALL)
        stops = vetoed | _and_larger(short)

        # The window on trial: the smallest that is still unknown, when nothing stops the climb before it.
        unknown = np.logical_not(tried | stops)
        climbing = unknown.any(axis=1)
        trial = np.where(climbing, unknown.argmax(axis=1), ARM_DEFAULT)
        # Everything below the trial is known; what faded above it does not count until the climb is there again.
        usable = tried & ~vetoed & (~climbing[:, None] | (index < trial[:, None]))
        usable[:, ARM_DEFAULT] = True

        estimate = transfer_time(evidence)
        known = usable & np.isfinite(estimate.variance)
        score = np.where(
            known,
            estimate.mean + DOUBT * np.sqrt(np.where(known, estimate.variance, 0.0)) + SMALLER_IS_BETTER * index,
            np.inf,
        )
        chosen = np.where(known.any(axis=1), score.argmin(axis=1), ARM_DEFAULT)

        others = usable.copy()
        others[rows, chosen] = False
        number = np.maximum(others.sum(axis=1, keepdims=True), 1)
        probabilities = np.where(others, FRESH_SHARE / number, 0.0)
        trials = climbing & (trial != chosen)
        probabilities[rows[trials], trial[trials]] = TRIAL_SHARE
        probabilities[rows, chosen] = 0.0
        probabilities[rows, chosen] = 1.0 - probabilities.sum(axis=1)

        reason = np.full(paths, FASTEST)
        reason[chosen == ARM_DEFAULT] = NO_GAIN
        reason[short.any(axis=1)] = SHORT
        reason[loses.any(axis=1)] = LOSS
        reason[climbing] = CLIMBING
        reason[~(evidence[Field.CLOSED] > 0).any(axis=1)] = UNKNOWN
        return Decision(probabilities, chosen, reason, REASONS)


def _and_larger(arms: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The arms marked, and every larger one."""
    return np.cumsum(arms, axis=1) > 0
