"""What is true of a store at any moment, checked through the contract alone.

Call it while nothing else works on the store: it compares several reads with each other.
"""

from __future__ import annotations

from collections import Counter

from oncue.engine import MAX_BATCH, Engine, JobFilter
from oncue.job import JobInfo, State

__all__ = ["all_jobs", "check_invariants"]


async def all_jobs(engine: Engine, where: JobFilter | None = None, *, limit: int = MAX_BATCH) -> list[JobInfo]:
    """Read all pages of `list_jobs`, `limit` jobs each."""
    jobs, cursor = await engine.list_jobs(where or JobFilter(), limit=limit)
    seen: set[str] = set()
    while cursor is not None:
        assert cursor not in seen, f"the pages go round in a circle at {cursor!r}"
        seen.add(cursor)
        page, cursor = await engine.list_jobs(where or JobFilter(), limit=limit, after=cursor)
        jobs.extend(page)
    return jobs


async def check_invariants(engine: Engine) -> None:
    """Raise `AssertionError` if a job, the list of jobs and the counts of the queues do not agree."""
    jobs = await all_jobs(engine)
    ids = [job.id for job in jobs]
    twice = [job_id for job_id, times in Counter(ids).items() if times > 1]
    assert not twice, f"listed more than once: {twice}"
    for job in jobs:
        _check_job(job)
    for start in range(0, len(jobs), MAX_BATCH):
        page = jobs[start : start + MAX_BATCH]
        assert await engine.get([job.id for job in page]) == page, "a listed job reads differently by its id"
    await _check_counts(engine, jobs)
    await _check_filters(engine, jobs)


def _check_job(job: JobInfo) -> None:
    running = job.state is State.RUNNING
    assert (job.worker is not None) == running, f"only a running job has a worker: {job}"
    assert job.started_at is not None or not running, f"a running job has started: {job}"
    assert (job.waiting_for > 0) == (job.state is State.WAITING), f"only a waiting job waits for others: {job}"
    assert (job.finished_at is not None) == job.state.final, f"only an ended job has an end: {job}"
    assert not job.cancel_requested or running or job.state is State.CANCELLED, f"a request outlived its job: {job}"
    assert job.reason is not None or job.state not in (State.FAILED, State.CANCELLED), f"ended without reason: {job}"
    assert job.attempts >= 0, f"negative attempts: {job}"
    assert job.crashes >= 0, f"negative crashes: {job}"


async def _check_counts(engine: Engine, jobs: list[JobInfo]) -> None:
    expected: dict[str, Counter[State]] = {}
    for job in jobs:
        expected.setdefault(job.queue, Counter())[job.state] += 1
    queues = await engine.queues()
    counted = {queue.name: {state: count for state, count in queue.counts.items() if count} for queue in queues}
    for queue in queues:
        assert counted[queue.name] or queue.paused, f"queue {queue.name} has neither jobs nor a pause"
    assert {name: counts for name, counts in counted.items() if counts} == expected, "counts differ from the jobs"


async def _check_filters(engine: Engine, jobs: list[JobInfo]) -> None:
    for state in State:
        listed = {job.id for job in await all_jobs(engine, JobFilter(states=frozenset({state})))}
        expected = {job.id for job in jobs if job.state is state}
        assert listed == expected, f"the list of {state} jobs differs from the list of all"
