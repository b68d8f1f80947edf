"""Completion, by the shells themselves."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from agent.cli import command_line
from agent.completion import SHELLS, completion_script

# Calls the completion as bash does when Tab is pressed at the end of the words in $@.
BASH = r"""
source "$1"; shift
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMP_LINE="$*"; COMP_POINT=${#COMP_LINE}
[[ $(complete -p tcptuned) =~ -F\ ([a-z_]+) ]] || exit 3
"${BASH_REMATCH[1]}" tcptuned "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
((${#COMPREPLY[@]} == 0)) || printf '%s\n' "${COMPREPLY[@]}"
"""


def _asked(shell: str, folder: Path, *words: str) -> list[str]:
    """What `shell` offers at the end of `words`."""
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is missing")
    script = folder / f"completion.{shell}"
    script.write_text(completion_script(command_line(), shell))
    if shell == "bash":
        command = ["bash", "--norc", "-c", BASH, "bash", str(script), *words]
    else:
        command = ["fish", "--no-config", "-c", f"source {script}; complete -C '{' '.join(words)}'"]
    home = {**os.environ, "HOME": str(folder)}
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=folder, env=home)
    assert done.stderr == ""
    return [line.split("\t")[0] for line in done.stdout.splitlines()]


@pytest.mark.parametrize("shell", ["bash", "fish"])
def test_commands_options_choices_and_files(tmp_path: Path, shell: str) -> None:
    (tmp_path / "mine.yaml").touch()
    (tmp_path / "mine").mkdir()
    assert _asked(shell, tmp_path, "tcptuned", "st") == ["status"]
    assert _asked(shell, tmp_path, "tcptuned", "status", "--wa") == ["--watch"]
    assert _asked(shell, tmp_path, "tcptuned", "completion", "z") == ["zsh"]
    files = _asked(shell, tmp_path, "tcptuned", "check", "--config", "mine")
    assert {name.rstrip("/") for name in files} == {"mine", "mine.yaml"}
    assert _asked(shell, tmp_path, "tcptuned", "bench", "pa") == ["paper"]
    assert _asked(shell, tmp_path, "tcptuned", "nonsense-") == []


def test_zsh_reads_it_without_a_word(tmp_path: Path) -> None:
    if shutil.which("zsh") is None:
        pytest.skip("zsh is missing")
    script = tmp_path / "_tcptuned"
    script.write_text(completion_script(command_line(), "zsh"))
    code = 'autoload -Uz compinit && compinit -D -u && eval "$(<$0)" && print $_comps[tcptuned]'
    done = subprocess.run(
        ["zsh", "-f", "-c", code, str(script)], capture_output=True, text=True, check=False,
        env={**os.environ, "HOME": str(tmp_path)},
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "_shtab_tcptuned\n", "")
    assert '"--watch[' in script.read_text()


def test_the_command_line_offers_the_shells_that_are_made() -> None:
    for shell in SHELLS:
        assert command_line().parse_args(["completion", shell]).shell == shell
