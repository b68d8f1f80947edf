"""The agent on both sides of a laboratory, with everything off but the option under test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

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

Settings = Mapping[str, Any]


class Agents:
    """A client's agent that asks and a server's agent that grants, or the other way round."""

    def __init__(self, client: AgentProcess, server: AgentProcess) -> None:
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


@contextmanager
def both_agents(lab: Lab) -> Iterator[Agents]:
    """Starts both; each grants what the other asks for, within the defaults' bounds. Raises LabError."""
    with (
        AgentProcess(lab, _settings(None, _SERVER), side="client") as client,
        AgentProcess(lab, _settings(None, _CLIENTS), side="server") as server,
    ):
        lab.listen(ServerOptions())  # listeners older than the agent do not keep the SYNs
        yield Agents(client, server)


def _settings(own: Settings | None, peers: str) -> dict[str, Any]:
    own = own or {}
    return {**_QUIET, **own, "extensions": {"honour_from": [peers], **own.get("extensions", {})}}
