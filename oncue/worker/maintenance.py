"""Takes back the jobs of workers that fell silent, and prunes what need not be kept. Every worker does it."""

from __future__ import annotations

import asyncio
import logging
import random

from oncue.engine import MAX_BATCH, Engine
from oncue.errors import EngineError
from oncue.worker.outage import Outages
from oncue.worker.settings import WorkerSettings

__all__ = ["Maintenance"]

logger = logging.getLogger("oncue.worker")


class Maintenance:
    """Turns to the store every third of a lease."""

    def __init__(self, engine: Engine, settings: WorkerSettings, outages: Outages) -> None:
        self._engine = engine
        self._settings = settings
        self._outages = outages

    async def run(self) -> None:
        """Rescue and prune, until cancelled."""
        outage = self._outages.of("maintenance")
        while True:
            try:
                await self._rescue()
                await self._prune()
                outage.over()
            except EngineError as error:
                await outage.pause(error)
                continue
            # Not in step with the other workers.
            await asyncio.sleep(self._settings.maintenance_pace * random.uniform(0.8, 1.2))

    async def _rescue(self) -> None:
        while True:
            rescued = await self._engine.rescue(limit=100, lease=self._settings.lease_time)
            for job in rescued:
                logger.warning(
                    "%s %s was taken back from worker %s, which died or fell silent (%d so far); it is %s now",
                    job.task,
                    job.job_id,
                    job.worker,
                    job.crashes,
                    job.state.value,
                )
            if len(rescued) < 100:
                return

    async def _prune(self) -> None:
        pruned = MAX_BATCH
        while pruned >= MAX_BATCH:
            pruned = await self._engine.prune(limit=MAX_BATCH, keep_finished=self._settings.keep_finished)
