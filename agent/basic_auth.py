"""Who may see the pages: names and passwords as browsers and Prometheus send them (RFC 7617), against bcrypt hashes.

A check of a hash takes a good part of a second of processor time on purpose. So one runs at a time, and what was right
once is remembered, as a keyed digest: a scrape costs microseconds. Unknown users cost what known ones do.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import threading
from collections.abc import Mapping

import bcrypt

__all__ = ["Users"]

_LONGEST = 72  # bytes; bcrypt sees no more of a password, and what makes hashes cuts there too
_PATIENCE = 3.0  # seconds to wait for other checks; a connection has 5


class Users:
    """Bcrypt hashes by name; safe for threads."""

    def __init__(self, hashes: Mapping[str, bytes]) -> None:
        self._hashes = {name.encode(): hashed for name, hashed in hashes.items()}
        self._decoys = sorted(self._hashes.values())
        self._secret = secrets.token_bytes(32)
        self._verified: dict[bytes, bytes] = {}  # digest of name and password, by name: one a user, so it stays small
        self._one_at_a_time = threading.Lock()

    def admit(self, authorization: str | None) -> bool | None:
        """Whether the header `Authorization` is that of a user; None if too many others are being checked."""
        found = _parse(authorization)
        if found is None:
            return False
        name, password = found
        digest = self._digest(name, password)
        remembered = self._verified.get(name)
        if remembered is not None and hmac.compare_digest(remembered, digest):
            return True
        if not self._one_at_a_time.acquire(timeout=_PATIENCE):
            return None
        try:
            right = bcrypt.checkpw(password[:_LONGEST], self._hash(name))
        finally:
            self._one_at_a_time.release()
        if right and name in self._hashes:
            self._verified[name] = digest
            return True
        return False

    def _hash(self, name: bytes) -> bytes:
        """That of a user; for anybody else always the same one of theirs, so that the time tells nothing."""
        decoy = self._decoys[int.from_bytes(self._digest(name, b"")[:8]) % len(self._decoys)]
        return self._hashes.get(name, decoy)

    def _digest(self, name: bytes, password: bytes) -> bytes:
        # The name has no colon, so the pair can be read in one way only.
        return hmac.digest(self._secret, name + b":" + password, hashlib.sha256)


def _parse(authorization: str | None) -> tuple[bytes, bytes] | None:
    scheme, _, encoded = (authorization or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
    except ValueError:
        return None
    return (name, password) if colon else None
