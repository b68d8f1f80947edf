"""The congestion control: discounted Thompson sampling on goodput, retransmissions and RTT inflation."""

from __future__ import annotations

import numpy as np

from controllers.base import Decision, Evidence, Field
from controllers.estimates import retransmission, rtt_inflation, transfer_time
from controllers.thompson import decide
from controllers.veto import loses_more

__all__ = ["CongestionThompson"]

# What one is worth in the other's terms, in log2 of time:
RETRANSMISSION_COST = 4.0  # ten percentage points more retransmissions need a third more speed
INFLATION_COST = 0.1  # doubling the RTT needs 7 % more speed: the queue is shared with others
# The veto is waived for an algorithm that is four times as fast: there the default is held down by loss that is not
# congestion, and the other fills, and at first overfills, a path that lay idle.
MUCH_FASTER = 2.0  # log2


class CongestionThompson:
    """Which algorithm serves a path best; see the module."""

    def step(self, now: float, evidence: Evidence) -> Decision:
        """Probabilities for every algorithm of every path."""
        del now  # evidence ages by itself
        estimate = transfer_time(evidence)
        utility = (
            -estimate.mean
            - RETRANSMISSION_COST * retransmission(evidence)
            - INFLATION_COST * np.log2(rtt_inflation(evidence))
        )
        much_faster = estimate.mean[:, :1] - estimate.mean - np.sqrt(estimate.variance + estimate.variance[:, :1])
        vetoed = loses_more(evidence[Field.RETRANSMITTED], evidence[Field.SEGMENTS], at_least=10.0)
        return decide(utility, estimate.variance, vetoed & (much_faster < MUCH_FASTER), evidence)
