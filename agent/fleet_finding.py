"""What `tcptuned doctor` finds about the fleet's Prometheus: whether it answers, and what it knows."""

from __future__ import annotations

from collections.abc import Iterator

from agent import features
from agent.config import Config
from agent.dimensions import dimensions
from agent.errors import FleetError
from agent.finding import Check, Finding
from agent.fleet import read
from agent.fleet_answer import keys
from agent.fleet_http import shown

__all__ = ["FLEET_CHECKS"]

_NAME = "fleet"
_ALONE = "this host learns alone"


def _fleet(config: Config) -> Iterator[Finding]:
    url = config.fleet.prometheus_url
    if url is None:
        yield Finding(_NAME, "ok", "off", f"{_ALONE} (fleet.prometheus_url)")
        return
    host = features.host_congestion()
    known_arms = dimensions(
        config, algorithms=features.algorithms(), host_congestion=host, paces=features.tells_pacing()
    )
    wanted = keys(config.groups, known_arms, host)
    try:
        known = len(read(url, wanted))
    except FleetError as error:
        yield Finding(_NAME, "limited", error.reason.replace("_", " "), f"{_ALONE}: {shown(url)}: {error}")
    else:
        if known:
            yield Finding(_NAME, "ok", f"{known} of {len(wanted)} arms known", f"{shown(url)} tells where to begin")
        else:
            why = "it needs the recording rules of config/prometheus/rules.yml, and agents that it scrapes"
            yield Finding(_NAME, "limited", "nothing known", f"{_ALONE}: {shown(url)} answers, but {why}")


FLEET_CHECKS: tuple[tuple[str, Check], ...] = ((_NAME, _fleet),)
