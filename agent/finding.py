"""One line of what `tcptuned doctor` finds."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from agent.config import Config

__all__ = ["Check", "Finding", "State", "examine", "unseen"]

State = Literal["ok", "limited", "missing"]


@dataclass(frozen=True)
class Finding:
    """`name` was found to be `value`, and what follows from that, with the cure if there is something to cure.

    state   ok; limited: the agent runs, but something is less than it could be or could not be looked at; missing: the
            agent cannot run
    detail  longer text, such as a compiler's
    """

    name: str
    state: State
    value: str
    consequence: str
    detail: str = ""


Check = Callable[[Config], Iterable[Finding]]


def unseen(name: str, reason: object) -> Finding:
    """Something that this process could not look at."""
    return Finding(name, "limited", "unknown", f"not looked at: {reason}")


def examine(config: Config, checks: Iterable[tuple[str, Check]]) -> list[Finding]:
    """The findings of all checks. One that raises is a finding too, under the name given beside it."""
    findings: list[Finding] = []
    for name, check in checks:
        try:
            findings.extend(check(config))
        except Exception as error:  # a doctor is called when things are strange
            findings.append(unseen(name, f"{error} ({type(error).__name__})"))
    return findings
