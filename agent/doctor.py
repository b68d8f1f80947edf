"""What `tcptuned doctor` prints: what this host can do, and what follows from it."""

from __future__ import annotations

import json
from dataclasses import asdict

from agent.bpf_findings import BPF_CHECKS
from agent.config import Config
from agent.finding import Finding, examine
from agent.fleet_finding import FLEET_CHECKS
from agent.host_findings import HOST_CHECKS

__all__ = ["show_doctor"]

_STYLES = {"ok": "green", "limited": "yellow", "missing": "bold red"}
_DETAIL_LINES = 30  # of a compiler's text; the last ones


def show_doctor(config: Config, *, as_json: bool) -> int:
    """Prints every finding; returns 0 if the agent can run here, 1 if not. Nothing is left changed."""
    findings = examine(config, (*HOST_CHECKS, *BPF_CHECKS, *FLEET_CHECKS))
    can_run = all(finding.state != "missing" for finding in findings)
    if as_json:
        print(json.dumps({"can_run": can_run, "findings": [asdict(finding) for finding in findings]}))
    else:
        _print(findings, can_run=can_run)
    return 0 if can_run else 1


def _print(findings: list[Finding], *, can_run: bool) -> None:
    # --json does without.
    from rich.table import Table
    from rich.text import Text

    from agent.terminal import open_console

    console = open_console()
    table = Table(box=None, pad_edge=False)
    for name in ("", "what", "found", "so"):
        table.add_column(name, overflow="fold", no_wrap=not name)
    for finding in findings:
        table.add_row(
            Text(finding.state, style=_STYLES[finding.state]), finding.name, finding.value, finding.consequence
        )
    console.print(table)
    for finding in findings:
        if finding.detail:
            console.print(f"\n{finding.name}:")
            console.print("\n".join(finding.detail.splitlines()[-_DETAIL_LINES:]))
    missing = sum(finding.state == "missing" for finding in findings)
    limited = sum(finding.state == "limited" for finding in findings)
    verdict = "the agent can run here" if can_run else f"the agent cannot run here: {missing} missing"
    console.print(f"\n{verdict}" + (f", {limited} limited or not visible" if limited else ""))
