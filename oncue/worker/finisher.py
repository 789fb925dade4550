"""Stores outcomes, many in one call, and keeps them until the store has taken or refused them."""

from __future__ import annotations

import asyncio
import logging

from oncue.engine import MAX_BATCH, Engine
from oncue.errors import EngineError
from oncue.failures import describe_failure
from oncue.job import Outcome, Reason
from oncue.worker.attempt import Attempt, Slots
from oncue.worker.joblog import JobLog
from oncue.worker.outage import Outages

__all__ = ["Finisher"]

logger = logging.getLogger("oncue.worker")


class Finisher:
    """Takes outcomes from the executor and gives them to the store."""

    def __init__(self, engine: Engine, slots: Slots, outages: Outages) -> None:
        self._engine = engine
        self._slots = slots
        self._outages = outages
        self._waiting: list[tuple[Attempt, Outcome]] = []
        self._sending: list[tuple[Attempt, Outcome]] = []
        self._wake = asyncio.Event()
        self.stored = asyncio.Event()
        """Set whenever outcomes were taken."""
        self.finished = 0
        self.refused = 0

    @property
    def backlog(self) -> int:
        """Outcomes that are not stored yet."""
        return len(self._waiting) + len(self._sending)

    def put(self, attempt: Attempt, outcome: Outcome) -> None:
        """Take an outcome."""
        self._waiting.append((attempt, outcome))
        self._wake.set()

    async def run(self) -> None:
        """Store outcomes, until cancelled."""
        outage = self._outages.of("storing outcomes")
        while True:
            if not self._waiting:
                await self._wake.wait()
            self._wake.clear()
            self._sending, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
            while self._sending:
                try:
                    answers = await self._send(self._sending)
                except EngineError as error:
                    await outage.pause(error)
                    continue
                outage.over()
                sent, self._sending = self._sending, []
                self._settle(sent, answers)

    async def _send(self, outcomes: list[tuple[Attempt, Outcome]]) -> list[bool]:
        """Store outcomes; one that the engine cannot store becomes a failure that says so, and harms no other."""
        try:
            return await self._engine.finish([(attempt.lease, outcome) for attempt, outcome in outcomes])
        except EngineError:
            raise
        except Exception as error:
            if len(outcomes) > 1:
                return [answer for one in outcomes for answer in await self._send([one])]
            [(attempt, _)] = outcomes
            logger.exception("cannot store the outcome of %s %s", attempt.claimed.task, attempt.claimed.id)
            failed = Outcome.failed(Reason.RESULT, describe_failure(error))
            return await self._engine.finish([(attempt.lease, failed)])

    def _settle(self, sent: list[tuple[Attempt, Outcome]], answers: list[bool]) -> None:
        log = JobLog()
        for (attempt, outcome), accepted in zip(sent, answers, strict=True):
            self._slots.stored(attempt.lease)
            if accepted:
                self.finished += 1
                log.write(attempt, outcome)
            else:
                self.refused += 1
                logger.warning(
                    "%s %s: the outcome of attempt %d was refused: the job had been taken back from this worker",
                    attempt.claimed.task,
                    attempt.claimed.id,
                    attempt.claimed.attempt,
                )
        self.stored.set()
        self._slots.changed()
