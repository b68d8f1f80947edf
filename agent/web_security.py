"""How strangers are kept from the pages: what `web.config_file` says as objects, and certificates that renew.

The configuration file itself is read again at a reload only: an editor may be half way through it. The certificates
that it names are looked at as connections come, since programs renew them.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from agent import config_file
from agent.tls import TlsFault, server_context
from agent.web_config import TlsServer, WebConfig

if TYPE_CHECKING:
    from agent.basic_auth import Users

__all__ = ["LiveSecurity", "Security", "load"]

logger = logging.getLogger(__name__)

_LOOK = 1.0  # seconds between two looks at the files

_Stamp = tuple[tuple[int, ...] | None, ...]


@dataclass(frozen=True)
class Security:
    """What holds for a connection. `source` and `folder` are what the context was made of."""

    tls: ssl.SSLContext | None = None
    users: Users | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    source: TlsServer | None = None
    folder: Path = Path("/")
    stamp: _Stamp = ()


def load(path: Path | None) -> Security:
    """What the file at `path` asks for; without one nothing. Raises ConfigurationError with every mistake."""
    if path is None:
        return Security()
    config, document = config_file.read(path, WebConfig, named_by="web.config_file")
    users = None
    if config.basic_auth_users is not None:
        from agent.basic_auth import Users  # noqa: PLC0415  without passwords the library stays out of memory

        users = Users(config.basic_auth_users)
    plain = Security(users=users, headers=config.http_server_config.headers, folder=path.parent)
    if config.tls_server_config is None:
        return plain
    try:
        return _with_tls(replace(plain, source=config.tls_server_config))
    except TlsFault as fault:
        node = document.nearest(("tls_server_config", fault.key))
        raise config_file.wrong(str(path), [document.problem(node, str(fault))]) from None


def _with_tls(security: Security) -> Security:
    """The same with what the files hold now; raises TlsFault."""
    assert security.source is not None
    # Looked at before they are read: a change in between is then seen the next time.
    stamp = _stamp(security)
    return replace(security, tls=server_context(security.source, security.folder), stamp=stamp)


def _stamp(security: Security) -> _Stamp:
    """What changes when one of the files does."""
    source = security.source
    names = (source.cert_file, source.key_file, source.client_ca_file) if source else ()
    return tuple(_stamp_of(security.folder / name) for name in names if name is not None)


def _stamp_of(path: Path) -> tuple[int, ...] | None:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


class LiveSecurity:
    """What holds now; safe for threads."""

    def __init__(self, path: Path | None) -> None:
        self._security = load(path)
        self._lock = threading.Lock()
        self._next_look = 0.0  # monotonic seconds
        self._refused: _Stamp = ()

    @property
    def tls(self) -> bool:
        """Whether connections are TLS; looks at no file."""
        return self._security.tls is not None

    @property
    def users(self) -> bool:
        """Whether a password is asked for."""
        return self._security.users is not None

    def install(self, security: Security) -> None:
        """Holds for connections from now on."""
        with self._lock:
            self._security = security
            self._refused = ()

    def current(self) -> Security:
        """For a new connection. May read files, so it is not for the accept loop."""
        if self.tls and time.monotonic() >= self._next_look and self._lock.acquire(blocking=False):
            try:
                self._next_look = time.monotonic() + _LOOK
                self._renew()
            finally:
                self._lock.release()
        return self._security

    def _renew(self) -> None:
        stamp = _stamp(self._security)
        if stamp in (self._security.stamp, self._refused):
            return
        try:
            self._security = _with_tls(self._security)
        except TlsFault as fault:
            self._refused = stamp
            logger.warning("the certificate is not renewed, the old one stays in use: %s: %s", fault.key, fault)
        else:
            self._refused = ()
            logger.info("the certificate is renewed")
