"""An administrator's word: who sets the host's congestion control while the agent runs has decided about it.

The agent notices it at its next sample. From then on every new connection gets what was set, and no algorithm is tried,
until the configuration is reloaded or the agent started again.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.config import Config
from agent.dimensions import CONGESTION
from agent.display import moment
from agent.journal import Entry

__all__ = ["SETTING", "Override", "heeded"]

SETTING = "net.ipv4.tcp_congestion_control"


@dataclass(frozen=True)
class Override:
    """`SETTING` went from one algorithm to another at a `time` (seconds since 1970)."""

    time: float
    before: str
    after: str

    @property
    def text(self) -> str:
        """For people: what happened, and how it ends."""
        return (
            f"an administrator set {SETTING} to {self.after} at {moment(self.time)} UTC: left alone until a reload "
            "or a restart"
        )

    @property
    def entry(self) -> Entry:
        """For the journal."""
        return Entry(self.time, "this host", "all", CONGESTION, self.before, self.after, self.text)


def heeded(config: Config, override: Override | None) -> Config:
    """What of `config` stands under `override`: no algorithm is tried, nor granted to a peer."""
    if override is None:
        return config
    nothing = config.congestion.model_copy(update={"enabled": False, "allowed": ()})
    return config.model_copy(update={"congestion": nothing})
