"""Many threads and event loops on one engine, callers that give up, a disk that fails: no call is lost, none hangs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from oncue.engine import topic_queue
from oncue.engines.sqlite import SQLiteEngine
from oncue.engines.sqlite.unit import Unit
from oncue.errors import EngineUnavailable, EngineUnusable
from oncue.job import Claimed, Outcome, State
from oncue.testing.conformance.invariants import all_jobs
from oncue.testing.conformance.steps import COMPLETED, LEASE, job, put, put_one, take
from oncue.testing.invariants import check_invariants
from tests.measured import Report

pytestmark = pytest.mark.anyio


def in_threads(number: int, main: Callable[[int], Any]) -> list[Any]:
    """Run a coroutine function in so many threads, each with a loop of its own; return what each returned."""
    answers: list[Any] = [None] * number

    def run(index: int) -> None:
        try:
            answers[index] = asyncio.run(main(index))
        except BaseException as error:
            answers[index] = error

    threads = [threading.Thread(target=run, args=[index]) for index in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive(), "a thread hangs"
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer
    return answers


@pytest.mark.parametrize("place", ["memory", "file"])
async def test_many_event_loops_share_one_engine(tmp_path: Path, report: Report, place: str) -> None:
    url = f"sqlite:///{tmp_path}/jobs.db" if place == "file" else "sqlite://:memory:"
    began = time.monotonic()
    async with SQLiteEngine(url) as engine:

        async def live(index: int) -> list[str]:
            ended: list[str] = []
            for round_ in range(10):
                await put(engine, *[job(f"{index} {round_} {number}") for number in range(5)])
                claim = await engine.claim(["default"], limit=5, worker_id=f"w{index}", lease=LEASE)
                answers = await engine.finish([(one.lease, COMPLETED) for one in claim.jobs])
                ended += [one.id for one, stored in zip(claim.jobs, answers, strict=True) if stored]
                assert len(await engine.get([f"{index} {round_} 0"])) == 1
            return ended

        ended = [job_id for ids in await asyncio.to_thread(in_threads, 12, live) for job_id in ids]
        assert len(ended) == len(set(ended)) == 12 * 10 * 5
        assert {info.state for info in await all_jobs(engine)} == {State.COMPLETED}
        await check_invariants(engine)
    report(f"12 event loops, 600 jobs through one engine in {place}", time.monotonic() - began, "s")


def test_one_engine_opened_from_many_loops_at_once_opens_once(tmp_path: Path) -> None:
    for number in range(10):
        engine = SQLiteEngine(f"sqlite:///{tmp_path}/{number}.db")
        barrier = threading.Barrier(6)

        async def use(index: int, engine: SQLiteEngine = engine, barrier: threading.Barrier = barrier) -> str:
            barrier.wait()
            await engine.open()
            return await put_one(engine)

        assert len(set(in_threads(6, use))) == 6
        asyncio.run(engine.close())
        with pytest.raises(EngineUnavailable):
            asyncio.run(put_one(engine))


def test_a_close_beside_calls_answers_each_of_them(tmp_path: Path) -> None:
    for number in range(15):
        engine = SQLiteEngine(f"sqlite:///{tmp_path}/{number}.db")
        asyncio.run(engine.open())
        accepted: set[str] = set()

        async def use(index: int, engine: SQLiteEngine = engine, accepted: set[str] = accepted) -> None:
            if index == 0:
                await asyncio.sleep(0.02)
                await engine.close()
                return
            with contextlib.suppress(EngineUnavailable):
                while True:
                    accepted.add(await asyncio.wait_for(put_one(engine), 20))  # a call that hangs is no answer

        in_threads(5, use)

        async def count(engine: SQLiteEngine = engine) -> set[str]:
            async with engine:
                return {info.id for info in await all_jobs(engine)}

        assert accepted <= asyncio.run(count())


async def test_callers_that_give_up_lose_nothing_and_hold_nobody_up(engine: SQLiteEngine, report: Report) -> None:
    chance = random.Random(11)
    given_up = 0

    async def impatient(call: Any) -> Any:
        nonlocal given_up
        try:
            return await asyncio.wait_for(call, chance.choice([0, 0.0001, 0.001, 0.005]))
        except TimeoutError:
            given_up += 1
            return None

    requests = [job() for _ in range(400)]
    for start in range(0, 400, 20):
        await asyncio.gather(*[impatient(engine.enqueue([one])) for one in requests[start : start + 20]])
    # Nobody knows which were accepted. The same calls again settle it.
    answers = await engine.enqueue(requests)
    assert all(answer.created for answer in answers)
    held: dict[str, Claimed] = {}
    for _ in range(60):
        claims = [
            impatient(engine.claim(["default"], limit=5, worker_id="w", lease=LEASE, held=list(held)))
            for _ in range(chance.randint(1, 3))
        ]
        for claim in await asyncio.gather(*claims):
            held |= {one.id: one for one in (claim.jobs if claim else ())}
    # What was claimed and never arrived comes back to the worker that says what it holds.
    while missing := await take(engine, 500, worker="w", held=list(held)):
        held |= {one.id: one for one in missing}
    assert held.keys() == {one.id for one in requests}
    for claimed in held.values():
        await impatient(engine.finish([(claimed.lease, Outcome.completed(claimed.id.encode()))]))
    assert all(await engine.finish([(one.lease, Outcome.completed(one.id.encode())) for one in held.values()]))
    for info in await all_jobs(engine):
        assert (info.state, info.attempts) == (State.COMPLETED, 1)
    report("calls given up by their callers, jobs lost", f"{given_up}, 0")
    assert given_up > 100


async def test_a_loop_that_ended_with_calls_under_way_holds_nobody_up(engine: SQLiteEngine) -> None:
    async def leave(index: int) -> None:
        for _ in range(50):
            engine._write(_nothing, [None])  # nobody waits for it

    await asyncio.to_thread(in_threads, 3, leave)
    await put_one(engine)


def _nothing(unit: Unit, requests: Sequence[Any]) -> list[Any]:
    return [None for _ in requests]


def _fail_for_odd(unit: Unit, requests: Sequence[Any]) -> list[Any]:
    if any(request % 2 for request in requests):
        raise KeyError("odd")
    unit.conn.executemany("INSERT INTO queues (name, paused) VALUES (?, 0)", [(f"q{request}",) for request in requests])
    return list(requests)


async def test_of_calls_that_travel_together_only_the_guilty_fail(engine: SQLiteEngine) -> None:
    answers = await asyncio.gather(
        *[engine._write(_fail_for_odd, [number]) for number in range(20)], return_exceptions=True
    )
    assert [type(answer) for answer in answers] == [list, KeyError] * 10
    assert engine._lanes.writer is not None
    rows = engine._lanes.writer._conn.execute("SELECT name FROM queues").fetchall()
    assert {name for (name,) in rows} == {f"q{number}" for number in range(0, 20, 2)}


async def test_what_fails_behind_a_commit_does_not_run_the_calls_again(
    engine: SQLiteEngine, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = engine._lanes.writer
    assert writer is not None

    def fail(*arguments: object) -> None:
        raise OSError("the checkpoint fails")

    monkeypatch.setattr(writer._checkpointer, "after_commit", fail)  # type: ignore[attr-defined]
    with caplog.at_level(logging.ERROR, "oncue.engine"):
        claimed = await asyncio.gather(*[engine._write(_count_up, [None]) for _ in range(5)])
        assert await engine._write(_count_up, [None]) == [6]  # by now the lane has dealt with the one before
    assert sorted(claimed) == [[1], [2], [3], [4], [5]]
    assert "internal error after a commit" in caplog.text


def _count_up(unit: Unit, requests: Sequence[Any]) -> list[Any]:
    unit.conn.execute("INSERT OR IGNORE INTO queues VALUES ('counter', 0)")
    answers = []
    for _ in requests:
        unit.conn.execute("UPDATE queues SET paused = paused + 1 WHERE name = 'counter'")
        answers += unit.conn.execute("SELECT paused FROM queues WHERE name = 'counter'").fetchone()
    return answers


async def test_a_connection_that_broke_is_replaced(engine: SQLiteEngine) -> None:
    writer = engine._lanes.writer
    assert writer is not None
    await put_one(engine)
    before = writer._conn

    def break_down(unit: Unit, requests: Sequence[Any]) -> list[Any]:
        error = sqlite3.OperationalError("disk I/O error")
        error.sqlite_errorcode = sqlite3.SQLITE_IOERR
        raise error

    with pytest.raises(EngineUnavailable, match="disk I/O error"):
        await engine._write(break_down, [None])
    await put_one(engine)
    assert writer._conn is not before
    assert len(await take(engine, 10)) == 2


async def test_a_hint_reaches_every_loop_that_listens(engine: SQLiteEngine) -> None:
    ready = threading.Barrier(4)

    async def listen(index: int) -> bool:
        subscription = engine.subscribe(topic_queue("default"))
        ready.wait()
        heard = await subscription.wait(timeout=10)
        subscription.close()
        return heard

    listening = asyncio.create_task(asyncio.to_thread(in_threads, 3, listen))
    await asyncio.to_thread(ready.wait)
    await put_one(engine)
    assert await listening == [True, True, True]


async def test_an_engine_that_is_closed_says_so_and_can_be_opened_again(path: Path) -> None:
    engine = SQLiteEngine(f"sqlite:///{path}")
    for call in (lambda: put_one(engine), lambda: engine.queues()):
        with pytest.raises(EngineUnavailable, match="not open"):
            await call()
    async with engine:
        await put_one(engine)
    with pytest.raises(EngineUnavailable):
        await put_one(engine)
    async with engine:
        assert len(await take(engine, 5)) == 1


async def test_a_reader_that_fails_for_one_caller_answers_the_others(engine: SQLiteEngine) -> None:
    await put_one(engine, "j")

    def fail(unit: Unit, requests: Sequence[Any]) -> list[Any]:
        raise EngineUnusable("no")

    answers = await asyncio.gather(
        engine.get(["j"]), engine._read(fail, [None]), engine.queues(), return_exceptions=True
    )
    assert [isinstance(answer, EngineUnusable) for answer in answers] == [False, True, False]
