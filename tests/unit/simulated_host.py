"""A host whose paths are known: the real agent's loop, with connections as the laboratory measured them.

Only the kernel and the network are missing: arms are drawn from the agent's own decisions, rows are as the kernel adds
them up, evidence, networks and laws are the agent's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from ipaddress import ip_network
from typing import Any

import numpy as np
from handmade import KEY, ROW

from agent.bpf_source import constants
from agent.config import Config, Congestion
from agent.decider import Decider
from agent.dimensions import dimensions
from agent.evidence import EvidenceStore
from agent.guarding import Guarding
from agent.lab.paths import load_paths
from agent.networks import Networks
from agent.rules import packed, rules
from controllers.base import Floats

__all__ = ["LADDER", "MEASURED", "Host", "Measured"]

LABORATORY = load_paths()
LADDER = (10, 14, 20, 28, 40, 56, 80)
LIMITS = constants()
SCALE = 1 << LIMITS["LOG_SHIFT"]
HOLDOUT = 0.05
SEGMENTS = 70  # of 100,000 bytes


@dataclass(frozen=True)
class Measured:
    """Objects of 100,000 bytes over one path, by window of LADDER: first cubic's, then bbr's.

    Mean milliseconds, percent of the first window's segments that were lost, percent of all segments that were sent
    again, and the standard deviation of log2 of the time within an arm. Then what the path itself has.
    """

    cubic: Sequence[float]
    bbr: Sequence[float]
    cubic_first: Sequence[float]
    bbr_first: Sequence[float]
    cubic_again: Sequence[float]
    bbr_again: Sequence[float]
    spread: float
    rate_mbps: float = 0.0
    round_trip_ms: float = 0.0
    queue: int = 0  # packets

    @property
    def queued_ms(self) -> float:
        """How long an object's packets wait on average: those that the path does not hold, up to the queue's length."""
        per_ms = self.rate_mbps / 12.0  # packets of 1,500 bytes
        return min(self.queue, max(0.0, SEGMENTS - per_ms * self.round_trip_ms)) / 2 / per_ms

    @property
    def times(self) -> Floats:
        """(2, 7), seconds."""
        return np.array([self.cubic, self.bbr]) / 1000

    @property
    def first(self) -> Floats:
        """(2, 7), shares."""
        return np.array([self.cubic_first, self.bbr_first]) / 100

    @property
    def again(self) -> Floats:
        """(2, 7), shares."""
        return np.array([self.cubic_again, self.bbr_again]) / 100

    @property
    def oracle(self) -> float:
        """The best mean time in seconds that loses and retransmits at most 1 percentage point more than the default."""
        decent = (self.first <= self.first[0, 0] + 0.01) & (self.again <= self.again[0, 0] + 0.01)
        return float(self.times[decent].min())


# Measured in the laboratory (agent/lab/paths.yaml has the paths), 8 objects for every arm.
_MEASURED: Mapping[int, Measured] = {
    1: Measured(
        (1562, 1626, 1691, 1640, 2016, 1668, 1534), (1752, 1569, 1778, 2103, 1795, 1886, 1623),
        (6.2, 11.6, 38.1, 62.1, 73.4, 77.2, 70.2), (6.2, 2.7, 31.9, 57.9, 73.1, 70.7, 70),
        (12.5, 10.8, 23.8, 29.7, 35.9, 41.4, 41.2), (12.2, 16.2, 24.6, 26.3, 35.6, 35.3, 41.2), 0.26,
    ),
    2: Measured(
        (904, 854, 783, 727, 690, 651, 667), (926, 851, 771, 727, 683, 661, 676),
        (0, 0, 0, 0, 0, 0, 0), (0, 0, 0, 0, 0, 0, 0),
        (0, 0, 0, 0, 0, 0, 0), (0, 0, 0, 0, 0, 0, 0), 0.05,
    ),
    3: Measured(
        (1228, 1188, 1087, 942, 894, 885, 883), (1340, 1210, 1092, 964, 901, 888, 891),
        (0, 0, 0, 0, 0, 0, 0), (0, 0, 0, 0, 0, 0, 0),
        (0, 0, 0, 0, 0, 0, 0), (0, 0, 0, 0, 0, 0, 0), 0.03,
    ),
    4: Measured(
        (226, 221, 220, 169, 167, 166, 167), (277, 250, 225, 190, 177, 171, 169),
        (0, 0, 0, 0, 0, 0, 0), (0, 0, 0, 0, 0, 0, 0),
        (0, 0, 0, 0, 0, 0, 0), (0, 0, 0, 0, 0, 0, 0), 0.03,
    ),
    5: Measured(
        (420, 426, 412, 327, 312, 316, 311), (523, 470, 424, 357, 336, 332, 318),
        (0, 0.3, 0, 0, 0, 0.1, 0.1), (0, 0, 0, 0, 0, 0.1, 0),
        (0.1, 0.1, 0.1, 0.2, 0, 0.1, 0.1), (0.1, 0, 0.1, 0, 0.1, 0.1, 0), 0.03,
    ),
    6: Measured(
        (366, 365, 362, 276, 276, 275, 274), (460, 417, 373, 316, 293, 285, 280),
        (0, 0, 0, 0, 0, 0, 0), (0, 0, 0, 0, 0, 0, 0),
        (0, 0, 0, 0, 0, 0, 0), (0, 0, 0, 0, 0, 0, 0), 0.03,
    ),
    7: Measured(
        (2145, 2191, 2101, 1646, 1590, 1526, 1549), (935, 387, 315, 461, 436, 655, 691),
        (100, 100, 100, 100, 100, 100, 100), (100, 100, 100, 100, 100, 100, 100),
        (35.7, 43, 46.5, 53, 57, 58.3, 58.2), (24.5, 43.1, 47.6, 45.3, 49.6, 52.4, 58.1), 0.07,
    ),
    8: Measured(
        (2155, 2188, 2147, 1639, 1573, 1529, 1547), (304, 223, 186, 226, 296, 345, 606),
        (100, 100, 100, 100, 100, 100, 100), (100, 100, 83.5, 100, 100, 100, 100),
        (35.7, 43.3, 46.2, 53.3, 57.3, 58.3, 58.2), (36.4, 37.4, 37.7, 45.4, 49.6, 52, 52.4), 0.05,
    ),
    9: Measured(
        (2196, 2207, 2073, 1651, 1582, 1539, 1594), (321, 236, 199, 187, 303, 342, 601),
        (100, 100, 100, 100, 100, 100, 100), (100, 99.7, 70, 95.8, 100, 100, 100),
        (36.1, 43.1, 46.7, 53.3, 57.1, 58.2, 58.1), (36.6, 37.4, 35.2, 43.5, 49.8, 51.9, 52.4), 0.05,
    ),
    10: Measured(
        (7879, 7887, 7649, 7721, 7458, 7479, 7381), (1488, 1145, 1307, 904, 716, 625, 1009),
        (100, 100, 100, 100, 100, 100, 100), (100, 100, 89.8, 78.6, 70.1, 67, 94.6),
        (39.8, 43.6, 47, 53.9, 56.9, 58, 57.8), (36.4, 37, 34.1, 42.1, 38.8, 39, 48.6), 0.06,
    ),
    11: Measured(
        (7881, 7881, 7647, 7742, 7368, 7479, 7478), (1497, 1154, 989, 642, 624, 617, 612),
        (100, 100, 100, 100, 100, 100, 100), (100, 100, 70.2, 64.3, 60, 55.5, 54.3),
        (39.7, 43.7, 47, 53.9, 57, 57.9, 58), (36.6, 36.9, 35.2, 35.2, 35.2, 35.2, 35.2), 0.03,
    ),
    12: Measured(
        (7838, 7917, 7617, 7732, 7369, 7476, 7476), (1483, 1170, 990, 642, 623, 617, 613),
        (100, 100, 100, 100, 100, 100, 100), (100, 100, 70, 64.3, 60, 55.4, 54.3),
        (40, 43.5, 47.6, 53.9, 57, 57.9, 58), (36.5, 36.9, 35.2, 35.2, 35.2, 35.2, 35.2), 0.03,
    ),
    13: Measured(
        (410, 395, 371, 295, 299, 291, 293), (465, 413, 382, 331, 296, 285, 293),
        (0, 0, 0, 0, 0, 0, 0), (0, 0, 0, 0, 0, 0, 0),
        (0, 0, 0, 0, 0, 0, 0), (0, 0, 0, 0, 0, 0, 0), 0.13,
    ),
    14: Measured(
        (756, 731, 706, 569, 548, 555, 552), (953, 821, 738, 607, 562, 554, 543),
        (0, 0, 0, 0, 0, 0, 0), (0, 0, 0, 0, 0, 0, 0),
        (0, 0, 0, 0, 0, 0, 0), (0, 0, 0, 0, 0, 0, 0), 0.14,
    ),
    15: Measured(
        (500, 459, 482, 438, 445, 448, 448), (388, 370, 308, 336, 282, 402, 411),
        (40, 57.1, 70, 80.2, 97.6, 85.3, 79.1), (40, 28.6, 20, 32.1, 48, 53.6, 58.4),
        (7.3, 12.1, 21.3, 28.9, 40, 44.4, 44.2), (5.4, 5.4, 5.4, 12.5, 24.7, 34.7, 36.9), 0.03,
    ),
    16: Measured(
        (591, 271, 306, 302, 265, 269, 269), (312, 280, 253, 223, 248, 253, 259),
        (0, 0, 0, 28.7, 50, 42.9, 34.3), (0, 0, 0, 0, 12.5, 21.4, 24.2),
        (2.2, 0, 2.6, 12.2, 22.2, 25.5, 25.5), (0, 0, 0, 0, 6.7, 14.6, 19.5), 0.03,
    ),
    17: Measured(
        (283, 271, 253, 223, 258, 259, 259), (311, 280, 253, 223, 212, 246, 249),
        (0, 0, 0, 0, 25, 25, 20), (0, 0, 0, 0, 0, 3.6, 10),
        (0, 0, 0, 0, 12.5, 16.7, 16.7), (0, 0, 0, 0, 0, 2.8, 9.1), 0.03,
    ),
    18: Measured(
        (283, 271, 253, 224, 211, 207, 208), (311, 279, 253, 224, 211, 208, 207),
        (0, 0, 0, 0, 0, 0, 0), (0, 0, 0, 0, 0, 0, 0),
        (0, 0, 0, 0, 0, 0, 0), (0, 0, 0, 0, 0, 0, 0), 0.03,
    ),}

MEASURED = {
    number: replace(
        measured,
        rate_mbps=LABORATORY[str(number)].down.rate_mbps,
        round_trip_ms=LABORATORY[str(number)].down.delay_ms + LABORATORY[str(number)].up.delay_ms,
        queue=LABORATORY[str(number)].down.queue_packets,
    )
    for number, measured in _MEASURED.items()
}


class Host:
    """An agent and `copies` of every path, each in a network of its own."""

    def __init__(self, paths: Sequence[Measured], *, copies: int = 20, seed: int = 1) -> None:
        config = Config(congestion=Congestion(pacing=False))  # nothing was measured with it
        found = rules(config.paths, config.groups)
        made = dimensions(config, algorithms=("cubic", "bbr"), host_congestion="cubic")
        self.store = EvidenceStore(made, groups=1, most_paths=10_000, half_life=600.0)
        self._rule = found[1]  # of all IPv4
        self.networks = Networks(found, self.store, most=10_000)
        self.guarding = Guarding(self.store)
        self.decider = Decider(made, self.store, self.networks, self.guarding, {})
        self.truth = [path for path in paths for _ in range(copies)]
        self._random = np.random.default_rng(seed)
        self._third = 0
        self._now = 0.0
        self.quarantines = 0
        self.decider.step(0.0)
        self.forget_counts()

    def forget_counts(self) -> None:
        """Counts begin anew: connections, their seconds, first windows' segments and lost ones, segments and again."""
        self.counts = np.zeros((len(self.truth), 6))

    def meet_siblings(self) -> None:
        """From now on every connection is with the next network beside those known so far."""
        self._third += 1

    def change(self, paths: Sequence[Measured]) -> None:
        """Every path becomes another one."""
        copies = len(self.truth) // len(paths)
        self.truth = [path for path in paths for _ in range(copies)]

    def _key(self, path: int) -> bytes:
        address = ip_network(f"{10 + path // 250}.{path % 250}.{self._third}.0/24").network_address
        return packed(address)

    def _holdout(self) -> Floats:
        """The share of every path's connections that are left alone."""
        keys = [self._key(path) for path in range(len(self.truth))]
        found = [self.store.find(key, 120, 0) for key in keys]
        networks = np.array([self.networks.above(key, self._rule) or 0 for key in keys])
        known = self.guarding.holdout(HOLDOUT, np.array([0 if row is None else row for row in found]), networks)
        unknown = self.guarding.unknown_holdout(HOLDOUT, networks)
        return np.where([row is None for row in found], unknown, known)

    def policy(self) -> tuple[Floats, Floats]:
        """The shares of windows (paths, 7) and algorithms (paths, 2) among treated connections, as they are now."""
        shares: list[list[Floats]] = [[], []]
        decisions, unknown = self.decider.decisions, self.decider.unknown
        for path in range(len(self.truth)):
            key = self._key(path)
            row = self.store.find(key, 120, 0)
            network = self.networks.above(key, self._rule)
            for number in range(2):
                if row is not None and row < len(decisions[number].chosen):
                    shares[number].append(decisions[number].probabilities[row])
                else:
                    shares[number].append(unknown[number].probabilities[network or 0])
        return np.array(shares[0], np.float64), np.array(shares[1], np.float64)

    def expected(self) -> Floats:
        """Mean time of treated connections over the oracle's, by path, as the policy is now."""
        windows, algorithms = self.policy()
        times = np.array([path.times for path in self.truth])
        mean = np.einsum("pc,pw,pcw->p", algorithms, windows, times)
        return mean / np.array([path.oracle for path in self.truth])

    def run(self, seconds: int, *, connections: int = 4) -> None:
        """So many connections a second on every path, a sample every second, a step every five."""
        for _ in range(seconds):
            self._now += 1.0
            self._connect(connections)
            self.decider.hurry(self._now)
            if self._now % 5 == 0:
                self.quarantines += sum(event.until is not None for event in self.guarding.step(self._now))
                rows, networks = self.decider.step(self._now)
                self.guarding.vouch(rows, self.networks.parents()[rows], networks)

    def _connect(self, connections: int) -> None:
        random, paths = self._random, len(self.truth)
        shares = self.policy()
        count = paths * connections
        path = np.repeat(np.arange(paths), connections)
        treated = random.random(count) >= self._holdout()[path]
        drawn = []
        for share in shares:
            ends = np.cumsum(share / share.sum(axis=1, keepdims=True), axis=1)[path]
            drawn.append(np.where(treated, (random.random(count)[:, None] >= ends[:, :-1]).sum(axis=1), 0))
        window, algorithm = drawn
        times, first, again = (
            np.array([getattr(one, name) for one in self.truth])[path, algorithm, window]
            for name in ("times", "first", "again")
        )
        spread = np.array([one.spread for one in self.truth])[path]
        # The mean is what was measured; a log-normal time's median is less.
        seconds = times * np.exp2(random.normal(0, spread) - np.log(2) * spread**2 / 2)
        size = np.array(LADDER)[window]
        lost = random.binomial(size, first)
        resent = np.maximum(random.binomial(SEGMENTS, np.minimum(again / (1 - again), 1.0)), 0)
        self._absorb(path, treated, (window, algorithm), (seconds, lost, resent))
        part = np.stack([np.ones(count), seconds, size, lost, SEGMENTS + resent, resent], axis=1)
        np.add.at(self.counts, path[treated], part[treated])

    def _absorb(self, path: Any, treated: Any, arms: tuple[Any, Any], found: tuple[Any, Any, Any]) -> None:
        (window, algorithm), (seconds, lost, again) = arms, found
        keys, rows = np.zeros(len(path), KEY), np.zeros(len(path), ROW)
        addresses = np.array([np.frombuffer(self._key(one), np.uint32) for one in range(len(self.truth))])
        keys["address"], keys["path_bits"] = addresses[path], 120
        keys["treatment"] = np.where(treated, LIMITS["TREATMENT_APPLIED"], LIMITS["TREATMENT_HOLDOUT"])
        keys["arms"][:, 0], keys["arms"][:, 1] = window, algorithm
        rows["closed"] = rows["opened"] = rows["first_windows"] = 1
        rows["first_window_segments"], rows["first_window_losses"] = np.array(LADDER)[window], lost
        rows["first_window_lossy"] = lost > 0
        rows["sent_segments"], rows["retransmitted_segments"] = SEGMENTS + again, again
        rows["rounds"] = 1
        rows["base_rtt_us"] = 1000 * np.array([one.round_trip_ms for one in self.truth])[path]
        rows["rtt_us"] = 1000 * np.array([one.round_trip_ms + one.queued_ms for one in self.truth])[path]
        # A connection shows some of the rate that there is.
        rate = 125_000 * np.array([one.rate_mbps for one in self.truth])[path]
        rows["rate"] = rate * self._random.uniform(0.5, 1.0, len(path))
        log_time = (np.log2(seconds * 1e6) * SCALE).astype(np.uint64)
        log_size = np.uint64(np.log2(100_000) * SCALE)
        sent = rows["sent"]
        sent["count"], sent["log_time"], sent["log_bytes"] = 1, log_time, log_size
        sent["log_time_squared"], sent["log_bytes_squared"] = log_time**2, log_size**2
        sent["log_time_bytes"] = log_time * log_size
        samples = self.store.absorb(keys, rows, generation=0, now=self._now)
        assert samples is not None
        self.guarding.absorb(samples)
