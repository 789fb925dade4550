"""Cancelling a job that runs: it arrives soon, it is final, and the task may clean up."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from functools import partial
from typing import Any

import pytest

from oncue import Context, Job, JobCancelled, Oncue, Retry, State
from tests.measured import Report
from tests.worker.kit import HinderedEngine, eventually, working

pytestmark = pytest.mark.anyio


async def test_a_running_job_of_any_kind_stops_within_a_second_though_all_slots_are_busy(
    jobs: Oncue, report: Report
) -> None:
    longest = 0.0

    @jobs.task()
    async def waits() -> None:
        await asyncio.sleep(60)

    @jobs.task()
    def heeds(ctx: Context) -> None:
        while not ctx.cancelled:
            time.sleep(0.01)

    @jobs.task()
    async def streams() -> AsyncIterator[int]:
        while True:
            yield 1
            await asyncio.sleep(0.01)

    async with working(jobs, concurrency=3):
        handles = [await task.enqueue() for task in (waits, heeds, streams)]
        for job in handles:
            await eventually(partial(is_running, job), "it runs")
        for job in handles:
            began = time.monotonic()
            assert await job.cancel() == "requested"
            with pytest.raises(JobCancelled):
                await job.result(5)
            longest = max(longest, time.monotonic() - began)
    report("cancel of a running async, plain and streaming task, all slots busy: longest", longest, "s")
    assert longest <= 1.0


async def is_running(job: Job[Any]) -> bool:
    return await job.status() is State.RUNNING


async def test_a_cancel_during_a_heartbeat_is_not_forgotten_until_the_next(
    hindered: Oncue, engine: HinderedEngine, report: Report
) -> None:
    """With the default lease the next one would be five seconds away."""
    trials, longest = 12, 0.0

    @hindered.task()
    async def waits() -> None:
        await asyncio.sleep(60)

    async def slow(_: str) -> None:
        await asyncio.sleep(random.uniform(0.0, 0.2))

    engine.before["heartbeat"] = engine.after["heartbeat"] = slow
    async with working(hindered, concurrency=trials):
        handles = [await waits.enqueue() for _ in range(trials)]
        for job in handles:
            await eventually(partial(is_running, job), "it runs")
        for job in handles:
            began = time.monotonic()
            await job.cancel()
            assert (await job.wait(10)).state is State.CANCELLED
            longest = max(longest, time.monotonic() - began)
    report(f"cancel during heartbeats of up to 0.4 s, {trials} jobs: longest", longest, "s")
    assert longest <= 2.0


async def test_a_job_cancelled_in_the_moment_of_its_claim_stops_too(
    hindered: Oncue, engine: HinderedEngine, report: Report
) -> None:
    """The hint comes while the claim's answer is on its way: the worker does not know the job yet."""
    longest, claimed = 0.0, asyncio.Event()

    @hindered.task()
    async def waits() -> None:
        await asyncio.sleep(60)

    async def late(_: str) -> None:
        claimed.set()
        await asyncio.sleep(0.1)

    engine.after["claim"] = late
    async with working(hindered):
        for _ in range(10):
            job = await waits.enqueue()
            await eventually(partial(is_running, job), "it is claimed", every=0.001)
            began = time.monotonic()
            await job.cancel()
            assert (await job.wait(10)).state is State.CANCELLED
            longest = max(longest, time.monotonic() - began)
    report("cancel between a claim and its answer, 10 jobs: longest", longest, "s")
    assert longest <= 1.0


async def test_a_cancelled_job_that_fails_with_a_retryable_error_is_cancelled(jobs: Oncue) -> None:
    """X6: whether the error comes before the worker knows of the request, or because of it."""
    go = asyncio.Event()

    @jobs.task(retry=Retry(max=5, base=0.0))
    async def fails_first() -> None:
        await go.wait()
        raise OSError("try again")

    @jobs.task(retry=Retry(max=5, base=0.0))
    async def fails_when_told() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            raise OSError("try again") from None

    async with working(jobs) as worker:
        for task in (fails_first, fails_when_told):
            job = await task.enqueue()
            await eventually(partial(is_running, job), "it runs")
            await job.cancel()
            go.set()
            info = await job.wait(5)
            assert (info.state, info.reason, info.attempts) == (State.CANCELLED, "user", 1)
        assert worker.ready


async def test_a_job_that_completes_in_spite_of_its_cancellation_is_cancelled(jobs: Oncue) -> None:
    """The request was on record before it ended: the answer that the caller got stands."""

    @jobs.task()
    async def deaf() -> str:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            return "never mind"
        return "unreached"

    async with working(jobs):
        job = await deaf.enqueue()
        await eventually(partial(is_running, job), "it runs")
        assert await job.cancel() == "requested"
        assert (await job.wait(5)).state is State.CANCELLED


async def test_every_answer_to_a_cancel_holds_however_it_races_with_the_end(jobs: Oncue, report: Report) -> None:
    """I6, F29: cancelled stays so and never starts, requested ends cancelled, finished had finished."""
    chance, started, answers = random.Random(5), set[str](), dict[str, int]()

    @jobs.task(retry=Retry(max=2, base=0.0))
    async def brief(ctx: Context, seconds: float) -> None:
        started.add(ctx.job_id)
        await asyncio.sleep(seconds)
        if ctx.attempt == 1:
            raise OSError

    async with working(jobs, concurrency=20):
        for _ in range(200):
            job = await brief.enqueue(chance.uniform(0, 0.01))
            await asyncio.sleep(chance.uniform(0, 0.01))
            before = job.id in started
            answer = await job.cancel()
            answers[answer.value] = answers.get(answer.value, 0) + 1
            info = await job.wait(5)
            if answer == "finished":
                assert info.state is State.COMPLETED
            else:
                assert info.state is State.CANCELLED
            if answer == "cancelled" and not before:
                assert job.id not in started, "it was started after the answer"
    report("200 cancels in a race with the jobs' ends: answers that did not hold", 0)
    report("200 cancels in a race with the jobs' ends: answers", ", ".join(f"{k} {v}" for k, v in answers.items()))


async def test_a_cancel_does_not_end_cleanup_code_that_another_interruption_comes_upon(jobs: Oncue) -> None:
    """Cancelled first, then out of time while cleaning up: it is interrupted once."""
    cleaned: list[str] = []

    @jobs.task(timeout=0.4)
    async def tidy() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0.6)
            cleaned.append("in the end")

    async with working(jobs):
        job = await tidy.enqueue()
        await eventually(partial(is_running, job), "it runs")
        await job.cancel()
        assert (await job.wait(5)).state is State.CANCELLED
        assert cleaned


async def test_jobs_that_do_not_run_yet_are_cancelled_at_once_and_never_start(jobs: Oncue) -> None:
    started: list[str] = []

    @jobs.task(retry=Retry(max=5, base=0.3, jitter="none"))
    async def work(ctx: Context) -> None:
        started.append(ctx.job_id)
        raise OSError

    @jobs.task(queue="nobody")
    async def unserved() -> None: ...

    async with working(jobs, queues=["default"]):
        scheduled = await work.options(delay=0.2).enqueue()
        queued = await unserved.enqueue()
        retrying = await work.enqueue()

        async def waits_for_retry() -> bool:
            return await retrying.status() is State.RETRYING

        await eventually(waits_for_retry, "its first attempt has failed")
        for job in (scheduled, queued, retrying):
            assert await job.cancel() == "cancelled"
            assert await job.cancel() == "cancelled"
            assert await job.status() is State.CANCELLED
        await asyncio.sleep(0.6)  # longer than the delays
    assert started == [retrying.id]
