"""Workers die between two instructions, and every job still ends once."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from pathlib import Path

import pytest

from oncue import State
from tests.measured import Report
from tests.multiprocess.harness import Fleet, History, all_final, judge, most_starts

pytestmark = [pytest.mark.anyio, pytest.mark.multiprocess]


async def kill_workers_while_jobs_run(
    folder: Path, report: Report, *, jobs: int, most: int, pace: float = 0.3, batch: int = 100
) -> None:
    """Keep 4 workers of 25 slots on jobs of 5 to 50 ms, and kill one of them every `pace` seconds, `most` at most."""
    chance, history, kills, in_flight = random.Random(7), History(), 0, 0
    async with Fleet(folder, concurrency=25, lease=2.0) as fleet:
        work = fleet.jobs.tasks_by_name["work"]
        await fleet.serving(4)
        began = time.monotonic()

        async def feed() -> None:
            for _ in range(0, jobs, batch):
                await history.enqueue(fleet.jobs, [work.request(chance.uniform(0.005, 0.05)) for _ in range(batch)])

        feeding = asyncio.create_task(feed())
        while kills < most:
            await asyncio.sleep(pace)
            if feeding.done() and await nothing_queued(fleet):
                break
            victims = [worker for worker in fleet.alive if worker.is_serving]
            if victims:
                chance.choice(victims).kill()
                kills += 1
                fleet.start()
        await feeding
        await all_final(fleet.jobs, within=120)
        took = time.monotonic() - began
        verdict = await judge(fleet, history.accepted)
        in_flight = len(fleet.lines("was taken back from worker"))
        assert verdict.faults == {}, str(verdict)
        assert verdict.crashed == 0, str(verdict)
        assert len(history.accepted) == jobs
        assert verdict.dup_excused <= in_flight, "more were run again than were taken back from the dead"
        assert fleet.faults_in_logs() == []
        starts = most_starts(fleet.effects("start"))
    name = f"kill -9 every {pace:g} s, {jobs:,} jobs of 5–50 ms, 4 workers × 25"
    report(f"{name}: kills in seconds", f"{kills} in {took:.1f}", "s")
    report(f"{name}: lost, with two final states, run again without a kill", "0, 0, 0")
    report(f"{name}: run again / taken back from the killed", f"{verdict.dup_excused:,} / {in_flight:,}")
    report(f"{name}: most starts of one job; stale writes refused", f"{starts}; {verdict.fenced}")


async def nothing_queued(fleet: Fleet) -> bool:
    return not any(queue.counts.get(State.QUEUED) for queue in await fleet.jobs.engine.queues())


async def test_no_job_is_lost_while_random_workers_are_killed(tmp_path: Path, report: Report) -> None:
    """F01, short."""
    await kill_workers_while_jobs_run(tmp_path, report, jobs=4_000, most=12)


@pytest.mark.soak
async def test_none_of_twenty_thousand_jobs_is_lost_while_random_workers_are_killed(
    tmp_path: Path, report: Report
) -> None:
    """F01."""
    await kill_workers_while_jobs_run(tmp_path, report, jobs=20_000, most=1_000)


async def recoveries(folder: Path, trials: int, *, lease: float) -> list[float]:
    """Kill the only worker and start another one at once, again and again; return how long its jobs waited for it."""
    folder.mkdir()
    took, turn = [], lease / 3 * 1.2
    async with Fleet(folder, lease=lease) as fleet:
        [victim] = await fleet.serving()
        for _ in range(trials):
            await asyncio.sleep(random.uniform(0.0, 0.4) * lease)  # anywhere between two heartbeats
            job = await fleet.jobs.enqueue("work", 0.2)
            await fleet.noted("start", job.id)
            killed_at = time.monotonic()
            victim.kill()
            [victim] = await fleet.serving()
            starting = time.monotonic() - killed_at
            [_, again] = await fleet.noted("start", job.id, times=2, within=4 * lease + 10)
            took.append(again.at - killed_at)
            info = await job.wait(10)
            assert (info.state, info.attempts, info.crashes) == (State.COMPLETED, 2, 1)
            [attempt] = await fleet.jobs.engine.attempts(job.id)
            assert attempt.outcome == "crashed"
            # Nobody looked for longer than a lease: it might have been the store that was away, so all get another one.
            grace = lease if starting + turn > lease else 0.0
            assert took[-1] <= lease + turn + starting + grace + 0.5
    return took


async def test_jobs_of_the_only_worker_are_run_again_soon_after_its_death(tmp_path: Path, report: Report) -> None:
    """A1, S2, F02 with a short lease."""
    lease, trials = 1.2, 5
    both = await asyncio.gather(*(recoveries(tmp_path / name, trials, lease=lease) for name in "ab"))
    took = [*both[0], *both[1]]
    name = f"recovery after kill -9 of the only worker, lease {lease:g} s, {len(took)} trials"
    report(f"{name}: median, longest", f"{statistics.median(took):.2f}, {max(took):.2f}", "s")


@pytest.mark.soak
async def test_with_default_settings_jobs_of_the_only_worker_are_run_again_within_twenty_seconds(
    tmp_path: Path, report: Report
) -> None:
    """F02."""
    took = await recoveries(tmp_path / "defaults", 3, lease=15.0)
    report("recovery after kill -9 of the only worker, defaults, 3 trials: longest", max(took), "s")
    assert max(took) <= 20.0 + 1.0  # a second for Python to start


async def test_a_job_that_must_not_run_twice_fails_when_its_worker_is_killed(tmp_path: Path) -> None:
    async with Fleet(tmp_path, lease=1.0) as fleet:
        [victim] = await fleet.serving()
        job = await fleet.jobs.enqueue("once", 30)
        await fleet.noted("start", job.id)
        victim.kill()
        await fleet.serving()
        info = await job.wait(10)
        assert (info.state, info.reason) == (State.FAILED, "crashed")
        later = await fleet.jobs.enqueue("work")
        await later.result(10)
        assert len(fleet.effects("start", job=job.id)) == 1


async def test_a_running_job_longer_than_many_leases_is_never_taken_back(tmp_path: Path, report: Report) -> None:
    """T1, X15: two workers look for jobs to rescue all the while."""
    lease = 1.0
    async with Fleet(tmp_path, lease=lease) as fleet:
        await fleet.serving(2)
        handles = [await fleet.jobs.enqueue("work", 4 * lease) for _ in range(20)]
        for job in handles:
            info = await job.wait(20)
            assert (info.state, info.attempts, info.crashes) == (State.COMPLETED, 1, 0)
        assert len(fleet.effects("start")) == len(handles)
    report("jobs of 4 leases beside a second worker, 20: taken back", 0)


async def test_a_cancel_of_a_dead_workers_job_ends_it(tmp_path: Path) -> None:
    """S7: cancel was requested, and the worker died before it could obey."""
    async with Fleet(tmp_path, lease=1.0) as fleet:
        [victim] = await fleet.serving()
        job = await fleet.jobs.enqueue("work", 30)
        await fleet.noted("start", job.id)
        await victim.freeze()
        assert await job.cancel() == "requested"
        victim.kill()
        await fleet.serving()
        info = await job.wait(10)
        assert (info.state, info.reason) == (State.CANCELLED, "user")
        assert len(fleet.effects("start", job=job.id)) == 1
