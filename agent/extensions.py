"""The TCP options' side of the configuration, as the kernel reads it; the wire format is in bpf/wire.h."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from agent.bpf_source import constants
from agent.config import Config
from agent.config_types import ALGORITHMS
from agent.libbpf import Array
from agent.rules import MAPPED_BITS, packed

__all__ = [
    "algorithm_table", "control_fields", "honoured_keys", "sends_table", "user_timeout_value",
    "wanted_of_listeners",
]  # fmt: skip

_LARGEST_SECONDS = 0x7FFF
_MINUTES = 0x8000
# The fields of `struct sends` that put an option on the wire.
_SENT = ("user_timeout", "congestion", "window", "ack_segments", "announces")


def user_timeout_value(seconds: float | None) -> int:
    """A duration as RFC 5482 writes it: 15 bits of seconds, or of minutes with the highest bit set; 0 for None."""
    if seconds is None:
        return 0
    whole = round(seconds)
    return whole if whole <= _LARGEST_SECONDS else _MINUTES | whole // 60


def sends_table(config: Config, dtype: np.dtype[Any]) -> Array:
    """What every group sends, shape (GROUPS,), dtype of `struct sends`."""
    table = np.zeros(constants()["GROUPS"], dtype)
    for number, group in enumerate(config.groups):
        sends = config.sends(group)
        table["user_timeout_ms"][number] = round((sends.user_timeout or 0) * 1000)
        table["user_timeout"][number] = user_timeout_value(sends.user_timeout)
        table["window"][number] = sends.window or 0
        table["announces"][number] = sends.ack_announcement
        if sends.ack is not None:
            table["ack_segments"][number] = sends.ack.segments
            table["ack_divisor"][number] = sends.ack.rtt_divisor
        if sends.congestion is not None:
            table["congestion"][number] = ALGORITHMS.index(sends.congestion) + 1
    return table


def algorithm_table(config: Config, available: Collection[str], dtype: np.dtype[Any]) -> Array:
    """The algorithms by their number on the wire, shape (ALGORITHMS,), dtype of `struct arm`; value 1 is granted."""
    table = np.zeros(constants()["ALGORITHMS"], dtype)
    for number, name in enumerate(ALGORITHMS, 1):
        table["congestion"][number] = name.encode("ascii")
        table["value"][number] = name in config.congestion.allowed and name in available
    return table


def honoured_keys(config: Config, dtype: np.dtype[Any]) -> Array:
    """The networks whose requests are granted, dtype of `struct prefix_key`."""
    networks = config.extensions.honour_from
    keys = np.zeros(len(networks), dtype)
    for number, network in enumerate(networks):
        keys["bits"][number] = network.prefixlen + (MAPPED_BITS if network.version == 4 else 0)
        keys["address"][number] = np.frombuffer(packed(network.network_address), np.uint32)
    return keys


def control_fields(config: Config, sends: Array) -> dict[str, Any]:
    """The fields of `struct control` that concern the options."""
    extensions = config.extensions
    return {
        "exid": extensions.exid,
        "honours": bool(extensions.honour_from),
        "extends": any(bool(sends[name].any()) for name in _SENT),
        "thinning_max": config.ack.most_thinned,
        "user_timeout_min_ms": round(extensions.user_timeout.min * 1000),
        "user_timeout_max_ms": round(extensions.user_timeout.max * 1000),
    }


def wanted_of_listeners(fields: Mapping[str, Any]) -> frozenset[str]:
    """What listeners have to do for the options, by `control_fields` (bpf/owner.h): keep SYNs, write into SYN-ACKs."""
    wanted = {
        "syns": fields["honours"] or fields["extends"],
        "synacks": fields["extends"] or (fields["honours"] and fields["thinning_max"]),
    }
    return frozenset(name for name, needed in wanted.items() if needed)
