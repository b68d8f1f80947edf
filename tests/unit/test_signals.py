"""Signals reach the main loop, whatever they interrupt."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from agent.signals import Signals


@pytest.fixture
def signals() -> Iterator[Signals]:
    numbers = (signal.SIGUSR1, signal.SIGUSR2)
    before = [signal.getsignal(number) for number in numbers]
    found = Signals()
    found.install(numbers)
    yield found
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def test_each_counts_once(signals: Signals) -> None:
    assert signals.wait(0.0) == frozenset()
    for number in (signal.SIGUSR1, signal.SIGUSR2, signal.SIGUSR1):
        os.kill(os.getpid(), number)
    assert signals.wait(5.0) == {signal.SIGUSR1, signal.SIGUSR2}
    assert signals.wait(0.0) == frozenset()


def test_one_ends_the_waiting(signals: Signals) -> None:
    threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1)).start()
    began = time.monotonic()
    assert signals.wait(30.0) == {signal.SIGUSR1}
    assert time.monotonic() - began < 10.0


def test_very_many_hang_nobody() -> None:
    """A handler that sets the Event that the loop waits for never returns from one of these."""
    script = """
import signal
from agent.signals import Signals
signals = Signals()
signals.install([signal.SIGUSR1, signal.SIGTERM])
print("ready", flush=True)
while signal.SIGTERM not in signals.wait(0.0001):
    pass
print("ended")
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        until = time.monotonic() + 2.0
        while time.monotonic() < until:
            process.send_signal(signal.SIGUSR1)
        process.terminate()
        try:
            out, _ = process.communicate(timeout=20)
        finally:
            process.kill()
    assert out == "ended\n"
