"""An attempt has so much time; what it does when that is over is its own affair, but not its slot's (F38, Q6)."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest

from oncue import Context, JobFailed, Oncue, Retry, State
from tests.measured import Report
from tests.worker.kit import eventually, working

pytestmark = pytest.mark.anyio


async def test_an_attempt_is_stopped_at_its_timeout_to_a_tenth_of_a_second(jobs: Oncue, report: Report) -> None:
    took: list[float] = []

    @jobs.task(timeout=0.4)
    async def dawdle(ctx: Context) -> None:
        began = time.monotonic()
        try:
            await asyncio.sleep(30)
        finally:
            took.append(time.monotonic() - began)

    async with working(jobs):
        for _ in range(3):  # a busy machine may be late by itself
            took.clear()
            handles = [await dawdle.enqueue() for _ in range(30)]
            for job in handles:
                info = await job.wait(5)
                assert (info.state, info.reason) == (State.FAILED, "timeout")
                assert info.error == "TimeoutError: it took longer than its timeout of 0.4 seconds"
            assert len(took) == 30
            off = max(abs(seconds - 0.4) for seconds in took)
            if off <= 0.1:
                break
    report("timeout of 0.4 s, 30 jobs: furthest off", off * 1000, "ms")
    assert off <= 0.1


async def test_a_jobs_own_timeout_replaces_the_tasks(jobs: Oncue) -> None:
    @jobs.task(timeout=0.05)
    async def nap() -> str:
        await asyncio.sleep(0.2)
        return "rested"

    async with working(jobs):
        longer = await nap.options(timeout=timedelta(seconds=5)).enqueue()
        assert await longer.result(5) == "rested"
        with pytest.raises(JobFailed, match=r"0\.05 seconds"):
            await (await nap.enqueue()).result(5)


async def test_cleanup_code_runs_and_is_waited_for(jobs: Oncue) -> None:
    cleaned: list[str] = []

    @jobs.task(timeout=0.1)
    async def tidy() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0.3)
            cleaned.append("in the end")

    async with working(jobs):
        job = await tidy.enqueue()
        assert (await job.wait(5)).reason == "timeout"
        assert cleaned, "the job was final before it had cleaned up"


async def test_a_streaming_task_has_cleaned_up_before_its_job_is_final(jobs: Oncue) -> None:
    """The generator is closed by its worker, not some time later by the garbage collector."""
    cleaned: list[str] = []

    @jobs.task(timeout=0.3)
    async def stalled() -> AsyncIterator[int]:
        try:
            yield 1
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0.1)
            cleaned.append("stalled")

    @jobs.task()
    async def unstorable() -> AsyncIterator[object]:
        try:
            yield object()
        finally:
            await asyncio.sleep(0.1)
            cleaned.append("unstorable")

    async with working(jobs):
        for task, reason in ((stalled, "timeout"), (unstorable, "result")):
            info = await (await task.enqueue()).wait(5)
            assert (info.state, info.reason) == (State.FAILED, reason)
            assert cleaned.pop() == task.name


async def test_a_task_that_swallows_its_cancellation_has_timed_out_all_the_same(jobs: Oncue) -> None:
    @jobs.task(timeout=0.1)
    async def deaf() -> str:
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            await asyncio.sleep(0.05)
        return "too late"

    async with working(jobs):
        info = await (await deaf.enqueue()).wait(5)
        assert (info.state, info.reason) == (State.FAILED, "timeout")


async def test_an_error_in_cleanup_code_is_what_the_failed_job_tells(jobs: Oncue) -> None:
    @jobs.task(timeout=0.1)
    async def clumsy() -> None:
        try:
            await asyncio.sleep(30)
        finally:
            raise OSError("while cleaning up")

    async with working(jobs):
        info = await (await clumsy.enqueue()).wait(5)
        assert (info.state, info.reason) == (State.FAILED, "timeout")
        assert info.error == "OSError: while cleaning up"


@pytest.mark.parametrize("kind", ["async", "thread"])
async def test_the_slot_of_a_task_that_does_not_stop_is_used_again(
    jobs: Oncue, kind: str, caplog: pytest.LogCaptureFixture
) -> None:
    done = threading.Event()

    @jobs.task(name="stubborn", timeout=0.1)
    async def stubborn() -> None:
        while not done.is_set():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.02)

    @jobs.task(name="deaf", timeout=0.1)
    def deaf() -> None:
        done.wait(20)

    @jobs.task()
    async def quick() -> str:
        return "served"

    try:
        async with working(jobs, concurrency=1, cleanup=0.3) as worker:
            job = await (stubborn if kind == "async" else deaf).enqueue()
            after = await quick.enqueue()
            began = time.monotonic()
            assert await after.result(5) == "served"
            assert time.monotonic() - began < 2.0
            info = await job.wait(5)
            assert (info.state, info.reason) == (State.FAILED, "timeout")
            assert worker.running == 0
        assert "did not stop 0.3 s after it was interrupted (timeout)" in caplog.text, "it is shown"
    finally:
        done.set()
        await eventually(lambda: "stubborn" not in str(asyncio.all_tasks()), "it ends")


async def test_a_plain_function_that_heeds_its_context_is_not_overlapped_by_its_retry(jobs: Oncue) -> None:
    """It is told and waited for: `cleanup` is the time it has."""
    running, overlaps = [0], [0]

    @jobs.task(timeout=0.2, retry=Retry(max=3, base=0.0, jitter="none"))
    def heedful(ctx: Context) -> int:
        overlaps[0] += running[0]
        running[0] += 1
        try:
            while not ctx.cancelled:
                time.sleep(0.01)
                if ctx.attempt == 3:
                    return ctx.attempt
            time.sleep(0.3)
            raise TimeoutError("stopped as told")
        finally:
            running[0] -= 1

    async with working(jobs):
        assert await (await heedful.enqueue()).result(10) == 3
    assert overlaps[0] == 0


async def test_the_policy_says_whether_a_timeout_is_retried(jobs: Oncue) -> None:
    """Q6."""

    @jobs.task(timeout=0.05)
    async def without() -> None:
        await asyncio.sleep(30)

    @jobs.task(timeout=0.05, retry=Retry(max=3, base=0.01, jitter="none"))
    async def retried(ctx: Context) -> int:
        if ctx.attempt < 3:
            await asyncio.sleep(30)
        return ctx.attempt

    @jobs.task(timeout=0.05, retry=Retry(max=3, base=0.01, jitter="none", timeouts=False))
    async def refused() -> None:
        await asyncio.sleep(30)

    @jobs.task(timeout=0.05, retry=Retry(max=2, base=0.01, jitter="none"))
    async def exhausted() -> None:
        await asyncio.sleep(30)

    async with working(jobs):
        for task, attempts in ((without, 1), (refused, 1), (exhausted, 2)):
            job = await task.enqueue()
            info = await job.wait(5)
            assert (info.state, info.reason, info.attempts) == (State.FAILED, "timeout", attempts), task.name
            assert [attempt.number for attempt in await jobs.engine.attempts(job.id)] == list(range(1, attempts + 1))
        assert await (await retried.enqueue()).result(5) == 3


async def test_a_timeout_error_of_the_tasks_own_is_an_error_like_others(jobs: Oncue) -> None:
    @jobs.task(timeout=10)
    async def own() -> None:
        async with asyncio.timeout(0.05):
            await asyncio.sleep(30)

    async with working(jobs):
        info = await (await own.enqueue()).wait(5)
        assert (info.state, info.reason) == (State.FAILED, "error")


async def test_a_timeout_counts_from_the_start_not_from_the_claim_of_earlier_attempts(jobs: Oncue) -> None:
    """D1: attempt after attempt times out, and no two of them ever run at the same time."""
    running, most = [0], [0]

    @jobs.task(timeout=0.1, retry=Retry(max=8, base=0.0, jitter="none"))
    async def again_and_again() -> None:
        running[0] += 1
        most[0] = max(most[0], running[0])
        try:
            await asyncio.sleep(30)
        finally:
            await asyncio.sleep(0.02)
            running[0] -= 1

    async with working(jobs, lease=0.3):
        info = await (await again_and_again.enqueue()).wait(10)
        assert (info.reason, info.attempts, info.crashes) == ("timeout", 8, 0)
    assert most[0] == 1
