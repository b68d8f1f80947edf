"""Whether a path has changed: what connections did lately, against what their arms did before.

Each connection is compared with the arms it was drawn for, so a path that only uses better arms than it used to has not
changed. What counts is the last few connections: a change is noticed within them, however much was known before.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from controllers.base import Field, Floats
from controllers.estimates import PRIOR_VARIANCE, PRIOR_WEIGHT, residual_of, slope_of
from controllers.veto import BURST

__all__ = ["KEPT", "Recent", "changed", "faded", "surprise"]


class Recent(IntEnum):
    """The last axis of what is remembered of the last connections of a path."""

    TRANSFERS = 0
    LONGER = 1  # the sum of log2 of their times, less what was expected
    DEVIATIONS = 2  # the same in standard deviations
    SENT = 3  # segments of first windows
    LOST = 4
    EXPECTED = 5  # losses of these


MEMORY = 0.9  # what is left of a connection after the next one: ten count
KNOWN = 5.0  # transfers of an arm, or first windows, before it is known what to expect of it
FACTOR = 0.5  # log2: a time 40 % longer or shorter is a change,
CLEARLY = 4.5  # if it is so many standard errors
ENOUGH = 4.0  # transfers
LOST_MORE = 0.05  # of the first window's segments; as many fewer are a change too
LOSS_CLEARLY = 3.0  # standard errors
KEPT = 6.0  # connections that the evidence of a path that changed is worth


def surprise(algorithm: Floats, window: Floats, windows: Floats, new: Floats, paced: NDArray[np.bool_]) -> Floats:
    """How much sums of new connections differ from what their arms did; all (rows, len(Field)), to (rows, Recent).

    `algorithm` is what was known of the congestion control they had, `window` of their initial window, and `windows`
    of all windows together. The two dimensions are thought to add up. `paced` ones (rows,) take less time as the rate
    grows that they are held to: only if they take longer has the path changed.
    """
    result = np.zeros((len(new), len(Recent)))
    count = algorithm[:, Field.TRANSFERS]
    known = (count >= KNOWN) & (window[:, Field.TRANSFERS] >= KNOWN) & (new[:, Field.TRANSFERS] > 0)
    safe = np.maximum(count, 1.0)
    time, size = algorithm[:, Field.LOG_TIME] / safe, algorithm[:, Field.LOG_BYTES] / safe
    spread = np.maximum(algorithm[:, Field.LOG_TIME_SQUARED] - count * time**2, 0.0)
    sizes = np.maximum(algorithm[:, Field.LOG_BYTES_SQUARED] - count * size**2, 0.0)
    together = algorithm[:, Field.LOG_TIME_BYTES] - count * time * size
    slope = slope_of(together, sizes)
    residual = residual_of(slope, spread, together, sizes)
    deviation = np.sqrt((residual + PRIOR_WEIGHT * PRIOR_VARIANCE) / (count + PRIOR_WEIGHT))
    safe_window = np.maximum(window[:, Field.TRANSFERS], 1.0)
    apart = _mean(window, Field.LOG_TIME) - _mean(windows, Field.LOG_TIME)
    apart -= slope * (_mean(window, Field.LOG_BYTES) - _mean(windows, Field.LOG_BYTES))
    longer = new[:, Field.LOG_TIME] - slope * new[:, Field.LOG_BYTES]
    longer -= new[:, Field.TRANSFERS] * (time + apart - slope * size)
    told = known & ~(paced & (longer < 0))
    result[:, Recent.TRANSFERS] = np.where(told, new[:, Field.TRANSFERS], 0.0)
    result[:, Recent.LONGER] = np.where(told, longer, 0.0)
    # What is not known of the window's mean is wrong for all of the last connections in the same way.
    doubt = (window[:, Field.LOG_TIME_SQUARED] / safe_window - _mean(window, Field.LOG_TIME) ** 2) / safe_window
    deviation = np.sqrt(deviation**2 + np.maximum(doubt, 0.0) / (1.0 - MEMORY))
    result[:, Recent.DEVIATIONS] = result[:, Recent.LONGER] / deviation

    known = window[:, Field.FIRST_WINDOWS] >= KNOWN
    segments = np.maximum(window[:, Field.FIRST_WINDOW_SEGMENTS], 1.0)
    share = np.clip(window[:, Field.FIRST_WINDOW_LOSSES], 0.0, segments) / segments
    sent = np.where(known, new[:, Field.FIRST_WINDOW_SEGMENTS], 0.0)
    result[:, Recent.SENT] = sent
    result[:, Recent.LOST] = np.where(known, new[:, Field.FIRST_WINDOW_LOSSES], 0.0)
    result[:, Recent.EXPECTED] = sent * share
    return result


def _mean(sums: Floats, field: Field) -> Floats:
    mean: Floats = sums[:, field] / np.maximum(sums[:, Field.TRANSFERS], 1.0)
    return mean


def faded(recent: Floats, connections: Floats) -> Floats:
    """What is left of `recent` (paths, Recent) after so many more connections (paths,)."""
    left: Floats = recent * np.power(MEMORY, connections)[:, None]
    return left


def changed(recent: Floats) -> NDArray[np.bool_]:
    """Which paths did something else lately, (paths,): longer or shorter times, more or fewer losses."""
    count = np.maximum(recent[:, Recent.TRANSFERS], 1e-9)
    other = np.abs(recent[:, Recent.LONGER]) > FACTOR * count
    clear = np.abs(recent[:, Recent.DEVIATIONS]) > CLEARLY * np.sqrt(count)
    more = recent[:, Recent.LOST] - recent[:, Recent.EXPECTED]
    doubt = np.sqrt(BURST * (recent[:, Recent.EXPECTED] + 1.0))
    losses = (np.abs(more) > LOST_MORE * recent[:, Recent.SENT]) & (np.abs(more) > LOSS_CLEARLY * doubt)
    found: NDArray[np.bool_] = (other & clear & (count >= ENOUGH)) | losses
    return found
