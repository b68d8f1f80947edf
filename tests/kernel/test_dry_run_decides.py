"""A dry run on real connections: decided and exported, and not a window changed."""

from __future__ import annotations

from pathlib import Path

from running import RunningAgent, configuration, require_root, until

from agent.lab.lab import Lab
from agent.lab.spec import PathSpec


def test_all_is_decided_and_nothing_applied(tmp_path: Path) -> None:
    require_root()
    with (
        Lab([PathSpec.symmetric("path", rate_mbps=100, delay_ms=5)]) as lab,
        RunningAgent(lab, configuration(lab, tmp_path), arguments=["--dry-run"]) as agent,
    ):
        lab.fetch("path", size=100_000, count=17)
        assert agent.settled("connections_observed_total", 17) == 17
        address = str(lab.address("path"))
        until(lambda: agent.explain(address)["known"], 5.0, "nothing learnt")

        def windows() -> list[dict[str, float]]:
            found: list[dict[str, float]] = agent.explain(address)["dimensions"][0]["arms"]
            return found

        until(lambda: windows()[1]["probability"] > 0, 10.0, "nothing decided")
        until(lambda: round(windows()[0]["connections"]) == 17, 5.0, "the last ones are not evidence")
        assert sum(arm["connections"] for arm in windows()[1:]) == 0
        lab.fetch("path", size=100_000, count=13)
        assert agent.settled("connections_observed_total", 30) == 30
        assert agent.value("connections_treated_total") == 0
        assert agent.value("option_sets_total") == 0
        assert agent.value("dry_run") == 1
        assert agent.value("paths") == 1
        assert agent.explain(address)["applied"] == "nothing: this is a dry run"
