"""The short verbs that the cases are written in. Each is one or two calls of the engine and decides nothing."""

from __future__ import annotations

import os
from collections.abc import Collection
from datetime import timedelta
from typing import Any, Final

from oncue.engine import MAX_BATCH, Engine, Hold, Rescued, WorkerInfo
from oncue.job import Claimed, Failure, JobInfo, Lease, NewJob, Outcome, Reason, State, new_id

__all__ = [
    "BOOM",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "LEASE",
    "advance",
    "beat",
    "drain",
    "end",
    "ended",
    "info",
    "job",
    "pass_leases",
    "put",
    "put_one",
    "rescue",
    "settle",
    "start",
    "state",
    "take",
    "take_one",
]

LEASE: Final = timedelta(minutes=1)
"""Long enough that no lease expires because the machine is busy: time passes by `advance`."""
_STEP: Final = LEASE * 0.45
"""From rescue to rescue; a lease is no multiple of it, so that none ends just when it is looked at."""
DEADLINE: Final = 10.0
"""Seconds until a thing that should happen at once counts as not happening."""
BOOM: Final = Failure("ValueError", "boom", "Traceback: boom")
COMPLETED: Final = Outcome.completed(b"result")
FAILED: Final = Outcome.failed(Reason.ERROR, BOOM)


def job(job_id: str | None = None, **options: Any) -> NewJob:
    """Return a request as a client makes it: with a fresh id and a mark of its own, unless given."""
    return NewJob(id=job_id or new_id(), **{"task": "task", "request": os.urandom(16), **options})


def advance(engine: Engine, seconds: float) -> None:
    """Let the clock of the store jump."""
    engine.advance(timedelta(seconds=seconds))


async def put(engine: Engine, *jobs: NewJob) -> list[str]:
    """Enqueue jobs that nothing is in the way of; return their ids."""
    answers = await engine.enqueue(jobs)
    ids = [new.id for new in jobs]
    assert [(answer.id, answer.created, answer.conflict) for answer in answers] == [(one, True, None) for one in ids]
    return ids


async def put_one(engine: Engine, job_id: str | None = None, **options: Any) -> str:
    """Enqueue one job that nothing is in the way of; return its id."""
    return (await put(engine, job(job_id, **options)))[0]


async def take(
    engine: Engine,
    limit: int = 1,
    *,
    queues: Collection[str] = ("default",),
    worker: str | None = None,
    held: Collection[str] = (),
    lease: timedelta = LEASE,
) -> list[Claimed]:
    """Claim jobs, for a worker that never claimed before unless one is named; none may come before its time."""
    claim = await engine.claim(tuple(queues), limit=limit, worker_id=worker or new_id(), lease=lease, held=held)
    early = [(claimed.due_at, claimed.started_at) for claimed in claim.jobs if claimed.due_at > claimed.started_at]
    assert not early, f"handed out before they were due: {early}"
    return list(claim.jobs)


async def take_one(engine: Engine, **options: Any) -> Claimed:
    """Claim one job; there must be one."""
    jobs = await take(engine, **options)
    assert len(jobs) == 1, f"{len(jobs)} jobs were claimed instead of one"
    return jobs[0]


async def start(engine: Engine, job_id: str | None = None, *, worker: str | None = None, **options: Any) -> Claimed:
    """Enqueue one job and claim it; no other may be in its line, and `worker` must hold nothing else."""
    new = job(job_id, **options)
    await put(engine, new)
    claimed = await take_one(engine, queues=(new.queue,), worker=worker)
    assert claimed.id == new.id
    return claimed


async def end(engine: Engine, claimed: Claimed, outcome: Outcome = COMPLETED) -> None:
    """Finish an attempt that is the current one."""
    assert await engine.finish([(claimed.lease, outcome)]) == [True]


async def ended(engine: Engine, outcome: Outcome = COMPLETED, job_id: str | None = None, **options: Any) -> str:
    """Enqueue, claim and finish one job; return its id."""
    claimed = await start(engine, job_id, **options)
    await end(engine, claimed, outcome)
    return claimed.id


async def info(engine: Engine, job_id: str, *, bodies: bool = False) -> JobInfo:
    """Read a job that must be there."""
    (found,) = await engine.get([job_id], bodies=bodies)
    assert found is not None, f"no job {job_id!r}"
    return found


async def state(engine: Engine, job_id: str) -> State:
    """Read the state of a job that must be there."""
    return (await info(engine, job_id)).state


async def beat(engine: Engine, *leases: Lease, worker: str | None = None, lease: timedelta = LEASE) -> list[Hold]:
    """Send a heartbeat for leases."""
    return await engine.heartbeat(WorkerInfo(worker or new_id()), leases, lease=lease)


async def drain(engine: Engine, *queues: str) -> list[str]:
    """Claim and complete one job after the other until there is none; return their ids in this order."""
    order: list[str] = []
    while claimed := await take(engine, queues=queues or ("default",)):
        await end(engine, claimed[0])
        order.append(claimed[0].id)
    return order


async def rescue(engine: Engine, *, dead: Collection[str] = (), limit: int = MAX_BATCH) -> list[Rescued]:
    """Take back what may be taken back."""
    return await engine.rescue(limit=limit, lease=LEASE, dead=dead)


async def settle(engine: Engine) -> None:
    """Have rescuers at work for two leases, so that no grace is left when leases expire from here on."""
    for _ in range(5):
        await rescue(engine)
        engine.advance(_STEP)
    await rescue(engine)


async def pass_leases(engine: Engine) -> list[Rescued]:
    """Let three leases pass with rescuers at work: whatever is not renewed is taken back, once; return it."""
    rescued: list[Rescued] = []
    for _ in range(7):
        rescued += await rescue(engine)
        engine.advance(_STEP)
    return rescued + await rescue(engine)
