"""Two releases side by side: a worker is given jobs of tasks that it does not know."""

from __future__ import annotations

from pathlib import Path

import pytest

from oncue import State
from tests.measured import Report
from tests.multiprocess.harness import Fleet, eventually

pytestmark = [pytest.mark.anyio, pytest.mark.multiprocess]


async def test_jobs_that_an_old_worker_does_not_know_wait_for_one_that_does(tmp_path: Path, report: Report) -> None:
    """F06, D6."""
    number = 100
    async with Fleet(tmp_path) as fleet:
        [old] = await fleet.serving(release="old")
        novel = fleet.jobs.tasks_by_name["novel"]
        handles = await fleet.jobs.enqueue_many([novel.request() for _ in range(number)])
        ids = [job.id for job in handles]

        async def all_parked() -> bool:
            infos = await fleet.jobs.client.infos(ids)
            return all(info is not None and info.reason == "no_worker" for info in infos)

        await eventually(all_parked, "the old worker hands all of them back")
        info = await handles[0].info()
        assert (info.state, info.attempts, info.crashes) == (State.SCHEDULED, 0, 0)
        # What it knows it runs, whatever else is in the queue.
        assert await (await fleet.jobs.enqueue("work")).result(5)
        await fleet.serving(3)  # the old one still takes its share of what comes due, and hands it back again
        for job in handles:
            assert await job.result(60) == 1, "an attempt was used up"
        assert len(fleet.effects("start")) == number + 1
        assert old.alive
        about = [line for line in old.log.splitlines() if "novel" in line]
        assert fleet.faults_in_logs() == []
    report("unknown task, old worker first: run after the new one came, attempts used up", f"{number} of {number}, 0")
    report("unknown task: lines in the old worker's log", len(about))
    assert any("novel" in line and "WARNING" in line for line in about), "nobody is told that no worker knows it"
    assert len(about) <= 10, "the log is flooded"
