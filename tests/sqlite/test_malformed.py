"""Records that cannot be read, whoever wrote them: each is set apart and seen, and no other job notices."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from collections import Counter
from collections.abc import Awaitable
from pathlib import Path

import pytest

from oncue import Oncue, Reason, State
from oncue.engine import Engine, JobFilter, WorkerInfo
from oncue.engines.sqlite import SQLiteEngine
from oncue.engines.sqlite.quarantine import _COLUMNS
from oncue.job import Claimed, Outcome, Unique
from oncue.testing.conformance.invariants import all_jobs
from oncue.testing.conformance.steps import BOOM, LEASE, job, put, take
from oncue.testing.invariants import check_invariants
from tests.measured import Report

pytestmark = pytest.mark.anyio

ODD = {
    "null": None,
    "bytes": b"\x00\xff",
    "text": "text",
    "nothing": "",
    "the largest number": 2**63 - 1,
    "the smallest number": -(2**63),
    "a fraction": 1.5,
    "a negative number": -1,
    "cut JSON": '{"a": ',
    "a JSON list": "[1]",
    "a JSON object of numbers": '{"a": 1}',
    "a word of another release": "paused",
}
NOT_UTF_8 = "CAST(x'ff41' AS TEXT)"  # no value of Python's becomes this


def damage(conn: sqlite3.Connection, column: str, value: object, job_id: str) -> bool:
    """Write a value into a job's column; False if the schema refuses it."""
    try:
        if value == NOT_UTF_8:
            conn.execute(f"UPDATE jobs SET {column} = {NOT_UTF_8} WHERE id = ?", (job_id,))
        else:
            conn.execute(f"UPDATE jobs SET {column} = ? WHERE id = ?", (value, job_id))
    except sqlite3.IntegrityError:
        return False
    return True


def raw(engine: SQLiteEngine) -> sqlite3.Connection:
    """Return the connection of an engine in memory, whose thread has nothing to do."""
    assert engine._lanes.writer is not None
    return engine._lanes.writer._conn


async def two_jobs(engine: Engine, state: str) -> list[Claimed]:
    """Put the jobs `bad` and `good` into a state; return their claims if they run."""
    await put(
        engine,
        job("bad", priority=5, expires_in=1000, timeout=5, meta={"a": "b"}, unique=Unique("k")),
        job("good"),
    )
    if state == "queued":
        return []
    claimed = await take(engine, 2, worker="w")
    if state == "running":
        return claimed
    outcome = Outcome.retrying(0, BOOM) if state == "retrying" else Outcome.completed(b"result")
    await engine.finish([(one.lease, outcome) for one in claimed])
    return []


async def use_everything(engine: Engine, claimed: list[Claimed], state: str) -> None:
    """Call what a worker, a page and a person call, with the bad job in each batch."""
    calls: list[Awaitable[object]] = [
        engine.get(["good", "bad"], bodies=True),
        engine.list_jobs(JobFilter(), limit=10),
        engine.queues(),
        engine.workers(),
        engine.heartbeat(WorkerInfo("w"), [one.lease for one in claimed], lease=LEASE),
        engine.finish([(one.lease, Outcome.completed(b"done")) for one in claimed]),
        engine.rescue(limit=10, lease=LEASE, dead=["w"]),
        engine.claim(["default"], limit=10, worker_id="next", lease=LEASE, held=[]),
        engine.cancel(["bad"]),
        engine.retry(["bad"]),
        engine.attempts("bad"),
        engine.metrics(since=LEASE),
        engine.prune(limit=10, keep_finished=0 if state == "ended" else 100),
        engine.delete(["bad"]),
    ]
    for call in calls:
        await call


@pytest.mark.parametrize("column", [column for column in _COLUMNS if column not in ("error", "progress", "request")])
async def test_whatever_stands_in_a_column_no_call_fails_and_no_other_job_is_harmed(column: str) -> None:
    chance = random.Random(column)
    for value in [*ODD.values(), NOT_UTF_8]:
        state = chance.choice(["queued", "running", "retrying", "ended"])
        async with SQLiteEngine("sqlite://:memory:") as engine:
            claimed = await two_jobs(engine, state)
            if not damage(raw(engine), column, value, "bad"):
                continue
            await use_everything(engine, claimed, state)
            (good,) = await engine.get(["good"])
            expected = {"queued": "running", "running": "completed", "retrying": "running", "ended": None}[state]
            assert (good and good.state) == expected, (value, state)


async def test_what_could_not_be_read_is_kept_for_people_to_read(engine: SQLiteEngine, path: Path) -> None:
    await put(engine, job("j", payload=b"the payload", meta={"a": "b"}), job("next", priority=-1))
    with sqlite3.connect(path) as conn:
        damage(conn, "meta", '{"a": "b', "j")
        damage(conn, "due_at", b"soon", "j")
    conn.close()
    assert [one.id for one in await take(engine, 10)] == ["next"]
    (found,) = await engine.get(["j"], bodies=True)
    assert found is not None
    assert (found.state, found.reason) == (State.FAILED, Reason.UNREADABLE)
    assert found.error == "Unreadable: its record could not be read: due_at, meta"
    assert found.payload == b"the payload"
    (attempt,) = await engine.attempts("j")
    assert attempt.failure is not None
    assert attempt.failure.traceback == "due_at = b'soon'\nmeta = b'{\"a\": \"b'"


async def test_those_that_wait_for_an_unreadable_job_are_settled_and_its_key_is_free(
    engine: SQLiteEngine, path: Path
) -> None:
    await put(engine, job("j", unique=Unique("k")), job("child", after=("j",)))
    await put(engine, job("any", after=("j",), after_any=True))
    with sqlite3.connect(path) as conn:
        damage(conn, "created_at", "never", "j")
        damage(conn, "unique_key", b"k", "j")
    conn.close()
    assert [one.id for one in await take(engine, 10)] == ["any"]
    states = [info and info.state for info in await engine.get(["j", "child", "any"])]
    assert states == ["failed", "cancelled", "running"]
    await put(engine, job("k", unique=Unique("k")))
    await check_invariants(engine)


async def test_a_running_job_that_lost_its_lease_to_damage_is_not_stuck(engine: SQLiteEngine, path: Path) -> None:
    await put(engine, job("lost"), job("bad"))
    await take(engine, 1)
    with sqlite3.connect(path) as conn:
        damage(conn, "lease_until", None, "lost")
        damage(conn, "meta", "{", "bad")
    conn.close()
    await take(engine, 1)
    assert [info and info.reason for info in await engine.get(["lost", "bad"])] == ["unreadable", "unreadable"]
    await check_invariants(engine)


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO counts VALUES ('default', 'task', 'lost', 1)",
        "INSERT INTO counts VALUES (CAST(x'ff' AS TEXT), 'task', 'queued', 1)",
        "INSERT INTO workers VALUES ('w', '{', 0, 0)",
        "INSERT INTO workers VALUES ('w', '{}', 1e15, 0)",
        "INSERT INTO workers VALUES ('w', '[]', (SELECT max(created_at) FROM jobs), 0)",
        "INSERT INTO workers VALUES (CAST(x'ff' AS TEXT), '{}', (SELECT max(created_at) FROM jobs), 0)",
        "UPDATE metrics SET minute = 9223372036854775807",
        "UPDATE metrics SET task = CAST(x'ff' AS TEXT)",
        "UPDATE metrics SET n = 'many'",
        "INSERT INTO queues VALUES (CAST(x'ff' AS TEXT), 1)",
        "INSERT INTO queues VALUES ('q', 'perhaps')",
        "UPDATE attempts SET started_at = 'once'",
        "UPDATE feed SET kind = 'song'",
        "UPDATE feed SET at = 'once'",
        "UPDATE payloads SET body = 'text'",
        "INSERT INTO meta VALUES ('last_rescue', 'once')",
    ],
)
async def test_whatever_stands_in_the_other_tables_no_call_fails(statement: str) -> None:
    async with SQLiteEngine("sqlite://:memory:") as engine:
        claimed = await two_jobs(engine, "running")
        await put(engine, job("more"))
        raw(engine).execute("INSERT OR IGNORE INTO attempts VALUES (1, 1, 1, 'w', 1, 1, 'failed', 'E', 'm', 't')")
        raw(engine).execute("INSERT INTO feed VALUES (1, 1, 1, 1, 'log', x'00')")
        raw(engine).execute(statement)
        assert isinstance(await engine.attempts("bad"), list)
        assert isinstance(await engine.read("bad"), list)
        await use_everything(engine, claimed, "running")
        await check_invariants(engine)


async def test_an_error_with_another_cause_is_told_and_looked_into_only_now_and_then(path: Path) -> None:
    looked = 0

    def trace(statement: str) -> None:
        nonlocal looked
        looked += "FROM jobs" in statement and "lease_until" in statement and statement.startswith("SELECT")

    async with SQLiteEngine("sqlite://:memory:") as engine:
        raw(engine).set_trace_callback(trace)
        for _ in range(5):
            with pytest.raises(OverflowError):
                await engine.enqueue([job(priority=2**70)])
        await put(engine, job("fine"))
    assert looked == 1


async def test_good_jobs_run_among_two_thousand_odd_values(path: Path, report: Report) -> None:
    chance = random.Random()
    seed = chance.randrange(2**32)
    chance.seed(seed)
    jobs = Oncue(f"sqlite:///{path}")
    runs: Counter[str] = Counter()

    @jobs.task()
    async def work(name: str) -> str:
        runs[name] += 1
        await asyncio.sleep(0.001)
        return name

    def odd_value() -> object:
        return chance.choice(
            [
                *ODD.values(),
                NOT_UTF_8,
                chance.randbytes(chance.randrange(40)),
                chance.getrandbits(63) * chance.choice([1, -1]),
                "".join(chr(chance.randrange(1, 0xD7FF)) for _ in range(chance.randrange(20))),
            ]
        )

    async def write_odd_values(ids: list[str], number: int) -> int:
        written = 0
        conn = sqlite3.connect(path, timeout=30, isolation_level=None)
        # By its id a job is known here; one whose time to stay has passed is rightly gone.
        columns = [column for column in _COLUMNS if column not in ("id", "keep_until", "keep_ms")]
        for _ in range(number // 25):
            conn.execute("BEGIN IMMEDIATE")
            for _ in range(25):
                written += damage(conn, chance.choice(columns), odd_value(), chance.choice(ids))
            conn.execute("COMMIT")
            await asyncio.sleep(0.005)  # the worker works meanwhile
        conn.close()
        return written

    async with jobs:
        bad = await jobs.enqueue_many([work.request(f"bad {number}") for number in range(400)])
        good = await jobs.enqueue_many([work.request(f"good {number}") for number in range(300)])
        worker = jobs.worker(concurrency=20)
        working = asyncio.create_task(worker.run())
        try:
            written = await write_odd_values([handle.id for handle in bad], 2_000)
            for handle in good:
                await handle.result(timeout=60)
            assert not working.done()
            late = await work.enqueue("late")
            assert await late.result(timeout=20) == "late"
        finally:
            worker.stop()
            await working
        listed = {info.id: info for info in await all_jobs(jobs.engine)}
        assert {listed[handle.id].state for handle in good} == {State.COMPLETED}, seed
        assert [name for name in runs if name.startswith("good") and runs[name] > 1] == []
        missing = [handle.id for handle in bad if handle.id not in listed]
        assert missing == [], f"{len(missing)} records are not to be seen; seed {seed}"
        reasons = Counter(str(info.reason) for info in listed.values() if info.state is State.FAILED)
        report("odd values written beside a worker; jobs that failed unreadable", f"{written}; {reasons['unreadable']}")
        report("good jobs completed beside odd values, of", f"300, {len(good)}")
