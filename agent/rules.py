"""The rules of `paths` as entries for the kernel's policy trie, and addresses in its form.

Every address is 16 bytes in network order; IPv4 stands as ::ffff:a.b.c.d, so that one trie serves both.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address

import numpy as np

from agent.config import DEFAULT_GROUP, Paths
from agent.libbpf import Array

__all__ = ["MAPPED_BITS", "Rule", "are_ipv4", "governing", "masked", "network_name", "packed", "rules"]

MAPPED_BITS = 96
_MAPPED = bytes(10) + b"\xff\xff"


@dataclass(frozen=True)
class Rule:
    """One entry: networks within `address`/`bits` form paths of `path_bits` bits, belong to group number `group`."""

    address: bytes
    bits: int
    path_bits: int
    group: int
    excluded: bool


def packed(address: IPv4Address | IPv6Address) -> bytes:
    """The 16 bytes of an address."""
    return _MAPPED + address.packed if isinstance(address, IPv4Address) else address.packed


def are_ipv4(addresses: Array) -> Array:
    """Which addresses (any, 16 bytes) are IPv4 ones, (any,)."""
    found: Array = (addresses[:, : len(_MAPPED)] == np.frombuffer(_MAPPED, np.uint8)).all(axis=1)
    return found


def network_name(address: bytes, bits: int) -> str:
    """A prefix as people write it: `203.0.113.0/24`, `2001:db8::/48`."""
    if address.startswith(_MAPPED) and bits >= MAPPED_BITS:
        return f"{IPv4Address(address[12:])}/{bits - MAPPED_BITS}"
    return f"{ip_address(address)}/{bits}"


def rules(paths: Paths, groups: tuple[str, ...]) -> tuple[Rule, ...]:
    """The two families' defaults, then what the configuration names; `groups` gives the numbers."""
    number = {name: index for index, name in enumerate(groups)}
    default = number[DEFAULT_GROUP]
    found = [
        Rule(bytes(16), 0, paths.ipv6_prefix, default, excluded=False),
        Rule(_MAPPED + bytes(4), MAPPED_BITS, MAPPED_BITS + paths.ipv4_prefix, default, excluded=False),
    ]
    for rule in paths.rules:
        for network in rule.match:
            bits, own = _lengths(network, rule.ipv4_prefix or paths.ipv4_prefix, rule.ipv6_prefix or paths.ipv6_prefix)
            address = packed(network.network_address)
            found.append(Rule(address, bits, max(bits, own), number[rule.group], rule.exclude))
    # 0.0.0.0/0 and ::/0 may be named by a rule: the later entry of the same prefix wins.
    return tuple({(rule.address, rule.bits): rule for rule in found}.values())


def _lengths(network: IPv4Network | IPv6Network, ipv4: int, ipv6: int) -> tuple[int, int]:
    """The network's own length and the length of its paths, of 128 bits."""
    if isinstance(network, IPv4Network):
        return MAPPED_BITS + network.prefixlen, MAPPED_BITS + ipv4
    return network.prefixlen, ipv6


def masked(addresses: Array, bits: Array) -> Array:
    """Addresses (any, 16 bytes) without what comes after their first `bits` bits (any,)."""
    left = np.clip(bits[:, None].astype(np.int64) - 8 * np.arange(16), 0, 8)
    result: Array = addresses & (0xFF00 >> left).astype(np.uint8)
    return result


def governing(addresses: Array, rules: Sequence[Rule]) -> Array:
    """The number of the longest rule that covers each address (any, 16 bytes); one covers all."""
    found = np.zeros(len(addresses), np.intp)
    lengths = np.array([rule.bits for rule in rules])
    networks = np.array([rule.address for rule in rules], "S16")
    for length in np.unique(lengths):  # the shortest first, so that longer ones have the last word
        numbers = np.flatnonzero(lengths == length)
        numbers = numbers[np.argsort(networks[numbers])]
        names = networks[numbers]
        theirs = np.ascontiguousarray(masked(addresses, np.full(1, length))).view("S16").ravel()
        place = np.minimum(np.searchsorted(names, theirs), len(names) - 1)
        covered = names[place] == theirs
        found[covered] = numbers[place[covered]]
    return found
