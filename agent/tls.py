"""The TLS of the web server, from the files that its configuration names."""

from __future__ import annotations

import ssl
from pathlib import Path

from agent.web_config import CIPHERS, TlsServer

__all__ = ["TlsFault", "server_context"]

_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_VERIFY = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}


class TlsFault(Exception):  # noqa: N818  it becomes a line of a ConfigurationError
    """The file that `key` names cannot be used; the message names the cure."""

    def __init__(self, key: str, text: str) -> None:
        super().__init__(text)
        self.key = key


def server_context(config: TlsServer, folder: Path) -> ssl.SSLContext:
    """A context of its own for every call; file names are relative to `folder`. Raises TlsFault."""
    certificate = _readable("cert_file", folder / config.cert_file)
    key = _readable("key_file", folder / config.key_file)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[config.min_version]
    context.maximum_version = _VERSIONS[config.max_version]
    context.set_alpn_protocols(["http/1.1"])
    if config.cipher_suites is not None:
        context.set_ciphers(":".join(CIPHERS[name] for name in config.cipher_suites))
    # A renegotiation costs the server more than the client.
    context.options |= ssl.OP_NO_RENEGOTIATION
    if config.prefer_server_cipher_suites:
        context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE
    else:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    _load_pair(context, certificate, key)
    if config.client_ca_file is not None:
        authorities = _readable("client_ca_file", folder / config.client_ca_file)
        try:
            context.load_verify_locations(authorities)
        except ssl.SSLError:
            raise TlsFault("client_ca_file", f"{authorities} holds no certificates in PEM form") from None
    context.verify_mode = _VERIFY[config.client_auth_type]
    return context


def _readable(key: str, path: Path) -> Path:
    """`path`, once it is known that opening it neither fails nor waits."""
    try:
        if not path.is_file():
            what = "is not a regular file" if path.exists() else "does not exist"
            raise TlsFault(key, f"{path} {what}; name another")
        with path.open("rb"):
            return path
    except PermissionError:
        raise TlsFault(key, f"{path} may not be read by this user; change its mode or owner") from None
    except OSError as error:
        raise TlsFault(key, f"{path} cannot be read ({error.strerror})") from None


def _load_pair(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    encrypted = False

    def password() -> str:
        # Without this, OpenSSL would ask on the terminal.
        nonlocal encrypted
        encrypted = True
        return ""

    try:
        context.load_cert_chain(certificate, key, password)
    except ssl.SSLError as error:
        if encrypted:
            cure = "the agent cannot ask for its password; openssl pkey -in FILE -out NEW_FILE takes it off"
            raise TlsFault("key_file", f"{key} is encrypted: {cure}") from None
        if error.reason == "KEY_VALUES_MISMATCH":
            raise TlsFault("key_file", f"{key} is not the key of the certificate in cert_file") from None
        if b"-----BEGIN CERTIFICATE" not in certificate.read_bytes():
            raise TlsFault("cert_file", f"{certificate} holds no certificate in PEM form") from None
        if b"PRIVATE KEY-----" not in key.read_bytes():
            raise TlsFault("key_file", f"{key} holds no private key in PEM form") from None
        said = (error.reason or str(error)).replace("_", " ").lower()
        raise TlsFault("cert_file", f"the pair of cert_file and key_file cannot be used: OpenSSL says {said}") from None
    except OSError as error:  # it went away meanwhile
        raise TlsFault("cert_file", f"the pair of cert_file and key_file cannot be read ({error.strerror})") from None
