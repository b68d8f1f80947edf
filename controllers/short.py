"""Which paths' short transfers tell arms apart.

A transfer that ends within the default's first window takes one round trip under any window, and counting it would
only blur what longer ones show. But where even these get lost, as in a policer that takes no burst, it depends on the
algorithm whether they wait for a timeout; and where nearly all are short there is nothing to blur.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from controllers.base import Field, Floats

__all__ = ["short_ones_tell"]

FEW = 12.0  # segments sent by a connection, on average: little more than the default's first window holds
ENOUGH = 4.0  # connections
LOSSY = 0.01  # of the segments of first windows


def short_ones_tell(default: Floats) -> NDArray[np.bool_]:
    """Where they do, (paths,); `default` (paths, len(Field)) are sums of connections with the kernel's algorithm."""
    closed = default[:, Field.CLOSED]
    few = default[:, Field.SEGMENTS] - default[:, Field.RETRANSMITTED] <= FEW * closed
    lossy = default[:, Field.FIRST_WINDOW_LOSSES] > LOSSY * default[:, Field.FIRST_WINDOW_SEGMENTS]
    found: NDArray[np.bool_] = (closed >= ENOUGH) & few & lossy
    return found
