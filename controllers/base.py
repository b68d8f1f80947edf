"""What controllers read and what they say. Pure data: no I/O, no clock; `now` is passed in.

Evidence of one dimension is an array of shape (paths, arms, FIELDS) of decayed sums; arm 0 is the kernel's default.
A controller answers with a probability for every arm of every path. The kernel draws with these probabilities, one
dimension independently of the others, so that arms of a dimension can be compared fairly (a factorial design).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "ARM_DEFAULT", "LOG_CENTRE", "UNTRIED", "Arm", "Controller", "Decision", "Evidence", "Field", "Floats", "Integers",
    "Measure", "Prior", "plain",
]  # fmt: skip

Floats = NDArray[np.floating[Any]]
Integers = NDArray[np.integer[Any]]

ARM_DEFAULT = 0
UNTRIED = -1.0
# Logarithms are kept relative to 2^16 (65 ms, 64 KB): small numbers keep their digits in 32-bit sums.
LOG_CENTRE = 16.0


class Field(IntEnum):
    """The last axis of an evidence array. Logs are log2(x) - LOG_CENTRE, of microseconds and bytes."""

    TRANSFERS = 0  # those that outgrew the default's first window
    LOG_TIME = 1
    LOG_BYTES = 2
    LOG_TIME_SQUARED = 3
    LOG_BYTES_SQUARED = 4
    LOG_TIME_BYTES = 5
    CLOSED = 6  # connections
    SEGMENTS = 7  # sent with data
    RETRANSMITTED = 8
    FIRST_WINDOWS = 9  # connections that filled their first window
    FIRST_WINDOW_SEGMENTS = 10
    FIRST_WINDOW_LOSSES = 11
    RTT = 12  # microseconds, summed over rounds
    BASE_RTT = 13  # the least RTT of the path then, summed over the same rounds
    # No use is made of the RTT in two dimensions; to save memory, their evidence has something else in its place. The
    # initial window's:
    FIRST_WINDOW_LOSSY = 12  # connections with at least one
    # The ACK policy's, which is about what is received:
    RECEIVED_SEGMENTS = 12  # with data
    ACKS = 13  # segments without data that left


@dataclass(frozen=True)
class Arm:
    """One value of a dimension.

    `value` is segments (initial window) or the divisor of the RTT (ACK delay); `name` is what people read. An arm that
    does the same as another one and more is a variant of it: `variant_of` is the other one's number.
    """

    name: str
    value: int = 0
    variant_of: int | None = None


def plain(arms: Sequence[Arm]) -> NDArray[np.intp]:
    """The number of every arm, or of the one that it is a variant of, (arms,)."""
    return np.array([number if arm.variant_of is None else arm.variant_of for number, arm in enumerate(arms)])


@dataclass(frozen=True)
class Measure:
    """How the arms did by one law's yardstick; arrays of shape (paths, arms).

    `utility` is log2 (1 is twice as good) with its `variance`, infinite where nothing was measured. `lost` of `sent`
    segments count for the veto; both are 0 where the law knows none. `trials` are the connections that put an arm to
    the test; `unsafe` marks arms that failed it for another reason.
    """

    utility: Floats
    variance: Floats
    lost: Floats
    sent: Floats
    trials: Floats
    unsafe: NDArray[np.bool_] | None = None


@dataclass(frozen=True)
class Prior:
    """What the arms of a path are thought to be before the path itself shows it; arrays of shape (paths, arms).

    `gain` is the utility less arm 0's, and `precision` one over its variance: 0 where nothing is known. `excess` is the
    share of segments lost above arm 0's (for arm 0: what it loses), worth as much as `segments` of the path's own.
    `trust` is the chance that an arm loses nothing here as it lost nothing on others; UNTRIED where none of them did.
    """

    gain: Floats
    precision: Floats
    excess: Floats
    segments: Floats
    trust: Floats


@dataclass(frozen=True)
class Evidence:
    """What is known of some paths in one dimension; `sums` has shape (paths, arms, len(Field)).

    `prior` is what other paths taught; None: nothing. `holdout` (paths, len(Field)) is of the connections that were
    left wholly at the kernel's defaults; None: there are none. `rate` (paths,) is what each path was seen to deliver,
    in bytes a second: 0 where that is not known, None where it is nowhere. `pipe` (paths,) is how many segments were
    on their way when the path was just filled; 0 where it was not, None: nowhere. `exploring` (paths,) is where
    another dimension is not done with trying what this one is to be judged under; None: nowhere.
    """

    arms: tuple[Arm, ...]
    sums: Floats
    prior: Prior | None = None
    holdout: Floats | None = None
    rate: Floats | None = None
    pipe: Floats | None = None
    exploring: NDArray[np.bool_] | None = None

    def __getitem__(self, field: Field) -> Floats:
        """One field, shape (paths, arms)."""
        column: Floats = self.sums[:, :, field]
        return column

    def __len__(self) -> int:
        return int(self.sums.shape[0])


@dataclass(frozen=True)
class Decision:
    """What to do on every path.

    `probabilities` (paths, arms) sum to 1; `chosen` (paths,) is the arm held to be best; `reason` (paths,) indexes
    `reasons`, which people read. `limit` (paths,) is the first arm that evidence speaks against, or the number of arms:
    a peer's request is granted less than that. `learning` (paths,) is where a few connections more are likely to change
    the decision: there it should be made anew soon. `settled` (paths,) is where nearly all
    connections have the chosen arm, so that other dimensions are to be judged by these alone.
    """

    probabilities: Floats
    chosen: Integers
    reason: Integers
    reasons: tuple[str, ...]
    limit: Integers | None = None
    learning: NDArray[np.bool_] | None = None
    settled: NDArray[np.bool_] | None = None


class Controller(Protocol):
    """A law for one dimension: the same evidence gives the same decision."""

    def measure(self, evidence: Evidence) -> Measure | None:
        """How the arms did, for paths to learn from each other; None: this law inherits nothing."""
        ...

    def step(self, now: float, evidence: Evidence, measure: Measure | None = None) -> Decision:
        """Decides for every path in `evidence`; `now` is in seconds of any clock.

        `measure` is what `measure` gave for this evidence, for callers that have it already.
        """
        ...
