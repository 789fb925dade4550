"""Claims jobs for free slots, and sleeps until there may be more: a hint, a due time, or a look now and then."""

from __future__ import annotations

import asyncio
import logging
import random
import time

from oncue.engine import Engine, Subscription, topic_queue
from oncue.errors import EngineError
from oncue.job import State
from oncue.worker.attempt import Slots
from oncue.worker.executor import Executor
from oncue.worker.finisher import Finisher
from oncue.worker.outage import Outages
from oncue.worker.settings import WorkerSettings

__all__ = ["Fetcher"]

logger = logging.getLogger("oncue.worker")

_LOOK = 5.0
"""Seconds between looks, should a hint be lost."""


class Fetcher:
    """Keeps the slots filled.

    Attributes:
        last_success: monotonic time of the latest answered claim; readiness is read from it.
    """

    def __init__(
        self,
        engine: Engine,
        settings: WorkerSettings,
        worker_id: str,
        queues: tuple[str, ...],
        slots: Slots,
        executor: Executor,
        finisher: Finisher,
        outages: Outages,
    ) -> None:
        self._engine = engine
        self._settings = settings
        self._worker_id = worker_id
        self._queues = queues
        self._slots = slots
        self._executor = executor
        self._finisher = finisher
        self._outage = outages.of("claiming")
        self._reconcile_at = 0.0
        self._stopping = asyncio.Event()
        self.last_success = time.monotonic()

    def stop(self) -> None:
        """Claim no more. A claim under way is waited for and its jobs are started: left alone, they would be lost to
        this worker and taken for crashed."""
        self._stopping.set()
        self._slots.changed()
        self._outage.wake()

    async def run(self) -> None:
        """Claim and start until `stop`, or until nothing is left in burst mode."""
        hints = self._engine.subscribe(*(topic_queue(queue) for queue in self._queues))
        closing = asyncio.create_task(self._close_at_stop(hints))
        try:
            while not self._stopping.is_set():
                if self._full():
                    await self._slots.wait()
                    continue
                try:
                    more, next_due_in = await self._claim()
                    if self._settings.burst and not more and await self._nothing_left():
                        return
                except EngineError as error:
                    self._reconcile_at = 0.0  # what that call may have claimed is asked for again
                    if not self._stopping.is_set():
                        await self._outage.pause(error)
                    continue
                self._outage.over()
                if not more:
                    await hints.wait(self._patience(next_due_in))
        finally:
            closing.cancel()
            hints.close()

    async def _close_at_stop(self, hints: Subscription) -> None:
        await self._stopping.wait()
        hints.close()

    def _full(self) -> bool:
        # Outcomes that the store does not take pile up no higher than this.
        return self._slots.free <= 0 or self._finisher.backlog > 2 * self._settings.concurrency

    async def _claim(self) -> tuple[bool, float | None]:
        """Claim and start; return whether there may be more now, and when the next job is due."""
        wanted = self._slots.free
        now = time.monotonic()
        reconcile = now >= self._reconcile_at
        claim = await self._engine.claim(
            self._queues,
            limit=wanted,
            worker_id=self._worker_id,
            lease=self._settings.lease_time,
            held=self._slots.job_ids if reconcile else None,
        )
        if reconcile:
            self._reconcile_at = now + self._settings.beat
        self.last_success = time.monotonic()
        for claimed in claim.jobs:
            self._executor.start(claimed)
        return len(claim.jobs) >= wanted, claim.next_due_in

    def _patience(self, next_due_in: float | None) -> float:
        patience = _LOOK * random.uniform(0.8, 1.2)
        if next_due_in is not None:
            patience = min(patience, max(next_due_in, 0.001))
        if self._settings.burst:
            patience = min(patience, 0.1)
        return patience

    async def _nothing_left(self) -> bool:
        """Whether no job is running here, queued, or to be retried."""
        if self._slots.running or self._finisher.backlog:
            return False
        open_states = (State.QUEUED, State.RETRYING)
        return not any(
            queue.counts.get(state, 0)
            for queue in await self._engine.queues()
            if queue.name in self._queues and not queue.paused
            for state in open_states
        )
