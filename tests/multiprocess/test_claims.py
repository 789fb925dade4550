"""Many processes share one file, and no job is run twice or forgotten."""

from __future__ import annotations

import time
from collections import Counter
from pathlib import Path

import pytest

from tests.measured import Report
from tests.multiprocess.harness import Fleet, History, all_final, judge

pytestmark = [pytest.mark.anyio, pytest.mark.multiprocess]


@pytest.mark.parametrize("cli", [False, True], ids=["asyncio", "oncue worker"])
async def test_eight_processes_run_ten_thousand_jobs_of_one_file_each_once(
    tmp_path: Path, report: Report, cli: bool
) -> None:
    """X1, X2."""
    number, history = 10_000, History()
    async with Fleet(tmp_path, cli=cli, concurrency=50) as fleet:
        work = fleet.jobs.tasks_by_name["work"]
        await history.enqueue(fleet.jobs, [work.request(0.0) for _ in range(number)])
        began = time.monotonic()
        fleet.start(8)
        await all_final(fleet.jobs, within=120)
        took = time.monotonic() - began
        verdict = await judge(fleet, history.accepted)
        by_process = Counter(effect.pid for effect in fleet.effects("start"))
        assert verdict.faults == {}
        assert verdict.runs == number
        assert verdict.fenced == 0
        assert len(by_process) > 1, "one process ran everything: nothing was shared"
        assert fleet.faults_in_logs() == []
    name = f"8 processes ({'oncue worker' if cli else 'asyncio'}) on one file, {number:,} jobs"
    report(f"{name}: run twice, lost, 'database is locked'", "0, 0, 0")
    report(f"{name}: a second, processes starting included", number / took, "jobs/s")
