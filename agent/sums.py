"""Arithmetic on sums of evidence: from drained rows to fields, fading, and handy pieces."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from agent.bpf_source import constants
from agent.dimensions import ACK, INITIAL_WINDOW
from agent.libbpf import Array
from controllers import Field
from controllers.base import LOG_CENTRE

__all__ = ["MOST_WEIGHT", "chunks", "enlarged", "fade", "fields_of"]

# Connections that the arms of a path remember at most: where there are many, what was true ten minutes ago must not
# outvote the last hundred. The two sides of the comparison keep everything.
MOST_WEIGHT = 500.0
# Rows that are worked on at once: their temporaries stay in the processor's cache.
_CHUNK = 4096
# Below this many connections, transfers and segments nothing is left but rounding.
_NOTHING = 1e-3


def chunks(rows: Array) -> Iterator[Array]:
    """`rows` in handy pieces."""
    for first in range(0, len(rows), _CHUNK):
        yield rows[first : first + _CHUNK]


def enlarged(array: Array, least: int) -> Array:
    """A copy with room for `least` rows and some more, which are zero.

    What is not used yet takes no memory: the kernel gives pages when they are written.
    """
    new = np.zeros((max(least, len(array) + len(array) // 4), *array.shape[1:]), array.dtype)
    new[: len(array)] = array
    return new


def fade(
    sums: Array, factor: Array | float, parts: Sequence[int] | Array = (0,), *, most: Array | float = MOST_WEIGHT
) -> None:
    """Multiplies by `factor`, in place; shape (paths, slots, fields), factors and `most` (paths,) or for all.

    Slots belong together that begin at one of `parts`, up to the next one. Where those of a path hold more than `most`
    closed connections together, they are brought down to these, all alike: a comparison between them stays as it is.
    The slots after the last of several parts keep everything. What has faded away becomes exactly zero.
    """
    closed = sums[:, :, Field.CLOSED].astype(np.float64)
    weight = np.add.reduceat(closed, parts, axis=1) * np.reshape(factor, (-1, 1))
    cut = np.minimum(1.0, np.reshape(most, (-1, 1)) / np.maximum(weight, 1.0))
    if len(parts) > 1:
        cut[:, -1] = 1.0
    slots = np.repeat(cut, np.diff([*parts, sums.shape[1]]), axis=1) * np.reshape(factor, (-1, 1))
    sums *= slots[:, :, None].astype(np.float32)
    left = sums[:, :, Field.CLOSED] + sums[:, :, Field.TRANSFERS] + sums[:, :, Field.SEGMENTS]
    sums[left < _NOTHING] = 0.0


def fields_of(rows: Array, dimension: str = "") -> Array:
    """The evidence fields of drained rows, shape (rows, fields), as they are in a dimension's evidence.

    The ACK policy's is about received transfers; all other evidence is about those sent, that of no dimension too.
    """
    transfers = rows["received" if dimension == ACK else "sent"]
    scale = float(1 << constants()["LOG_SHIFT"])
    count = transfers["count"].astype(np.float64)
    time, size = transfers["log_time"] / scale, transfers["log_bytes"] / scale
    fields = np.zeros((len(rows), len(Field)))
    fields[:, Field.TRANSFERS] = count
    fields[:, Field.LOG_TIME] = time - LOG_CENTRE * count
    fields[:, Field.LOG_BYTES] = size - LOG_CENTRE * count
    square = scale * scale
    centre = LOG_CENTRE
    fields[:, Field.LOG_TIME_SQUARED] = transfers["log_time_squared"] / square - 2 * centre * time + centre**2 * count
    fields[:, Field.LOG_BYTES_SQUARED] = transfers["log_bytes_squared"] / square - 2 * centre * size + centre**2 * count
    fields[:, Field.LOG_TIME_BYTES] = transfers["log_time_bytes"] / square - centre * (time + size) + centre**2 * count
    fields[:, Field.CLOSED] = rows["closed"]
    fields[:, Field.SEGMENTS] = rows["sent_segments"]
    fields[:, Field.RETRANSMITTED] = rows["retransmitted_segments"]
    fields[:, Field.FIRST_WINDOWS] = rows["first_windows"]
    fields[:, Field.FIRST_WINDOW_SEGMENTS] = rows["first_window_segments"]
    fields[:, Field.FIRST_WINDOW_LOSSES] = rows["first_window_losses"]
    if dimension == INITIAL_WINDOW:
        fields[:, Field.FIRST_WINDOW_LOSSY] = rows["first_window_lossy"]
    elif dimension == ACK:
        fields[:, Field.RECEIVED_SEGMENTS] = rows["received_segments"]
        fields[:, Field.ACKS] = rows["pure_acks"].astype(np.float64) - rows["thinned_acks"]
    else:
        fields[:, Field.RTT] = rows["rtt_us"]
        fields[:, Field.BASE_RTT] = rows["base_rtt_us"]
    return fields
