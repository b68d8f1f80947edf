"""The journal: every change of what is held to be best, in a file of JSON lines and, for the last ones, in memory."""

from __future__ import annotations

import json
import logging
from collections import deque
from dataclasses import asdict, dataclass
from logging.handlers import RotatingFileHandler
from pathlib import Path

__all__ = ["Entry", "Journal"]

logger = logging.getLogger(__name__)

_BYTES = 4 << 20
_FILES = 3  # besides the current one: 16 MB at most
_REMEMBERED = 200


@dataclass(frozen=True)
class Entry:
    """One decision: on `path` (a network, or `group NAME`), `dimension` went from one arm to another because."""

    time: float  # seconds since 1970
    path: str
    group: str
    dimension: str
    before: str
    after: str
    reason: str


class Journal:
    """Appends entries; a full disk or a missing folder costs the file, never the agent."""

    def __init__(self, folder: Path | None) -> None:
        self.recent: deque[Entry] = deque(maxlen=_REMEMBERED)
        self._file: logging.Handler | None = None
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                self._file = RotatingFileHandler(
                    folder / "journal.jsonl", maxBytes=_BYTES, backupCount=_FILES, encoding="utf-8"
                )
            except OSError as error:
                logger.warning("decisions are not written to a file: %s", error)

    def write(self, entry: Entry) -> None:
        """Adds one entry."""
        self.recent.append(entry)
        if self._file is not None:
            line = json.dumps(asdict(entry), ensure_ascii=False)
            # The handler rotates, and reports a failing disk to stderr instead of raising.
            self._file.emit(logging.LogRecord("journal", logging.INFO, "", 0, line, None, None))

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()
