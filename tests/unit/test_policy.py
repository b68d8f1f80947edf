"""Decisions as the kernel draws them, and the publisher's bookkeeping."""

from __future__ import annotations

import errno
from dataclasses import replace
from ipaddress import ip_address, ip_network
from typing import Any

import numpy as np
import pytest
from handmade import CONFIG, KEY, ROW, StillKernel, absorb, still_tuner
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as numbers

from agent.bpf_source import constants
from agent.config import Config, InitialWindow, PathRule, Paths
from agent.errors import KernelError
from agent.policy import STEPS, Publisher, cumulative, paced_rates, paced_windows
from agent.rules import packed
from agent.tuner import Tuner
from controllers import Decision

ARMS = constants()["ARMS"]
POINTS = np.arange(65536)
NOBODY = np.zeros(0, np.intp)
HOSTILE = [float("nan"), float("inf"), float("-inf"), -0.5, -1e-9, 1.5, 1e300]


def no_holdout(rows: Any) -> tuple[Any, float]:
    """For `publish`: of no path."""
    return np.zeros(len(rows)), 0.0


def drawn(upto: Any) -> Any:
    """The share of every arm when each of the 65,536 points comes once: bpf/apply.h, `draw`."""
    arm = (upto[None, :].astype(np.int64) < POINTS[:, None] + 1).sum(axis=1) & (ARMS - 1)
    return np.bincount(arm, minlength=ARMS) / 65536


@st.composite
def any_probabilities(draw: st.DrawFn) -> Any:
    """Probabilities of a few paths; some are zero or tiny."""
    shape = (draw(st.integers(1, 4)), draw(st.integers(1, ARMS)))
    weights = draw(numbers.arrays(np.float64, shape, elements=st.one_of(st.just(0.0), st.floats(1e-6, 1))))
    weights[:, 0] += weights.sum(axis=1) == 0
    return weights / weights.sum(axis=1, keepdims=True)


@settings(max_examples=150, deadline=None)
@given(any_probabilities())
def test_the_kernel_draws_what_was_decided(probabilities: Any) -> None:
    upto = cumulative(probabilities, ARMS)
    assert upto.dtype == np.uint16
    assert upto.shape == (len(probabilities), ARMS)
    assert (np.diff(upto.astype(np.int64), axis=1) >= 0).all()
    used = probabilities.shape[1]
    for row, wanted in zip(upto, probabilities, strict=True):
        shares = drawn(row)
        assert shares.sum() == 1
        assert (shares[used:] == 0).all()
        # Every arm is rounded or raised by a step at most, and all are brought back to one together.
        np.testing.assert_allclose(shares[:used], wanted, atol=(1 + ARMS * wanted.max()) / STEPS)
        assert ((shares[:used] > 0) == (wanted > 0))[1:].all()
        # An arm that may be drawn at all keeps a little: a power of two near to what was wanted.
        assert (shares[:used][wanted > 0] > np.minimum(0.6 * wanted[wanted > 0], 1 / 4600)).all()
        assert (shares[:used][wanted > 0] > 1 / 4600).all()


@pytest.mark.parametrize("share", [1 / STEPS, 0.25, 0.5, 1 - 1 / STEPS])
def test_whole_steps_are_exact(share: float) -> None:
    shares = drawn(cumulative(np.array([[1 - share, share]]), ARMS)[0])
    np.testing.assert_allclose(shares[:2], [1 - share, share], atol=2 / 65536)


def test_the_default_alone() -> None:
    for arms in (1, 2, ARMS):
        alone = np.eye(1, arms)
        assert (drawn(cumulative(alone, ARMS)[0]) == np.eye(1, ARMS)[0]).all()


@settings(max_examples=300, deadline=None)
@given(any_probabilities(), st.data())
def test_hostile_values_fall_back_to_the_default_on_their_path_alone(probabilities: Any, data: st.DataObject) -> None:
    path = data.draw(st.integers(0, len(probabilities) - 1))
    arm = data.draw(st.integers(0, probabilities.shape[1] - 1))
    wrong = probabilities.copy()
    wrong[path, arm] = data.draw(st.sampled_from(HOSTILE))
    upto, clean = cumulative(wrong, ARMS), cumulative(probabilities, ARMS)
    assert (drawn(upto[path]) == np.eye(1, ARMS)[0]).all()
    others = np.arange(len(probabilities)) != path
    np.testing.assert_array_equal(upto[others], clean[others])


@pytest.mark.parametrize("row", [[0, 0, 0], [0.4, 0.4, 0.4], [0.0, 0.3, 0.3], [float("inf"), float("-inf"), 1]])
def test_what_does_not_sum_to_one_is_the_default(row: list[float]) -> None:
    assert (drawn(cumulative(np.array([row]), ARMS)[0]) == np.eye(1, ARMS)[0]).all()


def test_rounding_of_32_bits_is_no_fault() -> None:
    row = np.full((1, 7), 1 / 7, np.float32)
    assert drawn(cumulative(row, ARMS)[0])[6] > 0.1


def test_no_paths() -> None:
    assert cumulative(np.zeros((0, 3)), ARMS).shape == (0, ARMS)


class WritingKernel(StillKernel):
    """Keeps the trie as a dictionary, and what was written last."""

    def __init__(self) -> None:
        self.trie: dict[tuple[int, bytes], Any] = {}
        self.written = 0
        self.full = False

    def publish(self, *arrays: Any) -> None:
        keys, policies = arrays
        if self.full:
            raise KernelError("cannot write a map", errno.ENOMEM)
        self.written = len(keys)
        for key, policy in zip(keys, policies, strict=True):
            self.trie[int(key["bits"]), key["address"].tobytes()] = policy.copy()

    def publish_arms(self, *arrays: Any) -> None:
        del arrays

    def withdraw(self, *arrays: Any) -> None:
        for key in arrays[0]:
            del self.trie[int(key["bits"]), key["address"].tobytes()]

    def policy_of(self, address: str) -> Any:
        """The longest match, as the kernel finds it."""
        number = int.from_bytes(packed(ip_address(address)))
        matches = [
            (bits, policy) for (bits, key), policy in self.trie.items()
            if (number ^ int.from_bytes(key)) >> (128 - bits) == 0
        ]  # fmt: skip
        return max(matches, key=lambda match: match[0])[1]


def written(config: Config = CONFIG) -> tuple[Tuner, WritingKernel]:
    tuner, kernel = still_tuner(config), WritingKernel()
    tuner.kernel = kernel  # type: ignore[assignment]
    tuner.publisher = Publisher(kernel, tuner.rules, tuner.store, tuner.networks)  # type: ignore[arg-type]
    return tuner, kernel


def test_every_rule_and_every_path_gets_its_policy() -> None:
    tuner, kernel = written()
    for _ in range(4):
        absorb(tuner, "203.0.113.0/24", closed=3, first_windows=3)
    absorb(tuner, "198.51.100.0/24", group=1)
    tuner.decide(0)
    # 203.0.0.0/16 is a network of its own; what is above 198.51.100.0/24 is a rule.
    assert tuner.publisher.entries == len(tuner.rules) + 1 + 2
    assert (112, packed(ip_address("203.0.0.0"))) in kernel.trie
    known, unknown = kernel.policy_of("203.0.113.7"), kernel.policy_of("203.0.114.7")
    assert (known["path_bits"], known["group"], known["excluded"]) == (120, 0, 0)
    assert drawn(known["upto"][:ARMS])[1] == pytest.approx(0.5, abs=0.01)  # the path tries the second window
    assert (unknown["path_bits"], unknown["group"]) == (120, 0)
    assert kernel.policy_of("2001:db8::1")["path_bits"] == 48
    assert kernel.policy_of("198.51.100.9")["group"] == 1
    assert kernel.policy_of("192.0.2.9")["excluded"] == 1


def test_a_path_that_is_a_rule_too_is_one_entry_with_the_paths_own_arms() -> None:
    tuner, kernel = written()
    for _ in range(4):
        absorb(tuner, "198.51.100.0/24", group=1, closed=3, first_windows=3)
    tuner.decide(0)
    assert tuner.publisher.entries == len(tuner.rules) + 1
    assert len(kernel.trie) == len(tuner.rules)
    assert drawn(kernel.policy_of("198.51.100.9")["upto"][:ARMS])[1] == pytest.approx(0.5, abs=0.01)


def test_a_rule_inside_a_network_and_a_network_inside_a_rule_keep_their_own_paths() -> None:
    wide = PathRule(match=(ip_network("10.0.0.0/8"),), group="wide", ipv4_prefix=20)
    narrow = PathRule(match=(ip_network("10.1.2.0/24"),), group="narrow", ipv4_prefix=28)
    tuner, kernel = written(Config(paths=Paths(rules=(wide, narrow))))
    absorb(tuner, "10.1.0.0/20", group=1, closed=5, first_windows=5)
    absorb(tuner, "10.1.2.16/28", group=2, closed=5, first_windows=5)
    absorb(tuner, "11.1.2.0/24", closed=5, first_windows=5)
    absorb(tuner, "2001:db8:5::/48", closed=5, first_windows=5)
    tuner.decide(0)
    found = {
        address: (int(kernel.policy_of(address)["group"]), int(kernel.policy_of(address)["path_bits"]))
        for address in ("10.1.99.1", "10.1.2.200", "10.9.9.9", "11.1.9.9", "11.9.9.9", "2001:db8:6::1", "2001:db9::1")
    }
    assert found == {
        "10.1.99.1": (1, 116), "10.1.2.200": (2, 124), "10.9.9.9": (1, 116), "11.1.9.9": (0, 120),
        "11.9.9.9": (0, 120), "2001:db8:6::1": (0, 48), "2001:db9::1": (0, 48),
    }  # fmt: skip
    networks = tuner.networks
    names = {(networks.name(number), int(networks.identity["group"][number])) for number in range(3, len(networks))}
    assert names == {("10.1.0.0/16", 1), ("10.1.0.0/16", 2), ("11.1.0.0/16", 0), ("2001:db8::/32", 0)}


def test_networks_named_one_by_one_learn_from_each_other() -> None:
    """Each is a rule of its own; what one found, the other begins with."""
    named = PathRule(match=(ip_network("10.1.2.0/24"), ip_network("10.1.3.0/24")), group="named")
    elsewhere = PathRule(match=(ip_network("10.1.4.0/24"),), group="other")
    tuner, kernel = written(Config(paths=Paths(rules=(named, elsewhere))))
    for arm, log_time in enumerate((18, 18, 18, 17, 17, 17, 17)):
        absorb(
            tuner, "10.1.2.0/24", group=1, arm=arm, log_time=log_time, closed=12, first_windows=12,
            first_window_segments=300, sent_segments=840,
        )  # fmt: skip
    tuner.decide(0)
    shares = drawn(kernel.policy_of("10.1.3.9")["upto"][:ARMS])
    assert shares[3:].sum() > 0.7
    assert tuner.match(ip_address("10.1.3.9")).inherited == "network 10.1.0.0/16"
    assert drawn(kernel.policy_of("10.1.4.9")["upto"][:ARMS])[0] == 1  # another group
    assert drawn(kernel.policy_of("10.1.5.9")["upto"][:ARMS])[0] == 1


def test_only_what_changed_is_written() -> None:
    tuner, kernel = written()
    absorb(tuner, "203.0.113.0/24")
    tuner.decide(0)
    assert kernel.written == len(tuner.rules) + 1 + 1
    tuner.decide(1)
    assert kernel.written == 0
    absorb(tuner, "203.0.114.0/24")
    tuner.decide(2)
    assert kernel.written == 1
    decisions = [replace(one, probabilities=one.probabilities.copy()) for one in tuner.decisions]
    decisions[1].probabilities[tuner.store.groups] = [0.5, 0.0, 0.5, 0.0]
    rows = np.array([0, tuner.store.groups])
    tuner.publisher.publish(decisions, tuner.decider.unknown, rows, NOBODY, no_holdout(rows))
    assert kernel.written == 1


def test_what_could_not_be_written_is_written_the_next_time() -> None:
    tuner, kernel = written()
    absorb(tuner, "203.0.113.0/24")
    tuner.decide(0)
    row, path = tuner.store.groups, "203.0.113.7"

    def publish(share: float) -> None:
        decisions = [replace(one, probabilities=one.probabilities.copy()) for one in tuner.decisions]
        decisions[1].probabilities[row] = [1 - share, 0.0, share, 0.0]
        rows = np.array([row])
        tuner.publisher.publish(decisions, tuner.decider.unknown, rows, NOBODY, no_holdout(rows))

    publish(0.5)
    kernel.full = True
    for share in (0.25, 0.0):
        with pytest.raises(KernelError):
            publish(share)
    assert drawn(kernel.policy_of(path)["upto"][ARMS : 2 * ARMS])[2] > 0
    kernel.full = False
    nobody = np.zeros(0, np.intp)
    tuner.publisher.publish(tuner.decisions, tuner.decider.unknown, nobody, NOBODY, no_holdout(nobody))
    assert drawn(kernel.policy_of(path)["upto"][ARMS : 2 * ARMS])[0] == 1
    assert kernel.written == 1  # once, whatever it was meant to be in between
    publish(0.0)
    assert kernel.written == 0


def test_a_new_network_of_a_rule_has_the_groups_policy_until_it_is_decided() -> None:
    rule = PathRule(match=(ip_network("203.0.113.0/24"),), group="cdn", ipv4_prefix=32)
    tuner, kernel = written(Config(paths=Paths(rules=(rule,))))
    tuner.decide(0)
    absorb(tuner, "203.0.113.9/32", group=1)
    tuner.store.urgent[:] = True
    tuner.kernel.drain = lambda: (np.zeros(0, KEY), np.zeros(0, ROW))  # type: ignore[method-assign]
    tuner.sample(0.1)
    assert kernel.policy_of("203.0.113.9")["path_bits"] == 128
    assert kernel.policy_of("203.0.113.10")["path_bits"] == 128


@pytest.mark.parametrize("length", [48, 96, 112, 128])
def test_ipv6_networks_are_32_bits_however_long_their_paths_are(length: int) -> None:
    tuner, _ = written(Config(paths=Paths(ipv6_prefix=length)))
    for number in range(3):
        network = ip_network(f"2001:db8:{number}::{number}/{length}", strict=False)
        absorb(tuner, str(network))
    tuner.decide(0)
    names = [tuner.networks.name(number) for number in range(tuner.networks.groups, len(tuner.networks))]
    assert names == ["2001:db8::/32"]
    assert tuner.match(ip_address("2001:db8:77::1")).inherited == "network 2001:db8::/32"


def test_forgotten_paths_inherit_again_and_the_rest_is_written_anew() -> None:
    tuner, kernel = written(Config(paths=Paths(max=100)))
    for number in range(100):
        absorb(tuner, f"203.{number // 10}.{number}.0/24", now=float(number))
    tuner.decide(0)
    assert len(kernel.trie) == len(tuner.rules) + 10 + 100
    absorb(tuner, "203.9.200.0/24", now=100.0)
    tuner.decide(1)  # one too many: a tenth is dropped at once
    assert (120, packed(ip_address("203.1.10.0"))) not in kernel.trie
    assert (120, packed(ip_address("203.1.11.0"))) in kernel.trie
    assert (112, packed(ip_address("203.0.0.0"))) not in kernel.trie  # nothing is known below it any more
    assert (112, packed(ip_address("203.1.0.0"))) in kernel.trie
    assert kernel.written == len(kernel.trie) == len(tuner.rules) + 9 + 90
    tuner.decide(2)
    assert kernel.written == 0


def test_nothing_is_left_when_all_is_withdrawn() -> None:
    tuner, kernel = written()
    absorb(tuner, "203.0.113.0/24")
    tuner.decide(0)
    tuner.publisher.withdraw_all()
    assert kernel.trie == {}
    assert tuner.publisher.entries == 0


def test_a_law_that_talks_nonsense_leaves_the_kernel_its_defaults() -> None:
    tuner, kernel = written()
    absorb(tuner, "203.0.113.0/24")
    tuner.decide(0)
    kinds = (tuner.decisions, tuner.decider.unknown)
    nonsense, more = (
        [Decision(np.full(one.probabilities.shape, np.nan), one.chosen, one.reason, one.reasons) for one in kind]
        for kind in kinds
    )
    rows, networks = np.arange(len(tuner.store)), np.arange(len(tuner.networks))
    tuner.publisher.publish(nonsense, more, rows, networks, no_holdout(rows))
    for policy in kernel.trie.values():
        for dimension in range(constants()["DIMENSIONS"]):
            assert drawn(policy["upto"][dimension * ARMS : (dimension + 1) * ARMS])[0] == 1


def test_the_configuration_used_here_has_both_kinds_of_rules() -> None:
    networks = {rule.match[0]: rule.exclude for rule in CONFIG.paths.rules}
    assert networks == {ip_network("198.51.100.0/24"): False, ip_network("192.0.2.0/24"): True}


def test_a_rate_is_told_where_something_is_paced_and_known() -> None:
    tuner, _ = written()
    absorb(tuner, "203.0.113.0/24")
    tuner.decide(0)
    decisions = [replace(one, probabilities=np.repeat(one.probabilities[:1], 4, axis=0)) for one in tuner.decisions]
    decisions[1].probabilities[:] = [[0.5, 0, 0.5, 0], [0.5, 0.5, 0, 0], [0.5, 0, 0, 0.5], [0, 0, 1, 0]]
    rates = np.array([1.5e6, 1.5e6, 0.0, constants()["RATE_MAX"]], np.float32)
    found = paced_rates(tuner.dimensions, decisions, np.arange(4), rates)
    assert found[0] == pytest.approx(1.5e6, rel=0.006)
    assert found[1:3].tolist() == [0, 0]  # nothing is paced; the rate is not known
    assert 0.99 * constants()["RATE_MAX"] < found[3] <= constants()["RATE_MAX"]
    assert found.astype(np.uint32).tolist()[3] > 0


def test_a_paced_connection_begins_with_what_fills_the_path() -> None:
    tuner, _ = written()
    rates, pipe = np.array([0.0, 1e6, 1e6, 1e6, 1e6]), np.array([20.0, 0.0, 3.0, 20.0, 1e9])
    # Nothing is paced; how long the path is is not known; then the ladder's first from 1.5 times as much on.
    assert paced_windows(tuner.dimensions, rates, pipe).tolist() == [0, 0, 10, 40, 80]
    untuned = still_tuner(CONFIG.model_copy(update={"initial_window": InitialWindow(enabled=False)}))
    assert paced_windows(untuned.dimensions, rates, pipe).tolist() == [0] * 5


def test_a_path_that_carried_little_is_thought_to_be_as_fast_as_the_fastest_of_its_network() -> None:
    tuner = still_tuner()
    for network, rate, segments in (
        ("203.0.1.0/24", 8_000_000, 100), ("203.0.2.0/24", 1_000_000, 2000), ("203.0.3.0/24", 1_000_000, 4000),
        ("203.1.1.0/24", 1_000_000, 2000),
    ):  # fmt: skip
        absorb(tuner, network, rate=rate, rounds=1, base_rtt_us=50_000, sent_segments=segments)
    rates, pipe = tuner.networks.pacing(np.arange(2, 6))
    # As fast as it was seen; lent; had its chance; and nobody else is in the network.
    assert rates.tolist() == [8e6, 8e6, 1e6, 1e6]
    assert pipe == pytest.approx(rates / 20 / 1448)
