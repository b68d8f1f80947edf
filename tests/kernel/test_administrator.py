"""An administrator sets the congestion control while the agent runs: for real, in the laboratory's own namespace."""

from __future__ import annotations

import json
import signal
from pathlib import Path

from running import RunningAgent, configuration, require_root, until

from agent.lab.enter import in_namespace
from agent.lab.lab import Lab
from agent.lab.spec import PathSpec

SETTING = Path("/proc/sys/net/ipv4/tcp_congestion_control")


def test_what_is_set_is_noticed_respected_and_shown(tmp_path: Path) -> None:
    require_root()
    with Lab([PathSpec.symmetric("path", rate_mbps=100, delay_ms=5)]) as lab:
        before = in_namespace(lab.server_namespace, SETTING.read_text).strip()
        others = [name for name in ("reno", "cubic", "bbr") if name != before]
        allowed = {"allowed": ["reno", "cubic", "bbr"]}
        config = configuration(lab, tmp_path, congestion=allowed, control={"holdout": 0})
        with RunningAgent(lab, config) as agent:
            lab.fetch("path", size=100_000, count=37)
            assert agent.settled("connections_treated_total", 37) == 37
            chosen = agent.value("option_sets_total", option="congestion_control")
            assert chosen > 0
            assert agent.value("administrator_override", dimension="congestion") == 0

            in_namespace(lab.server_namespace, lambda: SETTING.write_text(others[0]))
            until(lambda: agent.value("administrator_override", dimension="congestion") == 1, 5.0, "not noticed")
            lab.fetch("path", size=100_000, count=23)
            # From nought: other arms, other sums.
            assert agent.settled("connections_treated_total", 23) == 23
            # Treated in the other dimensions, and not taken for connections whose application chose.
            assert agent.value("option_sets_total", option="congestion_control") == chosen
            assert agent.value("connections_untouched_total", reason="own_congestion") == 0
            assert agent.value("option_sets_total", option="initial_window") > 0
            facts = json.loads(agent.get("/api/v1/status"))
            assert (facts["override"]["before"], facts["override"]["after"]) == (before, others[0])
            journal = (tmp_path / "state" / "journal.jsonl").read_text().splitlines()
            entries = [json.loads(line) for line in journal]
            assert [each["after"] for each in entries if each["path"] == "this host"] == [others[0]]

            agent.process.send_signal(signal.SIGHUP)
            until(lambda: agent.value("administrator_override", dimension="congestion") == 0, 5.0, "not reloaded")
            lab.fetch("path", size=100_000, count=37)
            until(
                lambda: agent.value("option_sets_total", option="congestion_control") > chosen, 5.0, "not tuned again"
            )
