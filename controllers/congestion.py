"""The congestion control: discounted Thompson sampling on goodput, retransmissions and RTT inflation."""

from __future__ import annotations

import numpy as np

from controllers.base import Decision, Evidence, Field, Floats, Measure
from controllers.estimates import retransmission, rtt_inflation, transfer_time
from controllers.thompson import decide
from controllers.veto import suspected, vetoed

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
        estimate = transfer_time(evidence)
        return Measure(
            -estimate.mean - _cost(evidence), estimate.variance, evidence[Field.RETRANSMITTED],
            evidence[Field.SEGMENTS], evidence[Field.TRANSFERS],
        )  # fmt: skip

    def step(self, now: float, evidence: Evidence, measure: Measure | None = None) -> Decision:
        """Probabilities for every algorithm of every path."""
        del now  # evidence ages by itself
        measure = measure or self.measure(evidence)
        speed = measure.utility + _cost(evidence)
        doubt = np.sqrt(measure.variance + measure.variance[:, :1])
        much_faster = speed - speed[:, :1] - doubt >= MUCH_FASTER
        banned = vetoed(measure, evidence.prior, at_least=10.0) & ~much_faster
        suspect = suspected(measure, evidence.prior, at_least=10.0) & ~much_faster
        return decide(measure, evidence.prior, banned, suspect)


def _cost(evidence: Evidence) -> Floats:
    return RETRANSMISSION_COST * retransmission(evidence) + INFLATION_COST * np.log2(rtt_inflation(evidence))
