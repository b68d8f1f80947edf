"""The dimensions that are tuned: their arms, what an arm means to the kernel, and their controllers."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from agent.bpf_source import constants
from agent.config import Config
from agent.libbpf import Array
from controllers import LAWS, Arm, Controller
from controllers.initial_window import ladder

__all__ = [
    "ACK", "CONGESTION", "DIMENSIONS", "INITIAL_WINDOW", "Dimension", "against", "arm_table", "congestion_names",
    "dimensions",
]  # fmt: skip

# In the kernel's order (bpf/consts.h, DIMENSION_*).
DIMENSIONS = INITIAL_WINDOW, CONGESTION, ACK = ("initial_window", "congestion", "ack")

DEFAULT = Arm("default")
PACED = "paced"
# TCP_BPF_DELACK_MAX as a fraction of the RTT: TACK (SIGCOMM 2020) finds 4 ACKs a round trip to be enough.
ACK_DELAY_DIVISOR = 4
# A thinned connection still has one ACK in every quarter of the RTT.
THIN_DIVISOR = 4


@dataclass(frozen=True)
class Dimension:
    """One thing that is tuned. `arms[0]` is the kernel's default; without other arms nothing is decided."""

    name: str
    arms: tuple[Arm, ...]
    law_name: str
    law: Callable[[], Controller]


def dimensions(
    config: Config, *, algorithms: Collection[str], host_congestion: str, paces: bool = True
) -> tuple[Dimension, ...]:
    """All dimensions in the kernel's order, with the arms that `config` allows and this kernel has.

    `algorithms` are the congestion controls registered in the kernel. The host's default is arm 0 already. `paces`:
    whether the kernel tells if an application set a pacing rate, so that ours never takes its place.
    """
    arms = constants()["ARMS"]
    windows = ladder(config.initial_window.min, config.initial_window.max, arms=arms)
    names = congestion_names(config, algorithms=algorithms, host_congestion=host_congestion, paces=paces)
    by_name = {
        INITIAL_WINDOW: (config.initial_window.enabled, [Arm(f"iw{window}", window) for window in windows]),
        CONGESTION: (config.congestion.enabled, _congestion_arms(names, pacing=paces and config.congestion.pacing)),
        ACK: (config.ack.enabled, _ack_arms(config)),
    }
    laws = {INITIAL_WINDOW: config.initial_window.law, CONGESTION: "thompson", ACK: "thompson"}
    return tuple(
        Dimension(name, (DEFAULT, *(chosen if enabled else ())), laws[name], LAWS[name, laws[name]])
        for name, (enabled, chosen) in by_name.items()
    )


def against(dimension: Dimension, host_congestion: str) -> str:
    """The name of what a dimension's arms are compared with: hosts differ in their own congestion control."""
    return host_congestion if dimension.name == CONGESTION else dimension.arms[0].name


def congestion_names(
    config: Config, *, algorithms: Collection[str], host_congestion: str, paces: bool
) -> tuple[str, ...]:
    """The algorithms that are tried beside the host's own: as many as there is room for, the first allowed ones."""
    room = constants()["ARMS"]
    most = (room // 2 if paces and config.congestion.pacing else room) - 1
    return tuple(
        name for name in config.congestion.allowed
        if name in algorithms and name not in (host_congestion, "dctcp")  # dctcp needs ECN end to end
    )[:most]  # fmt: skip


def _congestion_arms(names: Sequence[str], *, pacing: bool) -> list[Arm]:
    """The algorithms, and each of them, the host's own too, held to the rate that the path was seen to deliver."""
    plain = [Arm(name) for name in names]
    if not pacing:
        return plain
    value = constants()["ARM_PACED"]
    return [*plain, Arm(PACED, value, 0), *(Arm(f"{arm.name}-{PACED}", value, n) for n, arm in enumerate(plain, 1))]


def _ack_arms(config: Config) -> list[Arm]:
    """Sooner, and less often; the value is what bpf/consts.h (ACK_THIN_*_SHIFT) says."""
    limits = constants()
    arms = [Arm("delay", ACK_DELAY_DIVISOR)] if config.ack.delay else []
    # The kernel acknowledges every second segment by itself.
    if (segments := config.ack.most_thinned) >= limits["THIN_SEGMENTS_MIN"]:
        value = segments << limits["ACK_THIN_SEGMENTS_SHIFT"] | THIN_DIVISOR << limits["ACK_THIN_DIVISOR_SHIFT"]
        arms.append(Arm(f"thin{segments}", value))
    return arms


def arm_table(chosen: tuple[Dimension, ...], dtype: np.dtype[Any]) -> Array:
    """The meaning of every arm as the kernel reads it, shape (dimensions * ARMS,); arm 0 and unused ones stay zero."""
    table = np.zeros(len(chosen) * constants()["ARMS"], dtype)
    for position, dimension in enumerate(chosen):
        for number, arm in enumerate(dimension.arms[1:], 1):
            entry = position * constants()["ARMS"] + number
            table["value"][entry] = arm.value
            if dimension.name == CONGESTION:
                algorithm = dimension.arms[number if arm.variant_of is None else arm.variant_of]
                table["congestion"][entry] = b"" if algorithm is DEFAULT else algorithm.name.encode("ascii")
    return table
