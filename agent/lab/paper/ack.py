"""Experiment `ack`: what the sender of the data gains or loses when it asks for fewer ACKs.

The server's agent asks in its SYN-ACK, the client's agent grants: an ACK at least every so many segments or every
fraction of the RTT. Measured are a bulk download (goodput, ACKs a data packet) and objects of 100 KB (the time they
take), on the emulation scenarios of Pantheon, on a long path and on one that loses 1 %.
"""

from __future__ import annotations

import random
import time
from collections.abc import Mapping
from dataclasses import dataclass

from agent.errors import LabError
from agent.lab.findings.model import Found, Progress
from agent.lab.lab import Lab, PathCounters
from agent.lab.paper.ack_result import STRATEGIES, Measured, ack_figures, ack_table, pooled_table, verdicts
from agent.lab.paper.agents import Agents, both_agents
from agent.lab.paths import load_paths
from agent.lab.side_by_side import batches
from agent.lab.spec import FULL_PACKET, LinkSpec, PathSpec
from agent.lab.workload import Completion, Transfer

__all__ = ["ack_links", "loads", "measure_ack"]

_OBJECT = 100_000  # bytes
_OBJECT_RTTS = 5  # about what an object takes
_TIMEOUT = 60.0  # seconds for an object, and its time if it fails
_LOAD = 0.5  # of the link, at most, by objects
_MOST_OBJECTS = 8  # at a time
_ENDLESS = 1 << 50  # bytes
_BEFORE_CUT = 0.2  # seconds
_GRANTED = 0.8  # of the connections that ask, at least: a SYN-ACK that is sent again goes without options
_QUICK = ("scenario 18", "long", "lossy")


@dataclass(frozen=True)
class _Link:
    """A path, and the congestion control of its downloads."""

    spec: PathSpec
    congestion: str = "cubic"

    @property
    def concurrency(self) -> int:
        """Objects at a time that leave the link half empty: their time is then theirs and not the queue's."""
        rate, rtt = self.spec.down.rate_mbps or 0.0, 2 * self.spec.down.delay_ms / 1000
        return max(1, min(_MOST_OBJECTS, int(_LOAD * rate * 1e6 * _OBJECT_RTTS * rtt / (8 * _OBJECT))))


def ack_links() -> dict[str, _Link]:
    """What is measured, by name: the scenarios, a long path and a lossy one."""
    links = {f"scenario {number}": _Link(spec) for number, spec in load_paths().items()}
    links["long"] = _Link(PathSpec.symmetric("long", rate_mbps=50, delay_ms=50, queue_packets=400))
    # By bbr: what cubic gets through there is a matter of luck.
    lossy = PathSpec.symmetric("lossy", rate_mbps=50, delay_ms=20, queue_packets=200, loss=0.01)
    links["lossy"] = _Link(lossy, "bbr")
    return links


def loads(links: Mapping[str, _Link]) -> dict[str, float]:
    """Mb/s of every link, the slowest first."""
    rates = {name: link.spec.down.rate_mbps or 0.0 for name, link in links.items()}
    return dict(sorted(rates.items(), key=lambda item: item[1]))


def measure_ack(progress: Progress, *, quick: bool) -> Found:
    """Runs it: about a minute and a half when `quick`, else half an hour. Raises LabError."""
    began = time.monotonic()
    rounds, seconds = (1, 3.0) if quick else (4, 5.0)
    links = {name: link for name, link in ack_links().items() if not quick or name in _QUICK}
    together = batches(loads(links))
    found = {name: {strategy: Measured() for strategy in STRATEGIES} for name in links}
    progress.begin("ack", rounds * len(STRATEGIES) * len(together))
    order = list(STRATEGIES)
    shuffle = random.Random(1).shuffle
    with Lab([link.spec for link in links.values()]) as lab, both_agents(lab) as agents:
        for _ in range(rounds):
            for batch in together:
                shuffle(order)
                for strategy in order:
                    progress.step(f"{', '.join(batch)}: {strategy}")
                    _ask_for(agents, strategy)
                    _measure(lab, {name: links[name] for name in batch}, seconds, strategy, found)
        asking = sum(
            len(measured.times) + len(measured.mbps)
            for of_link in found.values() for strategy, measured in of_link.items() if STRATEGIES[strategy]
        )  # fmt: skip
        agents.check_granted("ack_request", round(_GRANTED * asking))
    return Found(
        name="ack",
        title="ACKs asked for by the sender of the data",
        setting=f"{rounds} rounds, strategies in random order: a download of {seconds:g} s by cubic (by bbr where 1 % "
        f"is lost), then objects of 100 KB for {seconds:g} s that fill at most half of the link. Scenarios are the "
        "eighteen of Pantheon (agent/lab/paths.yaml). The server's agent asks, the client's grants.",
        tables=[pooled_table(found), *(ack_table(f"{name}: {_text(links[name])}", of) for name, of in found.items())],
        figures=ack_figures(found),
        notes=[
            "ACKs (packets of the way back for one of data), goodput and times are ratios to the kernel's own ACKs, "
            "with 95 % intervals. For all links together an object's time counts as a multiple of its link's median.",
            f"An object that failed counts as {_TIMEOUT:g} s.",
            "Overflow: the share of a download's packets that found the queue full. Fewer ACKs hide from cubic's slow "
            "start (HyStart) that the queue fills, so that it ends with more losses.",
            "The kernel acknowledges every second segment, and nothing makes it do so more often: 'every segment' can "
            "only shorten the delayed ACK. ACKs that carry SACK all pass, so that lossy links keep most of theirs.",
            *verdicts(found),
        ],
        seconds=round(time.monotonic() - began, 1),
    )


def _ask_for(agents: Agents, strategy: str) -> None:
    asked = STRATEGIES[strategy]
    if asked is None:
        agents.set()
        return
    segments, divisor = asked
    agents.set(
        client={"ack": {"enabled": True, "delay": False, "thinning": True, "thinning_max": 100}},
        server={"extensions": {"ack_request": {"send": {"segments": segments, "rtt_divisor": divisor}}}},
    )


def _measure(
    lab: Lab, links: Mapping[str, _Link], seconds: float, strategy: str, found: Mapping[str, Mapping[str, Measured]]
) -> None:
    """A download and objects on each of some links at the same time."""
    lab.flush_metrics()  # nothing is remembered of the strategy before
    before = lab.counters().paths
    downloads = {
        name: lab.start(
            Transfer(
                path=link.spec.name, size=_ENDLESS, seconds=seconds, cut=True, server={"congestion": link.congestion}
            )
        )
        for name, link in links.items()
    }
    # Before the cut: what still arrives afterwards is answered by resets.
    time.sleep(seconds - _BEFORE_CUT)
    after = lab.counters().paths
    for name, job in downloads.items():
        [done] = job.wait()
        path = links[name].spec.name
        found[name][strategy].mbps.append(_sound(done).mbps)
        found[name][strategy].acks.append(_acks(before[path], after[path]))
        found[name][strategy].overflow.append(_overflow(before[path], after[path]))
    time.sleep(max(_drain(link.spec.down) for link in links.values()))
    lab.flush_metrics()
    objects = {
        name: lab.start(
            Transfer(
                path=link.spec.name, size=_OBJECT, count=None, seconds=seconds, concurrency=link.concurrency,
                timeout=_TIMEOUT,
            )
        )
        for name, link in links.items()
    }
    for name, job in objects.items():
        # One that never came must not end half an hour of measuring, nor be left out.
        found[name][strategy].times += [done.seconds if done.error is None else _TIMEOUT for done in job.wait()]


def _sound(done: Completion) -> Completion:
    if done.error:
        raise LabError(f"{done.path}: a transfer failed: {done.error}")
    return done


def _acks(before: PathCounters, after: PathCounters) -> float:
    """Packets that the client sent, for one that it got."""
    sent = after.up.packets_offered - before.up.packets_offered
    return sent / (after.down.packets_delivered - before.down.packets_delivered)


def _overflow(before: PathCounters, after: PathCounters) -> float:
    """The share of the packets to the client that found the queue full, or were policed."""
    dropped = after.down.packets_dropped_queue - before.down.packets_dropped_queue
    return dropped / (after.down.packets_offered - before.down.packets_offered)


def _drain(link: LinkSpec) -> float:
    """Seconds until the queue is empty, however full it was."""
    queue = 0.0 if link.policer else (link.queue_packets or 0) * FULL_PACKET * 8e-6 / (link.rate_mbps or 1.0)
    return queue + 2 * link.delay_ms / 1000 + _BEFORE_CUT


def _text(link: _Link) -> str:
    """What people read."""
    down, up = link.spec.down, link.spec.up
    parts = [f"{down.rate_mbps:g} Mb/s", f"{2 * down.delay_ms:g} ms RTT"]
    parts.append("policed" if down.policer else f"queue of {down.queue_packets} packets")
    if down.loss:
        parts.append(f"{down.loss:.2%} loss")
    if up.ack_burst:
        parts.append(f"ACKs in bursts every {up.ack_burst.period_ms:g} ms")
    return ", ".join([*parts, link.congestion])
