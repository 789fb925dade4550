"""Runs one attempt: find the task, read its arguments, call it, turn how that ended into an outcome.

User code may raise any `BaseException`, return anything, ignore its cancellation: the attempt has an outcome, and the
worker goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncGenerator
from contextvars import Context as Variables
from contextvars import copy_context
from typing import Any

from oncue.context import Context
from oncue.errors import GiveUp, LeaseLost, PayloadError, RetryLater, Snooze
from oncue.failures import describe_failure
from oncue.job import Claimed, Failure, FeedKind, Outcome, Reason
from oncue.serializers import Envelope
from oncue.tasks import Kind, Registry, TaskSpec
from oncue.worker.attempt import Attempt, Cause, Slots
from oncue.worker.finisher import Finisher
from oncue.worker.reporter import Feed, Reporter
from oncue.worker.settings import WorkerSettings
from oncue.worker.threads import Threads

__all__ = ["Executor"]

logger = logging.getLogger("oncue.worker")

_PARKED = 5.0
"""Seconds until a job whose task is unknown here is offered again."""
_WARNINGS = 100
"""Unknown tasks that the log names at most."""
_ASKED = 5
"""Attempts that a task without a retry policy may ask for with `RetryLater`."""


class _UnstorableItem(Exception):
    """A streaming task yielded what cannot be stored; not to be taken for an error of the task's own."""

    def __init__(self, reason: PayloadError) -> None:
        super().__init__(reason)
        self.reason = reason


class Executor:
    """Starts attempts and concludes them."""

    def __init__(
        self,
        registry: Registry,
        envelope: Envelope,
        settings: WorkerSettings,
        slots: Slots,
        finisher: Finisher,
        reporter: Reporter,
    ) -> None:
        self._registry = registry
        self._envelope = envelope
        self._settings = settings
        self._slots = slots
        self._finisher = finisher
        self._reporter = reporter
        self._threads = Threads()
        self._unknown: set[str] = set()
        self._loop = asyncio.get_running_loop()
        # What was set before the worker ran, such as a request's trace id, is no attempt's business twice.
        self._variables: Variables = copy_context()

    def start(self, claimed: Claimed) -> None:
        """Begin an attempt, in a task and a `contextvars` context of its own."""
        attempt = Attempt(claimed)
        self._slots.take(attempt)
        attempt.task = self._loop.create_task(self._run(attempt), context=self._variables.copy())

    def close(self) -> None:
        """Let go of the threads; for a worker that has stopped."""
        self._threads.close()

    def interrupt(self, attempt: Attempt, cause: Cause) -> None:
        """Ask an attempt to stop; if it does not, go on without it after the time for cleaning up."""
        attempt.interrupt(cause)
        if not attempt.concluded:
            self._loop.call_later(self._settings.cleanup, self._abandon, attempt)

    def _abandon(self, attempt: Attempt) -> None:
        if attempt.concluded or attempt.cause is None:
            return
        logger.warning(
            "%s %s did not stop %g s after it was interrupted (%s); it may go on running beside its successors",
            attempt.claimed.task,
            attempt.claimed.id,
            self._settings.cleanup,
            attempt.cause.value,
        )
        spec = self._registry.find(attempt.claimed.task)
        self._conclude(attempt, self._interrupted(attempt, spec, None))

    def _conclude(self, attempt: Attempt, outcome: Outcome) -> None:
        if attempt.concluded:
            return
        attempt.concluded = True
        attempt.leave()
        self._slots.ended(attempt)
        if attempt.cause is Cause.LOST:
            self._slots.stored(attempt.lease)  # another attempt is the current one: there is nothing to write
            logger.warning(
                "%s %s was taken back from this worker, which was silent for longer than its lease of %g s: what "
                "attempt %d did counts for nothing, another one may be running",
                attempt.claimed.task,
                attempt.claimed.id,
                self._settings.lease,
                attempt.claimed.attempt,
            )
        else:
            self._finisher.put(attempt, outcome)

    async def _run(self, attempt: Attempt) -> None:
        try:
            outcome = await self._outcome(attempt)
        except BaseException as error:  # a bug of ours: the job must have an outcome all the same
            logger.exception("internal error while running %s %s", attempt.claimed.task, attempt.claimed.id)
            outcome = Outcome.failed(Reason.ERROR, describe_failure(error))
        self._conclude(attempt, outcome)

    async def _outcome(self, attempt: Attempt) -> Outcome:
        claimed = attempt.claimed
        spec = self._registry.find(claimed.task)
        if spec is None:
            self._tell_of_unknown(claimed.task)
            return Outcome.parked(_PARKED)
        if attempt.cause is not None:  # asked to stop before it began
            return self._interrupted(attempt, spec, None)
        try:
            arguments = spec.signature.decode(claimed.payload)
        except PayloadError as error:
            return Outcome.failed(Reason.UNREADABLE, describe_failure(error))
        feed = context = None
        if spec.kind is Kind.STREAM or spec.signature.context is not None:
            feed = Feed(self._reporter, attempt, self._envelope)
            context = attempt.context = Context(claimed, feed)
        attempt.cooperative = spec.kind is Kind.THREAD
        timeout = spec.timeout if claimed.timeout is None else claimed.timeout
        if timeout is not None:
            attempt.timer = self._loop.call_later(timeout, self.interrupt, attempt, Cause.TIMEOUT)
        try:
            attempt.enter()
            try:
                value = await self._call(spec, context, feed, arguments)
            finally:
                attempt.leave()
        except BaseException as error:
            outcome = self._raised(attempt, spec, error)
        else:
            outcome = self._returned(attempt, spec, value)
        if feed is not None and feed.waiting:
            with contextlib.suppress(LeaseLost):  # the outcome will be refused, and say so
                await feed.flush()
        return outcome

    async def _call(self, spec: TaskSpec, context: Context | None, feed: Feed | None, arguments: Any) -> Any:
        if spec.kind is Kind.ASYNC:
            return await spec.signature.call(spec.function, context, arguments)
        if spec.kind is Kind.THREAD:
            variables = copy_context()
            return await self._threads.run(lambda: spec.signature.call(spec.function, context, arguments), variables)
        assert feed is not None
        items: AsyncGenerator[Any, None] = spec.signature.call(spec.function, context, arguments)
        async with contextlib.aclosing(items):  # its cleanup code is part of the attempt
            async for item in items:
                try:
                    body = spec.signature.encode_item(item, limit=spec.max_payload)
                except PayloadError as error:
                    raise _UnstorableItem(error) from None
                feed.put_sealed(FeedKind.STREAM, body)
                await feed.room()
        return None

    def _tell_of_unknown(self, task: str) -> None:
        """Warn of a task that this worker lacks: once, though its jobs come again and again."""
        if task not in self._unknown and len(self._unknown) < _WARNINGS:
            self._unknown.add(task)
            logger.warning(
                "this worker knows no task %s: it hands its jobs back every %g s, until another worker takes them",
                task,
                _PARKED,
            )

    def _returned(self, attempt: Attempt, spec: TaskSpec, value: Any) -> Outcome:
        if attempt.cause in (Cause.TIMEOUT, Cause.CANCEL):  # it caught its cancellation: too late is too late
            return self._interrupted(attempt, spec, None)
        try:
            stored = spec.signature.encode_result(value, limit=spec.max_payload)
            spec.signature.decode_result(stored)  # what nobody could read back is no result
            return Outcome.completed(stored)
        except PayloadError as error:
            return Outcome.failed(Reason.RESULT, describe_failure(error))

    def _raised(self, attempt: Attempt, spec: TaskSpec, error: BaseException) -> Outcome:
        if attempt.cause is not None:
            if isinstance(error, asyncio.CancelledError):
                if attempt.task is not None:
                    attempt.task.uncancel()
                return self._interrupted(attempt, spec, None)
            return self._interrupted(attempt, spec, error)
        if isinstance(error, Snooze):
            return Outcome.snoozed(error.delay)
        failure = describe_failure(error)
        if isinstance(error, GiveUp):
            return Outcome.failed(Reason.GAVE_UP, failure)
        claimed = attempt.claimed
        started = claimed.attempt - claimed.crashes  # attempts that ended by themselves; crashes have their own cap
        if isinstance(error, RetryLater):
            most = claimed.max_attempts if spec.asks_for_retry else max(claimed.max_attempts, _ASKED)
            if started < most:
                return Outcome.retrying(error.delay, failure)
            return Outcome.failed(Reason.EXHAUSTED, failure)
        if isinstance(error, _UnstorableItem):
            return Outcome.failed(Reason.RESULT, describe_failure(error.reason))
        if not spec.retry.retries(error):
            return Outcome.failed(Reason.ERROR, failure)
        return self._again(claimed, spec, error, failure, Reason.ERROR)

    def _interrupted(self, attempt: Attempt, spec: TaskSpec | None, error: BaseException | None) -> Outcome:
        """Return the outcome of an attempt that was stopped, by the cause of it."""
        claimed = attempt.claimed
        failure = None if error is None else describe_failure(error)
        if attempt.cause is Cause.CANCEL:
            return Outcome.cancelled(failure)
        if attempt.cause is Cause.TIMEOUT:
            timeout = claimed.timeout if claimed.timeout is not None else spec and spec.timeout
            failure = failure or Failure("TimeoutError", f"it took longer than its timeout of {timeout:g} seconds")
            if spec is not None and spec.retry.timeouts:
                return self._again(claimed, spec, TimeoutError(), failure, Reason.TIMEOUT)
            return Outcome.failed(Reason.TIMEOUT, failure)
        if spec is not None and spec.at_most_once and attempt.entered:
            failure = failure or Failure("Interrupted", "its worker was shut down while it ran; it must not run twice")
            return Outcome.failed(Reason.INTERRUPTED, failure)
        return Outcome.released()

    def _again(
        self, claimed: Claimed, spec: TaskSpec, error: BaseException, failure: Failure, reason: Reason
    ) -> Outcome:
        started = claimed.attempt - claimed.crashes
        if started < claimed.max_attempts:
            return Outcome.retrying(spec.retry.delay(started, error, random.random()), failure, reason)
        if reason is Reason.ERROR and claimed.max_attempts > 1:
            reason = Reason.EXHAUSTED
        return Outcome.failed(reason, failure)
