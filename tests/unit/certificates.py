"""An authority of the tests' own, its certificates as files, and passwords with cheap hashes."""

from __future__ import annotations

import ssl
from pathlib import Path

import bcrypt
import trustme
import yaml

AUTHORITY = trustme.CA()


def issue(folder: Path, name: str = "server", *, authority: trustme.CA = AUTHORITY, key: str = "") -> dict[str, str]:
    """Writes a certificate for this host; what `tls_server_config` needs of it, relative to `folder`."""
    made = authority.issue_cert("localhost", "127.0.0.1", "::1")
    made.cert_chain_pems[0].write_to_path(str(folder / f"{name}.crt"))
    made.private_key_pem.write_to_path(str(folder / f"{key or name}.key"))
    return {"cert_file": f"{name}.crt", "key_file": f"{key or name}.key"}


def hashed(password: str, cost: int = 4) -> str:
    """Bcrypt; the least cost unless the test is about costs."""
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(cost)).decode()


def web_config(folder: Path, **sections: object) -> Path:
    """Writes a `web.config_file`."""
    path = folder / "web.yml"
    path.write_text(yaml.safe_dump(sections), encoding="utf-8")
    return path


def trusting(authority: trustme.CA = AUTHORITY) -> ssl.SSLContext:
    """A client that trusts the authority."""
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context
