"""Says that the worker lives and renews its leases, from a thread and a connection of its own.

User code that blocks the event loop does not lose its jobs, then; but a loop that stands still for too long does: its
leases are no longer renewed, and other workers take over.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime

from oncue.engine import MAX_BATCH, Engine, Hold, WorkerInfo, topic_cancel
from oncue.errors import EngineError
from oncue.job import Lease
from oncue.worker.attempt import Attempt, Cause, Slots
from oncue.worker.outage import Outages
from oncue.worker.settings import WorkerSettings

__all__ = ["Heartbeat", "describe_worker"]

logger = logging.getLogger("oncue.worker")

_PING = 1.0
"""Seconds between questions to the event loop whether it still turns."""
_CANCEL_PACE = 0.3
"""Seconds between two looks for cancels at the least, however many hints come."""


def describe_worker(
    worker_id: str, version: str, queues: tuple[str, ...], tasks: tuple[str, ...], concurrency: int
) -> WorkerInfo:
    """Return what a worker says of itself."""
    return WorkerInfo(
        id=worker_id,
        host=socket.gethostname(),
        pid=os.getpid(),
        version=version,
        queues=queues,
        tasks=tasks,
        concurrency=concurrency,
        started_at=datetime.now(UTC),
    )


class Heartbeat:
    """The thread that keeps the worker's leases.

    Attributes:
        last_success: monotonic time of the latest answered heartbeat; readiness is read from it.

    Args:
        engine: the worker's engine: a sibling of it does the renewing, and its hints tell of cancels.
        interrupt: called on the worker's loop with an attempt that should stop, and why.
        on_stall: called from this thread when the loop has stood still for `stall_timeout`.
    """

    def __init__(
        self,
        engine: Engine,
        settings: WorkerSettings,
        info: WorkerInfo,
        slots: Slots,
        outages: Outages,
        interrupt: Callable[[Attempt, Cause], None],
        on_stall: Callable[[], None] | None = None,
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._info = info
        self._slots = slots
        self._outages = outages
        self._interrupt = interrupt
        self._on_stall = on_stall
        self._loop = asyncio.get_running_loop()
        self._loop_thread = threading.get_ident()
        self.last_success = self._pong = time.monotonic()
        self._warned = False
        self._stalled = False
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._main, name="oncue-heartbeat", daemon=True)
        self._death: asyncio.Future[None] = self._loop.create_future()
        self._own_loop: asyncio.AbstractEventLoop | None = None
        self._wake: asyncio.Event | None = None

    def start(self) -> None:
        """Begin to beat."""
        self._thread.start()

    async def watch(self) -> None:
        """Raise what the thread dies of, if it does."""
        await self._death

    async def stop(self) -> None:
        """Say goodbye to the store, and end the thread."""
        self._stopping.set()
        if self._own_loop is not None and self._wake is not None:
            with contextlib.suppress(RuntimeError):  # it has ended by itself
                self._own_loop.call_soon_threadsafe(self._wake.set)
        await asyncio.to_thread(self._thread.join, 10.0)

    def _main(self) -> None:
        try:
            asyncio.run(self._beat_until_stopped())
        except BaseException as error:
            with contextlib.suppress(RuntimeError):  # the worker's loop has ended before
                self._loop.call_soon_threadsafe(self._tell_of_death, error)

    def _tell_of_death(self, error: BaseException) -> None:
        if not self._death.done():
            self._death.set_exception(error)

    async def _beat_until_stopped(self) -> None:
        self._own_loop, self._wake = asyncio.get_running_loop(), asyncio.Event()
        watch = asyncio.create_task(self._watch_loop())
        cancels = asyncio.create_task(self._listen_for_cancels())
        engine = self._engine.sibling()
        outage = self._outages.of("heartbeat")
        opened = False
        try:
            while not self._stopping.is_set():
                delay = self._settings.beat
                self._wake.clear()  # before the beat: a cancel that comes in during it is the next one's
                try:
                    if not opened:
                        await engine.open()
                        opened = True
                    await self._beat(engine)
                    self.last_success = time.monotonic()
                    outage.over()
                except EngineError as error:
                    delay = min(outage.begins(error), delay)
                for part in (watch, cancels):
                    if part.done():
                        part.result()  # what it died of is what this dies of
                if not self._stopping.is_set():
                    await _wait(self._wake, delay)
            if opened:
                await self._say_goodbye(engine)
        finally:
            watch.cancel()
            cancels.cancel()
            await asyncio.gather(watch, cancels, return_exceptions=True)
            if opened:
                await engine.close()

    async def _beat(self, engine: Engine) -> None:
        leases = [] if self._stalled else self._slots.leases
        info = replace(self._info, running=len(leases))
        answers: list[tuple[Lease, Hold]] = []
        for start in range(0, max(len(leases), 1), MAX_BATCH):
            part = leases[start : start + MAX_BATCH]
            holds = await engine.heartbeat(info, part, lease=self._settings.lease_time)
            answers += zip(part, holds, strict=True)
        for lease, hold in answers:
            if hold is not Hold.HELD:
                self._loop.call_soon_threadsafe(self._tell, lease, hold)

    def _tell(self, lease: Lease, hold: Hold) -> None:
        """Pass on what the store says of a lease; on the worker's loop."""
        attempt = self._slots.find(lease)
        if attempt is None or attempt.concluded:
            return  # it has ended meanwhile: the store will say what its outcome is worth
        if hold is Hold.CANCEL_REQUESTED:
            if attempt.cause is None:
                self._interrupt(attempt, Cause.CANCEL)
        else:
            self._interrupt(attempt, Cause.LOST)

    async def _say_goodbye(self, engine: Engine) -> None:
        try:
            await engine.heartbeat(replace(self._info, stopped=True), [], lease=self._settings.lease_time)
        except EngineError as error:
            logger.debug("could not say goodbye: %s", error)

    async def _listen_for_cancels(self) -> None:
        hints = self._engine.subscribe(topic_cancel(self._info.id))
        try:
            while True:
                if not await hints.wait(60) or self._wake is None:
                    continue
                if not self._slots.leases:
                    await asyncio.sleep(_CANCEL_PACE)  # the claim of the job that it is about may be on its way
                if self._slots.leases:
                    self._wake.set()
                    await asyncio.sleep(_CANCEL_PACE)
        finally:
            hints.close()

    async def _watch_loop(self) -> None:
        pace = min(_PING, self._settings.stall_warning / 2, self._settings.stall_timeout / 2)
        self._pong = time.monotonic()
        while True:
            try:
                self._loop.call_soon_threadsafe(self._answer)
            except RuntimeError:
                return  # the worker's loop is closed
            asked = time.monotonic()
            await asyncio.sleep(pace)
            now = time.monotonic()
            if (overslept := now - asked - pace) > pace:
                self._pong += overslept  # the whole process stood still: no job is to blame for that
            still = now - self._pong
            if still >= self._settings.stall_warning and not self._warned:
                self._warned = True
                self._name_culprit(still)
            if still >= self._settings.stall_timeout and not self._stalled:
                self._stalled = True
                logger.critical(
                    "the event loop has stood still for %.0f s: its jobs are given up, other workers will take them",
                    still,
                )
                if self._on_stall is not None:
                    self._on_stall()

    def _answer(self) -> None:
        self._pong = time.monotonic()
        if self._warned:
            self._warned = False
            logger.info("the event loop turns again")
        self._stalled = False

    def _name_culprit(self, still: float) -> None:
        """Say which job blocks the event loop, and where in the code."""
        task = asyncio.current_task(self._loop)
        culprit = next((attempt for attempt in self._slots.attempts if attempt.task is task), None)
        frame = sys._current_frames().get(self._loop_thread)
        place = "".join(traceback.format_stack(frame)[-3:]) if frame is not None else ""
        name = f"{culprit.claimed.task} {culprit.claimed.id}" if culprit is not None else "code outside any job"
        logger.warning(
            "%s has blocked the event loop for %.1f s; make it a plain `def`, which runs in a thread. It is at:\n%s",
            name,
            still,
            place.rstrip(),
        )


async def _wait(event: asyncio.Event, timeout: float) -> None:
    try:
        async with asyncio.timeout(timeout):
            await event.wait()
    except TimeoutError:
        pass
