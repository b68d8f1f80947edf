"""A real Prometheus scrapes a real agent over TLS with a password; this host's commands still reach it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from certificates import AUTHORITY, hashed, issue, web_config
from running import RunningAgent, configuration, require_root, until
from scraping import prometheus

from agent import config_file
from agent.connect import connect
from agent.lab.lab import Lab
from agent.lab.spec import PathSpec


class GuardedAgent(RunningAgent):
    """Asked over its socket, as commands do, since its port wants a password."""

    def __init__(self, lab: Lab, config: Path) -> None:
        self._config = config_file.load(config)
        super().__init__(lab, config)

    def get(self, path: str) -> bytes:
        """The body of an answer."""
        connection = connect(self._config, 5)
        try:
            connection.request("GET", path)
            return connection.getresponse().read()
        finally:
            connection.close()


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    require_root()
    with Lab([PathSpec.symmetric("path", rate_mbps=100, delay_ms=2)]) as opened:
        yield opened


def test_prometheus_scrapes_over_tls_with_a_password_and_a_certificate(lab: Lab, tmp_path: Path) -> None:
    AUTHORITY.cert_pem.write_to_path(str(tmp_path / "ca.crt"))
    client = AUTHORITY.issue_cert("prometheus")
    client.private_key_and_cert_chain_pem.write_to_path(str(tmp_path / "client.pem"))
    section = {**issue(tmp_path), "client_auth_type": "RequireAndVerifyClientCert", "client_ca_file": "ca.crt"}
    # As dear as people make it: were it checked for every scrape, scrapes every second would be slow.
    web = web_config(tmp_path, tls_server_config=section, basic_auth_users={"prometheus": hashed("right", 12)})
    config = configuration(lab, tmp_path, web={"config_file": str(web)})
    pem = str(tmp_path / "client.pem")
    job = {
        "scheme": "https",
        "tls_config": {"ca_file": str(tmp_path / "ca.crt"), "cert_file": pem, "key_file": pem},
        "basic_auth": {"username": "prometheus", "password": "right"},
    }
    with GuardedAgent(lab, config) as agent, prometheus(lab, tmp_path, **job) as asked:
        lab.fetch("path", size=100_000, count=23, concurrency=4)
        opened = 'tcptuned_connections_opened_total{group="default",side="passive"}'
        until(lambda: asked.values(opened) == [23.0], 10, "the connections did not reach Prometheus")
        # A new certificate while it runs.
        issue(tmp_path)
        until(lambda: "certificate is renewed" in agent.log(), 10, "the certificate is not renewed")
        lab.fetch("path", size=100_000, count=23, concurrency=4)
        until(lambda: asked.values(opened) == [46.0], 10, "no scrape after the certificate changed")
        assert asked.values("min_over_time(up[1m])") == [1.0]
        [seconds] = asked.values("min_over_time(scrape_duration_seconds[1m])")
        assert seconds < 0.2
        # A reload with a broken pair changes nothing.
        (tmp_path / "server.key").write_text("", encoding="utf-8")
        agent.process.send_signal(signal.SIGHUP)
        assert agent.settled("config_last_reload_successful", 0) == 0
        assert "tls_server_config.key_file: " in agent.log()
        scraped = asked.values("count_over_time(up[5m])")[0]
        until(lambda: asked.values("sum_over_time(up[5m])")[0] >= scraped + 3, 10, "no scrapes after the reload")
        # The page of an agent that has seen traffic, and what all of this costs it.
        page = agent.get("/").decode()
        assert "group default" in page
        assert page.count("/api/v1/paths?address=") == 1
        print(f"{agent.rss_kb() / 1024:.1f} MB")
        assert agent.rss_kb() < 70 * 1024
        command = [sys.executable, "-m", "agent", "status", "--json", "--config", str(config)]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert ended.returncode == 0, ended.stderr
        assert json.loads(ended.stdout)["ready"] is True


def test_prometheus_without_the_password_sees_nothing(lab: Lab, tmp_path: Path) -> None:
    web = web_config(tmp_path, basic_auth_users={"prometheus": hashed("right")})
    config = configuration(lab, tmp_path, web={"config_file": str(web)})
    wrong = {"username": "prometheus", "password": "wrong"}
    with GuardedAgent(lab, config), prometheus(lab, tmp_path, up=0.0, basic_auth=wrong) as asked:
        until(lambda: asked.values("sum(count_over_time(up[1m]))") >= [3.0], 20, "Prometheus does not go on")
        assert asked.values("max_over_time(up[1m])") == [0.0]
        assert asked.values('count({__name__=~"tcptuned_.*"})') == []
