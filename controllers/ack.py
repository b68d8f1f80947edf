"""The ACK policy: discounted Thompson sampling on the time that data takes to arrive here."""

from __future__ import annotations

import numpy as np

from controllers.base import Decision, Evidence
from controllers.estimates import transfer_time
from controllers.thompson import decide

__all__ = ["AckThompson"]


class AckThompson:
    """Which ACK policy serves a path best. Its evidence counts received transfers, not sent ones."""

    def step(self, now: float, evidence: Evidence) -> Decision:
        """Probabilities for every ACK policy of every path."""
        del now  # evidence ages by itself
        estimate = transfer_time(evidence)
        nobody = np.zeros(estimate.mean.shape, dtype=np.bool_)
        return decide(-estimate.mean, estimate.variance, nobody, evidence)
