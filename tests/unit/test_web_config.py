"""What `web.config_file` may say, where its mistakes are, and that promtool takes all that is taken."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from certificates import AUTHORITY, hashed, issue, web_config

from agent.errors import ConfigurationError
from agent.web_config import CIPHERS
from agent.web_security import load

PAIR = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n"
SECRET = "correct horse"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("web")
    issue(made)
    issue(made, "other")
    AUTHORITY.cert_pem.write_to_path(str(made / "ca.crt"))
    (made / "words.txt").write_text("no certificate\n", encoding="utf-8")
    command = ["openssl", "pkey", "-in", "server.key", "-aes128", "-passout", "pass:x", "-out", "encrypted.key"]
    subprocess.run(command, cwd=made, check=True)
    return made


def wrong(folder: Path, text: str) -> list[str]:
    """The problems of a file with this text."""
    path = folder / "web.yml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigurationError) as caught:
        load(path)
    return [problem.removeprefix(f"{path}:") for problem in caught.value.problems]


BAD = {
    "unknown section": ("rate_limit: {burst: 1}\n", "1:1: rate_limit: is not a known key"),
    "unknown key": (PAIR + "  curve_preferences: [X25519]\n", "4:3: tls_server_config.curve_preferences: is not a"),
    "text for a file": (PAIR + "  cert: PEM\n", "4:3: tls_server_config.cert: is not a known key; did you mean"),
    "no key": ("tls_server_config:\n  cert_file: server.crt\n", "2:3: tls_server_config: needs the key key_file"),
    "nothing": ("", "1:1: file: is empty"),
    "no users": ("basic_auth_users: {}\n", "1:19: basic_auth_users: must list at least one"),
    "duplicate user": (
        f"basic_auth_users:\n  eve: {hashed('a')}\n  eve: {hashed('b')}\n",
        "3:3: basic_auth_users.eve: is a duplicate of line 2",
    ),
    "clear password": (f"basic_auth_users: {{eve: {SECRET}}}\n", "1:25: basic_auth_users.eve: must be the bcrypt hash"),
    "number for a password": ("basic_auth_users: {eve: 7355608}\n", "1:25: basic_auth_users.eve: must be the bcrypt"),
    "cut hash": (f"basic_auth_users: {{eve: {hashed('a')[:-1]}}}\n", "1:25: basic_auth_users.eve: must be the bcrypt"),
    "salt that bcrypt refuses": (
        f"basic_auth_users: {{eve: $2b$04${'a' * 53}}}\n", "1:25: basic_auth_users.eve: must be the bcrypt"
    ),
    "costly hash": (
        f"basic_auth_users: {{eve: {hashed('a').replace('$04$', '$18$')}}}\n", "1:25: basic_auth_users.eve: has a"
    ),
    "colon": (f"basic_auth_users: {{'e:ve': {hashed('a')}}}\n", "1:28: basic_auth_users.'e:ve': a user's name must"),
    "any client": (
        PAIR + "  client_auth_type: RequireAnyClientCert\n", "4:21: tls_server_config.client_auth_type: must be 'No"
    ),
    "clients without authority": (
        PAIR + "  client_auth_type: RequireAndVerifyClientCert\n",
        "4:21: tls_server_config.client_auth_type: needs client_ca_file",
    ),
    "authority without clients": (
        PAIR + "  client_ca_file: ca.crt\n", "4:19: tls_server_config.client_ca_file: has no effect without"
    ),
    "old TLS": (PAIR + "  min_version: TLS10\n", "4:16: tls_server_config.min_version: must be 'TLS12' or 'TLS13'"),
    "versions": (
        PAIR + "  min_version: TLS13\n  max_version: TLS12\n", "4:16: tls_server_config.min_version: must not be above"
    ),
    "old cipher": (
        PAIR + "  cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]\n", "4:19: tls_server_config.cipher_suites[0]: must be one"
    ),
    "http2": ("http_server_config: {http2: true}\n", "1:29: http_server_config.http2: must be false"),
    "header": ("http_server_config: {headers: {Server: x}}\n", "1:40: http_server_config.headers.Server: is not a"),
    "framing": (
        "http_server_config: {headers: {X-Frame-Options: maybe}}\n",
        "1:49: http_server_config.headers.X-Frame-Options: must be deny or sameorigin, not 'maybe'",
    ),
    "two headers in one": (
        'http_server_config: {headers: {X-XSS-Protection: "0\\r\\nSet-Cookie: a=b"}}\n',
        "1:50: http_server_config.headers.X-XSS-Protection: must be printable ASCII",
    ),
    "absent": (PAIR.replace("server.crt", "nowhere.crt"), "2:14: tls_server_config.cert_file: {}/nowhere.crt does not"),
    "a folder": (PAIR.replace("server.key", "."), "3:13: tls_server_config.key_file: {} is not a regular file"),
    "no certificate": (PAIR.replace("server.crt", "words.txt"), "2:14: tls_server_config.cert_file: {}/words.txt"),
    "no private key": (PAIR.replace("server.key", "words.txt"), "3:13: tls_server_config.key_file: {}/words.txt"),
    "another's key": (PAIR.replace("server.key", "other.key"), "3:13: tls_server_config.key_file: {}/other.key is not"),
    "encrypted key": (PAIR.replace("server.key", "encrypted.key"), "3:13: tls_server_config.key_file: {}/encrypt"),
    "no authority": (
        PAIR + "  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: words.txt\n",
        "5:19: tls_server_config.client_ca_file: {}/words.txt holds no certificates",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_mistakes_have_their_place(folder: Path, name: str) -> None:
    text, expected = BAD[name]
    [problem] = wrong(folder, text)
    assert problem.startswith(expected.format(folder))


def test_all_mistakes_at_once_and_no_secret_among_them(folder: Path) -> None:
    text = f"rate: 1\nbasic_auth_users: {{eve: {SECRET}, adam: 7355608, abel: [{SECRET}]}}\nhttp_server_config: 3\n"
    problems = wrong(folder, text)
    assert [problem.split(" ")[0] for problem in problems] == ["1:1:", "2:25:", "2:46:", "2:61:", "3:21:"]
    assert SECRET not in str(problems)
    assert "7355608" not in str(problems)


def _without(section: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in section.items() if name not in names}


FULL: dict[str, Any] = {
    "tls_server_config": {
        "cert_file": "server.crt",
        "key_file": "server.key",
        "client_auth_type": "RequireAndVerifyClientCert",
        "client_ca_file": "ca.crt",
        "min_version": "TLS12",
        "max_version": "TLS13",
        "cipher_suites": list(CIPHERS),
        "prefer_server_cipher_suites": False,
    },
    "http_server_config": {
        "http2": False,
        "headers": {
            "Strict-Transport-Security": "max-age=63072000",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "deny",
            "X-XSS-Protection": "0",
            "Content-Security-Policy": "default-src 'none'",
        },
    },
    "basic_auth_users": {
        "alice": hashed("a"),
        "bob smith": hashed("b").replace("$2b$", "$2y$"),
        "123": hashed("c").replace("$2b$", "$2a$"),
        "é": hashed("d", 5),
    },
}
GOOD = {
    "all": FULL,
    "TLS alone": {"tls_server_config": _without(FULL["tls_server_config"], "client_auth_type", "client_ca_file")},
    "TLS at its least": {"tls_server_config": {"cert_file": "server.crt", "key_file": "server.key"}},
    "only the newest": {"tls_server_config": {**FULL["tls_server_config"], "min_version": "TLS13"}},
    "only the older": {"tls_server_config": {**FULL["tls_server_config"], "max_version": "TLS12"}},
    "if given": {"tls_server_config": {**FULL["tls_server_config"], "client_auth_type": "VerifyClientCertIfGiven"}},
    "no client": {"tls_server_config": {**_without(FULL["tls_server_config"], "client_ca_file"),
                                        "client_auth_type": "NoClientCert"}},
    "passwords alone": {"basic_auth_users": FULL["basic_auth_users"]},
    "headers alone": {"http_server_config": FULL["http_server_config"]},
}  # fmt: skip


@pytest.mark.parametrize("name", GOOD)
def test_promtool_takes_what_is_taken(folder: Path, name: str) -> None:
    path = web_config(folder, **GOOD[name])
    load(path)
    checked = subprocess.run(["promtool", "check", "web-config", path], capture_output=True, text=True, check=False)
    assert (checked.returncode, checked.stderr) == (0, f"{path} SUCCESS\n")


def test_file_names_may_be_absolute(folder: Path, tmp_path: Path) -> None:
    names = {"cert_file": str(folder / "server.crt"), "key_file": str(folder / "server.key")}
    assert load(web_config(tmp_path, tls_server_config=names)).tls is not None


@pytest.mark.parametrize("kind", ["good", "bad", "absent"])
def test_check_looks_at_this_file_too(folder: Path, tmp_path: Path, kind: str) -> None:
    path = web_config(folder, **(GOOD["all"] if kind == "good" else {"basic_auth_users": {"eve": SECRET}}))
    if kind == "absent":
        path = folder / "absent.yml"
    main = tmp_path / "tcptuned.yaml"
    main.write_text(yaml.safe_dump({"web": {"config_file": str(path)}}), encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, "-m", "agent", "check", "--config", str(main)], capture_output=True, text=True, check=False
    )
    said = {
        "good": "",
        "bad": f"{path}:2:8: basic_auth_users.eve: must be the bcrypt hash of a password; ",
        "absent": f"{path}:1:1: file: does not exist; name another with web.config_file\n",
    }
    assert ended.returncode == (0 if kind == "good" else 2)
    assert ended.stderr.startswith(said[kind])
    assert ended.stderr.count("\n") == (0 if kind == "good" else 1)
