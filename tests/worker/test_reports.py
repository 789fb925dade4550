"""What running tasks say, and that it never mixes between them."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import AsyncIterator
from contextvars import ContextVar
from typing import Any

import pytest

from oncue import Context, Job, JobEvent, Oncue
from oncue.errors import EngineUnavailable
from tests.measured import Report
from tests.worker.kit import HinderedEngine, eventually, working

pytestmark = pytest.mark.anyio

who: ContextVar[str] = ContextVar("who", default="nobody")


async def test_context_variables_never_mix_between_overlapping_jobs(jobs: Oncue, report: Report) -> None:
    """X11: async, in threads and in generators, 150 at a time; nor do they leak from one attempt into the next."""
    mixed: list[str] = []

    def look(expected: str, name: str) -> None:
        if who.get() != expected:
            mixed.append(f"{name}: {who.get()} instead of {expected}")

    @jobs.task()
    async def in_loop(name: str) -> None:
        look("nobody", name)
        who.set(name)
        for _ in range(10):
            await asyncio.sleep(0)
            look(name, name)
        await asyncio.gather(*(asyncio.to_thread(look, name, name) for _ in range(2)))

    @jobs.task()
    def in_thread(name: str) -> None:
        look("nobody", name)
        who.set(name)
        threading.Event().wait(0.005)
        look(name, name)

    @jobs.task()
    async def stream(name: str) -> AsyncIterator[int]:
        look("nobody", name)
        who.set(name)
        for number in range(5):
            yield number
            await asyncio.sleep(0)
            look(name, name)

    async with working(jobs, concurrency=150):
        who.set("the enqueuer")
        handles = [await task.enqueue(f"{task.name} {n}") for n in range(100) for task in (in_loop, in_thread, stream)]
        for job in handles:
            await job.result(20)
    assert mixed == []
    report("overlapping jobs whose context variables mixed, of 300", 0)


async def test_variables_set_before_the_worker_ran_are_seen_by_every_attempt(jobs: Oncue) -> None:
    @jobs.task()
    async def tell() -> str:
        return who.get()

    who.set("the application")
    async with working(jobs):
        who.set("the enqueuer")
        assert await (await tell.enqueue()).result(5) == "the application"


async def test_a_feed_is_read_in_order_and_resumed_behind_any_event(jobs: Oncue) -> None:
    @jobs.task()
    async def speak(ctx: Context) -> AsyncIterator[dict[str, int]]:
        for number in range(30):
            await ctx.log(f"line {number}", level="debug")
            yield {"number": number}
            if number % 10 == 0:
                await asyncio.sleep(0.08)  # so that it is stored in several calls

    async with working(jobs):
        job = await speak.enqueue()
        whole = [event async for event in job.events()]
    said = [event.data["message"] for event in whole if event.kind == "log"]
    assert said == [f"line {number}" for number in range(30)]
    assert [event.data for event in whole if event.kind == "stream"] == [{"number": number} for number in range(30)]
    both = [event.kind for event in whole if event.kind in ("log", "stream")]
    assert both == ["log", "stream"] * 30
    fed = [event for event in whole if event.kind != "status"]
    for at in range(0, len(fed), 7):
        rest = [event async for event in jobs.job(job.id).events(after=fed[at].id)]
        assert [event.data for event in rest if event.kind != "status"] == [event.data for event in fed[at + 1 :]]


async def test_a_plain_function_reports_from_its_thread(jobs: Oncue) -> None:
    @jobs.task()
    def speak(ctx: Context) -> None:
        for number in range(5):
            ctx.log_sync(f"line {number}")
        ctx.progress_sync(5, 5, "done")

    async with working(jobs):
        job = await speak.enqueue()
        events = [event async for event in job.events()]
    assert [event.data["message"] for event in events if event.kind == "log"] == [f"line {n}" for n in range(5)]
    assert last_progress(events) == {"done": 5, "total": 5, "message": "done"}


def last_progress(events: list[JobEvent]) -> Any:
    return [event.data for event in events if event.kind == "progress"][-1]


async def test_the_latest_progress_stands_though_an_earlier_one_was_on_its_way(
    hindered: Oncue, engine: HinderedEngine
) -> None:
    """It overtakes what waits, and not what is being stored."""

    async def slow(_: str) -> None:
        await asyncio.sleep(0.05)

    engine.before["append"] = slow

    @hindered.task()
    async def count(ctx: Context) -> None:
        for number in range(1, 13):
            await ctx.progress(number, 12, "counting")
            await asyncio.sleep(0.02)

    async with working(hindered):
        job = await count.enqueue()
        events = [event async for event in job.events()]
        assert last_progress(events)["done"] == 12
        done = [event.data["done"] for event in events if event.kind == "progress"]
        assert done == sorted(done)


async def test_a_report_whose_answer_was_lost_is_stored_once(hindered: Oncue, engine: HinderedEngine) -> None:
    lost = [0]

    async def lose(_: str) -> None:
        lost[0] += 1
        if lost[0] % 2:
            raise EngineUnavailable("the answer was lost")

    engine.after["append"] = lose

    @hindered.task()
    async def speak(ctx: Context) -> None:
        for number in range(20):
            await ctx.log(str(number))
            await ctx.progress(number, 20, "so far")
            await asyncio.sleep(0.01)

    async with working(hindered):
        job = await speak.enqueue()
        await job.result(20)
        events = [event async for event in job.events()]
    assert [event.data["message"] for event in events if event.kind == "log"] == [str(number) for number in range(20)]
    assert last_progress(events)["done"] == 19


async def test_progress_that_nobody_could_see_is_not_stored(jobs: Oncue) -> None:
    @jobs.task()
    async def count(ctx: Context) -> int:
        async for _ in ctx.track(range(5_000)):
            pass
        return 1

    async with working(jobs):
        job = await count.enqueue()
        await job.result(10)
        events = [event async for event in job.events()]
        assert last_progress(events)["done"] == 5_000
        assert len(await jobs.engine.read(job.id)) == 1, "only the latest is kept"


async def test_a_task_that_streams_faster_than_the_store_takes_is_held_up(
    hindered: Oncue, engine: HinderedEngine, report: Report
) -> None:
    made, most = [0], [0]
    stored = [0]

    async def slow(_: str) -> None:
        await asyncio.sleep(0.02)

    engine.before["append"] = slow

    @hindered.task()
    async def pour() -> AsyncIterator[int]:
        for number in range(4_000):
            made[0] += 1
            yield number

    async def count(job: Job[Any]) -> None:
        async for event in job.events():
            if event.kind == "stream":
                stored[0] += 1
                most[0] = max(most[0], made[0] - stored[0])

    async with working(hindered):
        job = await pour.enqueue()
        await count(job)
        assert stored[0] == 4_000
    report("streamed items that ran ahead of a reader, of 4,000, at most", most[0])
    assert most[0] <= 3_000


async def test_log_lines_of_other_jobs_do_not_appear_in_a_feed(jobs: Oncue) -> None:
    @jobs.task()
    async def speak(ctx: Context, name: str) -> None:
        for _ in range(5):
            await ctx.log(name)
            await asyncio.sleep(0.01)

    async with working(jobs):
        handles = {name: await speak.enqueue(name) for name in "abcdefgh"}
        for name, job in handles.items():
            await job.result(5)
            lines = [event.data["message"] async for event in job.events() if event.kind == "log"]
            assert lines == [name] * 5


async def test_an_unexpected_error_while_reporting_costs_no_other_job(
    hindered: Oncue, engine: HinderedEngine, caplog: pytest.LogCaptureFixture
) -> None:
    failing = [True]

    async def fail(_: str) -> None:
        if failing[0]:
            failing[0] = False
            raise RuntimeError("a bug in an engine")

    engine.before["append"] = fail

    @hindered.task()
    async def speak(ctx: Context) -> str:
        await ctx.log("hello")
        await asyncio.sleep(0.2)
        return "well"

    with caplog.at_level(logging.ERROR):
        async with working(hindered):
            job = await speak.enqueue()
            await eventually(lambda: not failing[0], "the first report failed")
            assert await job.result(5) == "well"
            assert await (await speak.enqueue()).result(5) == "well"
