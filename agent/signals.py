"""Signals as the main loop gets them."""

from __future__ import annotations

import queue
import signal
from collections.abc import Iterable

__all__ = ["Signals"]


class Signals:
    """Collects signals from `install` on; for the main thread, which Python runs handlers in.

    A handler may interrupt that thread anywhere, so it must not take a lock that the thread could hold then: setting a
    threading.Event that is being waited for can hang for ever. Putting into this queue cannot.
    """

    def __init__(self) -> None:
        self._arrived: queue.SimpleQueue[int] = queue.SimpleQueue()

    def install(self, numbers: Iterable[signal.Signals]) -> None:
        """From now on these do nothing but wait here."""
        for number in numbers:
            signal.signal(number, lambda number, _: self._arrived.put(number))

    def wait(self, seconds: float) -> frozenset[int]:
        """The signals that arrived since it was called last, or that do so within `seconds`; each once."""
        found = set()
        try:
            found.add(self._arrived.get(timeout=seconds))
            while True:
                found.add(self._arrived.get_nowait())
        except queue.Empty:
            return frozenset(found)
