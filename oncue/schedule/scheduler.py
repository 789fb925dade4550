"""Enqueues the jobs of interval schedules: one an interval, however many schedulers run.

All of them name the job of an interval alike, by schedule and beginning, and the store takes an id but once.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Sequence

from oncue.client import Client
from oncue.errors import EngineError
from oncue.router import Schedule

__all__ = ["Scheduler"]

logger = logging.getLogger("oncue.schedule")


class Scheduler:
    """Turns to the schedules when the next is due."""

    def __init__(self, client: Client, schedules: Sequence[Schedule]) -> None:
        self._client = client
        self._schedules = schedules
        self._fired: dict[str, int] = {}

    async def run(self) -> None:
        """Enqueue what is due, until cancelled."""
        failed = False
        while self._schedules:
            try:
                for schedule in self._schedules:
                    await self._tick(schedule)
                failed = False
            except EngineError as error:
                if not failed:
                    logger.warning("schedules wait for the store: %s", error)
                failed = True
                await asyncio.sleep(random.uniform(0.5, 1.0))
                continue
            now = time.time()
            await asyncio.sleep(min(s.interval - now % s.interval for s in self._schedules) + 0.001)

    async def _tick(self, schedule: Schedule) -> None:
        instant = int(time.time() // schedule.interval)
        if self._fired.get(schedule.name) == instant:
            return
        job = schedule.task.request().job
        # It must be remembered for as long as another scheduler may ask for the same interval.
        keep = max(job.keep, 2 * schedule.interval)
        answer = await self._client.send(
            job._replace(id=f"every:{schedule.name}:{instant}", request=b"schedule", keep=keep)
        )
        self._fired[schedule.name] = instant
        logger.debug("schedule %s: job %s", schedule.name, answer.id)
