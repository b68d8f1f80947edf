"""The manual pages: whole, without a warning from man, and what the program prints."""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from agent.cli import command_line, main
from agent.config import Config
from agent.config_schema import config_schema
from agent.config_words import DEFAULT_FILE
from agent.manual import PAGES

FOLDER = DEFAULT_FILE.with_name("man")


def _man(*arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("man") is None:
        pytest.skip("man is missing; Debian's package man-db has it")
    # A pager would wait, and words that are broken at the end of a line are not found.
    plain = {**os.environ, "MANWIDTH": "1000", "MAN_KEEP_FORMATTING": "", "LC_ALL": "C.UTF-8"}
    return subprocess.run(["man", *arguments], capture_output=True, text=True, check=False, env=plain)


def _text(page: str) -> str:
    done = _man("--local-file", "--pager=cat", "--no-hyphenation", str(FOLDER / page))
    assert done.returncode == 0
    return re.sub(".\x08|\x1b\\[[0-9;]*m", "", done.stdout)


@pytest.mark.parametrize("page", PAGES)
def test_the_file_is_what_the_program_prints(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    """If they differ: tcptuned man PAGE > config/man/PAGE."""
    assert main(["man", page]) == 0
    assert (FOLDER / page).read_text(encoding="utf-8") == capsys.readouterr().out


def test_there_are_no_other_pages() -> None:
    assert {path.name for path in FOLDER.iterdir()} == set(PAGES)
    for page in PAGES:
        assert command_line().parse_args(["man", page]).page == page


@pytest.mark.parametrize("page", PAGES)
def test_man_has_nothing_to_say_about_it(page: str) -> None:
    done = _man("--warnings=all", "--local-file", "--encoding=UTF-8", "--troff-device=utf8", str(FOLDER / page))
    assert (done.returncode, done.stderr) == (0, "")


def test_man_would_have() -> None:
    """The test above can fail."""
    broken = subprocess.run(
        ["groff", "-man", "-ww", "-z", "-Tutf8"], input=".TH A 8\n.SH B\n.NOSUCH\n", capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    assert "NOSUCH" in broken.stderr


def _commands(parser: argparse.ArgumentParser, above: str = "") -> Iterator[tuple[str, argparse.ArgumentParser]]:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, sub in action.choices.items():
                yield f"{above}{name}", sub
                yield from _commands(sub, f"{above}{name} ")


def test_every_command_and_option_is_in_it() -> None:
    text = _text("tcptuned.8")
    # A positional follows the command's name: in capitals, or its choices.
    heading = r"^   (\w+(?: [a-z]+)*)(?: [A-Z]+| \w+\|\S+)?\n(.*?)(?=^   \w|^\w)"
    parts = dict(re.findall(heading, text, re.MULTILINE | re.DOTALL))
    found = dict(_commands(command_line()))
    assert len(found) > 10
    for name, parser in found.items():
        part = parts[name]
        assert parser.description
        assert parser.description in part
        for action in parser._actions:
            for option in action.option_strings:
                if action.dest != "help":
                    assert re.search(rf"(^|\s){re.escape(option)}\b", part), (name, option)
                    assert action.help
                    assert re.sub(r"\s+", " ", action.help) in re.sub(r"\s+", " ", part)


def _keys(properties: dict[str, Any], above: str = "") -> Iterator[str]:
    for name, part in properties.items():
        if inner := part.get("properties"):
            yield from _keys(inner, f"{above}{name}.")
        else:
            yield f"{above}{name}"
            if inner := part.get("items", {}).get("properties"):
                yield from _keys(inner, f"{above}{name}[].")


def test_every_key_and_default_is_in_it() -> None:
    text = _text("tcptuned.yaml.5")
    found = list(_keys(config_schema()["properties"]))
    assert {key.split(".")[0] for key in found} == set(Config.model_fields)
    assert len(found) > 30
    for key in found:
        assert re.search(rf"^\s+{re.escape(key)}( \(default: .*\))?$", text, re.MULTILINE), key
    for key, default in (("control.holdout", "0.05"), ("sampling.interval", "1s"), ("extensions.exid", "0xE7C9")):
        assert re.search(rf"^\s+{re.escape(key)} \(default: {default}\)$", text, re.MULTILINE), key
    assert "evidence this old counts half" in text
