"""The log line that ends an attempt."""

from __future__ import annotations

import logging
import time
from typing import Any, Final

from oncue.job import Outcome, Reason, State
from oncue.worker.attempt import Attempt

__all__ = ["JobLog"]

logger = logging.getLogger("oncue.worker")

_FORMAT: Final = "%s %s %s in %.3f s after waiting %.3f s, attempt %s%s"
_STATE: Final = {state: state.value for state in State}


class JobLog:
    """Writes the lines of outcomes that were stored together.

    `logger.log` asks the system for thread, process and calling line each time, which are the same for every line here
    and cost more than the job: they are asked for once.
    """

    def __init__(self) -> None:
        self._now = time.time()
        self._chatty = logger.isEnabledFor(logging.INFO)
        self._common: dict[str, Any] = {}
        if self._chatty or logger.isEnabledFor(logging.ERROR):
            self._common = logging.LogRecord(
                logger.name, logging.INFO, __file__, 0, _FORMAT, (), None, "write"
            ).__dict__

    def write(self, attempt: Attempt, outcome: Outcome) -> None:
        """Write the line of one attempt: a warning if it failed, an error if its job did."""
        level = logging.INFO
        if outcome.failure is not None:
            level = logging.ERROR if outcome.state is State.FAILED else logging.WARNING
            if not logger.isEnabledFor(level):
                return
        elif not self._chatty or outcome.reason is Reason.NO_WORKER:
            return  # the executor has said once that it does not know the task
        claimed = attempt.claimed
        started = claimed.started_at.timestamp()
        took, waited = max(self._now - started, 0.0), max(started - claimed.due_at.timestamp(), 0.0)
        state = _STATE[outcome.state]
        self._handle(
            level,
            (
                claimed.task,
                claimed.lease.job_id,
                _ended(outcome),
                took,
                waited,
                f"{claimed.attempt} of {claimed.max_attempts}" if claimed.max_attempts > 1 else claimed.attempt,
                _tail(outcome),
            ),
            job_id=claimed.lease.job_id,
            task=claimed.task,
            queue=claimed.queue,
            attempt=claimed.attempt,
            state=state,
            duration=took,
            waited=waited,
            exc_text=_traceback(outcome),
        )

    def _handle(self, level: int, args: tuple[object, ...], **extra: object) -> None:
        record = logging.LogRecord.__new__(logging.LogRecord)
        record.__dict__ = {
            **self._common,
            "levelno": level,
            "levelname": logging.getLevelName(level),
            "args": args,
            **extra,
        }
        logger.handle(record)


def _traceback(outcome: Outcome) -> str | None:
    """Return the traceback of a job that failed without meaning to."""
    if outcome.failure is None or outcome.state is not State.FAILED or outcome.reason is Reason.GAVE_UP:
        return None
    return outcome.failure.traceback or None


def _ended(outcome: Outcome) -> str:
    if outcome.state is State.QUEUED:
        return "given back, not counted,"
    if outcome.reason is None:
        return _STATE[outcome.state]
    return f"{_STATE[outcome.state]} ({outcome.reason.value})"


def _tail(outcome: Outcome) -> str:
    tail = ""
    if outcome.failure is not None:
        tail = f": {outcome.failure.type}: {outcome.failure.message:.200}".replace("\n", "\\n")
    if outcome.delay:
        tail += f"; due in {outcome.delay:.1f} s"
    return tail
