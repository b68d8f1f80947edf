"""The ACK policy: discounted Thompson sampling on the time that data takes to arrive here, and on the ACKs it costs."""

from __future__ import annotations

import numpy as np

from controllers.base import Decision, Evidence, Field, Floats, Measure
from controllers.estimates import transfer_time
from controllers.thompson import decide

__all__ = ["AckThompson"]

# What ACKs are worth in the other's terms, in log2 of time: sending one less for every data segment (the kernel sends
# one for two) is worth 7 % of time. So thinning wins where it drops most ACKs and does not cost 3 % of time.
ACK_COST = 0.1


class AckThompson:
    """Which ACK policy serves a path best. Its evidence counts received transfers, not sent ones."""

    def measure(self, evidence: Evidence) -> Measure:
        """Utility is speed, less what ACKs cost; what is lost on the way here is not this host's doing."""
        estimate = transfer_time(evidence)
        utility = -estimate.mean - ACK_COST * acks_per_segment(evidence)
        nothing = np.zeros_like(utility)
        return Measure(utility, estimate.variance, nothing, nothing, evidence[Field.TRANSFERS])

    def step(self, now: float, evidence: Evidence, measure: Measure | None = None) -> Decision:
        """Probabilities for every ACK policy of every path."""
        del now  # evidence ages by itself
        measure = measure or self.measure(evidence)
        return decide(measure, evidence.prior)


def acks_per_segment(evidence: Evidence) -> Floats:
    """ACKs that left for one data segment that arrived, at most 1, shape (paths, arms); 0 where nothing arrived."""
    segments = evidence[Field.RECEIVED_SEGMENTS]
    some = segments > 0
    acks: Floats = np.where(some, np.clip(evidence[Field.ACKS], 0.0, segments) / np.where(some, segments, 1.0), 0.0)
    return acks
