"""The running agent: periodic jobs, signals, the lease, the watchdog.

APScheduler runs the jobs in one worker thread; it goes by the wall clock, so after a step back of an hour a job would
wait for an hour. The main loop goes by the monotonic clock, sees a job that is late and has it run at once. It pings
the watchdog only while every job is on time.
"""

from __future__ import annotations

import logging
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from apscheduler.executors.pool import ThreadPoolExecutor
from apscheduler.schedulers.background import BackgroundScheduler

from agent import cgroups, config_file, modules
from agent.beat import Beat
from agent.config import Config
from agent.connect import socket_path
from agent.errors import TcptunedError, UsageError
from agent.fleet import FleetReader
from agent.history import History
from agent.journal import Journal
from agent.kernel import Kernel
from agent.learnt import Learnt
from agent.loader import Loader
from agent.notify import Notifier
from agent.signals import Signals
from agent.snapshot import Health, Snapshot, take
from agent.state import Keeper, load, remaining
from agent.tuner import Tuner
from agent.web import WebServer
from agent.web_security import load as load_web_security

__all__ = ["Service"]

logger = logging.getLogger(__name__)

_END = frozenset({signal.SIGTERM, signal.SIGINT})
_TICK = 0.25  # seconds: how fast a signal is acted on and a late job is noticed
_PATIENCE = 2.0  # seconds at the end for a disk that is slow
_LATE = 3.0  # intervals without a run: the job is late; the watchdog starves until it ran


@dataclass
class _Job:
    name: str
    interval: float
    function: Callable[[], None]
    last_run: float  # monotonic seconds

    def late(self, now: float) -> bool:
        return now - self.last_run > _LATE * self.interval + 1.0


class Service:
    """Owns everything that runs. `loader` has been started already, to compile while the rest is imported."""

    def __init__(self, config: Config, loader: Loader, *, path: Path | None, dry_run: bool) -> None:
        self._path = path
        self._notifier = Notifier.from_environment(os.environ)
        self._health = Health(reload_time=time.time())
        self._signals = Signals()
        self._on_time = time.monotonic()
        # The worker holds it while it changes the tuner; `explain` holds it while it looks.
        self.lock = threading.Lock()
        folders = cgroups.resolve(config.attach.cgroups)
        self._web = WebServer(config.web, self, local=socket_path(config))
        # While the compiler works.
        saved = load(config.state_dir)
        worth = remaining(time.time() - saved.time, config.control.half_life) if saved else 0.0
        if not dry_run:
            _load_modules(config)
        self._kernel = Kernel(loader.finish())
        if not self._kernel.remote_clock:
            logger.info(
                "transfers are timed by this host's clock alone, as this kernel's verifier takes no larger programs; "
                "CAP_PERFMON or a newer kernel would let clients' clocks count"
            )
        self.tuner = Tuner(
            config, self._kernel, Journal(config.state_dir),
            dry_run=dry_run, learnt=saved.learnt if saved else None, worth=worth,
        )  # fmt: skip
        self.history = History()
        if saved and (section := saved.learnt.sections.get("history")):
            self.history.load(section, time.time())
        self._health.state_restored = len(self.tuner.store) - self.tuner.store.groups
        self._keeper = Keeper(config.state_dir, self._health, self._learnt)
        self._fleet = FleetReader(self.tuner.arms_of_others)
        self.tuner.renew_lease()
        self._kernel.attach(folders, packets=config.ack.most_thinned > 0)
        self.snapshot: Snapshot = take(self.tuner, self._health)

    def run(self) -> None:
        """Runs until SIGTERM or SIGINT."""
        self._signals.install((*_END, signal.SIGHUP))
        scheduler = BackgroundScheduler(
            executors={"default": ThreadPoolExecutor(1)},
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None},
            timezone=UTC,
        )
        jobs = self._jobs()
        for job in jobs:
            scheduler.add_job(job.function, Beat(seconds=job.interval, timezone=UTC), id=job.name)
        self._web.start()
        scheduler.start()
        self._keeper.start()
        self._fleet.use(self.tuner.config.fleet.prometheus_url)
        attached = ", ".join(str(folder) for folder in self._kernel.attached)
        logger.info("attached to %s, listening on %s", attached, self._web.url)
        self._notifier.ready(f"attached to {attached}")
        try:
            while not (arrived := self._signals.wait(_TICK)) & _END:
                self._tend(scheduler, jobs)
                if signal.SIGHUP in arrived:
                    self._reload_configuration(scheduler, jobs)
        finally:
            self._notifier.stopping()
            self._end(scheduler)

    def ready(self) -> bool:
        """Attached, and the last sample is recent."""
        interval = self.tuner.config.sampling.interval
        return bool(self._kernel.attached) and time.time() - self._health.last_sample < _LATE * interval + 1.0

    def healthy(self) -> bool:
        """Every job was on time within a lease: after that the kernel side applies nothing any more."""
        return time.monotonic() - self._on_time < self.tuner.config.control.lease

    def _jobs(self) -> list[_Job]:
        config, now = self.tuner.config, time.monotonic()
        jobs = []
        for name, interval, work in (
            ("sample", config.sampling.interval, self._sample),
            ("decide", config.control.interval, self._decide),
        ):
            job = _Job(name, interval, lambda: None, now)
            job.function = self._guarded(job, work)
            jobs.append(job)
        return jobs

    def _guarded(self, job: _Job, work: Callable[[float], None]) -> Callable[[], None]:
        """`work` with the lock held and failures counted; only a run that succeeded makes the job on time."""

        def run() -> None:
            now = time.monotonic()
            try:
                with self.lock:
                    work(now)
                    self.snapshot = take(self.tuner, self._health)
                    self.history.note(self.snapshot, time.time())
            except Exception:  # the loop must go on; the watchdog restarts the agent if it never succeeds
                self._health.sample_failures += 1
                logger.exception("%s failed", job.name)
            else:
                job.last_run = now

        return run

    def _sample(self, now: float) -> None:
        begin = time.perf_counter()
        if self._kernel.notice_detached():
            logger.warning("the programs were detached from outside; restart the agent to attach them again")
        for folder in self._kernel.follow():
            logger.info("%s was made anew: attached to it", folder)
            self.tuner.adoption.again()
        self.tuner.sample(now)
        self.tuner.renew_lease()
        self._health.sample_seconds = time.perf_counter() - begin
        self._health.last_sample = time.time()

    def _decide(self, now: float) -> None:
        begin = time.perf_counter()
        self.tuner.knowledge = self._fleet.knowledge(now)
        self._health.fleet = self._fleet.state
        self.tuner.decide(now)
        self._health.decide_seconds = time.perf_counter() - begin

    def _tend(self, scheduler: BackgroundScheduler, jobs: list[_Job]) -> None:
        """One turn of the main loop."""
        now = time.monotonic()
        late = [job for job in jobs if job.late(now)]
        for job in late:
            scheduler.modify_job(job.name, next_run_time=datetime.now(UTC))
        if not late:
            self._on_time = now
            self._notifier.ping()

    def _reload_configuration(self, scheduler: BackgroundScheduler, jobs: list[_Job]) -> None:
        """All or nothing: a configuration with any mistake changes nothing."""
        self._notifier.reloading()
        try:
            if self._path is None:
                raise UsageError("there is no configuration file to reload")
            config = config_file.load(self._path)
            _refuse_restart_keys(self.tuner.config, config)
            security = load_web_security(config.web.config_file)
            if not self.tuner.dry_run:
                _load_modules(config)
            with self.lock:
                if config.ack.most_thinned:
                    self._kernel.watch_packets(True)
                self.tuner.reconfigure(config)
                self.tuner.renew_lease()  # the next sample may be longer away than what is left of the old lease
                self._kernel.watch_packets(config.ack.most_thinned > 0)
            self._web.security.install(security)
            self._fleet.use(config.fleet.prometheus_url)
        except (TcptunedError, OSError) as error:
            if not self.tuner.config.ack.most_thinned:
                with self.lock:
                    self._kernel.watch_packets(False)
            self._health.reload_successful = False
            logger.error("the configuration is not reloaded, nothing changed:\n%s", error)
        else:
            self._health.reload_successful = True
            self._health.reload_time = time.time()
            for job, interval in zip(jobs, (config.sampling.interval, config.control.interval), strict=True):
                job.interval = interval
                scheduler.reschedule_job(job.name, trigger=Beat(seconds=interval, timezone=UTC))
            logger.info("the configuration is reloaded")
        self._notifier.ready()

    def _end(self, scheduler: BackgroundScheduler) -> None:
        """Detaches first: new connections get the kernel's defaults whatever happens afterwards."""
        self._kernel.detach()
        self._fleet.end()
        scheduler.shutdown(wait=True)
        self._web.stop()
        with self.lock:
            self.tuner.sample_rest(time.monotonic())
            self.tuner.journal.close()
            self._kernel.close()
        logger.info("detached")
        self._keeper.end(_PATIENCE)

    def _learnt(self) -> Learnt:
        with self.lock:
            learnt = self.tuner.learnt(time.monotonic())
            return replace(learnt, sections={**learnt.sections, "history": self.history.dump()})


def _load_modules(config: Config) -> None:
    if config.congestion.enabled:
        modules.load(config.congestion.allowed)


def _refuse_restart_keys(old: Config, new: Config) -> None:
    """Keys that are built into loaded programs or open sockets."""
    pairs = {
        "attach": (old.attach, new.attach),
        "web": (old.web, new.web),
        "state_dir": (old.state_dir, new.state_dir),
        "paths.max": (old.paths.max, new.paths.max),
        "sampling.rows": (old.sampling.rows, new.sampling.rows),
    }
    changed = [name for name, (before, after) in pairs.items() if before != after]
    if changed:
        raise UsageError(f"changing {', '.join(changed)} takes a restart: systemctl restart tcptuned")
