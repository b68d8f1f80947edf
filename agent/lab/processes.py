"""The processes of a laboratory: started with a control channel, ended for certain."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agent.child import environment, module_command
from agent.lab.channel import Channel

__all__ = ["Processes", "enter_command"]

_END = 3.0  # seconds a process may take to end by itself before it is killed


class Processes:
    """Own processes end when their channel closes; programs started for a user are told to end."""

    def __init__(self) -> None:
        self._own: list[subprocess.Popen[bytes]] = []
        self._programs: list[subprocess.Popen[Any]] = []
        self._channels: list[Channel] = []

    def start(self, module: str, enter: Sequence[str] = (), descriptors: Sequence[int] = ()) -> Channel:
        """Starts a module of the laboratory as a program; its arguments are the descriptors of its control channel and
        of whatever else is handed over. `enter` goes before the command. The answer is this process's end."""
        ours, theirs = Channel.pair()
        self._channels.append(ours)
        with theirs:
            passed = [theirs.fileno(), *descriptors]
            command = [*enter, *module_command(module, *map(str, passed))]
            # A group of its own: an interrupt from the terminal is for the parent alone, which then ends them in order
            self._own.append(
                subprocess.Popen(
                    command, pass_fds=passed, env=environment(), stdin=subprocess.DEVNULL, process_group=0
                )
            )
        return ours

    def run(self, command: Sequence[str], options: Mapping[str, Any]) -> subprocess.Popen[Any]:
        """Starts a user's program; `options` go to subprocess.Popen."""
        program: subprocess.Popen[Any] = subprocess.Popen(command, **{"env": environment(), **options})
        self._programs.append(program)
        return program

    def close(self) -> None:
        """Ends all of them and waits until they have gone."""
        for channel in self._channels:
            channel.close()
        for program in self._programs:
            program.terminate()
        for process in (*self._own, *self._programs):
            try:
                process.wait(_END)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def enter_command(namespace: str, group: Path) -> list[str]:
    """What goes before a command to run it in a namespace and a cgroup."""
    return module_command("agent.lab.enter", "--netns", namespace, "--cgroup", str(group), "--")
