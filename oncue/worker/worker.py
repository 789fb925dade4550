"""The worker: what it consists of, in which order that starts and stops, and its shutdown in two phases.

First it takes no more jobs and lets those that run go on for `grace` seconds; then it cancels what is left and gives it
back to the store, the attempt not counted. Leases are renewed until the last outcome is stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from oncue.client import Client
from oncue.errors import ConfigError
from oncue.router import Schedule
from oncue.schedule import Scheduler
from oncue.version import __version__
from oncue.worker.attempt import Cause, Slots
from oncue.worker.executor import Executor
from oncue.worker.fetcher import Fetcher
from oncue.worker.finisher import Finisher
from oncue.worker.heartbeat import Heartbeat, describe_worker
from oncue.worker.maintenance import Maintenance
from oncue.worker.outage import Outages
from oncue.worker.reporter import Reporter
from oncue.worker.settings import WorkerSettings

__all__ = ["Worker"]

logger = logging.getLogger("oncue.worker")

_LAST_WORDS = 60.0
"""Seconds that outcomes are kept for a store that does not answer, at shutdown."""


def _new_worker_id() -> str:
    host = "".join(c if c.isascii() and (c.isalnum() or c in "-_.") else "-" for c in socket.gethostname())
    return f"{host[:60]}-{secrets.token_hex(6)}"


@dataclass(frozen=True, slots=True)
class _Parts:
    """What a running worker consists of, and the loops in which it turns, by name."""

    fetcher: Fetcher
    executor: Executor
    finisher: Finisher
    loops: Mapping[str, asyncio.Task[None]]


class Worker:
    """Runs the jobs of an application until it is told to stop.

    Attributes:
        id: random; other workers never have the same, nor this one after a restart.
        settings: how it behaves.
    """

    def __init__(self, client: Client, schedules: Sequence[Schedule], settings: WorkerSettings) -> None:
        if not client.registry:
            raise ConfigError("a worker needs at least one task: register one with @jobs.task() before it starts")
        self.id = _new_worker_id()
        self.settings = settings
        self.queues = settings.queues or tuple(sorted({spec.queue for spec in client.registry.values()}))
        self._client = client
        self._schedules = schedules
        self._slots = Slots(settings.concurrency)
        self._stop = asyncio.Event()
        self._hurry = asyncio.Event()
        self._fetcher: Fetcher | None = None
        self._heartbeat: Heartbeat | None = None
        self._running = False
        self.on_stall: Callable[[], None] | None = None
        """Called, from another thread, when the event loop is stuck for good; a process of its own then ends itself."""

    def stop(self) -> None:
        """Take no more jobs, and end when those that run have; called again, give them back at once."""
        if self._stop.is_set():
            self._hurry.set()
        self._stop.set()

    @property
    def ready(self) -> bool:
        """Whether the store answered a claim or, while all slots are busy, a heartbeat within the last lease."""
        if self._fetcher is None or self._heartbeat is None:
            return False
        answered = max(self._fetcher.last_success, self._heartbeat.last_success)
        return time.monotonic() - answered < self.settings.lease

    @property
    def running(self) -> int:
        """How many attempts run now."""
        return len(self._slots.running)

    async def run(self, *, signals: bool = False) -> None:
        """Run until `stop`, or with `burst` until nothing is left. The store must be open.

        `signals`: stop at SIGINT and SIGTERM, hurry at the second.
        """
        if self._running:
            raise ConfigError("this worker runs already; make another one")
        self._running = True
        used = {spec.queue for spec in self._client.registry.values()}
        if strangers := sorted(set(self.queues) - used):
            logger.warning("no task here uses %s; the queues of tasks are %s", ", ".join(strangers), ", ".join(used))
        logger.info(
            "worker %s serves %s on %s: %d tasks, %d at a time",
            self.id,
            ", ".join(self.queues),
            self._client.engine.url,
            len(self._client.registry),
            self.settings.concurrency,
        )
        with _handling_signals(self.stop) if signals else contextlib.nullcontext():
            async with self._started() as parts:
                try:
                    await self._until_stopped(parts.loops)
                except BaseException:
                    self._hurry.set()
                    raise
                finally:
                    parts.fetcher.stop()
                    await asyncio.wait({parts.loops["fetcher"]}, timeout=_LAST_WORDS)
                    await self._drain(parts)
        logger.info("worker %s has stopped", self.id)

    @contextlib.asynccontextmanager
    async def _started(self) -> AsyncIterator[_Parts]:
        """Start everything, in the order in which it depends on each other, and stop it the other way round."""
        engine, settings, slots = self._client.engine, self.settings, self._slots
        outages = Outages()
        finisher = Finisher(engine, slots, outages)
        reporter = Reporter(engine, outages)
        executor = Executor(self._client.registry, self._client.envelope, settings, slots, finisher, reporter)
        fetcher = self._fetcher = Fetcher(engine, settings, self.id, self.queues, slots, executor, finisher, outages)
        info = describe_worker(self.id, __version__, self.queues, tuple(self._client.registry), settings.concurrency)
        heartbeat = self._heartbeat = Heartbeat(
            engine, settings, info, slots, outages, executor.interrupt, self._stalled
        )
        heartbeat.start()
        loops = {
            name: asyncio.create_task(loop, name=f"oncue-{name}")
            for name, loop in (
                ("heartbeat", heartbeat.watch()),
                ("finisher", finisher.run()),
                ("reporter", reporter.run()),
                ("maintenance", Maintenance(engine, settings, outages).run()),
                ("scheduler", Scheduler(self._client, self._schedules).run()),
                ("fetcher", fetcher.run()),
            )
        }
        try:
            yield _Parts(fetcher, executor, finisher, loops)
        finally:
            for loop in reversed(loops.values()):
                loop.cancel()
            await asyncio.gather(*loops.values(), return_exceptions=True)
            await heartbeat.stop()
            executor.close()

    async def _until_stopped(self, loops: Mapping[str, asyncio.Task[None]]) -> None:
        """Wait until told to stop, or nothing is left to fetch; raises what a loop died of, and the worker with it."""
        stop = asyncio.create_task(self._stop.wait())
        names = {loop: name for name, loop in loops.items()}
        try:
            waiting: set[asyncio.Task[Any]] = {stop, *names}
            while not stop.done() and not loops["fetcher"].done():
                done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
                for loop in done - {stop}:
                    if (error := loop.exception()) is not None:
                        logger.error("the %s died: this worker stops", names[loop], exc_info=error)
                        raise error
        finally:
            stop.cancel()

    async def _drain(self, parts: _Parts) -> None:
        """Let what runs end, then give back what is left, then wait until every outcome is stored."""
        executor, finisher, storing = parts.executor, parts.finisher, parts.loops["finisher"]
        if fetch_left := len(self._slots.running):
            logger.info("worker %s stops: waiting %g s for %d jobs", self.id, self.settings.grace, fetch_left)
        await self._wait_for(lambda: not self._slots.running, self.settings.grace, self._hurry)
        for attempt in list(self._slots.running):
            executor.interrupt(attempt, Cause.SHUTDOWN)
        await self._wait_for(lambda: not self._slots.running, self.settings.cleanup + 1.0)
        await self._wait_for(lambda: not finisher.backlog or storing.done(), _LAST_WORDS)
        if finisher.backlog:
            logger.error(
                "%d outcomes could not be stored: those jobs will be run again when their leases expire",
                finisher.backlog,
            )

    async def _wait_for(
        self, condition: Callable[[], bool], timeout: float, cut_short: asyncio.Event | None = None
    ) -> None:
        deadline = time.monotonic() + timeout
        while not condition() and (left := deadline - time.monotonic()) > 0:
            if cut_short is not None and cut_short.is_set():
                return
            waits: list[asyncio.Task[Any]] = [asyncio.create_task(self._slots.wait())]
            if cut_short is not None:
                waits.append(asyncio.create_task(cut_short.wait()))
            try:
                await asyncio.sleep(0)  # they listen from here on: what changed before is seen by the condition
                if not condition():
                    await asyncio.wait(waits, timeout=min(left, 0.5), return_when=asyncio.FIRST_COMPLETED)
            finally:
                for wait in waits:
                    wait.cancel()

    def _stalled(self) -> None:
        if self.on_stall is not None:
            self.on_stall()


@contextlib.contextmanager
def _handling_signals(stop: Callable[[], None]) -> Iterator[None]:
    loop = asyncio.get_running_loop()
    handled = (signal.SIGINT, signal.SIGTERM)
    for number in handled:
        loop.add_signal_handler(number, stop)
    try:
        yield
    finally:
        for number in handled:
            loop.remove_signal_handler(number)
