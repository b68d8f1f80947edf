"""The guard at work: it sees what comes in, its verdicts overrule decisions, and people can read why."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from agent.evidence import EvidenceStore, Samples
from agent.journal import Entry
from agent.libbpf import Array
from agent.section import Section
from agent.units import format_duration
from controllers import Decision
from controllers.guard import ALL, Event, Guard
from controllers.harm import WIDESPREAD, Harm
from controllers.holdout import unknown_holdout

__all__ = ["Guarding", "Verdict", "Watch"]

logger = logging.getLogger(__name__)

_SECTION = "guard"


@dataclass(frozen=True)
class Verdict:
    """Why the kernel's defaults are in force, and until when (seconds since 1970)."""

    until: float
    because: str


@dataclass(frozen=True)
class Watch:
    """For people: `off` while everything is switched off; by group, paths in quarantine and how often one began."""

    off: Verdict | None
    quarantined: Array
    trips: Array


class Guarding:
    """Holds the guard of a tuner's evidence. `failures`: steps in which it failed itself."""

    def __init__(self, store: EvidenceStore) -> None:
        self.guard = Guard()
        self.failures = 0
        self._store = store
        self._trips = np.zeros(store.groups, np.int64)
        self._now = time.monotonic()
        self._broken = False
        self._off = False
        self.turned = False
        # By network: how often the holdout of its unknown paths is halved.
        self._vouched: Array = np.zeros(0)

    def absorb(self, samples: Samples) -> None:
        """Takes in what connections did."""
        self.guard.absorb(samples.rows, samples.treated, samples.sent)

    def step(self, now: float) -> list[Event]:
        """Judges. What harmed stays among what the effect is told by, or it would be told without the harm.

        What is to be decided anew becomes news of the store, or `turned` is True for all of it. If the guard itself
        fails, nothing is trusted: everything gets the kernel's defaults until it works again.
        """
        self._now = now
        was_off = self._off
        try:
            self.guard.resize(len(self._store))
            events = self.guard.step(now)
        except Exception:  # a fault here must not leave harm in force, nor stop the agent
            self._broken = True
            self.failures += 1
            logger.exception("the guard failed, so nothing is applied")
            events = []
        else:
            self._broken = False
            self._store.news[self.guard.touched] = self._store.urgent[self.guard.touched] = True
            paths = [event.row for event in events if event.until is not None and event.row != ALL]
            np.add.at(self._trips, self._store.identity["group"][paths], 1)
        self._off = self._broken or self.guard.off
        self.turned = self._off != was_off
        return events

    def restrained(self, decision: Decision, rows: Array) -> Decision:
        """`decision` for some rows, with the kernel's defaults in place of what is not to be used."""
        return self.guard.restrained(decision, rows, everything=self._off)

    def restrained_unknown(self, decision: Decision) -> Decision:
        """`decision` for networks of unknown paths: it stands unless everything is off."""
        return self.guard.restrained(decision, None, everything=self._off)

    def vouch(self, rows: Array, parents: Array, networks: Array) -> None:
        """Takes in what the paths of `networks` vouch for; `rows` are all of theirs, and `parents` their networks."""
        if (missing := int(networks.max(initial=-1)) + 1 - len(self._vouched)) > 0:
            self._vouched = np.concatenate([self._vouched, np.zeros(missing)])
        # Paths of a group have nothing else in common: they vouch for nobody.
        networks = networks[networks >= self._store.groups]
        theirs = np.isin(parents, networks)
        place = np.searchsorted(networks, parents[theirs])
        self._vouched[networks] = self.guard.vouched(rows[theirs], place, len(networks))

    def forget_networks(self) -> None:
        """For when networks get other numbers."""
        self._vouched = np.zeros(0)

    def holdout(self, usual: float, rows: Array, parents: Array) -> Array:
        """The holdout's share on `rows`, whose networks are `parents`; `usual` where nothing is special."""
        return self.guard.holdout(usual, rows, self._word(parents))

    def unknown_holdout(self, usual: float, networks: Array) -> Array:
        """The same on paths in `networks` that are not known yet."""
        return np.full(len(networks), usual) if self.guard.off else unknown_holdout(usual, self._word(networks))

    def _word(self, networks: Array) -> Array:
        known = networks < len(self._vouched)
        return np.where(known, self._vouched[np.where(known, networks, 0)], 0.0) if known.any() else 0.0 * networks

    def watch(self) -> Watch:
        """How things are."""
        groups = self._store.identity["group"][: len(self.guard)][self.guard.quarantined]
        quarantined = np.bincount(groups, minlength=self._store.groups)
        return Watch(self.verdict(ALL), quarantined, self._trips.copy())

    def verdict(self, row: int) -> Verdict | None:
        """Why a row, or ALL, has the kernel's defaults; None if it has not."""
        if self._broken and row == ALL:
            return Verdict(time.time(), "the guard failed (see the log); it is tried again at every decision")
        event = self.guard.why(row) if row < len(self.guard) else None
        if event is None or event.until is None:
            return None
        return Verdict(time.time() + event.until - self._now, because(event))

    def entries(self, events: list[Event], name: Callable[[int], tuple[str, str]]) -> list[Entry]:
        """Journal entries for events; `name` gives the path and the group of a row."""
        found = []
        for event in events:
            path, group = ("all paths", "all") if event.row == ALL else name(event.row)
            if event.until is None:
                change = ("default", "tuned", "the quarantine is over")
            else:
                length = format_duration(round(event.until - self._now))
                change = ("tuned", "default", f"for {length}: {because(event)}")
            found.append(Entry(time.time(), path, group, "guard", *change))
        return found

    def dump(self, rows: Array) -> dict[str, Section]:
        """What outlives the process, for these rows."""
        return {_SECTION: Section({}, self.guard.dump(rows))}

    def load(self, sections: Mapping[str, Any], rows: Array) -> None:
        """Takes over what `dump` gave; `rows` as `restore` returns them (agent/learnt.py)."""
        if section := sections.get(_SECTION):
            self.guard.load(section.arrays, rows)


def because(event: Event) -> str:
    """What was worse, in words."""
    points = f"{100 * event.worse:.1f} percentage points"
    return {
        Harm.TIME: f"transfers take {100 * (2**event.worse - 1):.0f} % longer than the holdout's",
        Harm.FIRST_WINDOW: f"first windows lose {points} more than the holdout's",
        Harm.RETRANSMISSION: f"{points} more of the segments are retransmitted than in the holdout",
        WIDESPREAD: f"{100 * event.worse:.0f} % of the traffic is on paths in quarantine",
    }[event.kind]
