"""User code blocks the event loop: for a while, which costs nothing, or for ever, which costs the worker its jobs."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from oncue import State
from tests.measured import Report
from tests.multiprocess.harness import Fleet, eventually

pytestmark = [pytest.mark.anyio, pytest.mark.multiprocess]

LEASE, PATIENCE = 1.0, 1.5


async def test_a_job_that_blocks_the_loop_for_three_leases_runs_once(tmp_path: Path, report: Report) -> None:
    """F36: in the same process are jobs that could be lost with it; a second worker looks for jobs to rescue."""
    lease = 1.0
    async with Fleet(tmp_path, lease=lease, stall_warning=0.5) as fleet:
        [blocked] = await fleet.serving()
        others = [await fleet.jobs.enqueue("work", 0.2) for _ in range(10)]
        for job in others:
            await fleet.noted("start", job.id)
        culprit = await fleet.jobs.enqueue("block", 3.2 * lease)
        await fleet.noted("start", culprit.id)
        await fleet.serving()
        for job in (culprit, *others):
            info = await job.wait(20)
            assert (info.state, info.attempts, info.crashes) == (State.COMPLETED, 1, 0)
        assert len(fleet.effects("start")) == 1 + len(others)
        warnings = fleet.lines(f"block {culprit.id} has blocked the event loop for")
        assert len(warnings) == 1, "the log names the job, once"
        assert "in block" in blocked.log, "and the line of code"
        assert fleet.lines("the event loop turns again")
    report("loop blocked for 3.2 leases, 11 jobs in the process: run twice", 0)


async def stuck_for_good(folder: Path, *, recycled: bool) -> float:
    """Block a worker's loop for ever; return after how long another worker has its job."""
    folder.mkdir()
    async with Fleet(folder, lease=LEASE, stall_warning=0.5, stall_timeout=PATIENCE) as fleet:
        [stuck] = await fleet.serving(exit_when_stuck=recycled)
        neighbour = await fleet.jobs.enqueue("work", 1.0)
        await fleet.noted("start", neighbour.id)
        culprit = await fleet.jobs.enqueue("block", 60)
        [blocked] = await fleet.noted("start", culprit.id)
        await fleet.serving()
        await fleet.noted("start", neighbour.id, times=2)
        [_, again] = await fleet.noted("start", culprit.id, times=2)
        assert (await neighbour.info()).crashes == 1
        assert fleet.lines(f"block {culprit.id} has blocked the event loop for")
        assert "are given up" in stuck.log
        if recycled:
            assert await stuck.ended(5) == 70
        return again.at - blocked.at


async def test_a_worker_whose_loop_is_stuck_for_good_loses_its_jobs(tmp_path: Path, report: Report) -> None:
    """F36: within `stall_timeout` + lease, and a turn of maintenance, whether or not the process ends itself."""
    took = await asyncio.gather(
        stuck_for_good(tmp_path / "left", recycled=False), stuck_for_good(tmp_path / "recycled", recycled=True)
    )
    name = f"loop blocked for ever, stall_timeout {PATIENCE:g} s, lease {LEASE:g} s: job taken over after"
    report(f"{name} (process left, recycled)", f"{took[0]:.2f}, {took[1]:.2f}", "s")
    assert max(took) <= PATIENCE + LEASE + 0.4 * LEASE + 1.0


async def test_a_process_that_was_frozen_is_not_blamed_for_blocking_its_loop(tmp_path: Path) -> None:
    """The whole process stood still, not its loop: it must neither give up its jobs nor end itself."""
    async with Fleet(tmp_path, lease=5.0, stall_warning=0.5, stall_timeout=1.0) as fleet:
        [worker] = await fleet.serving(exit_when_stuck=True)
        job = await fleet.jobs.enqueue("work", 3.0)
        [start] = await fleet.noted("start", job.id)
        await worker.freeze()
        await eventually(lambda: time.monotonic() - start.at > 2.5, "it has been frozen for long enough", within=5)
        worker.thaw()
        info = await job.wait(10)
        assert (info.state, info.attempts, info.crashes) == (State.COMPLETED, 1, 0)
        assert worker.alive
        assert "blocked the event loop" not in worker.log
        assert "given up" not in worker.log
