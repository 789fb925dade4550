"""What a router starts with the server and stops with it: the store, and the embedded worker."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

from oncue.app import Oncue
from oncue.fastapi.dependencies import RUNNING
from oncue.worker import Worker

__all__ = ["Runtime"]

logger = logging.getLogger("oncue.fastapi")


class Runtime:
    """The running side of one router.

    A router that is included twice begins its lifespan twice; the store is opened and the worker started once.
    """

    def __init__(self, jobs: Oncue, *, embedded: bool) -> None:
        self.jobs = jobs
        self._embedded = embedded
        self._begun = 0
        self._worker: Worker | None = None
        self._running: asyncio.Task[None] | None = None

    @property
    def started(self) -> bool:
        """Whether a lifespan has begun and not ended."""
        return self._begun > 0

    @property
    def ready(self) -> bool:
        """Whether the store is open and the embedded worker, if there is one, takes jobs."""
        if not self.started:
            return False
        if not self._embedded:
            return True
        alive = self._running is not None and not self._running.done()
        return alive and self._worker is not None and self._worker.ready

    @contextlib.asynccontextmanager
    async def lifespan(self, app: Any) -> AsyncIterator[None]:
        """Run for as long as an application does."""
        self._begun += 1
        running: list[Oncue] = getattr(app.state, RUNNING, [])
        setattr(app.state, RUNNING, running)
        try:
            if self._begun == 1:
                await self._start()
            if self.jobs not in running:
                running.append(self.jobs)
            yield
        finally:
            self._begun -= 1
            if self._begun == 0:
                with contextlib.suppress(ValueError):
                    running.remove(self.jobs)
                await self._stop()

    async def _start(self) -> None:
        await self.jobs.open()
        if not self._embedded:
            logger.info("no worker in this process: jobs of %s are run by `oncue worker`", self.jobs.engine.url)
            return
        self._worker = self.jobs.worker()
        self._running = asyncio.create_task(self._worker.run(), name="oncue-embedded-worker")
        self._running.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or task.exception() is None:
            return
        logger.critical(
            "the embedded worker died: this process runs no more jobs and is not ready; restart it",
            exc_info=task.exception(),
        )

    async def _stop(self) -> None:
        worker, running, self._worker, self._running = self._worker, self._running, None, None
        try:
            if worker is not None and running is not None:
                worker.stop()
                await asyncio.wait([running])
        finally:
            await self.jobs.close()
