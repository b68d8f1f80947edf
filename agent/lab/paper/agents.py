"""The agent on both sides of a laboratory, with everything off but the option under test."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from agent.errors import LabError
from agent.lab.agent_process import AgentProcess
from agent.lab.lab import Lab
from agent.lab.workload import ServerOptions

__all__ = ["Agents", "both_agents"]

_CLIENTS = "10.77.0.0/16"
_SERVER = "10.78.0.0/24"
# Nothing is tuned and nobody is held out: what differs between two runs is what was asked for.
_QUIET = {
    "sampling": {"interval": "500ms"},
    "control": {"holdout": 0},
    "initial_window": {"enabled": False},
    "congestion": {"enabled": False, "allowed": ["reno", "cubic", "bbr"]},
    "ack": {"enabled": False},
}

_COUNTED = 1.0  # seconds until what was granted is in the metrics: two samples

Settings = Mapping[str, Any]


class Agents:
    """A client's agent that asks and a server's agent that grants, or the other way round."""

    def __init__(self, lab: Lab, client: AgentProcess, server: AgentProcess) -> None:
        self._lab = lab
        self._sides = {_SERVER: client, _CLIENTS: server}  # by the networks of their peers
        self._in_force = {peers: _settings(None, peers) for peers in self._sides}

    def set(self, *, client: Settings | None = None, server: Settings | None = None) -> None:
        """What the connections from now on ask for and grant.

        Sections of the configuration; None: nothing is asked for. Raises LabError.
        """
        for peers, own in ((_SERVER, client), (_CLIENTS, server)):
            settings = _settings(own, peers)
            if settings != self._in_force[peers]:
                self._sides[peers].reload(settings)
                self._in_force[peers] = settings
                # A listener gets ready to ask and to be asked when it begins.
                self._lab.listen(ServerOptions())

    def check_granted(self, extension: str, least: int) -> None:
        """Raises LabError unless at least so many requests were granted: then the figures are of something else."""
        time.sleep(_COUNTED)
        granted = sum(agent.value("extension_granted_total", extension) for agent in self._sides.values())
        if granted < least:
            raise LabError(f"of {least} requests or more ({extension}) only {granted:.0f} were granted")


@contextmanager
def both_agents(lab: Lab) -> Iterator[Agents]:
    """Starts both; each grants what the other asks for, within the defaults' bounds. Raises LabError."""
    with (
        AgentProcess(lab, _settings(None, _SERVER), side="client") as client,
        AgentProcess(lab, _settings(None, _CLIENTS), side="server") as server,
    ):
        lab.listen(ServerOptions())
        yield Agents(lab, client, server)


def _settings(own: Settings | None, peers: str) -> dict[str, Any]:
    own = own or {}
    return {**_QUIET, **own, "extensions": {"honour_from": [peers], **own.get("extensions", {})}}
