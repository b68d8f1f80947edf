"""The configuration of the TCP options that talk to the peer: what is sent, and whose requests are granted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict

from agent.config_types import Algorithm, Between, ExperimentId, FromList, Network, Unique, UserTimeoutValue

__all__ = ["AckRequestValue", "Extensions", "GroupExtensions", "Section", "Sends"]

WindowSegments = Annotated[int, Between(1, 250)]


class Section(BaseModel):
    """What all sections share: unknown keys are refused, nothing is converted silently, nothing changes later."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class AckRequestValue(Section):
    """Ask the peer for one ACK every `segments` segments or every RTT / `rtt_divisor`."""

    segments: Annotated[int, Between(1, 255)]
    rtt_divisor: Annotated[int, Between(1, 255)]


class UserTimeoutSend(Section):
    """The User Timeout Option (RFC 5482) to send, in seconds; None sends nothing."""

    send: UserTimeoutValue | None


class CongestionRequestSend(Section):
    """The congestion control to ask the peer for; None asks for nothing."""

    send: Algorithm | None


class WindowRequestSend(Section):
    """The initial window to ask the peer for, in segments; None asks for nothing."""

    send: WindowSegments | None


class AckRequestSend(Section):
    """The ACK rate to ask the peer for; None asks for nothing."""

    send: AckRequestValue | None


class AckAnnouncementSend(Section):
    """Whether the peer is told how long our ACKs are delayed at most; None says nothing."""

    send: Literal[True] | None


class UserTimeout(UserTimeoutSend):
    """User Timeout Option for all groups; `min` and `max` (seconds) are RFC 5482's L_LIMIT and U_LIMIT."""

    send: UserTimeoutValue | None = None
    min: UserTimeoutValue = 100.0
    max: UserTimeoutValue = 900.0


class CongestionRequest(CongestionRequestSend):
    """Congestion control request for all groups."""

    send: Algorithm | None = None


class WindowRequest(WindowRequestSend):
    """Initial window request for all groups."""

    send: WindowSegments | None = None


class AckRequest(AckRequestSend):
    """ACK rate request for all groups."""

    send: AckRequestValue | None = None


class AckAnnouncement(AckAnnouncementSend):
    """ACK delay announcement for all groups."""

    send: Literal[True] | None = None


class GroupExtensions(Section):
    """What one group sends instead; a section that is absent keeps the value of `extensions`."""

    user_timeout: UserTimeoutSend | None = None
    congestion_request: CongestionRequestSend | None = None
    window_request: WindowRequestSend | None = None
    ack_request: AckRequestSend | None = None
    ack_announcement: AckAnnouncementSend | None = None


@dataclass(frozen=True)
class Sends:
    """What the extensions send to the peers of one group; None sends nothing."""

    user_timeout: float | None
    congestion: str | None
    window: int | None
    ack: AckRequestValue | None
    ack_announcement: bool


class Extensions(Section):
    """TCP options that talk to the peer. Requests are granted to the networks of `honour_from` only."""

    exid: ExperimentId = 0xE7C9
    honour_from: Annotated[tuple[Network, ...], FromList, Unique] = ()
    user_timeout: UserTimeout = UserTimeout()
    congestion_request: CongestionRequest = CongestionRequest()
    window_request: WindowRequest = WindowRequest()
    ack_request: AckRequest = AckRequest()
    ack_announcement: AckAnnouncement = AckAnnouncement()

    def sends(self, own: GroupExtensions) -> Sends:
        """What is sent where a group's `own` values replace these."""
        return Sends(
            user_timeout=(own.user_timeout or self.user_timeout).send,
            congestion=(own.congestion_request or self.congestion_request).send,
            window=(own.window_request or self.window_request).send,
            ack=(own.ack_request or self.ack_request).send,
            ack_announcement=bool((own.ack_announcement or self.ack_announcement).send),
        )
