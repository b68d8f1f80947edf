"""What the README points at is there, and what it must tell of is in it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from agent.cli import command_line
from agent.config import Config

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "README.md").read_text(encoding="utf-8")
PROSE = re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL)
LINKS = re.findall(r"\]\(([^)]+)\)", PROSE)


def _anchor(heading: str) -> str:
    """What GitHub makes of a heading."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


ANCHORS = {_anchor(heading) for heading in re.findall(r"^#+ (.*)$", PROSE, re.MULTILINE)}


def test_there_are_links_to_look_at() -> None:
    assert len(LINKS) > 10


@pytest.mark.parametrize("link", sorted(set(LINKS)))
def test_links_lead_somewhere(link: str) -> None:
    path, _, anchor = link.partition("#")
    if link.startswith("https://"):
        return
    assert not path or (ROOT / path).exists()
    assert path or anchor in ANCHORS


def test_files_and_commands_that_it_names_exist() -> None:
    for name in re.findall(r"`((?:agent|bpf|controllers|config|grafana|tests)/[\w./-]+)`", PROSE):
        assert (ROOT / name).exists(), name
    (commands,) = (set(action.choices) for action in command_line()._actions if isinstance(action.choices, dict))
    named = set(re.findall(r"(?:`|\./run )(?:tcptuned |\./run )(\w+)", TEXT))
    assert named & commands == named
    assert {"status", "explain", "doctor", "check", "report"} <= commands


def test_sections_of_the_configuration_that_it_names_exist() -> None:
    for section, key in re.findall(r"`([a-z_]+)\.([a-z_]+)`", PROSE):
        if section in Config.model_fields:
            model = Config.model_fields[section].annotation
            assert model is not None
            assert key in model.model_fields, f"{section}.{key}"
