"""The power fails at any moment: with `synchronous=full` nothing that was answered is lost, and no file is damaged."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from oncue.engine import MAX_BATCH
from oncue.engines.sqlite import SQLiteEngine
from oncue.job import JobInfo, State
from oncue.testing.invariants import check_file
from tests.measured import Report
from tests.requirements import require
from tests.sqlite.powercut import Disk, Record, build_recorder, play, record

FEW, MANY = pytest.param(40, id="40 cuts"), pytest.param(300, id="300 cuts", marks=pytest.mark.soak)
JOBS = 3_000


class Loss(NamedTuple):
    """What was gone after cuts, and of how much."""

    cuts_with_loss: int
    jobs: int
    results: int
    acknowledged: int

    @property
    def answers(self) -> int:
        """Answers that were given and no longer hold."""
        return self.jobs + self.results


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the library that records what is written."""
    require("cc", shutil.which("cc") is not None, "apt-get install gcc libc6-dev")
    return build_recorder(tmp_path_factory.mktemp("recorder"))


async def lost_after(folder: Path, files: dict[str, bytes], notes: bytes) -> tuple[int, int, int]:
    """Open the store as the disk holds it; return how many jobs and results are lost, and how many were answered."""
    folder.mkdir()
    for name, content in files.items():
        (folder / name).write_bytes(content)
    said = [json.loads(line) for line in notes.decode().splitlines()]
    enqueued = [job_id for what, *ids in said if what == "enqueued" for job_id in ids]
    finished = [job_id for what, *ids in said if what == "finished" for job_id in ids]
    found: dict[str, JobInfo] = {}
    async with SQLiteEngine(f"sqlite:///{folder}/jobs.db?synchronous=normal") as engine:
        for start in range(0, len(enqueued), MAX_BATCH):
            for info in await engine.get(enqueued[start : start + MAX_BATCH]):
                if info is not None:
                    found[info.id] = info
        await engine.set_queue("default", paused=True)  # it can be written to
    check_file(folder / "jobs.db")
    shutil.rmtree(folder)
    unfinished = [job_id for job_id in finished if job_id in found and found[job_id].state is not State.COMPLETED]
    return len(enqueued) - len(found), len(unfinished), len(enqueued) + len(finished)


def cut_the_power(folder: Path, recorder: Path, synchronous: str, cuts: int) -> Loss:
    done = record(recorder, folder, synchronous, JOBS)
    kinds = Counter((one.operation, one.file) for one in done)
    assert kinds["W", "jobs.db-wal"] > 1000, kinds
    assert kinds["T", "jobs.db-wal"] > 3, f"the log was hardly ever copied back: {kinds}"
    chance = random.Random()
    seed = chance.randrange(2**32)
    chance.seed(seed)
    # Some cuts at any moment, some where a sync has just been asked for or done.
    syncs = [index for index, one in enumerate(done) if one.operation == "S"]
    moments = [chance.randrange(len(done)) for _ in range(cuts // 2)]
    moments += [chance.choice(syncs) + chance.randint(0, 2) for _ in range(cuts - len(moments))]
    losses = []
    for number, (files, notes) in enumerate(play(done, moments, chance)):
        try:
            losses.append(asyncio.run(lost_after(folder / f"after {number}", files, notes)))
        except Exception as error:
            raise AssertionError(f"the store is not whole after cut {number} with seed {seed}") from error
    return Loss(
        sum(bool(jobs or results) for jobs, results, _ in losses),
        sum(jobs for jobs, _, _ in losses),
        sum(results for _, results, _ in losses),
        sum(answered for _, _, answered in losses),
    )


@pytest.mark.multiprocess
@pytest.mark.parametrize("cuts", [FEW, MANY])
def test_nothing_that_was_answered_is_lost_by_a_power_cut(
    tmp_path: Path, recorder: Path, report: Report, cuts: int
) -> None:
    loss = cut_the_power(tmp_path, recorder, "full", cuts)
    report("power cuts, synchronous=full: damaged, of", f"0, {cuts}")
    report(
        "power cuts, synchronous=full: jobs and results lost, of", f"{loss.jobs + loss.results}, {loss.acknowledged:,}"
    )
    assert loss.acknowledged > 100 * cuts
    assert (loss.jobs, loss.results, loss.cuts_with_loss) == (0, 0, 0)


@pytest.mark.multiprocess
@pytest.mark.parametrize("cuts", [FEW, MANY])
def test_synchronous_normal_trades_the_latest_answers_and_never_the_file(
    tmp_path: Path, recorder: Path, report: Report, cuts: int
) -> None:
    loss = cut_the_power(tmp_path, recorder, "normal", cuts)
    report("power cuts, synchronous=normal: damaged, of", f"0, {cuts}")
    report("power cuts, synchronous=normal: answers lost, of", f"{loss.answers:,}, {loss.acknowledged:,}")
    # Were nothing lost, the cuts would cut nothing, and the test above would prove nothing.
    assert loss.jobs > 0


def test_a_disk_keeps_what_was_synced_and_any_part_of_the_rest() -> None:
    disk = Disk()
    disk.do(Record("W", "f", 0, b"a" * 1024))
    disk.do(Record("S", "f", 0, b""))
    disk.do(Record("W", "f", 512, b"b" * 1024))
    seen = {disk.after_cut(random.Random(seed)) for seed in range(200)}
    a, b, nothing = b"a" * 512, b"b" * 512, b"\0" * 512
    assert seen == {a + a, a + b, a + a + b, a + b + b}
    disk.do(Record("T", "f", 0, b""))
    assert b"" in {disk.after_cut(random.Random(seed)) for seed in range(200)}
    disk.do(Record("W", "f", 1024, b))
    disk.do(Record("S", "f", 0, b""))
    assert {disk.after_cut(random.Random(seed)) for seed in range(20)} == {nothing + nothing + b}
