"""Enqueue, watch, get the result."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from uuid import UUID, uuid4

import pytest
from pydantic import BaseModel

from oncue import (
    Context,
    GiveUp,
    InvalidArguments,
    JobCancelled,
    JobFailed,
    JobNotFound,
    Oncue,
    ResultTimeout,
    Retry,
    RetryLater,
    Snooze,
    State,
    TaskRouter,
    Unique,
    UniqueConflict,
)

from .conftest import Working


async def test_a_function_becomes_a_task_and_its_job_has_a_result(jobs: Oncue, working: Working) -> None:
    @jobs.task()
    async def greet(name: str) -> str:
        return f"Hello {name}"

    job = await greet.enqueue("Ada")
    assert job.created
    assert await job.status() is State.QUEUED

    async with working():
        assert await job.result(timeout=5) == "Hello Ada"
    assert await job.status() is State.COMPLETED


async def test_a_plain_function_runs_in_a_thread_beside_the_event_loop(jobs: Oncue, working: Working) -> None:
    @jobs.task()
    def where() -> str:
        return threading.current_thread().name

    async with working():
        assert await (await where.enqueue()).result(timeout=5) == "oncue-task"


async def test_arguments_are_checked_where_they_are_given(jobs: Oncue) -> None:
    @jobs.task()
    async def resize(path: str, width: int = 320) -> None: ...

    with pytest.raises(InvalidArguments, match="Did you mean 'width'"):
        await resize.enqueue("a.png", widht=3)  # type: ignore[call-arg]
    with pytest.raises(InvalidArguments, match="width"):
        await resize.enqueue("a.png", width="wide")  # type: ignore[arg-type]
    assert await jobs.engine.queues() == []


class Colour(Enum):
    RED = "red"


class Thing(BaseModel):
    id: UUID
    price: Decimal
    seen: datetime
    data: bytes


async def test_arguments_and_results_come_back_with_their_types(jobs: Oncue, working: Working) -> None:
    @jobs.task()
    async def echo(thing: Thing, colours: set[Colour], raw: bytes) -> tuple[Thing, set[Colour], bytes]:
        assert isinstance(thing, Thing)
        return thing, colours, raw

    thing = Thing(id=uuid4(), price=Decimal("1.10"), seen=datetime.now(UTC), data=b"text")
    async with working():
        job = await echo.enqueue(thing, {Colour.RED}, b"\xff\x00")
        assert await job.result(timeout=5) == (thing, {Colour.RED}, b"\xff\x00")


async def test_an_error_in_the_task_is_raised_where_the_result_is_awaited(jobs: Oncue, working: Working) -> None:
    @jobs.task()
    async def divide(a: int, b: int) -> float:
        return a / b

    async with working():
        with pytest.raises(JobFailed, match="ZeroDivisionError: division by zero") as caught:
            await (await divide.enqueue(1, 0)).result(timeout=5)
    assert caught.value.type == "ZeroDivisionError"
    assert caught.value.reason == "error"
    assert "return a / b" in caught.value.traceback


async def test_a_failed_attempt_is_retried_by_the_tasks_policy(jobs: Oncue, working: Working) -> None:
    @jobs.task(retry=Retry(max=3, base=0.01, on=(OSError,)))
    async def fetch(ctx: Context) -> int:
        if ctx.attempt < 3:
            raise OSError("not yet")
        return ctx.attempt

    async with working():
        job = await fetch.enqueue()
        assert await job.result(timeout=5) == 3
    assert [attempt.outcome for attempt in await jobs.engine.attempts(job.id)] == ["retrying", "retrying"]


async def test_a_task_decides_for_itself_when_to_run_again(jobs: Oncue, working: Working) -> None:
    seen: list[int] = []

    @jobs.task()
    async def poll(ctx: Context) -> str:
        seen.append(ctx.attempt)
        if len(seen) == 1:
            raise Snooze(0.01)  # does not count
        if len(seen) == 2:
            raise RetryLater(0.01)  # counts
        raise GiveUp("enough")

    async with working():
        with pytest.raises(JobFailed, match="enough") as caught:
            await (await poll.enqueue()).result(timeout=5)
    assert seen == [1, 1, 2]
    assert caught.value.reason == "gave_up"


async def test_a_job_may_wait_for_its_time(jobs: Oncue, working: Working) -> None:
    @jobs.task()
    async def remind() -> None: ...

    job = await remind.options(delay=timedelta(hours=1)).enqueue()
    async with working():
        with pytest.raises(ResultTimeout, match="scheduled"):
            await job.result(timeout=0.05)
        jobs.engine.advance(timedelta(hours=1))
        await job.result(timeout=5)


async def test_larger_priority_runs_sooner_and_equals_run_in_order(jobs: Oncue, working: Working) -> None:
    order: list[str] = []

    @jobs.task()
    async def note(what: str) -> None:
        order.append(what)

    await note.enqueue("first")
    await note.enqueue("second")
    last = await note.options(priority=-1).enqueue("last")
    await note.options(priority=1).enqueue("urgent")
    async with working(concurrency=1):
        await last.result(timeout=5)
    assert order == ["urgent", "first", "second", "last"]


async def test_a_job_with_a_chosen_id_is_made_once(jobs: Oncue) -> None:
    @jobs.task()
    async def charge(order: int) -> None: ...

    first = await charge.options(id="order-7").enqueue(7)
    again = await charge.options(id="order-7").enqueue(7)
    assert (first.created, again.created) == (True, False)
    assert again == first


async def test_a_unique_key_keeps_others_out_while_its_job_is_open(jobs: Oncue, working: Working) -> None:
    @jobs.task()
    async def sync(user: int) -> int:
        return user

    mine = await sync.options(unique="sync:7").enqueue(7)
    other = await sync.options(unique="sync:7").enqueue(7)
    assert other.id == mine.id
    assert not other.created
    with pytest.raises(UniqueConflict, match=mine.id):
        await sync.options(unique=Unique("sync:7", on_conflict="raise")).enqueue(7)
    async with working():
        await mine.result(timeout=5)
    assert (await sync.options(unique="sync:7").enqueue(7)).created


async def test_a_job_may_wait_for_other_jobs(jobs: Oncue, working: Working) -> None:
    order: list[str] = []

    @jobs.task()
    async def step(name: str) -> None:
        order.append(name)

    first = await step.enqueue("fetch")
    second = await step.options(after=[first]).enqueue("parse")
    assert await second.status() is State.WAITING
    async with working():
        await second.result(timeout=5)
    assert order == ["fetch", "parse"]


async def test_a_waiting_job_is_cancelled_at_once_and_a_running_one_soon(jobs: Oncue, working: Working) -> None:
    entered = asyncio.Event()
    cleaned = asyncio.Event()

    @jobs.task()
    async def long() -> None:
        try:
            entered.set()
            await asyncio.sleep(60)
        finally:
            cleaned.set()

    waiting = await long.enqueue()
    assert await waiting.cancel() == "cancelled"
    with pytest.raises(JobCancelled):
        await waiting.result(timeout=5)

    async with working():
        running = await long.enqueue()
        await asyncio.wait_for(entered.wait(), 5)
        assert await running.cancel() == "requested"
        with pytest.raises(JobCancelled):
            await running.result(timeout=5)
    assert cleaned.is_set()
    assert await running.cancel() == "cancelled"


async def test_an_attempt_that_takes_too_long_is_stopped(jobs: Oncue, working: Working) -> None:
    @jobs.task(timeout=0.05)
    async def slow() -> None:
        await asyncio.sleep(60)

    async with working():
        with pytest.raises(JobFailed, match=r"timeout of 0\.05 seconds") as caught:
            await (await slow.enqueue()).result(timeout=5)
    assert caught.value.reason == "timeout"


async def test_progress_log_lines_and_streamed_items_arrive_in_order(jobs: Oncue, working: Working) -> None:
    @jobs.task()
    async def count(ctx: Context, n: int):  # type: ignore[no-untyped-def]
        await ctx.log("begin")
        async for number in ctx.track(range(n)):
            yield number

    job = await count.enqueue(3)
    async with working():
        events = [event async for event in job.events()]
    assert [event.data for event in events if event.kind == "stream"] == [0, 1, 2]
    assert [event.data["message"] for event in events if event.kind == "log"] == ["begin"]
    assert [event.data["done"] for event in events if event.kind == "progress"][-1] == 3
    assert events[-1].data["state"] == "completed"

    third = next(event for event in events if event.kind == "stream" and event.data == 1)
    rest = [event.data async for event in job.events(after=third.id) if event.kind == "stream"]
    assert rest == [2], "a reader that comes back goes on behind what it has seen"


async def test_tasks_of_a_module_join_the_application_later(jobs: Oncue, working: Working) -> None:
    router = TaskRouter()

    @router.task()
    async def twice(x: int) -> int:
        return 2 * x

    jobs.include(router)
    async with working():
        assert await (await twice.enqueue(21)).result(timeout=5) == 42


async def test_many_jobs_are_enqueued_in_one_go(jobs: Oncue, working: Working) -> None:
    @jobs.task()
    async def square(x: int) -> int:
        return x * x

    handles = await jobs.enqueue_many([square.request(x) for x in range(2500)])
    async with working():
        assert await handles[-1].result(timeout=30) == 2499**2
    assert len({handle.id for handle in handles}) == 2500


async def test_a_burst_worker_ends_when_nothing_is_left(jobs: Oncue) -> None:
    @jobs.task(retry=Retry(max=2, base=0.01))
    async def flaky(ctx: Context) -> int:
        if ctx.attempt == 1:
            raise ValueError("once")
        return ctx.attempt

    job = await flaky.enqueue()
    await jobs.worker(burst=True).run()
    assert await job.result(timeout=0) == 2


async def test_an_interval_enqueues_its_task_once_however_many_workers_there_are(jobs: Oncue, working: Working) -> None:
    ran = asyncio.Event()

    @jobs.every(3600)
    @jobs.task()
    async def clean() -> None:
        ran.set()

    async with working(), working(), working():
        await asyncio.wait_for(ran.wait(), 5)
    [queue] = await jobs.engine.queues()
    assert sum(queue.counts.values()) == 1


async def test_a_job_that_does_not_exist_is_said_so(jobs: Oncue) -> None:
    with pytest.raises(JobNotFound, match="no job 'nope'"):
        await jobs.job("nope").status()


def test_scripts_without_an_event_loop_have_sync_twins(tmp_path: object) -> None:
    jobs = Oncue(f"sqlite:///{tmp_path}/jobs.db")

    @jobs.task()
    async def greet(name: str) -> str:
        return f"Hello {name}"

    job = greet.enqueue_sync("Ada")

    async def work() -> None:
        async with jobs:
            await jobs.worker(burst=True).run()

    asyncio.run(work())
    assert job.result_sync(timeout=5) == "Hello Ada"
    jobs.close_sync()
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("oncue-")]
