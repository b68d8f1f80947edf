"""The guard: where treatment harms beyond doubt, the kernel's defaults come back, on one path or everywhere.

Every path is on trial all the time (controllers/harm.py): sums since the trial began, not faded. A trial ends when it
is long, or once the treated are better beyond doubt; the next one begins with nothing, so that harm that comes late is
not outweighed by the past. The first trial of a path is its probation. How many connections are held back to compare
with is another matter (controllers/holdout.py).

A path that fails goes into quarantine. So does everything when all paths together fail, or those in quarantine carry
much of the traffic. Each quarantine is twice as long as the one before, and what happened long ago is forgiven.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from controllers import harm, holdout
from controllers.base import ARM_DEFAULT, Decision, Field, Floats, Integers
from controllers.harm import HARMS, PARTS, WIDESPREAD, Harm, Seen
from controllers.trials import POOLED, Trials

__all__ = ["ALL", "WIDESPREAD", "Event", "Guard"]

ALL = -1  # as a row: everything

# Beyond doubt: 100,000 to 1. With 3 kinds of harm and trials of at least ten minutes, a path without harm fails on less
# than one day of 100. For everything together, looked at more often and with more at stake, 1,000,000 to 1.
BEYOND_DOUBT = float(np.log(1e5))
BEYOND_DOUBT_ALL = float(np.log(1e6))
# A trial ends after so many connections, but not before so many seconds have passed.
TRIAL_CONNECTIONS = 2000.0
TRIAL_SECONDS = 600.0
# Probation ends after so many connections, unless harm is suspected (10 to 1).
PROBATION_CONNECTIONS = 200.0
SUSPECTED = float(np.log(10))
# When so many paths with such a share of the traffic are in quarantine, it is not they.
WIDESPREAD_PATHS = 3
WIDESPREAD_SHARE = 0.3
TRAFFIC_HALF_LIFE = 3600.0  # seconds
# All paths together are judged by what they told lately, so that harm that comes late is not outweighed by the past.
POOL_HALF_LIFE = 600.0
_POSITIVE = [0, 2, 3, 4]  # parts
_PARTS_FADE = np.array([[1.0], [1.0], [2.0], [1.0], [1.0]])  # variances of sums fade twice as fast

MOST_JUDGED = 20_000  # paths a step
_BLOCK = 2048  # paths whose numbers stay in the processor's cache
_QUARANTINED = tuple(f"quarantined by the guard: {reason}" for reason in HARMS)
_OFF = "switched off by the guard: harm is widespread"


@dataclass(frozen=True)
class Event:
    """On `row`, or ALL, a quarantine began (`until` is of the clock of `step`), or ended (`until` is None).

    `kind` is what was worse: a Harm by `worse` (log2 of the time, shares of segments), or WIDESPREAD.
    """

    row: int
    until: float | None
    kind: int
    worse: float


class Guard:
    """Rows are those of the evidence, in the same order; the groups' never get samples. Not thread-safe."""

    def __init__(self) -> None:
        self._rows = Trials.new(0)
        self._length = 0
        self._all = Trials.new(1)  # one row that is everything
        self._pool = np.zeros((PARTS, len(Harm)))
        self._next = 0
        self.touched: Integers = np.zeros(0, np.intp)
        """Rows that came on probation or into quarantine, or out of it, at the last step."""
        self._now: float | None = None

    def __len__(self) -> int:
        return self._length

    def resize(self, length: int) -> None:
        """Makes room for rows up to `length`; new ones are on probation."""
        if length > len(self._rows):
            more = max(length + length // 8, 1024) - len(self._rows)
            self._rows = self._rows.taken(np.arange(len(self._rows)), more)
        self._length = max(length, self._length)

    def keep(self, rows: Integers) -> None:
        """Only these rows are left, in this order."""
        self._rows, self._length = self._rows.taken(rows), len(rows)

    # --- what the guard says ----------------------------------------------------------------------------------------

    @property
    def off(self) -> bool:
        """Whether everything is switched off."""
        return bool(self._all.quarantined[0])

    @property
    def quarantined(self) -> NDArray[np.bool_]:
        """The paths in quarantine, (rows,); while everything is off there may be none."""
        return self._rows.quarantined[: self._length]

    @property
    def remembered(self) -> Integers:
        """The rows on which there was a quarantine, which must not be forgotten soon."""
        return np.flatnonzero(self._marked(np.arange(self._length)))

    def why(self, row: int) -> Event | None:
        """The quarantine that a row, or ALL, is in."""
        rows, place = (self._all, 0) if row == ALL else (self._rows, row)
        if not rows.quarantined[place]:
            return None
        return Event(row, float(rows.until[place]), int(rows.kind[place]), float(rows.worse[place]))

    def on_probation(self, row: int) -> bool:
        """Whether a row has a larger holdout for now."""
        return row >= self._length or bool(self._rows.probation[row] and not self._rows.quarantined[row])

    def holdout(self, usual: float, rows: Integers, vouched: Floats) -> Floats:
        """The holdout's share on `rows`, where `usual` is that of a path of which nothing special is known.

        `vouched` is what the siblings of each row vouch for. Where there was a quarantine nobody's word counts.
        """
        if self.off:
            return np.full(len(rows), usual, np.float32)
        self.resize(int(rows.max(initial=-1)) + 1)
        shares = np.empty(len(rows), np.float32)
        for first in range(0, len(rows), _BLOCK):
            part = slice(first, first + _BLOCK)
            some = rows[part]
            watched = self._rows.probation[some] & ~self._rows.quarantined[some]
            believed = np.where(self._marked(some), 0.0, vouched[part])
            shares[part] = holdout.holdout(usual, watched, self._rows.lately[some], believed)
        return shares

    def vouched(self, rows: Integers, network: Integers, networks: int) -> Floats:
        """What `rows`, whose networks are `network`, vouch for: how often the holdout of unknown paths is halved in
        every one of so many networks. Where one of them was harmed it is whole."""
        self.resize(int(rows.max(initial=-1)) + 1)
        found = holdout.vouched(self._rows.lately[rows], network, networks)
        found[network[self._marked(rows)]] = 0.0
        return found

    def _marked(self, rows: Integers) -> NDArray[np.bool_]:
        return self._rows.marked(rows, self._now or 0.0)

    def restrained(self, decision: Decision, rows: Integers | None, *, everything: bool) -> Decision:
        """`decision` for `rows` (None: for networks of unknown paths), with the kernel's defaults where harm is.

        With `everything`, they are everywhere.
        """
        length = len(decision.chosen)
        if everything or rows is None:
            return _default_where(decision, np.full(length, everything), np.full(length, len(HARMS)))
        self.resize(int(rows.max(initial=-1)) + 1)
        where, kind = np.zeros(length, np.bool_), np.zeros(length, np.intp)
        where[: len(rows)], kind[: len(rows)] = self._rows.quarantined[rows], self._rows.kind[rows]
        return _default_where(decision, where, kind)

    # --- what the guard sees ----------------------------------------------------------------------------------------

    def absorb(self, rows: Integers, treated: NDArray[np.bool_], samples: Floats) -> None:
        """Adds samples of evidence, (samples, len(Field)), of `rows`; those that were not treated are the holdout."""
        if not len(rows):
            return
        self.resize(int(rows.max()) + 1)
        np.add.at(self._rows.traffic, rows, samples[:, Field.CLOSED])
        if self.off:
            return
        tested = ~self.quarantined[rows]
        rows, samples = rows[tested], samples[tested]
        side = np.where(treated[tested], harm.TREATED, harm.CONTROL)
        np.add.at(self._rows.seen, (rows, side), harm.added(samples))
        holdout.remember(self._rows.lately, rows, side, samples)
        self._rows.changed[rows] = True

    def step(self, now: float) -> list[Event]:
        """Judges what was absorbed since the last step; `now` is in seconds of a clock that goes forward."""
        passed = 0.0 if self._now is None else max(0.0, now - self._now)
        if self._now is None:
            # Times that were loaded count from the first step.
            for rows in (self._rows, self._all):
                rows.until += now
        self._now = now
        before = self._rows.probation.copy(), self._rows.quarantined.copy()
        events = self._step(now, passed)
        self.touched = np.flatnonzero((self._rows.probation != before[0]) | (self._rows.quarantined != before[1]))
        return events

    def _step(self, now: float, passed: float) -> list[Event]:
        self._rows.traffic *= 0.5 ** (passed / TRAFFIC_HALF_LIFE)
        self._pool *= 0.5 ** (passed / POOL_HALF_LIFE * _PARTS_FADE)
        self._rows.pooled[: self._length] *= 0.5 ** (passed / POOL_HALF_LIFE)
        events = self._release(now)
        if self.off:
            self._rows.changed[:] = False
            return events
        changed = self._turn()
        for first in range(0, len(changed), _BLOCK):
            events += self._judge(changed[first : first + _BLOCK], now)
        return events + self._judge_all(now)

    def _turn(self) -> Integers:
        """Paths to be judged: those that changed, but not too many, so that no step takes long."""
        rows = self._rows
        changed = np.flatnonzero(rows.changed & ~rows.quarantined)
        changed = np.roll(changed, -int(np.searchsorted(changed, self._next)))[:MOST_JUDGED]
        self._next = int(changed[-1]) + 1 if len(changed) else 0
        rows.changed[changed] = False
        return changed

    def _release(self, now: float) -> list[Event]:
        rows = self._rows
        over = np.flatnonzero(self.quarantined & (rows.until[: self._length] <= now))
        rows.quarantined[over] = False
        rows.restart(over, now, probation=True)
        events = [Event(int(row), None, int(rows.kind[row]), float(rows.worse[row])) for row in over]
        if self.off and self._all.until[0] <= now:
            self._all.quarantined[0] = False
            rows.restart(np.flatnonzero(~rows.quarantined), now, probation=True)
            events.append(Event(ALL, None, int(self._all.kind[0]), float(self._all.worse[0])))
        return events

    def _judge(self, changed: Integers, now: float) -> list[Event]:
        rows = self._rows
        new = changed[np.isnan(rows.began[changed])]
        rows.began[new] = now
        seen = rows.seen[changed]
        found = harm.measure(seen)
        told = np.moveaxis(harm.parts(found, harm.usual_spread(self._pool).astype(np.float32)), 2, 0)
        more = told - rows.parts[changed]
        self._pool += more.sum(axis=0)
        rows.pooled[changed] += more[:, :POOLED]
        rows.parts[changed] = told
        evidence = harm.evidence_of_each(found)

        kind = _cause(evidence)
        worst = evidence.max(axis=0)
        failed = worst > BEYOND_DOUBT
        bad = changed[failed]
        # What is wrong on this path alone is no reason to switch off the others.
        self._take_out(bad)
        rows.quarantine(bad, now, kind[failed], found.worse[kind[failed], np.flatnonzero(failed)])
        rows.restart(bad, now, probation=True)

        connections = seen[:, harm.CONTROL, Seen.CONNECTIONS] + seen[:, harm.TREATED, Seen.CONNECTIONS]
        long = (connections >= TRIAL_CONNECTIONS) & (now - rows.began[changed] >= TRIAL_SECONDS)
        # Where treatment neither helps nor harms, this is as rare as a false alarm: it needs no least time.
        long |= harm.evidence_of_gain(found) > BEYOND_DOUBT
        trusted = rows.probation[changed] & (connections >= PROBATION_CONNECTIONS) & (worst < SUSPECTED)
        rows.restart(changed[(long | trusted) & ~failed], now, probation=False)
        return [Event(int(row), float(rows.until[row]), int(rows.kind[row]), float(rows.worse[row])) for row in bad]

    def _take_out(self, rows: Integers) -> None:
        """Takes what is left of these rows' telling out of the pool. How much they vary is not known to have faded, but
        a weight that is not that of its sum would say something of the others."""
        self._pool[:POOLED] -= self._rows.pooled[rows].sum(axis=0)
        self._pool[POOLED:] -= self._rows.parts[rows, POOLED:].sum(axis=0)
        self._pool[_POSITIVE] = np.maximum(self._pool[_POSITIVE], 0.0)
        self._rows.pooled[rows] = 0.0

    def _judge_all(self, now: float) -> list[Event]:
        rows, length = self._rows, self._length
        worse, evidence = harm.evidence_of_all(self._pool)
        # Those that were in it when everything was switched off are no reason to do so again.
        kind, bad = int(_cause(evidence)), self.quarantined & (rows.began[:length] > self._all.until[0])
        share = rows.traffic[:length][bad].sum() / max(rows.traffic[:length].sum(), 1.0)
        if evidence.max() <= BEYOND_DOUBT_ALL:
            if bad.sum() < WIDESPREAD_PATHS or share < WIDESPREAD_SHARE:
                return []
            kind = WIDESPREAD
        amount = float(share if kind == WIDESPREAD else worse[kind])
        self._all.quarantine(np.zeros(1, np.intp), now, np.array([kind]), np.array([amount]))
        rows.restart(np.flatnonzero(~rows.quarantined), now, probation=True)
        self._pool[:] = rows.pooled[:] = 0.0
        return [Event(ALL, float(self._all.until[0]), kind, amount)]

    def dump(self, rows: Integers) -> dict[str, NDArray[Any]]:
        """Quarantines and probations of `rows`, and of everything, for `load`."""
        self.resize(int(rows.max(initial=-1)) + 1)
        now = self._now or 0.0
        everything = {f"all_{name}": value for name, value in self._all.dump(now).items()}
        return self._rows.taken(rows).dump(now) | everything

    def load(self, state: Mapping[str, NDArray[Any]], rows: Integers) -> None:
        """Takes over what `dump` gave; `rows` tells where each of its rows is now (-1: nowhere).

        Trials begin anew. What cannot be is ignored.
        """
        self.resize(int(rows.max(initial=-1)) + 1)
        self._rows.load(state, rows)
        mine = {name.removeprefix("all_"): value for name, value in state.items() if name.startswith("all_")}
        self._all.load(mine, np.zeros(1, np.intp))


def _cause(evidence: Floats) -> Integers:
    """The kind of harm to name, by the evidence of each (len(Harm), ...): that of which there is most. But what first
    windows lose is retransmitted and takes time, so where they probably lose more it is they."""
    first = evidence[Harm.FIRST_WINDOW] > 0.0
    return np.where(first, Harm.FIRST_WINDOW, evidence.argmax(axis=0))


def _default_where(decision: Decision, where: NDArray[np.bool_], reason: Integers) -> Decision:
    """`decision` with arm 0 `where` so; `reason` counts among the guard's."""
    arms = decision.probabilities.shape[1]
    alone = np.arange(arms) == ARM_DEFAULT
    limit = np.full(len(where), arms) if decision.limit is None else decision.limit
    return Decision(
        probabilities=np.where(where[:, None], alone, decision.probabilities),
        chosen=np.where(where, ARM_DEFAULT, decision.chosen),
        reason=np.where(where, len(decision.reasons) + reason, decision.reason),
        reasons=(*decision.reasons, *_QUARANTINED, _OFF),
        # A peer is granted no more than the default either.
        limit=np.where(where, ARM_DEFAULT + 1, limit),
        learning=decision.learning,
    )
