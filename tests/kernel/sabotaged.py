"""The agent with a law that always picks the last arm: `python sabotaged.py DIMENSION LAW run --config F`."""

from __future__ import annotations

import sys

import numpy as np

from agent.cli import main
from controllers import LAWS, Decision, Evidence


class Worst:
    """Whatever the evidence says."""

    def measure(self, evidence: Evidence) -> None:
        """Nothing for others to learn."""
        del evidence

    def step(self, now: float, evidence: Evidence, measure: None = None) -> Decision:
        """The last arm for everybody."""
        del now, measure
        paths, last = len(evidence), len(evidence.arms) - 1
        probabilities = np.zeros((paths, last + 1))
        probabilities[:, last] = 1.0
        return Decision(probabilities, np.full(paths, last), np.zeros(paths, np.intp), ("sabotage",))


if __name__ == "__main__":
    dimension, law = sys.argv[1:3]
    assert (dimension, law) in LAWS
    LAWS[dimension, law] = Worst
    sys.exit(main(sys.argv[3:]))
