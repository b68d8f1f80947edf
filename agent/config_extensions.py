"""The configuration of the TCP options that talk to the peer: what is sent, and whose requests are granted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Generic, TypeVar

from agent.config_checks import Between, at_most
from agent.config_types import (
    ExperimentId,
    FromList,
    Network,
    OnlyTrue,
    RequestedAlgorithm,
    Section,
    Unique,
    UserTimeoutValue,
)

__all__ = ["MOST_HONOURED", "AckRequestValue", "Extensions", "GroupExtensions", "SendAll", "Sends", "UserTimeout"]

MOST_HONOURED = 4096  # networks: the room in the kernel's trie

Value = TypeVar("Value")
WindowSegments = Annotated[int, Between(1, 250)]


class AckRequestValue(Section):
    """Ask the peer for one ACK every `segments` segments or every RTT / `rtt_divisor`."""

    segments: Annotated[int, Between(1, 255)]
    rtt_divisor: Annotated[int, Between(1, 255)]


class Send(Section, Generic[Value]):
    """What one group sends in an extension; None sends nothing."""

    send: Value | None


class SendAll(Send[Value], Generic[Value]):
    """What all groups send in an extension, unless they have a value of their own."""

    send: Value | None = None


class UserTimeout(SendAll[UserTimeoutValue]):
    """The User Timeout Option (RFC 5482), in seconds; `min` and `max` are its L_LIMIT and U_LIMIT."""

    min: UserTimeoutValue = 100.0
    max: UserTimeoutValue = 900.0


class GroupExtensions(Section):
    """What one group sends instead; a section that is absent keeps the value of `extensions`."""

    user_timeout: Send[UserTimeoutValue] | None = None
    congestion_request: Send[RequestedAlgorithm] | None = None
    window_request: Send[WindowSegments] | None = None
    ack_request: Send[AckRequestValue] | None = None
    ack_announcement: Send[OnlyTrue] | None = None


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
    honour_from: Annotated[tuple[Network, ...], FromList, Unique, at_most(MOST_HONOURED)] = ()
    user_timeout: UserTimeout = UserTimeout()
    congestion_request: SendAll[RequestedAlgorithm] = SendAll[RequestedAlgorithm]()
    window_request: SendAll[WindowSegments] = SendAll[WindowSegments]()
    ack_request: SendAll[AckRequestValue] = SendAll[AckRequestValue]()
    ack_announcement: SendAll[OnlyTrue] = SendAll[OnlyTrue]()

    def sends(self, own: GroupExtensions) -> Sends:
        """What is sent where a group's `own` values replace these."""
        return Sends(
            user_timeout=(own.user_timeout or self.user_timeout).send,
            congestion=(own.congestion_request or self.congestion_request).send,
            window=(own.window_request or self.window_request).send,
            ack=(own.ack_request or self.ack_request).send,
            ack_announcement=bool((own.ack_announcement or self.ack_announcement).send),
        )
