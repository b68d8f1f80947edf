"""Who competes in the bench: every contender has a client network and links of its own on every path."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from agent.lab.spec import PathSpec

__all__ = [
    "ALGORITHMS",
    "ALL",
    "BULK",
    "DEFAULT",
    "FEW",
    "NULL",
    "RFC9040",
    "RIPTIDE",
    "SIBLING",
    "STATIC",
    "TCPTUNED",
    "WINDOWS",
    "Contender",
    "networks_of",
    "path_name",
]  # fmt: skip

# The ladder of controllers/initial_window.py and the window that a thesis found to be most of the gain.
WINDOWS = (10, 14, 20, 24, 28, 40, 56, 80)
ALGORITHMS = ("cubic", "bbr")
FIRST_OCTET = 11  # the n-th path's networks are 11.n.0.0/16: a parent network of their own for each path


@dataclass(frozen=True)
class Contender:
    """One way to choose for connections.

    `kind`: static, every connection has `window` and `algorithm`; riptide, the mean of the windows seen so far; agent,
    an agent decides, with a law for the initial window.
    """

    name: str
    kind: Literal["static", "riptide", "agent"]
    window: int = 10
    algorithm: str = "cubic"
    law: str = "trial"
    sibling: bool = False  # a second network behind the same path, met when the first is well known


DEFAULT = Contender("default", "static")
NULL = Contender("null", "static")  # the default once more: must show no difference
STATIC = tuple(
    Contender(f"{algorithm}-iw{window}", "static", window, algorithm)
    for algorithm in ALGORITHMS
    for window in WINDOWS
    if (window, algorithm) != (DEFAULT.window, DEFAULT.algorithm)
)
RIPTIDE = Contender("riptide-like", "riptide")
RFC9040 = Contender("rfc9040", "agent", law="rfc9040")
TCPTUNED = Contender("tcptuned", "agent")
SIBLING = Contender("tcptuned-sibling", "agent", sibling=True)
ALL = (DEFAULT, NULL, *STATIC, RIPTIDE, RFC9040, TCPTUNED, SIBLING)
# Without the arms among which the best is looked for.
FEW = (
    DEFAULT, *(each for each in STATIC if each.name in ("cubic-iw24", "cubic-iw40", "bbr-iw10")),
    RIPTIDE, RFC9040, TCPTUNED,
)  # fmt: skip
# What matters to transfers without end.
BULK = (DEFAULT, *(each for each in STATIC if each.name == "bbr-iw10"), TCPTUNED)


def path_name(path: str, contender: Contender) -> str:
    """What the laboratory calls the contender's links on a path."""
    return f"{path}/{contender.name}"


def networks_of(paths: dict[str, PathSpec], contenders: Sequence[Contender]) -> list[PathSpec]:
    """Every path once for every contender."""
    return [
        replace(
            spec,
            name=path_name(name, contender),
            ipv4=f"{FIRST_OCTET}.{number}.{position}.0/24",
            ipv6=f"fd11:{number:x}:{position:x}::/48",
        )
        for number, (name, spec) in enumerate(paths.items(), 1)
        for position, contender in enumerate(contenders)
    ]
