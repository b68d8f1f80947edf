"""The configuration: every key, its type, its bounds and its default.

The models are frozen; durations are floats of seconds, networks are `ipaddress` objects. `config_file.load` reads a
file into a `Config` and names the place of every mistake; `config/tcptuned.yaml` shows all keys with their meaning.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import model_validator

from agent.config_checks import Between, Conflict, refusal
from agent.config_extensions import Extensions, GroupExtensions, Sends
from agent.config_types import (
    AbsolutePath,
    Algorithm,
    Cgroup,
    Duration,
    FromList,
    GroupName,
    ListenAddress,
    Network,
    NonEmpty,
    PrometheusUrl,
    Section,
    Unique,
    listen_parts,
)
from agent.units import format_duration

__all__ = ["DEFAULT_GROUP", "MOST_GROUPS", "Config", "PathRule", "default"]

DEFAULT_GROUP = "default"
# Groups are a label in Prometheus and an index in the kernel: they must stay few.
MOST_GROUPS = 62

Ipv4Prefix = Annotated[int, Between(8, 32)]
Ipv6Prefix = Annotated[int, Between(16, 128)]
# The kernel side enforces the same cap; 250 segments are 365 KB in one burst.
LargestWindow = Annotated[int, Between(2, 250)]


class Attach(Section):
    """The cgroups whose connections are tuned; `auto` is the root of the cgroup v2 hierarchy."""

    cgroups: Annotated[tuple[Cgroup, ...], FromList, Unique, NonEmpty] = ("auto",)


class Web(Section):
    """The exporter and the status page."""

    listen: ListenAddress = "127.0.0.1:9877"
    config_file: AbsolutePath | None = None

    @property
    def host(self) -> str:
        """The address or name to bind, IPv6 without brackets."""
        return listen_parts(self.listen)[0]

    @property
    def port(self) -> int:
        """The TCP port; 0 lets the kernel choose."""
        return listen_parts(self.listen)[1]


class PathRule(Section):
    """Names, excludes, widens or narrows the paths of some networks.

    The prefix length of a path is the longer one of the rule's prefix and the matching network's own.
    """

    match: Annotated[tuple[Network, ...], FromList, Unique, NonEmpty]
    group: GroupName = DEFAULT_GROUP
    exclude: bool = False
    ipv4_prefix: Ipv4Prefix | None = None
    ipv6_prefix: Ipv6Prefix | None = None
    extensions: GroupExtensions | None = None


class Paths(Section):
    """What a path is, and how many are learnt."""

    max: Annotated[int, Between(100, 1_000_000)] = 20_000
    ipv4_prefix: Ipv4Prefix = 24
    ipv6_prefix: Ipv6Prefix = 48
    rules: Annotated[tuple[PathRule, ...], FromList] = ()


class Sampling(Section):
    """How often (seconds) the kernel's statistics are read, and the size of each of its two tables."""

    interval: Annotated[float, Duration(0.1, 60)] = 1.0
    rows: Annotated[int, Between(1024, 1_048_576)] = 16_384


class Control(Section):
    """The pace of decisions (seconds) and the share of connections left at the kernel's defaults."""

    interval: Annotated[float, Duration(0.1, 600)] = 5.0
    holdout: Annotated[float, Between(0, 0.5)] = 0.05
    half_life: Annotated[float, Duration(10, 86_400)] = 600.0
    lease: Annotated[float, Duration(1, 600)] = 30.0


class InitialWindow(Section):
    """The initial congestion window, in segments."""

    enabled: bool = True
    law: Literal["trial", "rfc9040"] = "trial"
    min: LargestWindow = 10
    max: LargestWindow = 80


class Congestion(Section):
    """The congestion control algorithms that may be chosen, and whether they may be held to a path's rate."""

    enabled: bool = True
    allowed: Annotated[tuple[Algorithm, ...], FromList, Unique, NonEmpty] = ("cubic", "bbr")
    pacing: bool = True


class Ack(Section):
    """When this host acknowledges: sooner (`delay`), and less often (`thinning`)."""

    enabled: bool = True
    delay: bool = True
    thinning: bool = False
    thinning_max: Annotated[int, Between(2, 255)] = 10

    @property
    def most_thinned(self) -> int:
        """How many segments one ACK may stand for at most; 0 where no ACK is dropped."""
        return self.thinning_max if self.enabled and self.thinning else 0


class Fleet(Section):
    """The Prometheus server whose knowledge of other hosts serves as a first guess; None asks nobody."""

    prometheus_url: PrometheusUrl | None = None


class Config(Section):
    """The whole configuration."""

    attach: Attach = Attach()
    web: Web = Web()
    state_dir: AbsolutePath = Path("/var/lib/tcptuned")
    paths: Paths = Paths()
    sampling: Sampling = Sampling()
    control: Control = Control()
    initial_window: InitialWindow = InitialWindow()
    congestion: Congestion = Congestion()
    ack: Ack = Ack()
    extensions: Extensions = Extensions()
    fleet: Fleet = Fleet()

    @property
    def groups(self) -> tuple[str, ...]:
        """The names of all groups in order of appearance; `default` is first."""
        return tuple(dict.fromkeys((DEFAULT_GROUP, *(rule.group for rule in self.paths.rules))))

    def sends(self, group: str) -> Sends:
        """What the extensions send in `group`: its own values where a rule gives them, else those of `extensions`."""
        own = (rule.extensions for rule in self.paths.rules if rule.group == group and rule.extensions)
        return self.extensions.sends(next(own, GroupExtensions()))

    @model_validator(mode="after")
    def _keys_agree(self) -> Self:
        if conflicts := [*_bound_conflicts(self), *_rule_conflicts(self.paths.rules)]:
            raise refusal(*conflicts)
        return self


def _bound_conflicts(config: Config) -> Iterator[Conflict]:
    lease, interval = config.control.lease, config.sampling.interval
    if lease < 2 * interval:
        yield Conflict(
            f"control.lease ({format_duration(lease)}) must be at least twice sampling.interval "
            f"({format_duration(interval)}), or policies lapse between two samples",
            ("control", "lease"),
            (("sampling", "interval"),),
        )
    window, timeout = config.initial_window, config.extensions.user_timeout
    if window.min > window.max:
        yield Conflict(
            f"initial_window.min ({window.min}) must not be above initial_window.max ({window.max})",
            ("initial_window", "min"),
            (("initial_window", "max"),),
        )
    if timeout.min > timeout.max:
        yield Conflict(
            f"the least user timeout ({format_duration(timeout.min)}) must not be above the greatest "
            f"({format_duration(timeout.max)})",
            ("extensions", "user_timeout", "min"),
            (("extensions", "user_timeout", "max"),),
        )


def _rule_conflicts(rules: tuple[PathRule, ...]) -> Iterator[Conflict]:
    networks: dict[Any, int] = {}
    groups = {DEFAULT_GROUP}
    with_extensions: dict[str, int] = {}
    for index, rule in enumerate(rules):
        place = ("paths", "rules", index)
        for position, network in enumerate(rule.match):
            first = networks.setdefault(network, index)
            if first != index:
                yield Conflict(f"{network} is in paths.rules[{first}] already; delete one", (*place, "match", position))
        if rule.group not in groups and len(groups) == MOST_GROUPS:
            yield Conflict(f"more than {MOST_GROUPS} groups, default included; join some", (*place, "group"))
        else:
            groups.add(rule.group)
        if rule.extensions is None:
            continue
        if rule.group == DEFAULT_GROUP:
            yield Conflict("needs a group of its own: give this rule a group", (*place, "extensions"))
        elif (first := with_extensions.setdefault(rule.group, index)) != index:
            yield Conflict(
                f"the group {rule.group} has its extensions in paths.rules[{first}] already; delete one",
                (*place, "extensions"),
            )


def default() -> Config:
    """The configuration of an installation that says nothing; the same as `config/tcptuned.yaml`."""
    return Config()
