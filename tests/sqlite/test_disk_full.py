"""A disk of 2 MB fills up: new jobs are refused while there is still room to end those that were accepted."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from oncue.engines.sqlite import SQLiteEngine
from oncue.errors import EngineError, QueueFull
from oncue.job import Claimed, Failure, Outcome, Reason, State
from oncue.testing.conformance.invariants import all_jobs
from oncue.testing.conformance.steps import job, put, take
from oncue.testing.invariants import check_file, check_invariants
from tests.measured import Report
from tests.requirements import require

pytestmark = pytest.mark.anyio

LONG = Failure("ValueError", "a message of some length", "a line of a traceback\n" * 10)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 2 MB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True, text=True, check=False
    )
    require("mount", mounted.returncode == 0, f"run as root in a place where disks can be mounted: {mounted.stderr}")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.fixture
def store(disk: Path) -> Path:
    """Return where a store is on the small disk."""
    return disk / "jobs.db"


def free(folder: Path) -> int:
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize


async def enqueue_until_full(engine: SQLiteEngine, size: int, batch: int = 5) -> list[str]:
    """Enqueue jobs with payloads of a size until no more are accepted; return their ids."""
    accepted: list[str] = []
    with pytest.raises(QueueFull, match=r"jobs\.db"):  # noqa: PT012  # the loop is what raises
        while True:
            accepted += await put(engine, *[job(payload=os.urandom(size)) for _ in range(batch)])
            assert len(accepted) < 50_000, "the disk never fills"
    return accepted


async def end_all(engine: SQLiteEngine, outcome: Outcome) -> int:
    """Claim and finish everything, like a worker of 50 slots; return how many."""
    ended = 0
    while claimed := await take(engine, 50):
        answers = await engine.finish([(one.lease, outcome) for one in claimed])
        assert answers == [True] * len(claimed)
        ended += len(claimed)
    return ended


@pytest.mark.parametrize("size", [0, 100, 1_000, 20_000])
async def test_what_was_accepted_before_the_disk_was_full_can_end(store: Path, report: Report, size: int) -> None:
    async with SQLiteEngine(f"sqlite:///{store}") as engine:
        accepted = await enqueue_until_full(engine, size)
        left = free(store.parent)
        assert await end_all(engine, Outcome.completed(b"the result of a job")) == len(accepted)
        report(f"2 MB disk, payloads of {size} bytes: completions refused, of", f"0, {len(accepted)}")
        report(
            f"2 MB disk, payloads of {size} bytes: kB left when full, when done",
            f"{left >> 10}, {free(store.parent) >> 10}",
        )
        assert {info.state for info in await all_jobs(engine)} == {State.COMPLETED}
        await check_invariants(engine)
    check_file(store)


async def test_many_clients_at_once_do_not_eat_the_room_for_completions(store: Path) -> None:
    async with SQLiteEngine(f"sqlite:///{store}") as engine:
        accepted: list[str] = []

        async def client() -> None:
            with contextlib.suppress(QueueFull):
                while True:
                    accepted.extend(await put(engine, job(payload=os.urandom(4_000))))

        await asyncio.gather(*[client() for _ in range(64)])
        assert await end_all(engine, Outcome.completed(b"the result of a job")) == len(accepted)
        await check_invariants(engine)
    check_file(store)


async def test_failures_with_tracebacks_can_be_stored_when_new_jobs_are_refused(store: Path) -> None:
    async with SQLiteEngine(f"sqlite:///{store}") as engine:
        accepted = await enqueue_until_full(engine, 4_000)
        assert await end_all(engine, Outcome.failed(Reason.ERROR, LONG)) == len(accepted)
        await check_invariants(engine)


async def test_jobs_are_accepted_again_once_old_ones_are_pruned(store: Path, report: Report) -> None:
    async with SQLiteEngine(f"sqlite:///{store}") as engine:
        first = await enqueue_until_full(engine, 2_000)
        assert await end_all(engine, Outcome.completed(b"")) == len(first)
        while await engine.prune(limit=100, keep_finished=0):
            pass
        again = await enqueue_until_full(engine, 2_000)
        report("2 MB disk: accepted by the empty store, by the pruned one", f"{len(first)}, {len(again)}")
        assert len(again) > len(first) / 2
        assert await end_all(engine, Outcome.completed(b"")) == len(again)
        await check_invariants(engine)


async def test_a_disk_that_others_filled_to_the_last_byte_is_a_pause_and_no_damage(store: Path, report: Report) -> None:
    async with SQLiteEngine(f"sqlite:///{store}") as engine:
        accepted = await put(engine, *[job(payload=os.urandom(500)) for _ in range(200)])
        running = await take(engine, 40)
        filler = store.parent / "filler"
        with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(b"\\0" * 4096)
        with pytest.raises(QueueFull):
            await put(engine, job())
        refused = stored = 0
        left: list[Claimed] = []
        for claimed in running:
            try:
                assert await engine.finish([(claimed.lease, Outcome.completed(os.urandom(8_000)))]) == [True]
                stored += 1
            except EngineError:
                refused += 1
                left.append(claimed)
        assert refused, "the disk was not full"
        assert len(await engine.get(accepted)) == len(accepted)
        filler.unlink()
        began = time.monotonic()
        assert await engine.finish([(one.lease, Outcome.completed(b"late")) for one in left]) == [True] * len(left)
        accepted += await put(engine, job())
        report("a full disk is freed: works again after", time.monotonic() - began, "s")
        assert time.monotonic() - began < 1
        assert await end_all(engine, Outcome.completed(b"")) == len(accepted) - 40
        assert {info.state for info in await all_jobs(engine)} == {State.COMPLETED}
        await check_invariants(engine)
    check_file(store)


async def test_a_disk_that_is_full_from_the_start_refuses_to_make_a_store(disk: Path) -> None:
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"\\0" * 4096)
    engine = SQLiteEngine(f"sqlite:///{disk}/jobs.db?timeout=1")
    with pytest.raises(EngineError, match=r"jobs\.db"):
        await engine.open()
    filler.unlink()
    async with engine:
        await put(engine, job())
        await check_invariants(engine)
