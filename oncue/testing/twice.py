"""An engine that sends every write twice and insists on the promise that the second changes nothing.

It leaves the work to the engine it wraps. A broken promise is an `AssertionError` that shows both answers.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from datetime import timedelta
from typing import Self

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
    Subscription,
    WorkerInfo,
)
from oncue.job import Attempt, FeedItem, JobInfo, Lease, NewJob, Outcome

__all__ = ["Twice"]


class Twice:
    """Send every write to `engine` a second time with equal arguments, as after a lost reply.

    Both answers must be equal and the jobs that the call names must read the same before and after the second one,
    so calls that touch the same jobs must not run beside each other. Three calls differ:

    - `claim` is repeated for no queue at all: without the new jobs in `held` it must answer them again, under the
      same leases, and with them nothing.
    - `rescue` and `prune` are repeated only if their limit was not reached; then nothing must be left to do.
    - `enqueue` of a job without a `request` may answer its repetition as a conflict with the job itself.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    @property
    def url(self) -> str:
        """Where the store of the wrapped engine is."""
        return self._engine.url

    async def open(self) -> None:
        """Open the wrapped engine, twice."""
        await self._engine.open()
        await self._engine.open()

    async def close(self) -> None:
        """Close the wrapped engine, twice."""
        await self._engine.close()
        await self._engine.close()

    def sibling(self) -> Engine:
        """Return a sibling that sends every write twice as well."""
        return Twice(self._engine.sibling())

    def advance(self, by: timedelta) -> None:
        """Move the clock once."""
        self._engine.advance(by)

    async def enqueue(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
        """Enqueue twice."""
        first = await self._engine.enqueue(jobs)
        before = await self._engine.get([answer.id for answer in first])
        second = await self._engine.enqueue(jobs)
        if any(job.unique is not None and job.unique.on_conflict == "replace" for job in jobs):
            # One job of a batch may replace another: the first answer told of a state that has passed.
            first_told = [(one.id, one.created, one.conflict) for one in first]
            _equal("enqueue", first_told, [(one.id, one.created, one.conflict) for one in second])
        else:
            _equal("enqueue", len(first), len(second))
            for job, one, other in zip(jobs, first, second, strict=True):
                if job.request is None and one.created and not other.created:
                    _equal("enqueue", (one.id, one.state, "id"), (other.id, other.state, other.conflict))
                else:
                    _equal("enqueue", one, other)
        _equal("jobs after enqueue", before, await self._engine.get([answer.id for answer in first]))
        return first

    async def claim(
        self,
        queues: Sequence[str],
        *,
        limit: int,
        worker_id: str,
        lease: timedelta,
        held: Collection[str] | None = None,
    ) -> Claim:
        """Claim once, then reconcile as if the reply had been lost, then as if it had arrived."""
        first = await self._engine.claim(queues, limit=limit, worker_id=worker_id, lease=lease, held=held)
        if first.jobs and held is not None:
            lost = await self._engine.claim((), limit=MAX_BATCH, worker_id=worker_id, lease=lease, held=held)
            # A job that was rescued from this worker may be named in `held` for its old attempt, and is not told then.
            told = {job.id: job for job in first.jobs if job.id not in held}
            _equal("claim after a lost reply", told, {job.id: job for job in lost.jobs})
            known = {*held, *(job.id for job in first.jobs)}
            again = await self._engine.claim((), limit=MAX_BATCH, worker_id=worker_id, lease=lease, held=known)
            _equal("claim with all that is held", [], [job.id for job in again.jobs])
        return first

    async def heartbeat(self, worker: WorkerInfo, leases: Sequence[Lease], *, lease: timedelta) -> list[Hold]:
        """Beat twice."""
        first = await self._engine.heartbeat(worker, leases, lease=lease)
        before = await self._engine.get([held.job_id for held in leases])
        _equal("heartbeat", first, await self._engine.heartbeat(worker, leases, lease=lease))
        _equal("jobs after heartbeat", before, await self._engine.get([held.job_id for held in leases]))
        return first

    async def finish(self, outcomes: Sequence[tuple[Lease, Outcome]]) -> list[bool]:
        """Finish twice."""
        first = await self._engine.finish(outcomes)
        ids = [lease.job_id for lease, _ in outcomes]
        before = await self._engine.get(ids, bodies=True)
        _equal("finish", first, await self._engine.finish(outcomes))
        _equal("jobs after finish", before, await self._engine.get(ids, bodies=True))
        return first

    async def rescue(self, *, limit: int, lease: timedelta, dead: Collection[str] = ()) -> list[Rescued]:
        """Rescue, and once more if all was rescued: there must be nothing left."""
        first = await self._engine.rescue(limit=limit, lease=lease, dead=dead)
        if len(first) < limit:
            _equal("rescue", [], await self._engine.rescue(limit=limit, lease=lease, dead=dead))
        return first

    async def prune(self, *, limit: int, keep_finished: int) -> int:
        """Prune, and once more if all was pruned: there must be nothing left."""
        first = await self._engine.prune(limit=limit, keep_finished=keep_finished)
        if first < limit:
            _equal("prune", 0, await self._engine.prune(limit=limit, keep_finished=keep_finished))
        return first

    async def cancel(self, ids: Sequence[str]) -> list[CancelAnswer]:
        """Cancel twice."""
        first = await self._engine.cancel(ids)
        before = await self._engine.get(ids)
        _equal("cancel", first, await self._engine.cancel(ids))
        _equal("jobs after cancel", before, await self._engine.get(ids))
        return first

    async def retry(self, ids: Sequence[str]) -> list[bool]:
        """Retry twice."""
        first = await self._engine.retry(ids)
        before = await self._engine.get(ids)
        _equal("retry", first, await self._engine.retry(ids))
        _equal("jobs after retry", before, await self._engine.get(ids))
        return first

    async def delete(self, ids: Sequence[str]) -> list[bool]:
        """Delete twice."""
        first = await self._engine.delete(ids)
        before = await self._engine.get(ids)
        _equal("delete", first, await self._engine.delete(ids))
        _equal("jobs after delete", before, await self._engine.get(ids))
        return first

    async def set_queue(self, queue: str, *, paused: bool) -> None:
        """Pause or resume twice."""
        await self._engine.set_queue(queue, paused=paused)
        await self._engine.set_queue(queue, paused=paused)

    async def get(self, ids: Sequence[str], *, bodies: bool = False) -> list[JobInfo | None]:
        """Read once."""
        return await self._engine.get(ids, bodies=bodies)

    async def attempts(self, job_id: str) -> list[Attempt]:
        """Read once."""
        return await self._engine.attempts(job_id)

    async def list_jobs(
        self, where: JobFilter, *, limit: int, after: str | None = None
    ) -> tuple[list[JobInfo], str | None]:
        """Read once."""
        return await self._engine.list_jobs(where, limit=limit, after=after)

    async def queues(self) -> list[QueueInfo]:
        """Read once."""
        return await self._engine.queues()

    async def workers(self) -> list[WorkerInfo]:
        """Read once."""
        return await self._engine.workers()

    async def metrics(self, *, since: timedelta) -> list[MetricsRow]:
        """Read once."""
        return await self._engine.metrics(since=since)

    async def append(self, lease: Lease, items: Sequence[FeedItem]) -> bool:
        """Append twice."""
        first = await self._engine.append(lease, items)
        before = await self._engine.read(lease.job_id, limit=MAX_BATCH)
        _equal("append", first, await self._engine.append(lease, items))
        _equal("feed after append", before, await self._engine.read(lease.job_id, limit=MAX_BATCH))
        return first

    async def read(self, job_id: str, *, after: str | None = None, limit: int = 500) -> list[FeedItem]:
        """Read once."""
        return await self._engine.read(job_id, after=after, limit=limit)

    def subscribe(self, *topics: str) -> Subscription:
        """Subscribe once."""
        return self._engine.subscribe(*topics)

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()


def _equal(what: str, first: object, second: object) -> None:
    if first != second:
        shown = f"\n  first  {first!r:.2000}\n  second {second!r:.2000}"
        raise AssertionError(f"{what} changed when it was sent again:{shown}")
