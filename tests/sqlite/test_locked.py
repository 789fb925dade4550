"""Another program holds the file's lock: calls end in time, and nothing is lost or done twice."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from oncue import Job, Oncue, State
from oncue.engines.sqlite import SQLiteEngine
from oncue.errors import EngineUnavailable
from oncue.job import Outcome
from oncue.testing.conformance.invariants import all_jobs
from oncue.testing.conformance.steps import LEASE, job, put, put_one, take
from oncue.testing.invariants import check_invariants
from tests.measured import Report
from tests.sqlite.locking import locked

pytestmark = [pytest.mark.anyio, pytest.mark.multiprocess]


def engine_of(path: Path, timeout: float) -> SQLiteEngine:
    return SQLiteEngine(f"sqlite:///{path}?timeout={timeout:g}")


async def test_every_write_ends_at_its_deadline_and_names_the_file(path: Path, report: Report) -> None:
    async with engine_of(path, 0.5) as engine:
        await put(engine, job("j"), job("k"))
        (claimed,) = await take(engine)
        writes: dict[str, Callable[[], Awaitable[object]]] = {
            "enqueue": lambda: engine.enqueue([job()]),
            "claim": lambda: engine.claim(["default"], limit=1, worker_id="w", lease=LEASE),
            "finish": lambda: engine.finish([(claimed.lease, Outcome.completed(b""))]),
            "cancel": lambda: engine.cancel(["k"]),
            "rescue": lambda: engine.rescue(limit=1, lease=LEASE),
            "set_queue": lambda: engine.set_queue("default", paused=True),
        }
        worst = 0.0
        with locked(path):
            for name, write in writes.items():
                began = time.monotonic()
                with pytest.raises(EngineUnavailable, match=rf"{path} was busy for 0\.5 s"):
                    await write()
                took = time.monotonic() - began
                assert took >= 0.49, f"{name} gave up after {took:.3f} s"
                worst = max(worst, took)
            assert [found and found.id for found in await engine.get(["j", "k"])] == ["j", "k"]
        report("a locked file: latest answer after a deadline of 500 ms", (worst - 0.5) * 1e3, "ms")
        assert worst < 1.5
        # Nothing of what was refused has been done, and it can be done now.
        assert [found and found.state for found in await engine.get(["j", "k"])] == ["running", "queued"]
        assert {queue.name: queue.paused for queue in await engine.queues()} == {"default": False}
        assert await engine.finish([(claimed.lease, Outcome.completed(b""))]) == [True]
        await check_invariants(engine)


async def test_calls_that_come_in_one_after_the_other_each_end_at_their_own_deadline(path: Path) -> None:
    async with engine_of(path, 0.5) as engine:
        with locked(path):
            began = time.monotonic()

            async def enqueue_after(delay: float) -> float:
                await asyncio.sleep(delay)
                with pytest.raises(EngineUnavailable):
                    await engine.enqueue([job()])
                return time.monotonic() - began

            ends = await asyncio.gather(*[enqueue_after(delay) for delay in (0, 0.2, 0.4, 0.6)])
        for delay, end in zip((0, 0.2, 0.4, 0.6), ends, strict=True):
            assert delay + 0.49 <= end < delay + 1.2
        await check_invariants(engine)


async def test_a_lock_that_is_given_back_in_time_is_only_a_wait(path: Path) -> None:
    async with engine_of(path, 10) as engine:
        with locked(path):
            waiting = [asyncio.create_task(put_one(engine)) for _ in range(20)]
            await asyncio.sleep(0.5)
            assert not any(task.done() for task in waiting)
        assert len(set(await asyncio.gather(*waiting))) == 20
        assert len(await take(engine, 50)) == 20


@pytest.mark.parametrize(
    ("seconds", "timeout", "lease"),
    [
        pytest.param(1, 0.4, 15, id="1s"),
        pytest.param(3, 1, 1.5, id="longer than leases"),
        pytest.param(5, 5, 15, id="5s", marks=pytest.mark.soak),
        pytest.param(30, 5, 15, id="30s", marks=pytest.mark.soak),
    ],
)
async def test_what_was_done_while_the_file_was_locked_is_stored_when_it_is_free(
    path: Path, report: Report, seconds: float, timeout: float, lease: float
) -> None:
    jobs = Oncue(engine_of(path, timeout))
    runs: Counter[str] = Counter()
    all_started = asyncio.Event()
    accepted: list[Job[str]] = []
    refused: list[str] = []

    @jobs.task()
    async def work(name: str, duration: float) -> str:
        runs[name] += 1
        if len(runs) == 60:
            all_started.set()
        await asyncio.sleep(duration)
        return name

    async def enqueue_until(end: float) -> None:
        while time.monotonic() < end:
            name, began = f"meanwhile {len(accepted) + len(refused)}", time.monotonic()
            try:
                accepted.append(await work.enqueue(name, 0.01))
            except EngineUnavailable:
                refused.append(name)
            assert time.monotonic() - began < timeout + 1

    async with jobs:
        # Some end before the lock comes, some while it is there, some after it.
        durations = [seconds * number / 40 for number in range(60)]
        accepted += await jobs.enqueue_many([work.request(f"before {number}", d) for number, d in enumerate(durations)])
        worker = jobs.worker(lease=lease)
        working = asyncio.create_task(worker.run())
        try:
            await asyncio.wait_for(all_started.wait(), 20)
            with locked(path):
                await enqueue_until(time.monotonic() + seconds)
            freed = time.monotonic()
            for handle in accepted[:39]:  # they ended while the file was locked
                await handle.result(timeout=30)
            report(f"locked for {seconds:g} s: what ended meanwhile is stored after", time.monotonic() - freed, "s")
            for handle in accepted[39:]:
                await handle.result(timeout=30)
        finally:
            worker.stop()
            await working
        assert Counter(info.state for info in await all_jobs(jobs.engine)) == {State.COMPLETED: len(accepted)}
        assert [name for name, times in runs.items() if times > 1] == []
        assert len(runs) == len(accepted)
        assert not set(refused) & set(runs)
        report(f"locked for {seconds:g} s: jobs lost, run twice, of", f"0, 0, {len(accepted)}")
        await check_invariants(jobs.engine)
    assert refused or timeout >= seconds, "no enqueue met the lock"
