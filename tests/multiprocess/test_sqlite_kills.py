"""Processes on one file are killed in the middle of what they do: nothing that was answered is lost, nothing torn."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import shutil
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from oncue.engine import MAX_BATCH
from oncue.engines.sqlite import SQLiteEngine
from oncue.job import Claimed, Outcome, State
from oncue.testing.conformance.invariants import all_jobs
from oncue.testing.invariants import check_file, check_invariants
from tests.measured import Report
from tests.multiprocess.sqlite_nursery import Nursery
from tests.multiprocess.sqlite_programs import SCENE, scene_engine

pytestmark = [pytest.mark.multiprocess]


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    """Return a source of processes."""
    with Nursery() as nursery:
        yield nursery


def notes(path: Path) -> list[list[Any]]:
    """Return what processes have noted; a line that a kill cut is none."""
    if not path.exists():
        return []
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


def wait_for(condition: Any, what: str, within: float = 20) -> None:
    deadline = time.monotonic() + within
    while not condition():
        assert time.monotonic() < deadline, f"within {within:g} s it did not come about that {what}"
        time.sleep(0.001)


def ids_in(path: Path) -> set[str]:
    with contextlib.closing(sqlite3.connect(path)) as conn:
        return {job_id for (job_id,) in conn.execute("SELECT id FROM jobs")}


@pytest.mark.parametrize(
    "rounds", [pytest.param(20, id="20 rounds"), pytest.param(200, id="200 rounds", marks=pytest.mark.soak)]
)
def test_every_job_whose_enqueue_was_answered_survives_the_death_of_its_process(
    tmp_path: Path, nursery: Nursery, report: Report, rounds: int
) -> None:
    chance, acknowledged, kills = random.Random(4), 0, 0
    for round_ in range(rounds):
        path, noted = tmp_path / f"{round_ // 5}.db", tmp_path / f"{round_}.notes"
        clients = [nursery.start("enqueue_for_ever", str(path), str(noted), chance.random()) for _ in range(4)]
        wait_for(lambda noted=noted: notes(noted), "a job was enqueued")
        time.sleep(chance.uniform(0, 0.1))
        for client in chance.sample(clients, 4):
            assert nursery.kill(client) == -signal.SIGKILL
            kills += 1
            time.sleep(chance.uniform(0, 0.01))
        answered = [job_id for _, *ids in notes(noted) for job_id in ids]
        acknowledged += len(answered)
        assert not set(answered) - ids_in(path), f"lost in round {round_}"
        check_file(path)
    report("kill -9 of enqueuers: kills", kills)
    report("kill -9 of enqueuers: acknowledged jobs lost, of", f"0, {acknowledged:,}")


# --- each statement of each unit


Marks = set[tuple[object, ...]]


def marks(path: Path) -> Marks:
    """Return what of each job does not depend on the clock."""
    with contextlib.closing(sqlite3.connect(path)) as conn:
        return set(
            conn.execute(
                "SELECT id, state, attempts, crashes, revision, cancel_requested, deps_open, owner, unique_key, "
                "(SELECT count(*) FROM feed WHERE job = seq), (SELECT paused FROM queues) FROM jobs"
            )
        )


async def marks_after_each_step(path: Path) -> list[Marks]:
    """Play the scene to its end; return what the store said before it and after each step."""
    async with scene_engine(str(path)) as engine:
        seen = [marks(path)]
        held: dict[str, Claimed] = {}
        for step in SCENE:
            await step(engine, held)
            seen.append(marks(path))
            await check_invariants(engine)
    return seen


@pytest.mark.parametrize("every", [pytest.param(7, id="every 7th"), pytest.param(1, id="each", marks=pytest.mark.soak)])
def test_a_kill_before_any_statement_leaves_the_store_as_before_or_after_the_call(
    tmp_path: Path, nursery: Nursery, report: Report, every: int
) -> None:
    empty, path, noted = tmp_path / "empty.db", tmp_path / "jobs.db", tmp_path / "notes"

    async def make() -> None:
        async with SQLiteEngine(f"sqlite:///{empty}"):
            pass

    asyncio.run(make())
    shutil.copy(empty, path)
    expected = asyncio.run(marks_after_each_step(path))
    # A heartbeat and the end of an attempt that was cancelled before change nothing that is compared here.
    assert len({frozenset(seen) for seen in expected}) >= len(SCENE) - 2, "the steps of the scene should differ"
    kills, statement, ended = 0, random.Random().randrange(every), -signal.SIGKILL
    while ended == -signal.SIGKILL:
        for file in tmp_path.glob("jobs.db*"):
            file.unlink()
        noted.unlink(missing_ok=True)
        shutil.copy(empty, path)
        ended = nursery.wait(nursery.start("die_at_statement", str(path), str(noted), statement))
        done = len(notes(noted))
        check_file(path)
        assert marks(path) in expected[done : done + 2], f"torn at statement {statement}"
        kills += ended == -signal.SIGKILL
        statement += every
    assert (ended, done) == (0, len(SCENE))
    assert kills * every > 5 * len(SCENE)
    report("kill -9 before a statement of a unit: torn, of", f"0, {kills}")


# --- at random, all units, four processes


@pytest.mark.parametrize(
    "kills", [pytest.param(60, id="60 kills"), pytest.param(500, id="500 kills", marks=pytest.mark.soak)]
)
def test_clients_and_workers_die_at_random_and_every_job_still_ends_once(
    tmp_path: Path, nursery: Nursery, report: Report, kills: int
) -> None:
    chance, path, noted = random.Random(21), tmp_path / "jobs.db", tmp_path / "notes"

    def start() -> int:
        return nursery.start("work_for_ever", str(path), str(noted), chance.random())

    processes = [start() for _ in range(4)]
    wait_for(lambda: len(notes(noted)) > 20, "jobs run")
    for kill in range(kills):
        time.sleep(chance.uniform(0.01, 0.12))
        index = chance.randrange(4)
        assert nursery.kill(processes[index]) == -signal.SIGKILL
        processes[index] = start()
        if kill % 20 == 19:
            for process in processes:
                nursery.kill(process)
            check_file(path)
            processes = [start() for _ in range(4)]
    for process in processes:
        nursery.kill(process)
    check_file(path)
    said = notes(noted)
    asyncio.run(_judge(path, said))
    counted = Counter(kind for kind, *_ in said)
    report("kill -9 at random: kills, finishes acknowledged", f"{kills}, {counted['finished']:,}")


async def _judge(path: Path, said: list[list[Any]]) -> None:
    """Compare what was answered with the store, then let every job end."""
    accepted = {job_id for kind, *ids in said if kind == "enqueued" for job_id in ids}
    may_be_gone = {job_id for kind, *ids in said if kind in ("deleting", "retrying") for job_id in ids}
    ended = {fields[0]: fields[2] for kind, *fields in said if kind == "finished" and State(fields[2]).final}
    async with SQLiteEngine(f"sqlite:///{path}") as engine:
        found = {info.id: info for info in await all_jobs(engine)}
        lost = {job_id for job_id in accepted - may_be_gone - found.keys() if job_id.startswith("kept")}
        assert not lost, f"{len(lost)} of {len(accepted)} jobs are gone"
        for job_id, state in ended.items():
            info = found.get(job_id)
            if info is not None and job_id not in may_be_gone:
                assert info.state in (state, State.CANCELLED), f"{job_id} was {state}, is {info.state}"
        workers = [fields[0] for kind, *fields in said if kind == "worker"]
        await _drain(engine, workers)
        await check_invariants(engine)


async def _drain(engine: SQLiteEngine, dead: list[str]) -> None:
    """Rescue and complete everything."""
    lease = timedelta(seconds=60)
    engine.advance(timedelta(seconds=10))
    for start in range(0, len(dead), 100):
        while await engine.rescue(limit=MAX_BATCH, lease=lease, dead=dead[start : start + 100]):
            pass
    while True:
        claim = await engine.claim(["default", "second"], limit=500, worker_id="last", lease=lease)
        if not claim.jobs:
            break
        assert all(await engine.finish([(job.lease, Outcome.completed(b"")) for job in claim.jobs]))
    left = [info for info in await all_jobs(engine) if not info.state.final]
    assert not left, f"{len(left)} jobs can never end, such as {left[:3]}"
