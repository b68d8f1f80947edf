"""What controllers read and what they say. Pure data: no I/O, no clock; `now` is passed in.

Evidence of one dimension is an array of shape (paths, arms, FIELDS) of decayed sums; arm 0 is the kernel's default.
A controller answers with a probability for every arm of every path. The kernel draws with these probabilities, one
dimension independently of the others, so that arms of a dimension can be compared fairly (a factorial design).
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

__all__ = ["ARM_DEFAULT", "LOG_CENTRE", "Arm", "Controller", "Decision", "Evidence", "Field", "Floats"]

Floats = NDArray[np.floating[Any]]

ARM_DEFAULT = 0
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
    FIRST_WINDOW_LOSSY = 12  # connections with at least one
    RTT = 13  # microseconds, summed over rounds
    BASE_RTT = 14  # the least RTT of the path then, summed over the same rounds
    RECEIVED_SEGMENTS = 15  # with data
    ACKS = 16  # segments without data that left


@dataclass(frozen=True)
class Arm:
    """One value of a dimension.

    `value` is segments (initial window) or the divisor of the RTT (ACK delay); `name` is what people read.
    """

    name: str
    value: int = 0


@dataclass(frozen=True)
class Evidence:
    """What is known of some paths in one dimension; `sums` has shape (paths, arms, len(Field))."""

    arms: tuple[Arm, ...]
    sums: Floats

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
    a peer's request is granted less than that.
    """

    probabilities: Floats
    chosen: NDArray[np.intp]
    reason: NDArray[np.intp]
    reasons: tuple[str, ...]
    limit: NDArray[np.intp] | None = None


class Controller(Protocol):
    """A law for one dimension: the same evidence gives the same decision."""

    def step(self, now: float, evidence: Evidence) -> Decision:
        """Decides for every path in `evidence`; `now` is in seconds of any clock."""
        ...
