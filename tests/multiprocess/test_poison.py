"""Jobs that take their process down."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from oncue import State
from tests.measured import Report
from tests.multiprocess.harness import Fleet

pytestmark = [pytest.mark.anyio, pytest.mark.multiprocess]


@pytest.mark.parametrize("how", ["exit", "segfault", "kill"])
async def test_a_job_that_kills_its_process_fails_after_three_starts(tmp_path: Path, report: Report, how: str) -> None:
    """F07, X8: its neighbours are run again, and jobs that come in meanwhile wait no longer than for a rescue."""
    lease = 1.0
    async with Fleet(tmp_path, lease=lease) as fleet:
        fleet.start()
        others = [await fleet.jobs.enqueue("work", 0.7) for _ in range(5)]
        for job in others:
            await fleet.noted("start", job.id)
        poison = await fleet.jobs.enqueue("poison", how, 0.05)

        async def supervise() -> None:
            while True:
                if not fleet.alive:
                    fleet.start()
                await asyncio.sleep(0.02)

        supervisor = asyncio.create_task(supervise())
        try:
            info = await poison.wait(30)
            assert (info.state, info.reason, info.crashes) == (State.FAILED, "crashed", 3)
            assert "3 times" in (info.error or "")
            later = await fleet.jobs.enqueue("work")
            for job in (*others, later):
                assert (await job.wait(20)).state is State.COMPLETED
        finally:
            supervisor.cancel()
        starts = len(fleet.effects("start", job=poison.id))
        again = len(fleet.effects("start")) - starts - len(others) - 1
        assert starts == 3
        assert len(fleet.workers) == 4, "it died three times, and the fourth lives"
    report(f"job that kills its process ({how}): starts, then failed (crashed)", starts)
    report(f"job that kills its process ({how}): neighbours run again", again)
