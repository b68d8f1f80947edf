"""Every error the agent raises on purpose.

TcptunedError               base; carries the exit code of the command line
+-- UsageError              wrong arguments or an unsupported system (exit 2)
|   +-- ConfigurationError  the configuration file; lists every problem with its place (exit 2)
+-- KernelError             a bpf(2) call failed; carries errno
|   +-- CompileError        BCC could not build or load the programs; carries the compiler's text
+-- ListenError             the address to listen on cannot be had, now
+-- UnreachableError        no agent answers
+-- FleetError              Prometheus told nothing about the fleet; carries the reason
+-- LabError                the laboratory could not be set up
"""

from __future__ import annotations

import os

__all__ = [
    "CompileError", "ConfigurationError", "FleetError", "KernelError", "LabError", "ListenError", "TcptunedError",
    "UnreachableError", "UsageError",
]  # fmt: skip


class TcptunedError(Exception):
    """Base of all errors that the command line shows as one sentence."""

    exit_code = 1


class UsageError(TcptunedError):
    """Wrong arguments, or a system that cannot run the agent; the message names the cure."""

    exit_code = 2


class ConfigurationError(UsageError):
    """The configuration file is wrong.

    `problems` holds one `file:line:column: key: message` string for every mistake found.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class KernelError(TcptunedError):
    """A bpf(2) call was refused; `errno` tells why."""

    def __init__(self, action: str, errno: int) -> None:
        super().__init__(f"{action}: {os.strerror(errno)}")
        self.errno = errno


class CompileError(KernelError):
    """BCC could not compile or load a program; `text` is what the compiler or the verifier said."""

    def __init__(self, message: str, text: str, errno: int = 0) -> None:
        TcptunedError.__init__(self, message)
        self.text = text
        self.errno = errno


class ListenError(TcptunedError):
    """The address to listen on is taken, or not there (yet): systemd tries again, as it does not after exit code 2."""


class UnreachableError(TcptunedError):
    """No agent answers where the configuration says that it listens."""


class FleetError(TcptunedError):
    """Prometheus told nothing that can be used; `reason` is one of agent/fleet.py's REASONS."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class LabError(TcptunedError):
    """The laboratory could not be built; the message names what is missing."""
