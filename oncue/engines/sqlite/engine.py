"""The SQLite engine: the contract of `oncue.engine` on one file, or in memory.

Each method hands requests to a lane; what they do is in the modules named like them. The writing lane makes every
call atomic, and shares commits between calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from datetime import timedelta
from threading import Lock
from typing import Any, Self

from oncue.engine import (
    MAX_BATCH,
    CancelAnswer,
    Claim,
    Engine,
    Enqueued,
    Hold,
    JobFilter,
    MetricsRow,
    QueueInfo,
    Rescued,
    WorkerInfo,
)
from oncue.engines.sqlite import claim, control, feed, finish, reads, upkeep
from oncue.engines.sqlite import enqueue as acceptance
from oncue.engines.sqlite.clock import Clock
from oncue.engines.sqlite.files import prepare, prepare_reader
from oncue.engines.sqlite.hints import HintSubscription, Hub
from oncue.engines.sqlite.lane import Lane, Operation, ReadingLane, WritingLane
from oncue.engines.sqlite.settings import SQLiteSettings
from oncue.errors import ConfigError, EngineError, EngineUnavailable
from oncue.job import Attempt, FeedItem, JobInfo, Lease, NewJob, Outcome

__all__ = ["SQLiteEngine"]

_TOP = 2**63 - 1
_JOB_SIZE = 512
"""About the bytes of a job in the file, beside its payload."""


def _ms(duration: timedelta) -> int:
    return duration // timedelta(milliseconds=1)


def _cursor(text: str, parts: int) -> tuple[int, ...]:
    """Read a cursor of so many numbers. Raises `ConfigError`."""
    numbers = text.split("-")
    if len(numbers) != parts or not all(number.isascii() and number.isdigit() for number in numbers):
        raise ConfigError(f"after={text!r:.80} is no cursor; give one that a call before came with")
    return tuple(min(int(number[:20]), _TOP) for number in numbers)


def _bounded(items: Sequence[Any], what: str) -> None:
    if len(items) > MAX_BATCH:
        raise ConfigError(f"{what} takes at most {MAX_BATCH} items a call, not {len(items)}; cut it into several calls")


class _Lanes:
    """The threads of one store, and how many engines have them open."""

    def __init__(self, settings: SQLiteSettings, clock: Clock, hub: Hub) -> None:
        self._settings = settings
        self._clock = clock
        self._hub = hub
        self._users = 0
        self._changing = Lock()
        self.writer: Lane | None = None
        self.reader: Lane | None = None

    def open(self) -> None:
        """Start the threads if they do not run. Blocks."""
        with self._changing:
            if self._users == 0:
                conn = prepare(self._settings, self._clock)
                if self._settings.path is None:
                    self.writer = self.reader = WritingLane(self._settings, self._clock, conn, self._hub)
                else:
                    try:
                        reader = prepare_reader(self._settings)
                    except EngineError:
                        conn.close()
                        raise
                    self.reader = ReadingLane("oncue-sqlite-reader", self._settings, self._clock, reader)
                    self.writer = WritingLane(self._settings, self._clock, conn, self._hub)
            self._users += 1

    def close(self) -> None:
        """End the threads if nobody else uses them, when they have done what was asked. Blocks."""
        with self._changing:
            self._users -= 1
            if self._users == 0:
                lanes, self.reader, self.writer = {self.reader, self.writer}, None, None
                for lane in lanes:
                    if lane is not None:
                        lane.close()


class SQLiteEngine:
    """Jobs in one SQLite file, shared by all processes of one machine; or in memory, for one process.

    Args:
        url: `sqlite:///relative.db`, `sqlite:////absolute.db` or `sqlite://:memory:`, with the options
            `synchronous=full|normal` and `timeout=seconds`; see `SQLiteSettings`.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._settings = SQLiteSettings.parse(url)
        self._clock = Clock()
        self._hub = Hub()
        self._lanes = _Lanes(self._settings, self._clock, self._hub)
        self._opened = False
        self._changing = Lock()

    @property
    def url(self) -> str:
        """Where the store is."""
        return self._url

    async def open(self) -> None:
        """Open, create or migrate the file; see `Engine.open`."""
        if not self._opened:
            await asyncio.to_thread(self._open)

    def _open(self) -> None:
        with self._changing:
            if not self._opened:
                self._lanes.open()
                self._opened = True

    async def close(self) -> None:
        """Write what was asked, then close the file; see `Engine.close`."""
        await asyncio.to_thread(self._close)

    def _close(self) -> None:
        with self._changing:
            if self._opened:
                self._opened = False
                self._lanes.close()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def sibling(self) -> Engine:
        """Return another connection to the same store; see `Engine.sibling`."""
        sibling = SQLiteEngine(self._url)
        sibling._clock = self._clock
        if self._settings.path is None:
            # In memory there is nothing to connect to twice: siblings share the lanes.
            sibling._hub, sibling._lanes = self._hub, self._lanes
        else:
            sibling._lanes = _Lanes(sibling._settings, sibling._clock, sibling._hub)
        return sibling

    def advance(self, by: timedelta) -> None:
        """Move the clock forward; for tests."""
        self._clock.advance(by)
        self._hub.publish_all()

    def _write(self, operation: Operation, requests: Sequence[Any], *, adds: int = 0) -> asyncio.Future[list[Any]]:
        return self._open_lane(self._lanes.writer).submit(operation, requests, adds)

    def _read(self, operation: Operation, requests: Sequence[Any]) -> asyncio.Future[list[Any]]:
        return self._open_lane(self._lanes.reader).submit(operation, requests)

    def _open_lane(self, lane: Lane | None) -> Lane:
        if lane is None or not self._opened:
            raise EngineUnavailable(
                f"{self._url} is not open: include oncue_router(jobs) in the application, or say `async with jobs:`"
            )
        return lane

    async def enqueue(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
        """Accept jobs; see `Engine.enqueue`."""
        _bounded(jobs, "enqueue")
        if not jobs:
            return []
        size = sum([len(job.payload) for job in jobs]) + _JOB_SIZE * len(jobs)
        return await self._write(acceptance.enqueue, jobs, adds=size)

    async def claim(
        self,
        queues: Sequence[str],
        *,
        limit: int,
        worker_id: str,
        lease: timedelta,
        held: Collection[str] | None = None,
    ) -> Claim:
        """Hand out jobs; see `Engine.claim`."""
        known = None if held is None else frozenset(held)
        request = claim.ClaimRequest(tuple(queues), min(limit, MAX_BATCH), worker_id, _ms(lease), known)
        return (await self._write(claim.claim, [request]))[0]  # type: ignore[no-any-return]

    async def heartbeat(self, worker: WorkerInfo, leases: Sequence[Lease], *, lease: timedelta) -> list[Hold]:
        """Record that a worker lives and renew its leases; see `Engine.heartbeat`."""
        request = upkeep.HeartbeatRequest(worker, tuple(leases), _ms(lease))
        return (await self._write(upkeep.heartbeat, [request]))[0]  # type: ignore[no-any-return]

    async def finish(self, outcomes: Sequence[tuple[Lease, Outcome]]) -> list[bool]:
        """End attempts; see `Engine.finish`."""
        _bounded(outcomes, "finish")
        return await self._write(finish.finish, outcomes) if outcomes else []

    async def rescue(self, *, limit: int, lease: timedelta, dead: Collection[str] = ()) -> list[Rescued]:
        """Take back jobs of silent workers; see `Engine.rescue`."""
        request = upkeep.RescueRequest(min(limit, MAX_BATCH), _ms(lease), tuple(dead))
        return (await self._write(upkeep.rescue, [request]))[0]  # type: ignore[no-any-return]

    async def prune(self, *, limit: int, keep_finished: int) -> int:
        """Delete what need not be kept; see `Engine.prune`."""
        request = upkeep.PruneRequest(min(limit, MAX_BATCH), keep_finished)
        return (await self._write(upkeep.prune, [request]))[0]  # type: ignore[no-any-return]

    async def cancel(self, ids: Sequence[str]) -> list[CancelAnswer]:
        """Cancel jobs; see `Engine.cancel`."""
        _bounded(ids, "cancel")
        return await self._write(control.cancel, ids) if ids else []

    async def retry(self, ids: Sequence[str]) -> list[bool]:
        """Put ended jobs back in line; see `Engine.retry`."""
        _bounded(ids, "retry")
        return await self._write(control.retry, ids) if ids else []

    async def delete(self, ids: Sequence[str]) -> list[bool]:
        """Remove jobs; see `Engine.delete`."""
        _bounded(ids, "delete")
        return await self._write(control.delete, ids) if ids else []

    async def set_queue(self, queue: str, *, paused: bool) -> None:
        """Pause or resume a queue; see `Engine.set_queue`."""
        await self._write(control.set_queue, [(queue, paused)])

    async def get(self, ids: Sequence[str], *, bodies: bool = False) -> list[JobInfo | None]:
        """Read jobs; see `Engine.get`."""
        _bounded(ids, "get")
        return await self._read(reads.get, [(job_id, bodies) for job_id in ids]) if ids else []

    async def attempts(self, job_id: str) -> list[Attempt]:
        """Read a job's attempts; see `Engine.attempts`."""
        return (await self._read(reads.attempts, [job_id]))[0]  # type: ignore[no-any-return]

    async def list_jobs(
        self, where: JobFilter, *, limit: int, after: str | None = None
    ) -> tuple[list[JobInfo], str | None]:
        """Read one page of jobs; see `Engine.list_jobs`."""
        before = _TOP if after is None else _cursor(after, 1)[0]
        request = reads.ListRequest(where, min(limit, MAX_BATCH), before)
        return (await self._read(reads.list_jobs, [request]))[0]  # type: ignore[no-any-return]

    async def queues(self) -> list[QueueInfo]:
        """Read the queues; see `Engine.queues`."""
        return (await self._read(reads.queues, [None]))[0]  # type: ignore[no-any-return]

    async def workers(self) -> list[WorkerInfo]:
        """Read the workers; see `Engine.workers`."""
        return (await self._read(reads.workers, [None]))[0]  # type: ignore[no-any-return]

    async def metrics(self, *, since: timedelta) -> list[MetricsRow]:
        """Read the metrics; see `Engine.metrics`."""
        return (await self._read(reads.metrics, [_ms(since)]))[0]  # type: ignore[no-any-return]

    async def append(self, lease: Lease, items: Sequence[FeedItem]) -> bool:
        """Add to a job's feed; see `Engine.append`."""
        _bounded(items, "append")
        return (await self._write(feed.append, [feed.AppendRequest(lease, tuple(items))]))[0]  # type: ignore[no-any-return]

    async def read(self, job_id: str, *, after: str | None = None, limit: int = 500) -> list[FeedItem]:
        """Read a job's feed; see `Engine.read`."""
        position = (-1, -1) if after is None else _cursor(after, 2)
        request = feed.ReadRequest(job_id, (position[0], position[1]), min(limit, MAX_BATCH))
        return (await self._read(feed.read, [request]))[0]  # type: ignore[no-any-return]

    def subscribe(self, *topics: str) -> HintSubscription:
        """Be hinted of changes; see `Engine.subscribe`."""
        return self._hub.subscribe(topics)
