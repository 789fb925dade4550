"""Enqueues and reads: what a web application does with a store.

Knows the engine, the envelope of stored bytes and the registered tasks; running them is the worker's. The objects that
applications hold, `Task` and `Job`, are in `oncue.handles`.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections.abc import Coroutine, Sequence
from threading import Lock, Thread
from typing import Any, Final, TypeVar

from oncue.engine import MAX_BATCH, CancelAnswer, Engine, Enqueued, topic_job
from oncue.errors import ConfigError, JobNotFound, PayloadError, UniqueConflict
from oncue.job import JobInfo, NewJob
from oncue.serializers import Envelope
from oncue.tasks import Registry

__all__ = ["Client"]

T = TypeVar("T")

_LOOK: Final = 1.0
"""Seconds between looks at a job that is waited for, should a hint be lost."""


class Client:
    """The calling side of one application.

    Attributes:
        engine: the store.
        registry: the application's tasks.
        envelope: what goes around stored bytes.
    """

    def __init__(self, engine: Engine, registry: Registry, envelope: Envelope) -> None:
        self.engine = engine
        self.registry = registry
        self.envelope = envelope
        self._portal = _Portal(engine)

    async def send(self, job: NewJob) -> Enqueued:
        """Enqueue one job; what is sent in one turn of the event loop travels together."""
        [answer] = await self.engine.enqueue([job])
        return _told(job, answer)

    async def send_many(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
        """Enqueue many jobs, in calls of up to `MAX_BATCH`."""
        answers: list[Enqueued] = []
        for start in range(0, len(jobs), MAX_BATCH):
            chunk = jobs[start : start + MAX_BATCH]
            answers += [_told(*pair) for pair in zip(chunk, await self.engine.enqueue(chunk), strict=True)]
        return answers

    async def info(self, job_id: str, *, bodies: bool = False) -> JobInfo:
        """Read one job. Raises `JobNotFound`."""
        [info] = await self.engine.get([job_id], bodies=bodies)
        if info is None:
            raise JobNotFound(job_id)
        return info

    async def infos(self, ids: Sequence[str], *, bodies: bool = False) -> list[JobInfo | None]:
        """Read many jobs, in order; None for those that are not there."""
        found: list[JobInfo | None] = []
        for start in range(0, len(ids), MAX_BATCH):
            found += await self.engine.get(ids[start : start + MAX_BATCH], bodies=bodies)
        return found

    async def wait(self, job_id: str, timeout: float | None = None) -> JobInfo:
        """Wait until a job has ended; after `timeout` seconds answer what it is then. Raises `JobNotFound`."""
        deadline = None if timeout is None else time.monotonic() + timeout
        hints = self.engine.subscribe(topic_job(job_id))
        try:
            while True:
                info = await self.info(job_id)
                if info.state.final:
                    return info
                patience = _LOOK * random.uniform(0.8, 1.2)  # so that many waiters do not look in step
                if deadline is not None:
                    patience = min(patience, deadline - time.monotonic())
                    if patience <= 0:
                        return info
                await hints.wait(patience)
        finally:
            hints.close()

    async def cancel(self, job_id: str) -> CancelAnswer:
        """Ask a job to stop; see `CancelAnswer`. Raises `JobNotFound`."""
        [answer] = await self.engine.cancel([job_id])
        if answer is CancelAnswer.NOT_FOUND:
            raise JobNotFound(job_id)
        return answer

    def read_json(self, stored: bytes) -> Any:
        """Return the JSON value in stored bytes, whatever task wrote it. Raises `PayloadError`."""
        try:
            return json.loads(self.envelope.open(stored))
        except ValueError as error:
            raise PayloadError(f"stored bytes are no JSON: {error}") from error

    def run_sync(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine for code that has no event loop, opening the store if need be."""
        return self._portal.run(work)

    def close_sync(self) -> None:
        """Close what `run_sync` opened; it opens again when it is needed."""
        self._portal.close()


def _told(job: NewJob, answer: Enqueued) -> Enqueued:
    """Raise `UniqueConflict` for a caller who asked to be told."""
    if answer.conflict == "unique" and job.unique is not None and job.unique.on_conflict == "raise":
        raise UniqueConflict(
            f"job {answer.id} holds the unique key {job.unique.key!r:.80} and is {answer.state}", holder=answer.id
        )
    return answer


class _Portal:
    """An event loop in a thread of its own, for callers without one."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: Thread | None = None

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            pass
        else:
            work.close()
            raise ConfigError("this is async code: await the method without _sync, which would block the event loop")
        return asyncio.run_coroutine_threadsafe(self._opened(work), self._ready()).result()

    async def _opened(self, work: Coroutine[Any, Any, T]) -> T:
        await self._engine.open()
        return await work

    def _ready(self) -> asyncio.AbstractEventLoop:
        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = Thread(target=self._loop.run_forever, name="oncue-sync", daemon=True)
                self._thread.start()
            return self._loop

    def close(self) -> None:
        with self._lock:
            loop, thread, self._loop, self._thread = self._loop, self._thread, None, None
        if loop is not None and thread is not None:
            asyncio.run_coroutine_threadsafe(self._engine.close(), loop).result()
            loop.call_soon_threadsafe(loop.stop)
            thread.join()
            loop.close()
