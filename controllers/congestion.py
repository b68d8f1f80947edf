"""The congestion control: discounted Thompson sampling on goodput, retransmissions and RTT inflation.

An algorithm has to find out how fast a path is on every connection anew, and overshoots: it sends until segments get
lost. Paced at the rate that the path was seen to deliver it need not. So an algorithm may have a paced variant, which
is of use only where segments get lost. To try one costs connections, so the default's is tried, and the fastest
algorithm's where that is far ahead of the default, or the default's variant of it.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from controllers.base import ARM_DEFAULT, Decision, Evidence, Field, Floats, Measure, plain
from controllers.estimates import retransmission, rtt_inflation, transfer_time
from controllers.thompson import NOTHING, decide
from controllers.veto import suspected, vetoed

__all__ = ["CongestionThompson"]

# What one is worth in the other's terms, in log2 of time:
RETRANSMISSION_COST = 4.0  # ten percentage points more retransmissions need a third more speed
INFLATION_COST = 0.1  # doubling the RTT needs 7 % more speed: the queue is shared with others
OTHER_COST = 0.07  # another algorithm than the host's has to be 5 % faster: what shares the path is made for the host's
# An algorithm that is four times as fast beyond doubt has so many transfers to show that it can do with fewer
# retransmissions, as long as these are not far above the limit: where the default is held down by loss that is not
# congestion, the other fills a path that lay idle. Measured with 10 MB at 1 % random loss: one bbr transfer at a time
# has 13 times cubic's goodput and loses what the path loses; six at a time retransmit 6 to 7 % beside cubic's 1 %, and
# are vetoed after 30. Where it is twice as fast, as with a queue of six packets, it takes the queue from others.
MUCH_FASTER = 2.0  # log2
PROBATION = 30.0
MOST_EXCESS = 0.1
# Of the segments that were sent unpaced, and at least so many of them.
LOSSY = 0.005
LOST = 4.0
UNSEEN = -1000.0  # log2: slower than anything
LONG = 200.0  # segments of a connection on average: more than windows hold
AHEAD = 0.15  # log2: the default's paced variant does not do what the fastest algorithm does
SEEN = 1.5  # transfers of an algorithm, a little faded, after which it may be the fastest


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
        spared = self._spared(evidence, measure)
        banned = vetoed(measure, evidence.prior, at_least=10.0) & ~spared
        suspect = suspected(measure, evidence.prior, at_least=10.0) & ~spared
        return decide(measure, evidence.prior, banned, suspect, _useless(evidence, measure))

    def _spared(self, evidence: Evidence, measure: Measure) -> NDArray[np.bool_]:
        speed, again = measure.utility + _cost(evidence), retransmission(evidence)
        doubt = np.sqrt(measure.variance + measure.variance[:, :1])
        spared: NDArray[np.bool_] = (
            (speed - speed[:, :1] - doubt >= MUCH_FASTER)
            & (measure.trials < PROBATION)
            & (again - again[:, :1] <= MOST_EXCESS)
        )
        return spared


def _useless(evidence: Evidence, measure: Measure) -> NDArray[np.bool_] | None:
    """Which variants are not to be tried, (paths, arms); None where no arm is one."""
    variants = [(arm.variant_of, number) for number, arm in enumerate(evidence.arms) if arm.variant_of is not None]
    if not variants:
        return None
    useless = np.zeros_like(measure.utility, np.bool_)
    unpaced = [number for number, arm in enumerate(evidence.arms) if arm.variant_of is None]
    if evidence.rate is None:
        useless[:, [number for _, number in variants]] = True
        return useless
    lost, sent = (evidence[field][:, unpaced].sum(axis=1) for field in (Field.RETRANSMITTED, Field.SEGMENTS))
    if evidence.holdout is not None:
        lost, sent = lost + evidence.holdout[:, Field.RETRANSMITTED], sent + evidence.holdout[:, Field.SEGMENTS]
    lossy = (lost >= LOST) & (lost > LOSSY * sent)
    shown = sent >= LOST / LOSSY
    seen = measure.trials >= SEEN
    speed = np.where(seen, measure.utility + _cost(evidence), UNSEEN)
    fastest = np.where(seen[:, unpaced].all(axis=1), np.array(unpaced)[speed[:, unpaced].argmax(axis=1)], -1)
    far_ahead = _far_ahead(speed, fastest, variants)
    nothing = measure.trials.sum(axis=1) < NOTHING
    taught = np.zeros_like(useless) if evidence.prior is None else evidence.prior.precision > 0
    # While small windows are all that was tried, the rate of short transfers is theirs and not the path's.
    early = np.zeros(len(evidence), np.bool_) if evidence.exploring is None else evidence.exploring
    early = early & (evidence[Field.SEGMENTS].sum(axis=1) < LONG * evidence[Field.CLOSED].sum(axis=1))
    for algorithm, number in variants:
        next_one = (fastest == algorithm) & far_ahead if algorithm != ARM_DEFAULT else (fastest >= 0) & ~far_ahead
        promising = seen[:, number] | (~early & (next_one | taught[:, number]))
        # A path is thought to be as those that taught it, and as it was, until it has shown whether it loses.
        losing = lossy | (~shown & (seen | taught)[:, number])
        wanted = np.where(nothing, taught[:, number], losing & promising)
        useless[:, number] = ~(wanted & (evidence.rate > 0))
    return useless


def _far_ahead(speed: Floats, fastest: NDArray[np.intp], variants: list[tuple[int, int]]) -> NDArray[np.bool_]:
    """Where the fastest algorithm is far ahead of the default, or of its variant, (paths,).

    In speed alone: what it retransmits now is what its own variant is to save. Nor is there time to be sure, as an
    algorithm that retransmits much is hardly tried again.
    """
    rows = np.arange(len(speed))
    ahead: NDArray[np.bool_] = (fastest > ARM_DEFAULT) & (speed[rows, fastest] - speed[:, ARM_DEFAULT] >= MUCH_FASTER)
    for number in (number for algorithm, number in variants if algorithm == ARM_DEFAULT):
        seen = speed[:, number] > UNSEEN
        ahead |= (fastest > ARM_DEFAULT) & seen & (speed[rows, fastest] - speed[:, number] >= AHEAD)
    return ahead


def _cost(evidence: Evidence) -> Floats:
    other: Floats = OTHER_COST * (plain(evidence.arms) != ARM_DEFAULT)
    return other + RETRANSMISSION_COST * retransmission(evidence) + INFLATION_COST * np.log2(rtt_inflation(evidence))
