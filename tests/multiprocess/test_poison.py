"""Jobs that take their process down."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from oncue import State
from tests.measured import Report
from tests.multiprocess.harness import Fleet, eventually

pytestmark = [pytest.mark.anyio, pytest.mark.multiprocess]


@contextlib.asynccontextmanager
async def supervised(fleet: Fleet) -> AsyncIterator[None]:
    """Start another worker whenever there is none."""

    async def supervise() -> None:
        while True:
            if not fleet.alive:
                fleet.start()
            await asyncio.sleep(0.02)

    supervisor = asyncio.create_task(supervise())
    try:
        yield
    finally:
        supervisor.cancel()


async def poisoned(folder: Path, how: str) -> int:
    """Run a job that kills its process, with five others; return how often those were run again."""
    folder.mkdir()
    async with Fleet(folder, lease=1.0) as fleet:
        fleet.start()
        others = [await fleet.jobs.enqueue("work", 0.7) for _ in range(5)]
        for job in others:
            await fleet.noted("start", job.id)
        poison = await fleet.jobs.enqueue("poison", how, 0.05)
        async with supervised(fleet):
            info = await poison.wait(30)
            assert (info.state, info.reason, info.crashes) == (State.FAILED, "crashed", 3)
            assert "3 times" in (info.error or "")
            later = await fleet.jobs.enqueue("work")
            for job in (*others, later):
                assert (await job.wait(20)).state is State.COMPLETED
        starts = len(fleet.effects("start", job=poison.id))
        assert starts == 3
        assert len(fleet.workers) == 4, "it died three times, and the fourth lives"
        return len(fleet.effects("start")) - starts - len(others) - 1


async def test_a_job_that_kills_its_process_fails_after_three_starts(tmp_path: Path, report: Report) -> None:
    """F07, X8: by `os._exit`, a segmentation fault and SIGKILL; its neighbours are run again."""
    ways = ("exit", "segfault", "kill")
    again = await asyncio.gather(*(poisoned(tmp_path / how, how) for how in ways))
    report(f"jobs that kill their process ({', '.join(ways)}): starts, then failed (crashed)", "3, 3, 3")
    report(f"jobs that kill their process ({', '.join(ways)}): neighbours run again", ", ".join(map(str, again)))


@pytest.mark.xfail(
    strict=True, reason="a crash counts against every job of the worker, and the same ones meet again in the next one"
)
async def test_long_jobs_beside_one_that_kills_its_process_outlive_it(tmp_path: Path) -> None:
    """F07: they take longer than the poison needs, so that it takes them down each time, with the default three."""
    async with Fleet(tmp_path, lease=1.0) as fleet:
        fleet.start()
        others = [await fleet.jobs.enqueue("fragile", 2.0) for _ in range(5)]
        for job in others:
            await fleet.noted("start", job.id)
        poison = await fleet.jobs.enqueue("poison", "exit", 0.05)
        async with supervised(fleet):
            assert (await poison.wait(30)).reason == "crashed"

            async def ended() -> list[State]:
                infos = await fleet.jobs.client.infos([job.id for job in others])
                states = [info.state for info in infos if info is not None]
                return states if all(state.final for state in states) else []

            assert await eventually(ended, "the others have ended", within=30) == [State.COMPLETED] * len(others)
