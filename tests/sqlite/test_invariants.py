"""The checker of invariants finds nothing in a store that was only used, and every damage done to one on purpose."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from datetime import timedelta
from pathlib import Path

import pytest

from oncue.engine import Engine
from oncue.engines.sqlite import SQLiteEngine
from oncue.engines.sqlite.statements import load
from oncue.job import Claimed, FeedItem, FeedKind, Outcome, Unique
from oncue.testing import Twice
from oncue.testing.conformance.steps import BOOM, FAILED, ended, info, job, pass_leases, put_one, start
from oncue.testing.invariants import check_file, check_invariants, snapshot, violations

pytestmark = pytest.mark.anyio

# What a damage is, and the query of checker.sql that finds it. Of the jobs of `in_every_state`.
DAMAGES = [
    ("UPDATE jobs SET state = 'lost' WHERE id = 'queued'", "i1_a_job_is_in_one_of_the_eight_states"),
    ("UPDATE jobs SET state = x'00' WHERE id = 'queued'", "i1_a_job_is_in_one_of_the_eight_states"),
    ("UPDATE jobs SET finished_at = NULL WHERE id = 'failed'", "i1_a_job_has_an_end_exactly_if_it_has_ended"),
    ("UPDATE jobs SET finished_at = 5 WHERE id = 'running'", "i1_a_job_has_an_end_exactly_if_it_has_ended"),
    ("DELETE FROM results", "i1_only_a_completed_job_has_a_result_and_each_has"),
    (
        "INSERT INTO results SELECT seq, x'' FROM jobs WHERE id = 'failed'",
        "i1_only_a_completed_job_has_a_result_and_each_has",
    ),
    ("UPDATE jobs SET reason = NULL WHERE id = 'failed'", "i1_a_job_that_ended_badly_says_why"),
    ("UPDATE jobs SET deps_open = 0 WHERE id = 'waiting'", "i2_a_job_waits_exactly_while_dependencies_are_open"),
    ("UPDATE jobs SET state = 'queued' WHERE id = 'waiting'", "i2_a_job_waits_exactly_while_dependencies_are_open"),
    (
        "UPDATE jobs SET deps_open = 3 WHERE id = 'waiting'",
        "i2_a_waiting_job_is_linked_to_as_many_parents_as_it_waits_for",
    ),
    ("DELETE FROM deps", "i2_a_waiting_job_is_linked_to_as_many_parents_as_it_waits_for"),
    ("UPDATE jobs SET owner = NULL WHERE id = 'running'", "i3_a_job_has_owner_and_lease_exactly_while_it_runs"),
    ("UPDATE jobs SET lease_until = NULL WHERE id = 'running'", "i3_a_job_has_owner_and_lease_exactly_while_it_runs"),
    ("UPDATE jobs SET owner = 'w' WHERE id = 'queued'", "i3_a_job_has_owner_and_lease_exactly_while_it_runs"),
    ("UPDATE jobs SET lease_until = 9 WHERE id = 'failed'", "i3_a_job_has_owner_and_lease_exactly_while_it_runs"),
    ("UPDATE jobs SET token = 0 WHERE id = 'running'", "i3_a_running_job_has_a_token_a_nonce_and_a_start"),
    ("UPDATE jobs SET nonce = NULL WHERE id = 'running'", "i3_a_running_job_has_a_token_a_nonce_and_a_start"),
    ("UPDATE jobs SET nonce = x'00' WHERE id = 'running'", "i3_a_running_job_has_a_token_a_nonce_and_a_start"),
    ("UPDATE jobs SET started_at = NULL WHERE id = 'running'", "i3_a_running_job_has_a_token_a_nonce_and_a_start"),
    (
        "UPDATE jobs SET attempts = -1 WHERE id = 'queued'",
        "i4_counters_are_not_negative_and_crashes_do_not_pass_their_limit",
    ),
    (
        "UPDATE jobs SET crashes = max_crashes + 1 WHERE id = 'retrying'",
        "i4_counters_are_not_negative_and_crashes_do_not_pass_their_limit",
    ),
    ("UPDATE attempts SET token = token + 1000000", "i4_an_attempt_on_record_is_no_newer_than_its_job"),
    ("UPDATE jobs SET cancel_requested = 1 WHERE id = 'completed'", "i6_a_request_to_cancel_ends_with_its_job"),
    ("UPDATE jobs SET cancel_requested = 1 WHERE id = 'queued'", "i6_a_request_to_cancel_ends_with_its_job"),
    (
        "INSERT INTO uniques SELECT 'old', seq, id, NULL FROM jobs WHERE id = 'completed'",
        "i7_a_unique_key_belongs_to_a_job_that_may_hold_it",
    ),
    (
        "UPDATE jobs SET unique_while = 'pending' WHERE id = 'running'",
        "i7_a_unique_key_belongs_to_a_job_that_may_hold_it",
    ),
    ("INSERT INTO uniques VALUES ('gone', 99, 'gone', NULL)", "i7_a_unique_key_belongs_to_a_job_that_may_hold_it"),
    ("DELETE FROM uniques WHERE key = 'while running'", "i7_a_job_holds_its_unique_key_as_long_as_it_asked"),
    ("DELETE FROM uniques WHERE key = 'while pending'", "i7_a_job_holds_its_unique_key_as_long_as_it_asked"),
    (
        "UPDATE uniques SET holder = 'queued' WHERE key = 'while pending'",
        "i7_a_job_holds_its_unique_key_as_long_as_it_asked",
    ),
    ("UPDATE uniques SET until = 5 WHERE key = 'while running'", "i7_only_a_key_held_for_a_time_has_an_end"),
    ("UPDATE uniques SET until = NULL WHERE key = 'for a time'", "i7_only_a_key_held_for_a_time_has_an_end"),
    (
        "UPDATE deps SET parent = (SELECT seq FROM jobs WHERE id = 'failed') WHERE is_open",
        "i8_nobody_waits_for_a_job_that_has_ended_or_is_gone",
    ),
    ("UPDATE deps SET parent = 99 WHERE is_open", "i8_nobody_waits_for_a_job_that_has_ended_or_is_gone"),
    ("UPDATE jobs SET has_dependents = 0", "i8_a_job_that_is_waited_for_knows_it"),
    ("UPDATE counts SET n = n + 1 WHERE state = 'queued'", "i14_counted_jobs_are_the_jobs"),
    ("DELETE FROM counts WHERE state = 'running'", "i14_counted_jobs_are_the_jobs"),
    ("INSERT INTO counts VALUES ('empty', 'task', 'queued', 1)", "i14_counted_jobs_are_the_jobs"),
    ("UPDATE jobs SET queue = 'other' WHERE id = 'failed'", "i14_counted_jobs_are_the_jobs"),
    ("UPDATE jobs SET priority = 'high' WHERE id = 'queued'", "i17_a_record_is_of_the_types_it_is_read_as"),
    ("UPDATE jobs SET due_at = x'0102' WHERE id = 'queued'", "i17_a_record_is_of_the_types_it_is_read_as"),
    ("UPDATE jobs SET id = x'ff' WHERE id = 'queued'", "i17_a_record_is_of_the_types_it_is_read_as"),
    ("UPDATE jobs SET cancel_requested = 2 WHERE id = 'running'", "i17_a_record_is_of_the_types_it_is_read_as"),
    ("UPDATE jobs SET meta = '{\"a\": ' WHERE id = 'queued'", "i17_meta_is_an_object_of_strings"),
    ("UPDATE jobs SET meta = '[]' WHERE id = 'queued'", "i17_meta_is_an_object_of_strings"),
    ("UPDATE jobs SET meta = '{\"a\": 1}' WHERE id = 'queued'", "i17_meta_is_an_object_of_strings"),
    ("UPDATE jobs SET meta = x'ff' WHERE id = 'queued'", "i17_meta_is_an_object_of_strings"),
    ("DELETE FROM payloads", "i18_an_open_job_has_its_payload"),
    ("UPDATE jobs SET keep_until = NULL WHERE id = 'completed'", "i18_an_ended_job_and_no_other_has_a_time_to_go"),
    ("UPDATE jobs SET keep_until = 5 WHERE id = 'queued'", "i18_an_ended_job_and_no_other_has_a_time_to_go"),
    ("INSERT INTO payloads VALUES (99, x'00')", "i18_every_payload_has_its_job"),
    ("INSERT INTO results VALUES (99, x'00')", "i18_every_result_has_its_job"),
    ("UPDATE attempts SET job = 99", "i18_every_attempt_has_its_job"),
    ("UPDATE feed SET job = 99", "i18_every_item_of_a_feed_has_its_job"),
    ("UPDATE deps SET child = 99", "i18_every_link_has_its_child"),
    ("UPDATE deps SET child = (SELECT seq FROM jobs WHERE id = 'failed')", "i8_a_link_ends_with_its_child"),
    ("UPDATE jobs SET has_parents = 0", "i8_a_job_that_is_linked_knows_it"),
    (
        "WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 100) INSERT INTO attempts "
        "SELECT job, n.i, number, worker, started_at, finished_at, outcome, type, message, traceback FROM attempts, n",
        "i18_at_most_100_attempts_of_a_job_are_kept",
    ),
    (
        "WITH RECURSIVE n(i) AS (VALUES (10) UNION ALL SELECT i + 1 FROM n WHERE i < 10009) INSERT INTO feed "
        "SELECT job, token, n.i, at, 'log', body FROM feed, n WHERE kind = 'progress'",
        "i18_at_most_10_000_items_of_an_attempt_are_kept",
    ),
    ("UPDATE feed SET kind = 'progress'", "i18_only_the_latest_progress_of_a_job_is_kept"),
    ("INSERT INTO meta VALUES ('diary', 'dear')", "i18_the_store_remembers_nothing_else_of_itself"),
]


async def in_every_state(engine: Engine) -> None:
    """Fill a store with jobs in every state, each named like its state, and with all that hangs on jobs."""
    await start(engine, "running too", unique=Unique("gone", "pending"), queue="other")
    await put_one(engine, "pending", unique=Unique("while pending", "pending"), queue="third", meta={"a": "b"})
    await put_one(engine, "for a time", unique=Unique("for a time", "ttl", ttl=60), queue="third")
    await ended(engine, job_id="completed")
    await ended(engine, FAILED, "failed")
    await ended(engine, Outcome.retrying(60, BOOM), "retrying")
    running = await start(engine, "running", unique=Unique("while running"))
    token = running.lease.token
    items = [FeedItem(token, 1, FeedKind.LOG, b"line"), FeedItem(token, 2, FeedKind.PROGRESS, b"half")]
    assert await engine.append(running.lease, items)
    await put_one(engine, "cancelled")
    await engine.cancel(["cancelled"])
    await put_one(engine, "scheduled", delay=60)
    await put_one(engine, "waiting", after=("running", "completed"))
    await put_one(engine, "queued")


@pytest.fixture(scope="module")
def made_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make the file of a store with jobs in every state."""
    path = tmp_path_factory.mktemp("full") / "jobs.db"

    async def make() -> None:
        async with SQLiteEngine(f"sqlite:///{path}") as engine:
            await in_every_state(engine)
            assert await violations(engine) == []

    asyncio.run(make())
    return path


@pytest.fixture
def full(made_once: Path, path: Path) -> Path:
    """Return a closed file of a store with jobs in every state."""
    return Path(shutil.copy(made_once, path))


def sentence(query: str) -> str:
    number, _, words = query.partition("_")
    return f"{number.upper()} {words.replace('_', ' ')}: "


def damage(path: Path, statement: str) -> None:
    with sqlite3.connect(path) as conn:
        conn.execute(statement)
        assert conn.total_changes > 0, "the damage hit nothing"
    conn.close()


def test_a_store_that_was_only_used_has_no_broken_invariant(full: Path) -> None:
    check_file(full)


@pytest.mark.parametrize(("statement", "query"), DAMAGES, ids=[statement[:60] for statement, _ in DAMAGES])
async def test_every_damage_is_found_and_named(full: Path, statement: str, query: str) -> None:
    damage(full, statement)
    async with SQLiteEngine(f"sqlite:///{full}") as engine:
        found = await violations(engine)
        with pytest.raises(AssertionError, match=r"broken invariants in sqlite:///.*\n  I\d+ "):
            await check_invariants(engine)
    assert [line for line in found if line.startswith(sentence(query))], f"not found, but {found}"
    with pytest.raises(AssertionError, match=sentence(query)):
        check_file(full)


def test_each_invariant_has_a_damage_that_breaks_it() -> None:
    assert {query for _, query in DAMAGES} == set(vars(load("checker.sql")))


async def test_the_jobs_that_break_an_invariant_are_named_up_to_five(full: Path) -> None:
    damage(full, "UPDATE jobs SET owner = 'w' WHERE state <> 'running'")
    async with SQLiteEngine(f"sqlite:///{full}") as engine:
        (line,) = await violations(engine)
    assert "'pending' (queued, owner 'w', lease_until NULL)" in line
    assert line.endswith(" and 4 more")


async def test_a_store_in_memory_is_checked_also_through_what_wraps_its_engine() -> None:
    async with SQLiteEngine("sqlite://:memory:") as engine:
        await put_one(engine, "j")
        assert await violations(Twice(engine)) == []
        async with engine.sibling() as sibling:
            await check_invariants(sibling)
        writer = engine._lanes.writer
        assert writer is not None
        writer._conn.execute("UPDATE jobs SET crashes = -1")
        assert len(await violations(Twice(engine))) == 1


async def test_an_engine_that_nobody_knows_how_to_check_is_refused() -> None:
    with pytest.raises(TypeError, match="no checker of invariants for object"):
        await violations(object())  # type: ignore[arg-type]


def test_a_damaged_file_is_a_broken_invariant(full: Path) -> None:
    content = bytearray(full.read_bytes())
    content[3 * 4096 : 3 * 4096 + 512] = b"garbage!" * 64
    full.write_bytes(content)
    with pytest.raises(AssertionError, match=r"I0 the file "):
        check_file(full)


async def test_a_snapshot_shows_what_only_grows(engine: SQLiteEngine) -> None:
    await in_every_state(engine)
    before = await snapshot(engine)
    assert await violations(engine, since=before) == []
    engine.advance(timedelta(minutes=2))
    await pass_leases(engine)
    await engine.retry(["failed", "completed"])
    await engine.delete(["queued"])
    await engine.enqueue([job("queued")])
    await check_invariants(engine, since=before)
    assert (await info(engine, "running")).crashes == 1


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("UPDATE jobs SET token = token - 1 WHERE id = 'failed'", "had token"),
        ("UPDATE jobs SET revision = revision - 1 WHERE id = 'failed'", "had revision"),
        ("UPDATE jobs SET attempts = attempts + 1 WHERE id = 'failed'", "under one revision"),
        ("UPDATE jobs SET crashes = 0, revision = revision + 1 WHERE id = 'running'", "had 1 crashes, has 0"),
    ],
)
async def test_what_fell_since_a_snapshot_is_found(path: Path, statement: str, why: str) -> None:
    async with SQLiteEngine(f"sqlite:///{path}") as engine:
        await ended(engine, FAILED, "failed")
        first = await start(engine, "running")
        await engine.rescue(limit=10, lease=timedelta(minutes=1), dead=[(await info(engine, "running")).worker or ""])
        assert not (await engine.finish([(first.lease, FAILED)]))[0]
        assert [(one.id, one.crashes) for one in await _take(engine)] == [("running", 1)]
        before = await snapshot(engine)
        damage(path, statement)
        found = await violations(engine, since=before)
        assert [line for line in found if line.startswith("I4 tokens and revisions grow") and why in line], found


async def _take(engine: Engine) -> list[Claimed]:
    claim = await engine.claim(["default"], limit=9, worker_id="next", lease=timedelta(minutes=1))
    return list(claim.jobs)
