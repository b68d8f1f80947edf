"""What `web.config_file` may say: TLS and passwords, in the format that Prometheus' exporters share (exporter-toolkit,
docs/web-configuration.md). Less than that format knows, and never more: `promtool check web-config` takes what is taken
here. Messages never repeat a value that may be a password.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, PlainValidator, model_validator

from agent.config_checks import Conflict, refusal
from agent.config_types import FromList, NonEmpty, Section, Unique

__all__ = ["CIPHERS", "HttpServer", "TlsServer", "WebConfig"]

# The cipher suites of TLS 1.2 that are still sound, by their names in the registry of TLS, and OpenSSL's. Those of
# TLS 1.3 are all sound; the format has no say in them.
CIPHERS = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
}

# One check of a hash of cost 14 takes a second, and each step doubles it: a scrape would run into its deadline.
_HIGHEST_COST = 14
_HASH = re.compile(r"\$2[aby]\$([0-9]{2})\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}")
_MAKE_HASH = "make one with: htpasswd -nBC 10 ''"

# The headers that the format allows, and their values where not any text will do.
_HEADERS: dict[str, tuple[str, ...]] = {
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
    "Content-Security-Policy": (),
}


def _file_name(value: str) -> str:
    if not value or "\0" in value:
        raise refusal("must be the name of a file; a relative one is looked for beside this file")
    return value


def _password_hash(value: object) -> bytes:
    if not isinstance(value, str) or (parts := _HASH.fullmatch(value)) is None:
        raise refusal(f"must be the bcrypt hash of a password; {_MAKE_HASH}")
    cost = int(parts[1])
    if not 4 <= cost <= _HIGHEST_COST:
        raise refusal(f"has a bcrypt cost of {cost}; it must be 4 to {_HIGHEST_COST}, or scrapes take too long")
    return value.encode()


def _cipher(name: str) -> str:
    if name not in CIPHERS:
        raise refusal(f"must be one of {', '.join(CIPHERS)}")
    return name


def _only_http1(value: bool) -> bool:
    if value:
        raise refusal("must be false, or be left out: the agent speaks HTTP/1.1 only")
    return value


def _users(users: dict[str, Any]) -> dict[str, Any]:
    # RFC 7617, section 2: the first colon ends the name.
    if conflicts := [Conflict("a user's name must not have a colon", (name,)) for name in users if ":" in name]:
        raise refusal(*conflicts)
    return users


def _headers(headers: dict[str, str]) -> dict[str, str]:
    conflicts = []
    for name, value in headers.items():
        if name not in _HEADERS:
            conflicts.append(Conflict(f"is not a header that may be set; those are {', '.join(_HEADERS)}", (name,)))
        elif _HEADERS[name] and value not in _HEADERS[name]:
            conflicts.append(Conflict(f"must be {' or '.join(_HEADERS[name])}, not {value[:40]!r}", (name,)))
        elif not re.fullmatch("[ -~]+", value):
            conflicts.append(Conflict("must be printable ASCII on one line", (name,)))
    if conflicts:
        raise refusal(*conflicts)
    return headers


FileName = Annotated[str, AfterValidator(_file_name)]
PasswordHash = Annotated[bytes, PlainValidator(_password_hash, json_schema_input_type=str)]
Version = Literal["TLS12", "TLS13"]
# Those of the format that ask for a certificate and do not verify it protect nothing, and are left out.
ClientAuth = Literal["NoClientCert", "VerifyClientCertIfGiven", "RequireAndVerifyClientCert"]
Cipher = Annotated[str, AfterValidator(_cipher)]
OnlyFalse = Annotated[bool, AfterValidator(_only_http1)]


class TlsServer(Section):
    """TLS; the names of files are relative to the folder of the configuration file."""

    cert_file: FileName
    key_file: FileName
    client_auth_type: ClientAuth = "NoClientCert"
    client_ca_file: FileName | None = None
    min_version: Version = "TLS12"
    max_version: Version = "TLS13"
    cipher_suites: Annotated[tuple[Cipher, ...], FromList, Unique, NonEmpty] | None = None
    prefer_server_cipher_suites: bool = True

    @model_validator(mode="after")
    def _keys_agree(self) -> Self:
        conflicts = []
        verifies = self.client_auth_type != "NoClientCert"
        if verifies and self.client_ca_file is None:
            text = "needs client_ca_file, the authorities that clients' certificates come from"
            conflicts.append(Conflict(text, ("client_auth_type",)))
        if self.client_ca_file is not None and not verifies:
            text = "has no effect without client_auth_type: RequireAndVerifyClientCert"
            conflicts.append(Conflict(text, ("client_ca_file",), (("client_auth_type",),)))
        if self.min_version > self.max_version:
            conflicts.append(Conflict("must not be above max_version", ("min_version",), (("max_version",),)))
        if conflicts:
            raise refusal(*conflicts)
        return self


class HttpServer(Section):
    """Headers of every answer; they replace the agent's own of that name."""

    http2: OnlyFalse = False
    headers: Annotated[dict[str, str], AfterValidator(_headers)] = Field(default_factory=dict)


class WebConfig(Section):
    """The whole file; users go by name."""

    tls_server_config: TlsServer | None = None
    http_server_config: HttpServer = HttpServer()
    basic_auth_users: Annotated[dict[str, PasswordHash], AfterValidator(_users), NonEmpty] | None = None
