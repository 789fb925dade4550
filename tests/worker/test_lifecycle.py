"""A worker starts, stops, ends by itself, and never goes on as half a worker."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
import time
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from oncue import ConfigError, Context, Oncue, Retry, State
from tests.measured import Report
from tests.worker.conftest import nothing_is_left
from tests.worker.kit import HinderedEngine, eventually, working

pytestmark = pytest.mark.anyio


async def start_and_stop(url: str, rounds: int, report: Report) -> None:
    """Start a worker on a store with jobs of many kinds, stop it at a random moment, `rounds` times."""
    chance, longest, ran = random.Random(11), 0.0, [0]
    async with Oncue(url) as jobs:

        @jobs.task()
        async def work(ctx: Context, seconds: float) -> None:
            ran[0] += 1
            await ctx.log("working")
            await asyncio.sleep(seconds)

        @jobs.task()
        def plain(ctx: Context) -> None:
            ctx.progress_sync(1, 1)
            threading.Event().wait(0.005)

        handles = []
        for number in range(rounds):
            handles += [await work.enqueue(chance.uniform(0, 0.02)), await plain.enqueue()]
            worker = jobs.worker(grace=0.0, cleanup=0.5, concurrency=5)
            running = asyncio.create_task(worker.run())
            for _ in range(chance.choice((0, 0, 1, 2, 5))):
                await asyncio.sleep(0)
            await asyncio.sleep(chance.choice((0.0, chance.uniform(0, 0.003), chance.uniform(0, 0.03))))
            asked_at = time.monotonic()
            worker.stop()
            if number % 3 == 0:
                worker.stop()
            async with asyncio.timeout(20):
                await running
            longest = max(longest, time.monotonic() - asked_at)
        async with working(jobs, burst=True):
            for job in handles:
                info = await job.wait(20)
                assert (info.state, info.attempts, info.crashes) == (State.COMPLETED, 1, 0)
    await nothing_is_left()
    name = f"worker started and stopped at {rounds:,} random points, {'memory' if 'memory' in url else 'file'}"
    report(f"{name}: longest stop", longest, "s")
    report(f"{name}: jobs lost, crashed, tasks left", "0, 0, 0")
    assert longest <= 2.0


async def test_a_worker_stops_at_any_moment_without_losing_a_job(tmp_path: Path, report: Report) -> None:
    """F41, on a file."""
    await start_and_stop(f"sqlite:///{tmp_path / 'jobs.db'}", 100, report)


async def test_a_worker_on_a_store_in_memory_stops_at_any_moment(report: Report) -> None:
    """F41."""
    await start_and_stop("sqlite://:memory:", 100, report)


@pytest.mark.soak
async def test_a_worker_stops_at_any_of_two_thousand_moments(tmp_path: Path, report: Report) -> None:
    """F41."""
    await start_and_stop(f"sqlite:///{tmp_path / 'jobs.db'}", 2_000, report)


async def test_a_worker_whose_run_is_cancelled_gives_its_jobs_back(jobs: Oncue) -> None:
    ran: list[int] = []

    @jobs.task()
    async def waits(ctx: Context) -> None:
        ran.append(ctx.attempt)
        await asyncio.sleep(60)

    running = asyncio.create_task(jobs.worker(cleanup=0.5).run())
    job = await waits.enqueue()
    await eventually(lambda: ran, "it runs")
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    info = await job.info()
    assert (info.state, info.attempts, info.crashes) == (State.QUEUED, 0, 0)


async def test_a_worker_without_tasks_or_run_twice_is_refused(jobs: Oncue) -> None:
    with pytest.raises(ConfigError, match="at least one task"):
        jobs.worker()

    @jobs.task()
    async def work() -> str:
        return "done"

    async with working(jobs) as worker:
        assert await (await work.enqueue()).result(5) == "done"
        with pytest.raises(ConfigError, match="runs already"):
            await worker.run()


async def test_burst_ends_when_nothing_is_left_and_waits_for_retries(jobs: Oncue, report: Report) -> None:
    @jobs.task(retry=Retry(max=3, base=0.2, jitter="none"))
    async def flaky(ctx: Context) -> int:
        if ctx.attempt < 3:
            raise OSError
        return ctx.attempt

    @jobs.task()
    async def quick(number: int) -> int:
        return number

    @jobs.task(queue="elsewhere")
    async def other() -> None: ...

    retried = [await flaky.enqueue() for _ in range(5)]
    done = [await quick.enqueue(number) for number in range(200)]
    left = [(await other.enqueue()).id, (await quick.options(delay=3600).enqueue(0)).id]
    began = time.monotonic()
    async with asyncio.timeout(20):
        await jobs.worker(burst=True, queues=["default"]).run()
    took = time.monotonic() - began
    infos = await jobs.client.infos([job.id for job in retried] + [job.id for job in done])
    assert {info.state for info in infos if info is not None} == {State.COMPLETED}
    assert [info.state for info in await jobs.client.infos(left) if info] == [State.QUEUED, State.SCHEDULED]
    assert took >= 0.6, "the second retry was due then"
    began = time.monotonic()
    await jobs.worker(burst=True, queues=["default"]).run()
    report("burst worker on an empty queue: ends after", time.monotonic() - began, "s")
    assert time.monotonic() - began < 1.0


async def test_burst_waits_for_what_the_jobs_themselves_enqueue(jobs: Oncue) -> None:
    @jobs.task()
    async def countdown(number: int) -> int:
        if number:
            await countdown.enqueue(number - 1)
        return number

    await countdown.enqueue(20)
    async with asyncio.timeout(20):
        await jobs.worker(burst=True).run()
    [queue] = await jobs.engine.queues()
    assert queue.counts == {State.COMPLETED: 21}


@pytest.mark.parametrize("call", ["claim", "rescue", "heartbeat"])
async def test_a_loop_that_dies_unexpectedly_ends_the_worker_with_a_log_line(
    hindered: Oncue, engine: HinderedEngine, caplog: pytest.LogCaptureFixture, call: str
) -> None:
    """Q2: and what ran is given back, not left to its lease."""

    @hindered.task()
    async def waits() -> None:
        await asyncio.sleep(60)

    broken = [False]

    async def fail(_: str) -> None:
        if broken[0]:
            raise LookupError("a bug in the engine")

    engine.before[call] = fail
    worker = hindered.worker(lease=0.6, cleanup=0.5)
    running = asyncio.create_task(worker.run())
    job = await waits.enqueue()

    async def runs() -> bool:
        return await job.status() is State.RUNNING

    await eventually(runs, "the job runs")
    broken[0] = True
    if call == "claim":
        await waits.enqueue()
    with caplog.at_level(logging.ERROR):
        with pytest.raises(LookupError, match="a bug in the engine"):
            async with asyncio.timeout(10):
                await running
        assert "died: this worker stops" in caplog.text
    info = await job.info()
    assert (info.state, info.attempts, info.crashes) == (State.QUEUED, 0, 0)


async def test_an_outcome_that_the_store_cannot_take_fails_its_job_and_no_other(
    hindered: Oncue, engine: HinderedEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Storing an outcome cannot fail."""
    finish = HinderedEngine.finish

    async def picky(self: HinderedEngine, outcomes: Any) -> list[bool]:
        if any(outcome.result == b"\x01666" for _, outcome in outcomes):
            raise OverflowError("the engine cannot store this number")
        return await finish(self, outcomes)

    monkeypatch.setattr(HinderedEngine, "finish", picky)

    @hindered.task()
    async def give(number: int) -> int:
        return number

    handles = [await give.enqueue(number) for number in (*range(20), 666, *range(20, 40))]
    async with working(hindered) as worker:
        for number, job in enumerate(handles):
            info = await job.wait(10)
            if number == 20:
                assert (info.state, info.reason) == (State.FAILED, "result")
                assert "cannot store this number" in (info.error or "")
            else:
                assert info.state is State.COMPLETED
        assert worker.ready


async def test_a_worker_says_of_itself_what_it_does(jobs: Oncue) -> None:
    go = asyncio.Event()

    @jobs.task(queue="photos")
    async def work() -> None:
        await go.wait()

    async with working(jobs, lease=0.5, concurrency=7) as worker:
        await work.enqueue()

        async def seen() -> Any:
            return [info for info in await jobs.engine.workers() if info.running == 1]

        [info] = await eventually(seen, "its heartbeat tells of the job")
        assert (info.id, info.concurrency, info.queues, info.tasks) == (worker.id, 7, ("photos",), ("work",))
        assert info.alive
        go.set()
    assert await jobs.engine.workers() == [], "it has said goodbye"


async def test_plain_functions_of_a_stopped_worker_leave_no_threads(jobs: Oncue, report: Report) -> None:
    """However many it needed."""

    @jobs.task()
    def plain() -> int:
        threading.Event().wait(0.05)
        return threading.get_ident()

    async with working(jobs, concurrency=40):
        handles = [await plain.enqueue() for _ in range(80)]
        threads = {await job.result(10) for job in handles}
    assert 1 < len(threads) <= 40

    def left() -> list[threading.Thread]:
        return [thread for thread in threading.enumerate() if thread.name == "oncue-task"]

    began = time.monotonic()
    await eventually(lambda: not left(), "the threads have ended", within=2)
    report("threads of plain functions after the worker has stopped: gone after", time.monotonic() - began, "s")


@pytest.mark.parametrize("reports", [False, True])
async def test_an_attempt_that_was_taken_back_stops_and_its_slot_is_free(
    hindered: Oncue, engine: HinderedEngine, caplog: pytest.LogCaptureFixture, reports: bool
) -> None:
    """Found out by the heartbeat or by a report, also of a task that does not stop; said once."""
    done = asyncio.Event()

    @hindered.task()
    async def stubborn(ctx: Context) -> None:
        while not done.is_set() and ctx.attempt == 1:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.02)
                if reports:
                    await ctx.log("still here")

    try:
        async with working(hindered, concurrency=1, cleanup=0.3, lease=1.0) as worker:
            job = await stubborn.enqueue()
            await eventually(lambda: worker.running, "it runs")
            await hindered.engine.rescue(limit=10, lease=timedelta(1), dead=[worker.id])
            info = await job.wait(10)
            assert (info.state, info.attempts, info.crashes) == (State.COMPLETED, 2, 1)
    finally:
        done.set()
    told = [record for record in caplog.records if "taken back from this worker" in record.getMessage()]
    assert len(told) == 1


async def test_a_worker_whose_slots_are_all_busy_is_ready(jobs: Oncue) -> None:
    """It claims nothing for longer than a lease, and nothing is wrong with it."""
    go = asyncio.Event()

    @jobs.task()
    async def waits() -> None:
        await go.wait()

    async with working(jobs, concurrency=1, lease=0.5) as worker:
        job = await waits.enqueue()
        await eventually(lambda: worker.running, "it runs")
        busy_since = time.monotonic()

        def never_unready() -> bool:
            assert worker.ready
            return time.monotonic() - busy_since > 1.2

        await eventually(never_unready, "two leases have passed")
        go.set()
        await job.result(5)
