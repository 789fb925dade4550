"""The store does not answer for a while: jobs go on, nothing is run twice, and the log stays readable."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections import Counter
from typing import Any

import pytest

from oncue import Context, EngineUnavailable, Oncue, State
from tests.measured import Report
from tests.worker.kit import HinderedEngine, eventually, working

pytestmark = pytest.mark.anyio


class Outage:
    """Makes every call of an engine unanswered while it lasts.

    Attributes:
        asked: calls that got no answer.
    """

    def __init__(self, engine: HinderedEngine) -> None:
        self.away = False
        self.asked: Counter[str] = Counter()
        engine.before["*"] = self._refuse

    async def _refuse(self, name: str) -> None:
        if self.away:
            self.asked[name] += 1
            raise EngineUnavailable("the disk is on holiday")


async def test_jobs_that_end_while_the_store_is_away_are_stored_once_when_it_is_back(
    hindered: Oncue, engine: HinderedEngine, report: Report, caplog: pytest.LogCaptureFixture
) -> None:
    """A6, T10, F08: three seconds, twenty jobs that end meanwhile, a lease of one second."""
    caplog.set_level(logging.INFO)
    outage, runs = Outage(engine), Counter[str]()

    @hindered.task()
    async def work(ctx: Context, seconds: float) -> int:
        runs[ctx.job_id] += 1
        await ctx.log("begun")
        await asyncio.sleep(seconds)
        await ctx.log("nearly done")
        return ctx.token

    async with working(hindered, lease=1.0):
        handles = [await work.enqueue(0.5 + number / 10) for number in range(20)]
        await eventually(lambda: len(runs) == 20, "all run")
        outage.away = True
        waiting_since = time.process_time()
        await asyncio.sleep(3.0)
        cpu = time.process_time() - waiting_since
        outage.away = False
        back_at = time.monotonic()
        for job in handles:
            info = await job.wait(20)
            assert (info.state, info.attempts, info.crashes) == (State.COMPLETED, 1, 0)
        stored_after = time.monotonic() - back_at
        later = await work.enqueue(0.0)
        await later.result(10)
        await eventually(lambda: "answers again" in caplog.text, "the log says that it is back")
    assert set(runs.values()) == {1}, "a job was run twice"
    for job in handles:
        lines = [event.data["message"] async for event in job.events() if event.kind == "log"]
        assert lines == ["begun", "nearly done"]
    away = [record for record in caplog.records if "does not answer" in record.getMessage()]
    back = [record for record in caplog.records if "answers again" in record.getMessage()]
    report("store away for 3 s, 20 jobs end meanwhile: run twice, results lost", "0, 0")
    report("store away for 3 s: all stored after its return", stored_after, "s")
    report("store away for 3 s: processor time; calls tried", f"{cpu:.2f} s; {outage.asked.total()}")
    report("store away for 3 s: log lines of it", f"{len(away)} when it went, {len(back)} when it came back")
    assert len(away) == 1, "one line a change of state"
    assert len(back) == 1, "one line a change of state"
    assert stored_after < 6.0


async def test_a_claim_whose_answer_was_lost_costs_a_turn_not_a_lease(
    hindered: Oncue, engine: HinderedEngine, report: Report
) -> None:
    """F14."""
    calls, lost, runs = [0], [0], Counter[str]()

    async def lose(_: str) -> None:
        calls[0] += 1
        if calls[0] % 2 and lost[0] < 20:
            lost[0] += 1
            raise EngineUnavailable("the answer was lost")

    engine.after["claim"] = lose

    @hindered.task()
    async def work(ctx: Context) -> None:
        runs[ctx.job_id] += 1

    async with working(hindered):  # the default lease of 15 s
        began = time.monotonic()
        for _ in range(10):
            handles = [await work.enqueue() for _ in range(10)]
            for job in handles:
                info = await job.wait(10)
                assert (info.state, info.attempts, info.crashes) == (State.COMPLETED, 1, 0)
        took = time.monotonic() - began
    assert set(runs.values()) == {1}
    assert lost[0], "no answer was lost"
    report(f"claims whose answer was lost, {lost[0]}: jobs run twice; 100 jobs took", f"0; {took:.1f} s")
    assert took < 12


@pytest.mark.parametrize("call", ["finish", "heartbeat", "rescue"])
async def test_an_answer_lost_after_the_commit_changes_nothing(
    hindered: Oncue, engine: HinderedEngine, call: str
) -> None:
    """F14: the call is sent again, and what it did stands."""
    lost, runs = [0], Counter[str]()

    async def lose(_: str) -> None:
        lost[0] += 1
        if lost[0] % 2:
            raise EngineUnavailable("the answer was lost")

    engine.after[call] = lose

    @hindered.task()
    async def work(ctx: Context) -> int:
        runs[ctx.job_id] += 1
        await asyncio.sleep(0.05)
        return ctx.attempt

    async with working(hindered, lease=1.0):
        for _ in range(4):
            handles = [await work.enqueue() for _ in range(10)]
            for job in handles:
                assert await job.result(10) == 1
        await eventually(lambda: lost[0] >= 2, "answers were lost")
    assert set(runs.values()) == {1}


async def test_a_worker_told_to_stop_while_the_store_is_away_keeps_its_outcomes_until_it_is_back(
    hindered: Oncue, engine: HinderedEngine
) -> None:
    outage = Outage(engine)
    ran: list[str] = []

    @hindered.task()
    async def work(ctx: Context) -> str:
        ran.append(ctx.job_id)
        await asyncio.sleep(0.2)
        return "done"

    worker = hindered.worker(grace=1.0, cleanup=0.5, lease=5.0)
    running = asyncio.create_task(worker.run())
    job = await work.enqueue()
    await eventually(lambda: ran, "it runs")
    outage.away = True
    await asyncio.sleep(0.4)
    worker.stop()
    await asyncio.sleep(0.8)
    assert not running.done(), "it gave up its outcome"
    outage.away = False
    async with asyncio.timeout(10):
        await running
    assert await job.status() is State.COMPLETED


async def test_burst_outlasts_an_outage(hindered: Oncue, engine: HinderedEngine) -> None:
    chance, calls = random.Random(3), [0]

    async def sometimes(_: str) -> None:
        calls[0] += 1
        if calls[0] < 200 and chance.random() < 0.3:
            raise EngineUnavailable("try again")

    @hindered.task()
    async def work(number: int) -> int:
        return number

    handles = [await work.enqueue(number) for number in range(50)]
    engine.before.update(dict.fromkeys(("claim", "finish", "queues", "heartbeat", "rescue", "prune"), sometimes))
    async with asyncio.timeout(30):
        await hindered.worker(burst=True, concurrency=10).run()
    engine.before.clear()
    infos: list[Any] = await hindered.client.infos([job.id for job in handles])
    assert {(info.state, info.attempts) for info in infos} == {(State.COMPLETED, 1)}


async def test_readiness_ends_with_the_answers_of_the_store(hindered: Oncue, engine: HinderedEngine) -> None:
    outage = Outage(engine)

    @hindered.task()
    async def work() -> None: ...

    async with working(hindered, lease=0.6, maintenance=0.1) as worker:
        await eventually(lambda: worker.ready, "it is ready")
        outage.away = True
        await eventually(lambda: not worker.ready, "it is not ready any more", within=10)
        outage.away = False
        await work.enqueue()
        await eventually(lambda: worker.ready, "it is ready again", within=10)
