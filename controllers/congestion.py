"""The congestion control: discounted Thompson sampling on goodput, retransmissions and RTT inflation."""

from __future__ import annotations

import numpy as np

from controllers.base import Decision, Evidence, Field, Measure
from controllers.estimates import TimeEstimate, retransmission, rtt_inflation, transfer_time
from controllers.thompson import decide
from controllers.veto import loses_more, suspected

__all__ = ["CongestionThompson"]

# What one is worth in the other's terms, in log2 of time:
RETRANSMISSION_COST = 4.0  # ten percentage points more retransmissions need a third more speed
INFLATION_COST = 0.1  # doubling the RTT needs 7 % more speed: the queue is shared with others
# The veto is waived for an algorithm that is four times as fast: there the default is held down by loss that is not
# congestion, and the other fills, and at first overfills, a path that lay idle.
MUCH_FASTER = 2.0  # log2


class CongestionThompson:
    """Which algorithm serves a path best; see the module."""

    def measure(self, evidence: Evidence) -> Measure:
        """Utility is speed, less what retransmissions and full queues cost others."""
        return self._measure(evidence, transfer_time(evidence))

    def _measure(self, evidence: Evidence, estimate: TimeEstimate) -> Measure:
        utility = (
            -estimate.mean
            - RETRANSMISSION_COST * retransmission(evidence)
            - INFLATION_COST * np.log2(rtt_inflation(evidence))
        )
        return Measure(
            utility, estimate.variance, evidence[Field.RETRANSMITTED], evidence[Field.SEGMENTS],
            evidence[Field.TRANSFERS],
        )  # fmt: skip

    def step(self, now: float, evidence: Evidence) -> Decision:
        """Probabilities for every algorithm of every path."""
        del now  # evidence ages by itself
        estimate = transfer_time(evidence)
        measure = self._measure(evidence, estimate)
        doubt = np.sqrt(estimate.variance + estimate.variance[:, :1])
        much_faster = estimate.mean[:, :1] - estimate.mean - doubt >= MUCH_FASTER
        vetoed = loses_more(measure.lost, measure.sent, at_least=10.0) & ~much_faster
        suspect = suspected(measure, evidence.prior, at_least=10.0) & ~much_faster
        return decide(measure, evidence.prior, vetoed, suspect)
