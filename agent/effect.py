"""The proof: what all treatment together, and each dimension of it, did to the time of transfers."""

from __future__ import annotations

from itertools import cycle

import numpy as np

from agent.dimensions import DIMENSIONS
from agent.evidence import EvidenceStore
from agent.libbpf import Array
from controllers.uplift import FIELDS, Uplift, uplift

__all__ = ["ALL", "COMPARED", "Effect"]

ALL = "all"  # as a dimension: the treated against the holdout, whatever was drawn for them
COMPARED = (ALL, *DIMENSIONS)


class Effect:
    """The uplift by name of COMPARED and by group: `all` is the treated against the holdout.

    A dimension is its other arms against its arm 0 among the treated: every dimension is drawn independently, so what
    the others do is alike on both sides (a factorial design).
    """

    def __init__(self) -> None:
        self.uplifts: dict[str, Uplift] = {}
        self._turns = cycle(COMPARED)

    def step(self, store: EvidenceStore) -> None:
        """Compares what has its turn: one after the other, so that no step takes long."""
        turn = next(self._turns)
        sums = store.sums[store.groups :]
        if turn == ALL:
            control, treated = sums[:, store.holdout_slot], sums[:, store.treated_slot]
        else:
            arms = store.of(DIMENSIONS.index(turn)).sums[store.groups :]
            control, treated = arms[:, 0], _together(arms[:, 1:])
        group = store.identity["group"][store.groups :].astype(np.intp)
        self.uplifts[turn] = uplift(control, treated, group, store.groups)


def _together(arms: Array) -> Array:
    """The sums over all of these arms: (paths, arms, fields) to (paths, FIELDS)."""
    result = np.zeros((len(arms), FIELDS), np.float32)
    for number in range(arms.shape[1]):
        result += arms[:, number, :FIELDS]
    return result
