"""What fails is tried again, when its policy or the task itself says; and never else."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import defaultdict
from datetime import timedelta

import pytest

from oncue import Context, GiveUp, Oncue, Retry, RetryLater, Snooze, State
from tests.measured import Report
from tests.worker.kit import eventually, working

pytestmark = pytest.mark.anyio

Times = defaultdict[str, list[float]]


@pytest.fixture
def starts() -> Times:
    """When each job's attempts began."""
    return defaultdict(list)


def gaps(times: list[float]) -> list[float]:
    return [later - earlier for earlier, later in itertools.pairwise(times)]


async def test_attempts_come_after_the_delays_of_the_policy(jobs: Oncue, starts: Times, report: Report) -> None:
    @jobs.task(retry=Retry(max=4, base=0.1, jitter="none", on=(OSError,)))
    async def flaky(ctx: Context) -> int:
        starts[ctx.job_id].append(time.monotonic())
        if ctx.attempt < 4:
            raise OSError("not yet")
        return ctx.attempt

    async with working(jobs):
        handles = [await flaky.enqueue() for _ in range(10)]
        for job in handles:
            assert await job.result(10) == 4
    late = 0.0
    for times in starts.values():
        for gap, planned in zip(gaps(times), (0.1, 0.2, 0.4), strict=True):
            assert gap >= planned - 0.002, "too early"
            late = max(late, gap - planned)
    report("retries after 0.1, 0.2, 0.4 s, 10 jobs: latest", late * 1000, "ms")
    assert late < 0.5


async def test_a_job_whose_attempts_are_used_up_is_exhausted_and_keeps_each_error(jobs: Oncue) -> None:
    @jobs.task(retry=Retry(max=3, base=0.01))
    async def fails(ctx: Context) -> None:
        raise ValueError(f"number {ctx.attempt}")

    async with working(jobs):
        job = await fails.enqueue()
        info = await job.wait(5)
    assert (info.state, info.reason, info.attempts, info.error) == (
        State.FAILED,
        "exhausted",
        3,
        "ValueError: number 3",
    )
    attempts = await jobs.engine.attempts(job.id)
    assert [(a.number, a.outcome) for a in attempts] == [(1, "retrying"), (2, "retrying"), (3, "failed")]
    assert [a.failure.message for a in attempts if a.failure] == ["number 1", "number 2", "number 3"]


async def test_only_the_named_errors_are_retried(jobs: Oncue) -> None:
    @jobs.task(retry=Retry(max=3, base=0.01, on=(OSError,), not_on=(FileNotFoundError,)))
    async def fails(kind: str) -> None:
        raise {"os": PermissionError, "file": FileNotFoundError, "value": ValueError}[kind]("x")

    async with working(jobs):
        for kind, reason, attempts in (("os", "exhausted", 3), ("file", "error", 1), ("value", "error", 1)):
            info = await (await fails.enqueue(kind)).wait(5)
            assert (info.reason, info.attempts) == (reason, attempts), kind


async def test_retry_later_decides_the_delay_and_counts(jobs: Oncue, starts: Times) -> None:
    @jobs.task()
    async def later(ctx: Context) -> int:
        starts[ctx.job_id].append(time.monotonic())
        if ctx.attempt < 3:
            raise RetryLater(timedelta(seconds=0.2), "the shop is closed")
        return ctx.attempt

    @jobs.task()
    async def never() -> None:
        raise RetryLater(0)

    @jobs.task(retry=Retry(max=2, base=60))
    async def twice() -> None:
        raise RetryLater(0)

    async with working(jobs):
        job = await later.enqueue()
        assert await job.result(5) == 3
        assert all(0.198 <= gap < 0.7 for gap in gaps(starts[job.id])), gaps(starts[job.id])
        [first, _] = await jobs.engine.attempts(job.id)
        assert first.failure is not None
        assert first.failure.message == "the shop is closed"
        for task, attempts in ((never, 5), (twice, 2)):
            info = await (await task.enqueue()).wait(5)
            assert (info.state, info.reason, info.attempts) == (State.FAILED, "exhausted", attempts), task.name


async def test_snoozing_does_not_count(jobs: Oncue, starts: Times) -> None:
    """Twenty times, of a job that has but one attempt."""

    @jobs.task()
    async def sleepy(ctx: Context) -> int:
        starts[ctx.job_id].append(time.monotonic())
        if len(starts[ctx.job_id]) <= 20:
            raise Snooze(0.02)
        return ctx.attempt

    async with working(jobs):
        job = await sleepy.enqueue()
        assert await job.result(10) == 1
    info = await job.info()
    assert (info.state, info.attempts, info.crashes) == (State.COMPLETED, 1, 0)
    assert all(gap >= 0.018 for gap in gaps(starts[job.id]))


async def test_giving_up_ends_the_job_whatever_its_policy(jobs: Oncue) -> None:
    @jobs.task(retry=Retry(max=9, on=(BaseException,)))
    async def hopeless() -> None:
        raise GiveUp("the address does not exist")

    async with working(jobs):
        info = await (await hopeless.enqueue()).wait(5)
    assert (info.state, info.reason, info.attempts) == (State.FAILED, "gave_up", 1)
    assert info.error == "GiveUp: the address does not exist"


async def test_a_faulty_backoff_function_costs_its_pace_not_the_job(jobs: Oncue) -> None:
    def broken(attempt: int, error: BaseException | None) -> float:
        raise ZeroDivisionError

    @jobs.task(retry=Retry(max=2, backoff=broken, base=0.01))
    async def fails_once(ctx: Context) -> int:
        if ctx.attempt == 1:
            raise OSError
        return ctx.attempt

    async with working(jobs):
        assert await (await fails_once.enqueue()).result(5) == 2


async def test_a_delay_that_cannot_be_is_the_tasks_error(jobs: Oncue) -> None:
    @jobs.task()
    async def asks(delay: float) -> None:
        raise RetryLater(delay)

    @jobs.task()
    async def tampers() -> None:
        signal = Snooze(1)
        signal.delay = float("nan")
        raise signal

    @jobs.task()
    async def sane() -> str:
        return "well"

    async with working(jobs) as worker:
        info = await (await asks.enqueue(-1.0)).wait(5)
        assert (info.state, info.reason) == (State.FAILED, "error")
        info = await (await tampers.enqueue()).wait(5)
        assert (info.state, info.reason) == (State.FAILED, "result")
        assert await (await sane.enqueue()).result(5) == "well"
        assert worker.ready


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_a_job_that_must_not_run_twice_fails_when_its_worker_stops_in_the_middle(jobs: Oncue, kind: str) -> None:
    ran: list[str] = []

    @jobs.task(name="async", delivery="at_most_once")
    async def waits(ctx: Context) -> None:
        ran.append(ctx.job_id)
        await asyncio.sleep(60)

    @jobs.task(name="thread", delivery="at_most_once")
    def sits(ctx: Context) -> None:
        ran.append(ctx.job_id)
        while not ctx.cancelled:
            time.sleep(0.01)
        raise RuntimeError("stopped as told")

    async with working(jobs, grace=0.0, cleanup=1.0):
        job = await jobs.enqueue(kind)
        await eventually(lambda: ran, "it runs")
    info = await job.info()
    assert (info.state, info.reason, info.attempts) == (State.FAILED, "interrupted", 1)
    async with working(jobs, burst=True):
        pass
    assert ran == [job.id]


async def test_a_job_that_may_run_twice_is_given_back_when_its_worker_stops(jobs: Oncue) -> None:
    ran: list[int] = []

    @jobs.task()
    async def waits(ctx: Context) -> int:
        ran.append(ctx.attempt)
        await asyncio.sleep(0 if len(ran) > 1 else 60)
        return ctx.attempt

    async with working(jobs, grace=0.0, cleanup=1.0):
        job = await waits.enqueue()
        await eventually(lambda: ran, "it runs")
    info = await job.info()
    assert (info.state, info.attempts) == (State.QUEUED, 0)
    async with working(jobs):
        assert await job.result(5) == 1
    assert ran == [1, 1]
