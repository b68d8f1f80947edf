"""Short transfers count where they get lost and nearly all are short."""

from __future__ import annotations

import numpy as np
import pytest

from controllers import Field
from controllers.short import short_ones_tell


@pytest.mark.parametrize(
    ("connections", "segments", "again", "lost", "tell"),
    [
        (20, 140, 60, 40, True),
        (20, 140, 1, 1, False),  # they arrive
        (20, 1400, 200, 40, False),  # long ones tell
        (2, 14, 6, 4, False),  # too few to know
        (0, 0, 0, 0, False),
    ],
)
def test_where_they_tell(connections: int, segments: int, again: int, lost: int, tell: bool) -> None:
    sums = np.zeros((1, len(Field)), np.float32)
    sums[0, [Field.CLOSED, Field.SEGMENTS, Field.RETRANSMITTED]] = connections, segments + again, again
    sums[0, [Field.FIRST_WINDOW_SEGMENTS, Field.FIRST_WINDOW_LOSSES]] = min(segments, 10 * connections), lost
    assert short_ones_tell(sums).tolist() == [tell]
