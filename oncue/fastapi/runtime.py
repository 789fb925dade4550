"""What a router starts with the server and stops with it: the store, the embedded worker, and who waits for jobs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any, Final

from oncue.app import Oncue
from oncue.fastapi import shutdown
from oncue.fastapi.dependencies import RUNNING
from oncue.fastapi.watch import Watches
from oncue.worker import Worker

__all__ = ["Runtime"]

logger = logging.getLogger("oncue.fastapi")

_HURRY_LOOK: Final = 0.2
"""Seconds between looks, while the worker stops, whether it is to hurry."""


class Runtime:
    """The running side of one router.

    Attributes:
        jobs: whose store and worker.
        watches: the clients that wait for jobs.
    """

    def __init__(self, jobs: Oncue, *, embedded: bool) -> None:
        self.jobs = jobs
        self.watches = Watches()
        self._embedded = embedded
        self._begun = 0
        self._parts = contextlib.AsyncExitStack()
        self._worker: Worker | None = None
        self._running: asyncio.Task[None] | None = None

    def trouble(self) -> str | None:
        """Say what is wrong with the application, if anything is that would keep the store closed."""
        if self._begun:
            return None
        return (
            "The job store is not open, because the lifespan of the jobs router has not run. Include the router in the "
            "application that is served, or give that one lifespan=router.lifespan_context."
        )

    @property
    def ready(self) -> bool:
        """Whether the store is open and the embedded worker, if there is one, gets answers from it."""
        if self._worker is None or self._running is None:
            return self._begun > 0 and not self._embedded
        return self._worker.ready and not self._running.done()

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Any) -> AsyncIterator[None]:
        """Run for as long as an application does. One that includes the router twice gets one store and one worker."""
        if self._begun == 0:
            await self._start()
        self._begun += 1
        running: list[Oncue] = getattr(app.state, RUNNING, [])
        setattr(app.state, RUNNING, [*running, self.jobs])
        try:
            yield
        finally:
            getattr(app.state, RUNNING).remove(self.jobs)
            self._begun -= 1
            if self._begun == 0:
                await self._parts.aclose()

    async def _start(self) -> None:
        async with contextlib.AsyncExitStack() as parts:
            await parts.enter_async_context(self.jobs)
            if self._embedded:
                await parts.enter_async_context(self._working())
            else:
                logger.info("no worker in this process: `oncue worker` runs the jobs of %s", self.jobs.engine.url)
            self.watches = Watches()
            parts.callback(self.watches.end)
            self._parts = parts.pop_all()

    @contextlib.asynccontextmanager
    async def _working(self) -> AsyncIterator[None]:
        worker = self._worker = self.jobs.worker(burst=False)
        running = self._running = asyncio.create_task(worker.run(), name="oncue-embedded-worker")
        running.add_done_callback(_tell_of_death)
        try:
            yield
        finally:
            self._worker = self._running = None
            await _stop(worker, running)


async def _stop(worker: Worker, running: asyncio.Task[None]) -> None:
    """Let a worker end as its settings say: at once, if the server is told to end a second time."""
    worker.stop()
    hurried = False
    try:
        while not running.done():
            await asyncio.wait([running], timeout=_HURRY_LOOK)
            if shutdown.is_hurried() and not hurried:
                hurried = True
                worker.stop()
    finally:
        running.cancel()  # only if this was cancelled itself; its leases run out then
        await asyncio.wait([running])


def _tell_of_death(running: asyncio.Task[None]) -> None:
    if not running.cancelled() and (error := running.exception()) is not None:
        logger.critical(
            "the embedded worker died: this process runs no more jobs and is not ready; restart it", exc_info=error
        )
