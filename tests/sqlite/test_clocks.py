"""The wall clock is stepped, or the machine starts anew: leases do not care about the one and end with the other."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from oncue.engine import Hold, WorkerInfo
from oncue.engines.sqlite import SQLiteEngine, clock
from oncue.job import Outcome, Reason, State, Unique
from oncue.testing.conformance.steps import (
    BOOM,
    LEASE,
    beat,
    end,
    ended,
    info,
    job,
    put,
    put_one,
    settle,
    start,
    state,
    take,
)
from oncue.testing.conformance.steps import rescue as rescue_now
from oncue.testing.invariants import check_file, check_invariants
from tests.measured import Report
from tests.requirements import require

pytestmark = pytest.mark.anyio

HERE = Path(__file__).parent
HOUR = 3600.0

Step = Callable[[float], None]
both_ways = pytest.mark.parametrize("seconds", [HOUR, -HOUR], ids=["an hour on", "an hour back"])


@pytest.fixture
def step(monkeypatch: pytest.MonkeyPatch) -> Step:
    """Return what steps the wall clock of this process by so many seconds."""
    real, ahead = time.time_ns, 0

    def step(seconds: float) -> None:
        nonlocal ahead
        ahead += int(seconds * 1e9)

    monkeypatch.setattr(time, "time_ns", lambda: real() + ahead)
    return step


@both_ways
async def test_a_step_of_the_wall_clock_takes_no_job_from_its_worker(
    engine: SQLiteEngine, step: Step, seconds: float
) -> None:
    await settle(engine)
    claimed = await start(engine, "j", worker="w")
    await beat(engine, claimed.lease, worker="w")
    step(seconds)
    assert await rescue_now(engine) == []
    assert await beat(engine, claimed.lease, worker="w") == [Hold.HELD]
    step(-2 * seconds)
    assert await rescue_now(engine) == []
    await end(engine, claimed)
    assert (await info(engine, "j")).crashes == 0


@both_ways
async def test_a_lease_ends_in_its_time_though_the_wall_clock_was_stepped(
    engine: SQLiteEngine, step: Step, seconds: float
) -> None:
    await settle(engine)
    await start(engine, "j")
    step(seconds)
    engine.advance(LEASE * 0.9)
    assert await rescue_now(engine) == []
    engine.advance(LEASE * 0.2)
    assert [one.job_id for one in await rescue_now(engine)] == ["j"]


async def test_jobs_are_due_by_the_wall_clock(engine: SQLiteEngine, step: Step) -> None:
    await put_one(engine, "j", run_at=datetime.now(UTC) + timedelta(seconds=HOUR))
    step(-HOUR)
    claim = await engine.claim(["default"], limit=1, worker_id="w", lease=LEASE)
    assert not claim.jobs
    assert claim.next_due_in == pytest.approx(2 * HOUR, abs=30)
    step(2 * HOUR + 5)
    assert [one.id for one in await take(engine)] == ["j"]


@both_ways
async def test_tokens_grow_though_the_wall_clock_goes_back(engine: SQLiteEngine, step: Step, seconds: float) -> None:
    first = await start(engine, "j")
    step(seconds)
    await engine.rescue(limit=10, lease=LEASE, dead=[(await info(engine, "j")).worker or ""])
    # It was queued before the step, and so it is due, whatever the clock says now.
    (second,) = (await engine.claim(["default"], limit=1, worker_id="next", lease=LEASE)).jobs
    assert second.lease.token > first.lease.token
    await end(engine, second)
    found = await info(engine, "j")
    assert found.finished_at is not None
    assert found.started_at is not None
    assert found.finished_at >= found.started_at


@both_ways
async def test_everything_else_goes_on_over_a_step(engine: SQLiteEngine, step: Step, seconds: float) -> None:
    running = await start(engine, "running", unique=Unique("k"))
    await put(
        engine, job("later", delay=5), job("child", after=("running",)), job("ttl", unique=Unique("t", "ttl", ttl=9))
    )
    await ended(engine, job_id="done", priority=9)
    step(seconds)
    await engine.heartbeat(WorkerInfo("w"), [running.lease], lease=LEASE)
    await end(engine, running)
    await engine.retry(["done"])
    await engine.cancel(["later"])
    assert await engine.prune(limit=10, keep_finished=0) >= 1
    await engine.metrics(since=timedelta(hours=3))
    for queue in await engine.queues():
        assert queue.oldest_age is not None
        assert queue.oldest_age >= 0
    await check_invariants(engine)


# --- another boot


@pytest.fixture
def reboot(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Return what starts the machine anew: another boot, so many seconds ago."""

    def reboot(seconds_ago: float) -> None:
        began = time.monotonic_ns() - int(seconds_ago * 1e9)
        monkeypatch.setattr(clock, "_boot_id", lambda: f"boot of {began}")
        monkeypatch.setattr(time, "clock_gettime_ns", lambda which: time.monotonic_ns() - began)

    return reboot


async def leave_running(path: Path) -> None:
    """Leave a store as a power cut does: jobs run, and their worker has just spoken."""
    async with SQLiteEngine(f"sqlite:///{path}") as engine:
        await settle(engine)
        await put(engine, job("a"), job("b"))
        claimed = await take(engine, 2, worker="w")
        await engine.heartbeat(WorkerInfo("w"), [one.lease for one in claimed], lease=LEASE)
        assert await rescue_now(engine) == []


@pytest.mark.parametrize("uptime", [1.0, 1e7], ids=["just now", "long ago"])
async def test_after_a_boot_all_leases_are_free_at_once(
    path: Path, reboot: Callable[[float], None], uptime: float
) -> None:
    await leave_running(path)
    reboot(uptime)
    async with SQLiteEngine(f"sqlite:///{path}") as engine:
        rescued = await rescue_now(engine)
        assert {one.job_id: (one.state, one.crashes) for one in rescued} == {
            "a": (State.QUEUED, 1),
            "b": (State.QUEUED, 1),
        }
        await check_invariants(engine)


async def test_after_a_boot_nobody_of_before_is_alive(path: Path, reboot: Callable[[float], None]) -> None:
    await leave_running(path)
    reboot(1.0)
    async with SQLiteEngine(f"sqlite:///{path}") as engine:
        assert [(worker.id, worker.alive) for worker in await engine.workers()] in ([], [("w", False)])


async def test_opening_again_in_the_same_boot_frees_no_lease(path: Path) -> None:
    await leave_running(path)
    async with SQLiteEngine(f"sqlite:///{path}") as engine:
        assert await rescue_now(engine) == []
        assert await state(engine, "a") is State.RUNNING


async def test_an_attempt_of_before_the_boot_can_change_nothing(path: Path, reboot: Callable[[float], None]) -> None:
    async with SQLiteEngine(f"sqlite:///{path}") as engine:
        before = await start(engine, "j")
    reboot(1.0)
    async with SQLiteEngine(f"sqlite:///{path}") as engine:
        assert len(await rescue_now(engine)) == 1
        (after,) = await take(engine)
        assert after.lease.token > before.lease.token
        assert await engine.finish([(before.lease, _failed())]) == [False]
        await end(engine, after)


def _failed() -> Outcome:
    return Outcome.failed(Reason.ERROR, BOOM)


# --- a whole program


@pytest.mark.multiprocess
async def test_two_workers_run_each_job_once_while_the_wall_clock_is_stepped_to_and_fro(
    tmp_path: Path, report: Report
) -> None:
    require("cc", shutil.which("cc") is not None, "apt-get install gcc libc6-dev")
    library, stepped, store = tmp_path / "skew.so", tmp_path / "skew", tmp_path / "jobs.db"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-Wall", "-o", library, HERE / "skew.c", "-ldl"], check=True)
    stepped.write_bytes(struct.pack("=q", 0))
    program = subprocess.Popen(
        [sys.executable, "-m", "tests.sqlite.skewed_worker", str(store), "120"],
        cwd=HERE.parent.parent,
        env=os.environ | {"LD_PRELOAD": str(library), "SKEW": str(stepped)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    steps = 0
    with stepped.open("r+b", buffering=0) as file:
        while program.poll() is None:
            await asyncio.sleep(0.25)
            steps += 1
            file.seek(0)
            file.write(struct.pack("=q", int((HOUR, -HOUR, 0)[steps % 3] * 1e9)))
    said, errors = program.communicate()
    assert program.returncode == 0, errors[-3000:]
    outcome = json.loads(said)
    assert outcome["ran"] == 120
    assert (outcome["twice"], outcome["crashes"]) == ([], 0)
    assert abs(outcome["clock"][0]) > HOUR / 2 or abs(outcome["clock"][1]) > HOUR / 2, "the clock was never stepped"
    report("wall clock stepped by an hour: jobs run twice, leases lost, steps", f"0, 0, {steps}")
    check_file(store)
