"""What a running task is told about itself, and how it tells others: progress, log lines, whether to stop.

A worker makes one `Context` for each attempt. What is reported goes through an `Outbox`, which batches and sends it;
nothing here waits for a store.
"""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Mapping, Sized
from datetime import datetime
from typing import Any, Final, Protocol, TypeVar, overload

from oncue.errors import LeaseLost
from oncue.job import Claimed, FeedKind

__all__ = ["Context", "Outbox"]

T = TypeVar("T")

_PACE: Final = 0.05
"""Seconds between two reports of progress: more often nobody can see."""
_MESSAGE_LIMIT: Final = 4_096


class Outbox(Protocol):
    """Where the reports of one attempt go."""

    def put(self, kind: FeedKind, data: bytes) -> None:
        """Take JSON to be sent; from any thread."""
        ...

    async def flush(self) -> None:
        """Return when what was put is stored. Raises `LeaseLost` if the attempt is no longer the current one."""
        ...


class Context:
    """One attempt, as its task sees it. Make it a parameter of the task: `async def work(ctx: Context, …)`.

    Attributes:
        job_id: the job's id.
        task: the task's name.
        queue: the queue that it came from.
        attempt: number of this attempt, from 1.
        max_attempts: attempts that the job has in all.
        token: grows with every attempt of the job and is never given twice. Stored beside a side effect (`UPDATE …
            SET fence = :token WHERE fence < :token`) it keeps out an attempt that was taken for dead and wakes up.
        meta: what the caller gave the job along.
        enqueued_at: when the job was accepted.
        due_at: when this attempt was due.
        started_at: when it started, by the store's clock.
    """

    __slots__ = ("_claimed", "_last_progress", "_lost", "_outbox", "_stop")

    def __init__(self, claimed: Claimed, outbox: Outbox) -> None:
        self._claimed = claimed
        self._outbox = outbox
        self._stop = False
        self._lost = False
        self._last_progress = 0.0

    def __repr__(self) -> str:
        return f"<Context of {self.task} {self.job_id}, attempt {self.attempt}>"

    @property
    def job_id(self) -> str:
        return self._claimed.lease.job_id

    @property
    def task(self) -> str:
        return self._claimed.task

    @property
    def queue(self) -> str:
        return self._claimed.queue

    @property
    def attempt(self) -> int:
        return self._claimed.attempt

    @property
    def max_attempts(self) -> int:
        return self._claimed.max_attempts

    @property
    def token(self) -> int:
        return self._claimed.lease.token

    @property
    def meta(self) -> Mapping[str, str]:
        return self._claimed.meta

    @property
    def enqueued_at(self) -> datetime:
        return self._claimed.created_at

    @property
    def due_at(self) -> datetime:
        return self._claimed.due_at

    @property
    def started_at(self) -> datetime:
        return self._claimed.started_at

    @property
    def cancelled(self) -> bool:
        """Whether the attempt should stop: asked to, out of time, shutting down, or no longer the current one.

        Async tasks are interrupted by `asyncio.CancelledError`; a plain function, which runs in a thread, looks here.
        """
        return self._stop

    @property
    def lost(self) -> bool:
        """Whether this attempt is known to be no longer the current one: what it still does counts for nothing."""
        return self._lost

    def ensure_owner(self) -> None:
        """Raise `LeaseLost` if this attempt is known to be no longer the current one."""
        if self._lost:
            raise LeaseLost(
                f"attempt {self.attempt} of job {self.job_id} was taken for dead; another one may be running"
            )

    def stop(self, *, lost: bool = False) -> None:
        """Note that the attempt should stop. For the worker."""
        self._lost = self._lost or lost
        self._stop = True

    async def progress(self, done: float, total: float | None = None, message: str | None = None) -> None:
        """Say how far the task is: `done` of `total`, with a few words.

        The latest report counts; one that comes within 50 ms of another may be skipped.
        """
        self.progress_sync(done, total, message)
        await asyncio.sleep(0)

    def progress_sync(self, done: float, total: float | None = None, message: str | None = None) -> None:
        """`progress` for plain functions; from any thread."""
        for number in (done, total):
            if number is not None and not math.isfinite(number):
                raise ValueError(f"progress must be finite numbers, for example 3 of 10; not {number!r}")
        now = time.monotonic()
        complete = total is not None and done >= total
        if now - self._last_progress < _PACE and not complete and message is None:
            return
        self._last_progress = now
        self._put(FeedKind.PROGRESS, {"done": done, "total": total, "message": _cut(message)})

    async def log(self, message: str, *, level: str = "info") -> None:
        """Add a line to the job's own log, which pages show while it runs."""
        self.log_sync(message, level=level)
        await asyncio.sleep(0)

    def log_sync(self, message: str, *, level: str = "info") -> None:
        """`log` for plain functions; from any thread."""
        self._put(FeedKind.LOG, {"level": level, "message": _cut(message)})

    def _put(self, kind: FeedKind, data: dict[str, Any]) -> None:
        self._outbox.put(kind, json.dumps(data, ensure_ascii=False).encode(errors="replace"))

    @overload
    def track(
        self, items: AsyncIterable[T], total: float | None = None, message: str | None = None
    ) -> AsyncIterator[T]: ...
    @overload
    def track(self, items: Iterable[T], total: float | None = None, message: str | None = None) -> AsyncIterator[T]: ...
    async def track(self, items: Any, total: float | None = None, message: str | None = None) -> AsyncIterator[Any]:
        """Yield items and report progress with each; `total` is `len(items)` where there is one.

        A plain iterable is stepped on the event loop, which gets a turn between items.
        """
        if total is None:
            total = len(items) if isinstance(items, Sized) else None
        done = 0
        if hasattr(items, "__aiter__"):
            async for item in items:
                yield item
                done += 1
                self.progress_sync(done, total)
        else:
            for item in items:
                yield item
                done += 1
                await self.progress(done, total)
        self._put(
            FeedKind.PROGRESS, {"done": done, "total": done if total is None else total, "message": _cut(message)}
        )

    def track_sync(self, items: Iterable[T], total: float | None = None) -> Iterator[T]:
        """`track` for plain functions."""
        if total is None and isinstance(items, Sized):
            total = len(items)
        for done, item in enumerate(items, 1):
            yield item
            self.progress_sync(done, total)


def _cut(text: str | None) -> str | None:
    if text is None:
        return None
    text = str(text)
    return text if len(text) <= _MESSAGE_LIMIT else text[: _MESSAGE_LIMIT - 1] + "…"
