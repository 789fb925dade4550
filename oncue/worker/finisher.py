"""Stores outcomes, many in one call, and keeps them until the store has taken or refused them."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Final

from oncue.engine import MAX_BATCH, Engine
from oncue.errors import EngineError
from oncue.job import Outcome, State
from oncue.worker.attempt import Attempt, Slots
from oncue.worker.outage import Outage

__all__ = ["Finisher"]

logger = logging.getLogger("oncue.worker")


class Finisher:
    """Takes outcomes from the executor and gives them to the store."""

    def __init__(self, engine: Engine, slots: Slots) -> None:
        self._engine = engine
        self._slots = slots
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
        outage = Outage("storing outcomes")
        while True:
            if not self._waiting:
                await self._wake.wait()
            self._wake.clear()
            self._sending, self._waiting = self._waiting[:MAX_BATCH], self._waiting[MAX_BATCH:]
            while self._sending:
                try:
                    answers = await self._engine.finish(
                        [(attempt.lease, outcome) for attempt, outcome in self._sending]
                    )
                except EngineError as error:
                    await outage.pause(error)
                    continue
                outage.over()
                sent, self._sending = self._sending, []
                self._settle(sent, answers)

    def _settle(self, sent: list[tuple[Attempt, Outcome]], answers: list[bool]) -> None:
        now = time.time()
        chatty = logger.isEnabledFor(logging.INFO)
        for (attempt, outcome), accepted in zip(sent, answers, strict=True):
            self._slots.stored(attempt.lease)
            if accepted:
                self.finished += 1
                if chatty or outcome.failure is not None:
                    _log(attempt, outcome, now)
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


def _log(attempt: Attempt, outcome: Outcome, now: float) -> None:
    level = logging.INFO
    if outcome.failure is not None:
        level = logging.ERROR if outcome.state is State.FAILED else logging.WARNING
        if not logger.isEnabledFor(level):
            return
    claimed = attempt.claimed
    started = claimed.started_at.timestamp()
    took, waited = max(now - started, 0.0), max(started - claimed.due_at.timestamp(), 0.0)
    state, tail = _STATE[outcome.state], ""
    if outcome.reason is not None:
        state = f"{state} ({outcome.reason.value})"
    if outcome.failure is not None:
        tail = f": {outcome.failure.type}: {outcome.failure.message:.200}".replace("\n", "\\n")
    if outcome.delay:
        tail += f"; due in {outcome.delay:.1f} s"
    # Made by hand: `logger.log` walks the stack for the line that called it, which here is always this one.
    record = logging.LogRecord(
        logger.name,
        level,
        __file__,
        0,
        "%s %s %s in %.3f s after waiting %.3f s, attempt %d of %d%s",
        (claimed.task, claimed.id, state, took, waited, claimed.attempt, claimed.max_attempts, tail),
        None,
        "_log",
    )
    record.__dict__.update(
        job_id=claimed.id,
        task=claimed.task,
        queue=claimed.queue,
        attempt=claimed.attempt,
        state=_STATE[outcome.state],
        duration=took,
        waited=waited,
    )
    logger.handle(record)


_STATE: Final = {state: state.value for state in State}
