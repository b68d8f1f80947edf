"""The veto: an arm that loses clearly more than the default is not ours to use, however fast it is."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from controllers.base import ARM_DEFAULT, Floats, Measure, Prior

__all__ = ["BURST", "LIMIT", "loses_more", "suspected", "vetoed"]

# One percentage point above the default is what a decent sender may lose.
LIMIT = 0.01
# Losses come in bursts: three in a row tell as much as one.
BURST = 3.0
# Standard errors; loss is acted on early, speed late.
CLEARLY = 1.3
ENOUGH_OF_ITS_OWN = 4.0  # connections on trial, after which a path does not ask what others lost


def vetoed(measure: Measure, prior: Prior | None, *, at_least: float) -> NDArray[np.bool_]:
    """Which arms lose clearly more than arm 0 on the path itself; shape (paths, arms).

    Where others lost by an arm, the first loss on the path itself is clear. While the path has hardly used arm 0, what
    that loses is taken from others.
    """
    lost, sent = _rebased(measure, prior)
    found = loses_more(lost, sent, at_least=at_least)
    if prior is None:
        return found
    share = np.clip(lost, 0.0, sent) / np.maximum(sent, 1e-9)
    agrees = (share - share[:, :1] > LIMIT) & (measure.lost > 0)
    return found | (agrees & suspected(measure, prior, at_least=at_least))


def suspected(measure: Measure, prior: Prior | None, *, at_least: float) -> NDArray[np.bool_]:
    """Which arms lose clearly more than arm 0 when what others lost is counted too; shape (paths, arms).

    The more connections put an arm to the test on the path itself, the less others count: no path is bound by what its
    siblings suffer.
    """
    lost, sent = _rebased(measure, prior)
    if prior is not None:
        base = np.clip(lost[:, :1] / np.maximum(sent[:, :1], 1.0), 0.0, 1.0)
        segments = prior.segments * _left_to_others(measure.trials)
        segments[:, ARM_DEFAULT] = 0.0
        lost = lost + segments * np.clip(base + prior.excess, 0.0, 1.0)
        sent = sent + segments
    return loses_more(lost, sent, at_least=at_least)


def _rebased(measure: Measure, prior: Prior | None) -> tuple[Floats, Floats]:
    """Lost and sent segments; arm 0's with what others know of it."""
    if prior is None:
        return measure.lost, measure.sent
    lost, sent = measure.lost.copy(), measure.sent.copy()
    segments = prior.segments[:, ARM_DEFAULT] * _left_to_others(measure.trials[:, ARM_DEFAULT])
    lost[:, ARM_DEFAULT] += segments * prior.excess[:, ARM_DEFAULT]
    sent[:, ARM_DEFAULT] += segments
    return lost, sent


def _left_to_others(trials: Floats) -> Floats:
    left: Floats = np.clip(1.0 - trials / ENOUGH_OF_ITS_OWN, 0.0, 1.0)
    return left


def loses_more(lost: Floats, sent: Floats, *, at_least: float) -> NDArray[np.bool_]:
    """Which arms lose clearly more than arm 0; shape (paths, arms).

    `lost` and `sent` are segments; fewer than `at_least` lost segments are never clear. Arm 0 is never
    vetoed, as it has no excess.
    """
    sent = np.maximum(sent, 1e-9)
    # A segment may be lost again when it is sent again; a share above 1 is none.
    lost = np.clip(lost, 0.0, sent)
    share = lost / sent
    # Agresti and Coull's added counts keep a share of exactly 0 or 1 from looking certain.
    smooth = (lost + 1.0) / (sent + 4.0)
    variance = BURST * smooth * (1.0 - smooth) / sent
    base = share[:, ARM_DEFAULT, None]
    # Without connections on the default, a base of 0 is assumed: the cautious side.
    base_variance = np.where(sent[:, ARM_DEFAULT, None] >= 1, variance[:, ARM_DEFAULT, None], 0.0)
    excess = share - base
    clear = excess > CLEARLY * np.sqrt(variance + base_variance)
    found: NDArray[np.bool_] = (excess > LIMIT) & clear & (lost >= at_least)
    return found
