"""The journal: every change of what is held to be best, in a file of JSON lines and, for the last ones, in memory."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections import deque
from dataclasses import asdict, dataclass
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path

__all__ = ["FILE", "Entry", "Journal"]

logger = logging.getLogger(__name__)

FILE = "journal.jsonl"
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


class _File(RotatingFileHandler):
    """Says once when the disk begins to fail, where the base class prints a traceback for every line."""

    _failing = _failed_before = False

    def _open(self) -> TextIOWrapper:
        # It tells whom this host talks to, which is not for everybody.
        descriptor = os.open(self.baseFilename, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return TextIOWrapper(os.fdopen(descriptor, "ab"), encoding=self.encoding)

    def emit(self, record: logging.LogRecord) -> None:
        self._failed_before, self._failing = self._failing, False
        super().emit(record)

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802  the base class's name
        del record
        self._failing = True
        if not self._failed_before:
            logger.warning("the journal cannot be written: %s", sys.exception())

    def close(self) -> None:
        try:
            super().close()
        except OSError as error:
            logger.warning("the journal's last lines are lost: %s", error)


class Journal:
    """Appends entries; a full disk or a missing folder costs the file, never the agent."""

    def __init__(self, folder: Path | None) -> None:
        self.recent: deque[Entry] = deque(maxlen=_REMEMBERED)
        self._file: logging.Handler | None = None
        if folder is not None:
            try:
                folder.mkdir(parents=True, exist_ok=True)
                self._file = _File(folder / FILE, maxBytes=_BYTES, backupCount=_FILES, encoding="utf-8")
            except OSError as error:
                logger.warning("decisions are not written to a file: %s", error)

    def write(self, entry: Entry) -> None:
        """Adds one entry."""
        self.recent.append(entry)
        if self._file is not None:
            line = json.dumps(asdict(entry), ensure_ascii=False)
            # The handler rotates; it logs a failing disk instead of raising.
            self._file.emit(logging.LogRecord("journal", logging.INFO, "", 0, line, None, None))

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()
