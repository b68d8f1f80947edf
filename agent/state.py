"""The state file: what was learnt survives a restart, a crash and a `kill -9` of the agent.

It is written by a thread of its own, so that a slow disk holds up neither the loop nor the watchdog. A file that cannot
be trusted is set aside with a warning: an agent that knows nothing is better than one that does not start.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from agent import archive
from agent.learnt import MOST_CELLS, Learnt
from agent.libbpf import Array
from agent.section import Section
from agent.snapshot import Health

__all__ = ["Keeper", "Saved", "load", "read", "remaining", "save"]

logger = logging.getLogger(__name__)

FILE = "learnt.state"
INTERVAL = 20.0  # seconds between two saves at least
# Much is saved less often, to spare the disk: 22 GB a day at the very most.
_BYTES_A_SECOND = 256_000
_MOST_BYTES = 192 << 20  # more than MOST_CELLS, 1,000,000 paths and the other parts take
_DAMAGED_KEPT = 3
# Whatever the clock says the agent was away for, evidence keeps an eighth of its weight: a clock may jump, and what is
# worth an eighth is outvoted within minutes if it is no longer true.
_LEAST_FACTOR = 0.125
# No honest sum comes near: a year of RTTs in microseconds, over a million connections, is 3e19.
_LARGEST = 1e20
_COUNTS = ("TRANSFERS", "CLOSED", "SEGMENTS", "RETRANSMITTED", "FIRST_WINDOWS", "FIRST_WINDOW_SEGMENTS",
           "FIRST_WINDOW_LOSSES", "RTT")  # fmt: skip


@dataclass(frozen=True)
class Saved:
    """What a state file held; `time` (seconds since 1970) is when it was written."""

    learnt: Learnt
    time: float


def remaining(away: float, half_life: float) -> float:
    """What evidence is still worth after `away` seconds by a clock that may have jumped either way: 1/8 to 1."""
    return max(_LEAST_FACTOR, math.exp2(-max(0.0, away) / half_life))


def save(folder: Path, learnt: Learnt, *, now: float) -> int:
    """Writes the state file in `folder`; `now` is in seconds since 1970. Returns its size in bytes; raises OSError."""
    arrays = {name: getattr(learnt, name) for name in _ARRAYS}
    arrays |= {
        f"{section}/{name}": array
        for section, part in learnt.sections.items() for name, array in part.arrays.items()
    }  # fmt: skip
    facts = {
        "saved": now,
        **{name: getattr(learnt, name) for name in _NAMES},
        "sections": {name: dict(part.facts) for name, part in learnt.sections.items()},
    }
    return archive.write(folder / FILE, facts, arrays)


def read(folder: Path) -> Saved:
    """What the state file in `folder` holds. Raises OSError, or DamagedError if it cannot be used."""
    return _sound(*archive.read(folder / FILE, _MOST_BYTES))


def load(folder: Path) -> Saved | None:
    """The same for the agent: None if there is none, or, with a warning, none that can be used, which is set aside."""
    path = folder / FILE
    try:
        return read(folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        logger.warning("what was learnt before cannot be read, so learning begins anew: %s", error)
    except archive.DamagedError as error:
        logger.warning("what was learnt before cannot be used, so learning begins anew: %s: %s", path, error)
        _set_aside(path)
    return None


def _set_aside(path: Path) -> None:
    """Renames a file for people to look at; only the newest few are kept."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    try:
        path.rename(path.with_name(f"{path.name}.damaged-{stamp}"))
        for old in sorted(path.parent.glob(f"{path.name}.damaged-*"))[:-_DAMAGED_KEPT]:
            old.unlink()
    except OSError as error:
        logger.warning("it could not be set aside, and will be overwritten: %s", error)


# Names of Learnt's parts, and the arrays' types and numbers of dimensions.
_NAMES = ("groups", "slots", "fields")
_ARRAYS = {
    "address": ("|u1", 2), "bits": ("|u1", 1), "idle": ("<f8", 1), "row": ("<u4", 1), "slot": ("<u2", 1),
    "sums": ("<f4", 2),
}  # fmt: skip


def _sound(facts: Mapping[str, Any], arrays: Mapping[str, Array]) -> Saved:
    """A file that is whole may still hold anything; DamagedError unless it fits together."""
    for name in _NAMES:
        _require(isinstance(texts := facts.get(name), list) and all(isinstance(text, str) for text in texts))
        _require(len(set(facts[name])) == len(facts[name]))
    for name, (kind, dimensions) in _ARRAYS.items():
        _require(name in arrays and arrays[name].dtype.str == kind and arrays[name].ndim == dimensions)
    saved, sections = facts.get("saved"), facts.get("sections")
    _require(isinstance(saved, float) and math.isfinite(saved) and isinstance(sections, dict))
    groups, slots, fields = (tuple(facts[name]) for name in _NAMES)
    address, bits, idle, row, slot, sums = (arrays[name] for name in _ARRAYS)
    sections = dict(_sections(facts["sections"], arrays))
    learnt = Learnt(groups, slots, fields, address, bits, idle, row, slot, sums, sections)
    _require(learnt.address.shape == (learnt.paths, 16) and learnt.idle.shape == (learnt.paths,))
    _require(learnt.sums.shape == (len(learnt.row), len(fields)) and len(learnt.slot) == len(learnt.row))
    _require(len(learnt.row) <= MOST_CELLS and (learnt.bits <= 128).all())
    _require((learnt.row < len(groups) + learnt.paths).all() and (learnt.slot < len(slots)).all())
    _require(np.isfinite(learnt.idle).all() and (learnt.idle >= 0).all())
    _require((np.abs(learnt.sums) < _LARGEST).all())  # not so for what is not a number
    _require((learnt.sums[:, [fields.index(name) for name in _COUNTS if name in fields]] >= 0).all())
    return Saved(learnt, facts["saved"])


def _sections(parts: Mapping[str, Any], arrays: Mapping[str, Array]) -> Iterator[tuple[str, Section]]:
    for name, facts in parts.items():
        _require(isinstance(facts, dict))
        mine = {key.removeprefix(f"{name}/"): array for key, array in arrays.items() if key.startswith(f"{name}/")}
        yield name, Section(facts, mine)


def _require(condition: object) -> None:
    if not condition:
        raise archive.DamagedError("what it holds does not fit together")


class Keeper:
    """Saves every INTERVAL, or less often where there is much, and once more at the end."""

    def __init__(self, folder: Path, health: Health, gather: Callable[[], Learnt]) -> None:
        self._folder = folder
        self._health = health
        self._gather = gather
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="state", daemon=True)
        self._failing = False

    def start(self) -> None:
        """Begins."""
        self._thread.start()

    def end(self, patience: float) -> None:
        """Saves for the last time, unless the disk has not taken the file before within `patience` seconds."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(patience)
        if self._thread.is_alive():
            logger.warning("what was learnt last is lost: %s does not take it in time", self._folder)
        else:
            self.save()

    def save(self) -> None:
        """Saves now; a failure is counted, and said once until the next success."""
        try:
            size = save(self._folder, self._gather(), now=time.time())
        except Exception as error:  # the agent must go on without
            self._health.state_failures += 1
            if not self._failing:
                logger.warning("what was learnt cannot be saved: %s", error)
            self._failing = True
        else:
            self._failing = False
            self._health.state_saved = time.time()
            self._health.state_bytes = size

    def _run(self) -> None:
        while not self._stop.wait(max(INTERVAL, self._health.state_bytes / _BYTES_A_SECOND)):
            self.save()
