"""The initial window by trial: climb the ladder while the first window loses nothing, stay where transfers are fastest.

Arms are windows in rising order, arm 0 is the kernel's. A path starts at the default and tries one larger window after
the other, each for a few connections; the first that loses clearly more than the default ends the climb. A window that
did well vouches for the smaller ones: all of these are safe, and each is drawn as often as it is likely to be the
fastest, the fastest so far twice as often. A path that is filled by one window is not tried with a larger one, which
could only wait in its queue. As evidence fades with its half-life, so do verdicts, and the climb goes on
from the largest window that is still known to be safe.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from controllers.base import ARM_DEFAULT, UNTRIED, Arm, Decision, Evidence, Field, Floats, Measure, Prior
from controllers.estimates import transfer_time
from controllers.thompson import believe, likely_best
from controllers.veto import LIMIT, loses_more, suspected, vetoed

__all__ = ["BASE_SHARE", "ENOUGH", "REASONS", "InitialWindowTrial", "filling", "ladder", "windows_of"]

# The design's ladder: about a factor of sqrt(2) a step.
LADDER = (10, 14, 20, 28, 40, 56, 80, 112, 160, 224)

NOTHING = 0.01  # of a connection is left: the path is as good as new
ENOUGH = 4.0  # connections that filled a window before the next is tried
TOO_SMALL = 10.0  # connections of a window after which it is known whether transfers fill it
FILLED = 0.05  # the share of them that must fill it for a larger one to be of use
TRIAL_SHARE = 0.5  # of the connections while climbing
SUSPECT_SHARE = 0.15  # while a window is on trial that lost on other paths of the network
FRESH_SHARE = 0.1  # of the connections at least, for all safe windows together
FRESH_COST = 0.003  # but none of them makes the path's transfers slower by more
BASE_SHARE = 0.1  # for the default, where a larger window retransmits and nobody knows whether the default does
ROOM = 1.5  # of what a path holds: the rate of short transfers is underestimated by up to 40 %
SMALLER_IS_BETTER = 0.02  # of log2 time a step: less than 1.4 % faster is not worth a larger burst
UNKNOWN_SPREAD = 0.3  # log2: a window not seen lately may be 20 % faster or slower than the others
DOUBT = 0.5  # standard errors: the better known of two equals wins
CLEARLY = 1.0  # standard errors by which a window must be faster than the default

REASONS = (
    "no evidence yet: the kernel's default",
    "trying a larger window: the smaller ones lost no more than the default",
    "larger windows lose more than the default in their first round",
    "fastest of the windows tried",
    "no window is clearly faster than the default",
    "transfers are too short to fill a larger window",
    "no evidence of its own yet: as others found",
    "the path is filled: more could only wait in its queue",
)
UNKNOWN, CLIMBING, LOSS, FASTEST, NO_GAIN, SHORT, INHERITED, FILLS = range(len(REASONS))


def ladder(least: int, most: int, *, arms: int) -> tuple[int, ...]:
    """The windows to try, in segments, rising, within the bounds; at most `arms` - 1, as arm 0 is the default of 10.

    Windows below the default are not on the ladder: `least` above 10 leaves out the steps below it. When there are too
    many steps, the remaining ones are spread evenly, so that the first is still a small one.
    """
    if most <= LADDER[0]:
        return ()
    steps = [window for window in LADDER[1:] if least <= window < most] + [most]
    room = arms - 1
    if len(steps) > room:
        apart = (len(steps) - 1) / max(room - 1, 1)
        steps = [steps[-1 - round(number * apart)] for number in reversed(range(room))]
    return tuple(steps)


class InitialWindowTrial:
    """The law `trial`; see the module."""

    def measure(self, evidence: Evidence) -> Measure:
        """Utility is speed; what counts against a window is lost in the first round."""
        estimate, filled = transfer_time(evidence), evidence[Field.FIRST_WINDOWS]
        # Where even the default's first round is lost as a whole, the rounds after it tell the windows apart.
        again = loses_more(evidence[Field.RETRANSMITTED], evidence[Field.SEGMENTS], at_least=10.0)
        again &= (filled[:, :1] >= ENOUGH) & ~_as_the_holdout(evidence)
        return Measure(
            -estimate.mean, estimate.variance, evidence[Field.FIRST_WINDOW_LOSSES],
            evidence[Field.FIRST_WINDOW_SEGMENTS], filled, again,
        )  # fmt: skip

    def step(self, now: float, evidence: Evidence, measure: Measure | None = None) -> Decision:
        """Probabilities for every window of every path."""
        del now  # evidence ages by itself
        measure, prior = measure or self.measure(evidence), evidence.prior
        paths, arms = len(evidence), len(evidence.arms)
        rows, index = np.arange(paths), np.arange(arms)
        filled, closed = evidence[Field.FIRST_WINDOWS], evidence[Field.CLOSED]

        banned = _banned(measure, prior)
        enough = filling(windows_of(evidence.arms), np.zeros(paths) if evidence.pipe is None else evidence.pipe)
        useless = _beyond(enough, arms)
        # One that transfers do not fill is as good as they show: what was sent of it counts, in time and in losses.
        short = (closed >= TOO_SMALL) & (filled < FILLED * closed)
        tried = ((filled >= ENOUGH) | short) & ~banned & ~useless
        own_top = _highest(tried)
        suspect = _and_larger(suspected(measure, prior, at_least=2.0)) & _beyond(own_top, arms)
        trust = np.zeros_like(measure.utility)
        if prior is not None:
            trust = np.where(banned | suspect | useless, 0.0, _ordered(prior.trust))
        top = np.maximum(own_top, _highest(trust > 0))
        safe = ~_beyond(top, arms) & ~banned & ~suspect

        # The window on trial: the next one up, once anything is known at all.
        trial = np.minimum(top + 1, enough)
        known = tried.any(axis=1) | (top > ARM_DEFAULT)
        ends_short = short[rows, own_top]
        # Others' evidence says where to begin; to go beyond takes connections of one's own.
        idle = closed.sum(axis=1) < NOTHING
        room = known & ~idle & (top < enough) & ~banned[rows, trial] & ~ends_short

        belief = believe(measure, prior, UNKNOWN_SPREAD)
        centre, spread = belief.centre - SMALLER_IS_BETTER * index.astype(np.float32), belief.spread
        chosen = np.where(safe, centre - DOUBT * spread, -np.inf).argmax(axis=1)
        gain = centre[rows, chosen] - centre[:, ARM_DEFAULT]
        # What others taught is not doubted twice: it has been weighed by how much they differ.
        doubt = np.where(idle, 0.0, CLEARLY * np.hypot(spread[rows, chosen], spread[:, ARM_DEFAULT]))
        chosen[gain < doubt] = ARM_DEFAULT

        # A veto takes a default to compare with, which fades where a larger window has nearly all connections.
        again = evidence[Field.RETRANSMITTED][rows, chosen] > LIMIT * evidence[Field.SEGMENTS][rows, chosen]
        baseless = again & (filled[:, ARM_DEFAULT] < ENOUGH) & ~idle
        climbing = room & ~baseless
        probabilities = (0.5 - FRESH_SHARE / 2) * likely_best(centre, spread, safe)
        probabilities += _least(centre[rows, chosen][:, None] - centre, safe, baseless)
        probabilities[rows, chosen] = 0.0
        probabilities[rows, chosen] = 1.0 - probabilities.sum(axis=1)
        # What only others tried is used as far as they are to be trusted; the rest keeps to what is known here.
        lent = np.where(_beyond(own_top, arms), probabilities * (1.0 - trust), 0.0)
        probabilities -= lent
        probabilities[rows, own_top] += lent.sum(axis=1)
        share = climbing * np.where(suspect[rows, trial], np.float32(SUSPECT_SHARE), np.float32(TRIAL_SHARE))
        probabilities *= 1.0 - share[:, None]
        probabilities[rows, trial] += share

        reason = np.where(chosen == ARM_DEFAULT, NO_GAIN, FASTEST)
        reason[(chosen == top) & ends_short] = SHORT
        reason[(chosen == top) & (top == enough) & (enough < arms - 1)] = FILLS
        reason[(chosen == top) & (top < enough) & banned[rows, trial]] = LOSS
        reason[climbing] = CLIMBING
        reason[idle & known] = INHERITED
        reason[(idle & ~known) | (arms == 1)] = UNKNOWN
        limit = np.where(banned.any(axis=1), banned.argmax(axis=1), arms)
        return Decision(probabilities, chosen, reason, REASONS, limit, room | (~known & ~idle & (arms > 1)))


def windows_of(arms: Sequence[Arm]) -> NDArray[np.intp]:
    """Segments by arm, (arms,)."""
    return np.array([LADDER[0], *(arm.value for arm in arms[1:])])


def filling(windows: NDArray[np.intp], pipe: Floats) -> NDArray[np.intp]:
    """Which of `windows` (arms,), rising, is the smallest that fills each path, (paths,); else the largest of all.

    `pipe` (paths,) is how many segments are on their way when the path is just filled; 0: not known. A window that is
    acknowledged while it is sent keeps the path busy from then on.
    """
    needed = np.where(pipe > 0, ROOM * pipe, np.inf)
    return np.minimum(np.searchsorted(windows, needed), len(windows) - 1)


def _banned(measure: Measure, prior: Prior | None) -> NDArray[np.bool_]:
    """Where one window loses, larger ones are not tried; (paths, arms)."""
    banned = vetoed(measure, prior, at_least=2.0)
    return _and_larger(banned if measure.unsafe is None else banned | measure.unsafe)


def _as_the_holdout(evidence: Evidence) -> NDArray[np.bool_]:
    """Which windows do not retransmit clearly more than the holdout, (paths, arms); none where that is not known.

    Windows are compared under the algorithm that is settled on, which may lose less than the kernel's default with any
    of them: what is decent is what the default does.
    """
    if evidence.holdout is None:
        return np.zeros(evidence.sums.shape[:2], np.bool_)
    lost, sent = evidence[Field.RETRANSMITTED].copy(), evidence[Field.SEGMENTS].copy()
    lost[:, ARM_DEFAULT] = evidence.holdout[:, Field.RETRANSMITTED]
    sent[:, ARM_DEFAULT] = evidence.holdout[:, Field.SEGMENTS]
    known = evidence.holdout[:, Field.CLOSED, None] >= ENOUGH
    return known & ~loses_more(lost, sent, at_least=10.0)


def _least(behind: Floats, safe: NDArray[np.bool_], baseless: NDArray[np.bool_]) -> Floats:
    """What every arm gets at least, by how much it is behind the one chosen, log2."""
    cost = np.exp2(np.clip(behind, 0.0, 10.0)) - 1.0
    fresh = FRESH_SHARE / np.maximum(safe.sum(axis=1, keepdims=True, dtype=np.float32), 1)
    least: Floats = safe * np.minimum(fresh, FRESH_COST / np.maximum(cost, 1e-6))
    least[baseless, ARM_DEFAULT] = BASE_SHARE
    return least


def _ordered(trust: Floats) -> Floats:
    """Trust in windows that nobody tried is that in the next larger ones; none is trusted more than a smaller one."""
    larger = np.maximum.accumulate(trust[:, ::-1], axis=1)[:, ::-1]
    trust = np.where(trust == UNTRIED, np.maximum(larger, 0.0), trust)
    trust[:, ARM_DEFAULT] = 1.0
    return np.minimum.accumulate(trust, axis=1)


def _beyond(last: NDArray[np.intp], arms: int) -> NDArray[np.bool_]:
    """Which arms are larger than the path's `last` (paths,); (paths, arms), paths contiguous as everywhere here."""
    return (np.arange(arms)[:, None] > last).T


def _highest(arms: NDArray[np.bool_]) -> NDArray[np.intp]:
    """The largest arm marked, or the default."""
    last: NDArray[np.intp] = arms.shape[1] - 1 - arms[:, ::-1].argmax(axis=1)
    return np.where(arms.any(axis=1), last, ARM_DEFAULT)


def _and_larger(arms: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """The arms marked, and every larger one."""
    return np.logical_or.accumulate(arms, axis=1)
