"""A worker is told to stop: short jobs end, the rest go back uncounted, and the process is gone in time."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import pytest

from oncue import State
from tests.measured import Report
from tests.multiprocess.harness import Fleet, all_final, eventually, judge

pytestmark = [pytest.mark.anyio, pytest.mark.multiprocess]

GRACE, CLEANUP = 1.0, 1.0


@pytest.mark.parametrize("cli", [False, True], ids=["asyncio", "oncue worker"])
async def test_at_sigterm_short_jobs_end_and_the_rest_go_back_with_their_attempt(
    tmp_path: Path, report: Report, cli: bool
) -> None:
    """F04, S12: jobs of 0.1, 5 and 60 s; a second worker with the same short lease watches for jobs to rescue."""
    async with Fleet(tmp_path, cli=cli, grace=GRACE, cleanup=CLEANUP, lease=0.8) as fleet:
        [leaving] = await fleet.serving()
        short = [await fleet.jobs.enqueue("work", 0.1 + 0.5 * n / 10) for n in range(10)]
        long = [await fleet.jobs.enqueue("work", seconds) for seconds in (5, 60) for _ in range(5)]
        tidy = await fleet.jobs.enqueue("tidy", 60, 0.3)
        for job in (*short, *long, tidy):
            await fleet.noted("start", job.id)
        watcher = (await fleet.serving(queues=["elsewhere"]))[0]
        asked_at = time.monotonic()
        leaving.ask_to_stop()
        assert await leaving.ended(GRACE + CLEANUP + 5) == 0
        took = time.monotonic() - asked_at
        for job in short:
            info = await job.info()
            assert (info.state, info.attempts) == (State.COMPLETED, 1)
        for job in (*long, tidy):
            info = await job.info()
            assert (info.state, info.attempts, info.crashes, info.reason) == (State.QUEUED, 0, 0, None)
            assert len(fleet.effects("start", job=job.id)) == 1
        assert fleet.effects("cleaned", job=tidy.id), "what it has to clean up was cleaned up"
        assert fleet.faults_in_logs() == []
        assert not fleet.lines("ERROR"), "a job that is given back has not failed"
        assert [worker for worker in await fleet.jobs.engine.workers() if worker.pid == leaving.pid] == []
        assert watcher.alive
        # The next worker has them.
        await fleet.serving()
        for job in (*long, tidy):
            await fleet.noted("start", job.id, times=2)
            assert (await job.info()).attempts == 1
        assert took <= GRACE + CLEANUP + 1.0
    name = "SIGTERM to oncue worker" if cli else "SIGTERM"
    report(f"{name}, jobs of 0.1 to 60 s, grace {GRACE:g} s, cleanup ≤ {CLEANUP:g} s: exit after", took, "s")
    report(f"{name}: short jobs ended / long jobs given back uncounted / run twice while draining", "10 / 11 / 0")


async def test_a_worker_told_to_stop_takes_no_more_jobs(tmp_path: Path, report: Report) -> None:
    """T4: thousands wait; it must not go on with them, and not keep what it had claimed."""
    async with Fleet(tmp_path, grace=5.0, concurrency=20, lease=2.0) as fleet:
        work = fleet.jobs.tasks_by_name["work"]
        handles = await fleet.jobs.enqueue_many([work.request(0.02) for _ in range(2000)])
        [leaving] = await fleet.serving()
        await eventually(lambda: len(fleet.effects("end")) > 200, "it is busy")
        asked_at = time.monotonic()
        leaving.ask_to_stop()
        assert await leaving.ended(10) == 0
        took = time.monotonic() - asked_at
        late = [effect for effect in fleet.effects("start") if effect.at > asked_at + 0.2]
        assert late == [], "it went on taking jobs"
        assert took <= 1.5, "nothing but jobs of 20 ms was to be waited for"
        infos = await fleet.jobs.client.infos([job.id for job in handles])
        assert {info.state for info in infos if info is not None} == {State.COMPLETED, State.QUEUED}
        fleet.start()
        await all_final(fleet.jobs, within=30)
        verdict = await judge(fleet, [job.id for job in handles])
        assert verdict.faults == {}
        assert verdict.runs == 2000, "a job was claimed and forgotten, or run twice"
        assert fleet.faults_in_logs() == []
    report("SIGTERM with thousands of jobs of 20 ms waiting: exit after", took, "s")


@pytest.mark.parametrize(("first", "second"), [(signal.SIGTERM, signal.SIGTERM), (signal.SIGINT, signal.SIGINT)])
async def test_a_second_signal_hurries(tmp_path: Path, report: Report, first: int, second: int) -> None:
    async with Fleet(tmp_path, cli=True, grace=60.0, cleanup=CLEANUP) as fleet:
        [leaving] = await fleet.serving()
        job = await fleet.jobs.enqueue("work", 60)
        await fleet.noted("start", job.id)
        leaving.ask_to_stop(first)
        await eventually(lambda: "stops: waiting 60 s for 1 jobs" in leaving.log, "it waits for its job")
        asked_at = time.monotonic()
        leaving.ask_to_stop(second)
        assert await leaving.ended(CLEANUP + 5) == 0
        took = time.monotonic() - asked_at
        info = await job.info()
        assert (info.state, info.attempts) == (State.QUEUED, 0)
        assert fleet.faults_in_logs() == []
        assert took <= CLEANUP + 1.0
    report(f"second {signal.Signals(second).name}, with a grace of 60 s: exit after", took, "s")


@pytest.mark.parametrize(
    "task",
    [
        "sleep_in_thread",
        "block",
        "sleep_in_own_thread",
        "stubborn",
    ],
)
async def test_a_task_that_goes_on_does_not_hold_up_the_exit(tmp_path: Path, report: Report, task: str) -> None:
    """F04: `oncue worker`, whose process ends whatever user code has left in it."""
    grace = 0.5
    async with Fleet(tmp_path, cli=True, grace=grace, cleanup=CLEANUP, lease=2.0, stall_timeout=2.0) as fleet:
        [leaving] = await fleet.serving()
        job = await fleet.jobs.enqueue(task, 60)
        await fleet.noted("start", job.id)
        asked_at = time.monotonic()
        leaving.ask_to_stop()
        blocked = task == "block"  # not even a signal gets through: it ends as one that is stuck for good
        status = await leaving.ended(2.0 + CLEANUP + 1.5)
        took = time.monotonic() - asked_at
        assert status == (70 if blocked else 0)
        info = await job.info()
        assert info.state is (State.RUNNING if blocked else State.QUEUED)
        assert took <= (2.0 + 2.0 if blocked else grace + CLEANUP + 1.0)
    report(f"SIGTERM with a task that goes on for 60 s ({task}), grace {grace:g} s: exit after", took, "s")


async def test_a_job_that_must_not_run_twice_fails_when_a_shutdown_interrupts_it(tmp_path: Path) -> None:
    async with Fleet(tmp_path, grace=0.3, cleanup=CLEANUP) as fleet:
        [leaving] = await fleet.serving()
        interrupted = await fleet.jobs.enqueue("once", 60)
        ended = await fleet.jobs.enqueue("once", 0.2)
        await fleet.noted("start", interrupted.id)
        await fleet.noted("start", ended.id)
        leaving.ask_to_stop()
        assert await leaving.ended(5) == 0
        info = await interrupted.info()
        assert (info.state, info.reason, info.attempts) == (State.FAILED, "interrupted", 1)
        assert (await ended.info()).state is State.COMPLETED


async def test_a_worker_stopped_while_it_starts_or_idles_ends_at_once(tmp_path: Path, report: Report) -> None:
    """T4."""
    longest = 0.0
    async with Fleet(tmp_path) as fleet:
        for idle in (0.0, 0.02, 0.3):
            [worker] = await fleet.serving()
            await asyncio.sleep(idle)
            asked_at = time.monotonic()
            worker.ask_to_stop()
            assert await worker.ended(5) == 0
            longest = max(longest, time.monotonic() - asked_at)
        assert longest <= 1.0
        assert await fleet.jobs.engine.workers() == []
    report("SIGTERM to an idle worker, at three moments: longest exit", longest, "s")


async def test_rolling_restarts_under_load_lose_nothing_and_eat_no_attempt(tmp_path: Path, report: Report) -> None:
    """F05, short: three workers are replaced one after the other while jobs run."""
    restarts, accepted = 6, []
    async with Fleet(tmp_path, grace=0.2, cleanup=CLEANUP, concurrency=25, lease=3.0) as fleet:
        work = fleet.jobs.tasks_by_name["work"]
        working = await fleet.serving(3)
        for _ in range(restarts):
            handles = await fleet.jobs.enqueue_many([work.request(0.01 * (n % 40)) for n in range(150)])
            accepted += [job.id for job in handles]
            leaving, *working = working
            working += await fleet.serving()
            leaving.ask_to_stop()
            assert await leaving.ended(10) == 0
        await all_final(fleet.jobs, within=30)
        infos = await fleet.jobs.client.infos(accepted)
        assert {(info.state, info.attempts, info.crashes) for info in infos if info is not None} == {
            (State.COMPLETED, 1, 0)
        }
        assert fleet.faults_in_logs() == []
        again = len(fleet.effects("start")) - len(accepted)
    report(f"{restarts} rolling restarts, {len(accepted)} jobs: lost, attempts eaten", "0, 0")
    report(f"{restarts} rolling restarts, {len(accepted)} jobs: interrupted and run again", again)
