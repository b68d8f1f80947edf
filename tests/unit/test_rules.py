"""The rules of `paths` as entries of the kernel's trie."""

from __future__ import annotations

import time
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import Config, PathRule, Paths
from agent.rules import MAPPED_BITS, Rule, governing, masked, network_name, packed, rules


def of(*path_rules: PathRule, ipv4_prefix: int = 24, ipv6_prefix: int = 48) -> dict[str, Rule]:
    """The rules of a configuration by the name of their network."""
    config = Config(paths=Paths(rules=path_rules, ipv4_prefix=ipv4_prefix, ipv6_prefix=ipv6_prefix))
    found = rules(config.paths, config.groups)
    named = {network_name(rule.address, rule.bits): rule for rule in found}
    assert len(named) == len(found)
    return named


def one(network: str, **fields: object) -> PathRule:
    return PathRule(match=(ip_network(network),), **fields)  # type: ignore[arg-type]


def test_the_defaults_of_both_families() -> None:
    assert of(ipv4_prefix=20, ipv6_prefix=56) == {
        "::/0": Rule(bytes(16), 0, 56, 0, excluded=False),
        "0.0.0.0/0": Rule(packed(ip_address("0.0.0.0")), MAPPED_BITS, MAPPED_BITS + 20, 0, excluded=False),
    }


def test_a_rule_names_excludes_widens_and_narrows() -> None:
    found = of(
        one("203.0.113.0/24", group="near", ipv4_prefix=32),
        one("2001:db8::/32", group="far", ipv6_prefix=64),
        one("198.51.100.0/24", exclude=True),
        one("10.0.0.0/8", ipv4_prefix=16),
    )
    assert found["203.0.113.0/24"] == Rule(packed(ip_address("203.0.113.0")), 120, 128, 1, excluded=False)
    assert found["2001:db8::/32"] == Rule(packed(ip_address("2001:db8::")), 32, 64, 2, excluded=False)
    assert (found["198.51.100.0/24"].excluded, found["198.51.100.0/24"].group) == (True, 0)
    assert found["10.0.0.0/8"].path_bits == MAPPED_BITS + 16


def test_a_path_is_never_wider_than_the_network_that_matched() -> None:
    found = of(one("203.0.113.128/25"), one("2001:db8:1:2::/64", group="a"), one("10.0.0.0/30", ipv4_prefix=8))
    assert found["203.0.113.128/25"].path_bits == MAPPED_BITS + 25
    assert found["2001:db8:1:2::/64"].path_bits == 64
    assert found["10.0.0.0/30"].path_bits == MAPPED_BITS + 30


def test_one_rule_for_several_networks_of_both_families() -> None:
    match = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
    found = of(PathRule(match=match, group="inside", ipv4_prefix=28, ipv6_prefix=60))
    assert {name: found[name].path_bits for name in ("10.0.0.0/8", "fd00::/8")} == {
        "10.0.0.0/8": MAPPED_BITS + 28, "fd00::/8": 60,
    }  # fmt: skip
    assert found["10.0.0.0/8"].group == found["fd00::/8"].group == 1


def test_everything_may_be_named_by_a_rule() -> None:
    found = of(one("0.0.0.0/0", exclude=True), one("::/0", group="six", ipv6_prefix=32))
    assert found["0.0.0.0/0"].excluded
    assert (found["::/0"].group, found["::/0"].path_bits) == (1, 32)
    assert len(found) == 2


@given(st.ip_addresses())
def test_addresses_are_16_bytes_and_read_back(address: IPv4Address | IPv6Address) -> None:
    data = packed(address)
    assert len(data) == 16
    name = network_name(data, 128)
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else address
    assert name == (f"{mapped}/32" if mapped else f"{address}/128")


@pytest.mark.parametrize(
    "network",
    ["0.0.0.0/0", "203.0.113.0/24", "203.0.113.7/32", "::/0", "::/96", "2001:db8::1/128", "::fffe:0:0/95"],
)
def test_networks_as_people_write_them(network: str) -> None:
    parsed = ip_network(network, strict=False)
    bits = parsed.prefixlen + (MAPPED_BITS if parsed.version == 4 else 0)
    assert network_name(packed(parsed.network_address), bits) == str(parsed)


def test_thousands_of_rules_govern_as_each_alone_does() -> None:
    """By a straightforward search; and without one pass for each rule."""
    random = np.random.default_rng(4)
    bits = random.choice([0, 96, 104, 112, 120, 128], 3000)
    bits[0] = 0
    address = np.zeros((3000, 16), np.uint8)
    address[:, 10:12] = 255
    address[:, 12:] = random.integers(0, 8, (3000, 4))
    networks = {(one.tobytes(), int(length)) for one, length in zip(masked(address, bits), bits, strict=True)}
    made = [Rule(one, length, 128, 0, excluded=False) for one, length in sorted(networks, key=lambda each: each[1])]
    asked = np.concatenate([address[:200], address[:200] ^ 3])
    expected = [
        max(
            (rule.bits, number) for number, rule in enumerate(made)
            if masked(one[None], np.array([rule.bits])).tobytes() == rule.address
        )[1]
        for one in asked
    ]  # fmt: skip
    assert governing(asked, made).tolist() == expected
    began = time.thread_time()
    governing(np.resize(address, (20_000, 16)), made)
    assert time.thread_time() - began < 1.0
