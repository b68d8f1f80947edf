"""The laboratory's side of its client: transfers under way (`Job`) and the thread that collects what is reported."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from agent.errors import LabError
from agent.lab.channel import Channel
from agent.lab.workload import Completion, Transfer

__all__ = ["Job", "Jobs", "Progress", "wait_all"]

Progress = Callable[[Completion], None]


class Job:
    """One transfer under way."""

    def __init__(self, number: int, transfer: Transfer, control: Channel, progress: Progress | None) -> None:
        self.transfer = transfer
        self._number = number
        self._control = control
        self._progress = progress
        self._completions: list[Completion] = []
        self._over = threading.Event()
        self._failure: str | None = None

    @property
    def done(self) -> bool:
        """Whether all its objects have ended."""
        return self._over.is_set()

    def completions(self) -> list[Completion]:
        """What has been reported so far, in the order of completion."""
        return list(self._completions)

    def stop(self) -> None:
        """Starts no more objects and cuts those under way; `wait` then returns soon."""
        if not self.done:
            self._control.send({"stop": self._number})

    def wait(self, timeout: float = 300.0) -> list[Completion]:
        """All completions. Raises LabError after `timeout` seconds (the transfer is stopped) or if the client ended."""
        if not self._over.wait(timeout):
            self.stop()
            raise LabError(f"{self.transfer}: not done within {timeout:g} s")
        if self._failure:
            raise LabError(self._failure)
        return self.completions()

    def report(self, completion: Completion) -> None:
        """Called by the collecting thread for every object."""
        self._completions.append(completion)
        if self._progress:
            self._progress(completion)

    def end(self, failure: str | None = None) -> None:
        """Called by the collecting thread once."""
        self._failure = failure
        self._over.set()


class Jobs:
    """Starts transfers on the client behind `control` and hands its reports to them."""

    def __init__(self, control: Channel) -> None:
        self._control = control
        self._numbers = itertools.count(1)
        self._jobs: dict[int, Job] = {}
        self._lock = threading.Lock()
        self._ended = False
        self._thread = threading.Thread(target=self._collect, name="lab reports", daemon=True)
        self._thread.start()

    def start(self, transfer: Transfer, sources: Sequence[str], server: str, progress: Progress | None) -> Job:
        """Begins a transfer from these client addresses; `progress` is called on the collecting thread."""
        number = next(self._numbers)
        job = Job(number, transfer, self._control, progress)
        with self._lock:
            if self._ended:
                raise LabError("the laboratory's client has ended")
            self._jobs[number] = job
        self._control.send(
            {"start": number, "transfer": transfer.to_json(), "sources": list(sources), "server": server}
        )
        return job

    def close(self) -> None:
        """Tells the client to finish, and waits for the collecting thread."""
        self._control.shutdown()
        self._thread.join(timeout=5.0)

    def _collect(self) -> None:
        while (message := self._receive()) is not None:
            job = self._jobs[message["job"]]
            if "done" in message:
                with self._lock:
                    del self._jobs[message["job"]]
                job.end()
            else:
                job.report(Completion(*message["completion"]))
        with self._lock:
            self._ended = True
            left = list(self._jobs.values())
        for job in left:
            job.end("the laboratory's client ended in the middle of a transfer")

    def _receive(self) -> Any:
        try:
            return self._control.receive()
        except OSError:
            return None


def wait_all(jobs: Sequence[Job], timeout: float) -> list[list[Completion]]:
    """The completions of several jobs, all within `timeout` seconds."""
    deadline = time.monotonic() + timeout
    return [job.wait(max(deadline - time.monotonic(), 0.0)) for job in jobs]
