"""How SQLite goes about each query: by which index, and never by reading all jobs or sorting them first."""

from __future__ import annotations

import asyncio
import re
import sqlite3
from typing import Any

import pytest

from oncue.engines.sqlite import SQLiteEngine
from oncue.engines.sqlite.statements import load
from oncue.testing.conformance.steps import job

# Queries that find jobs, by file and name, and how: what the plan must say of the table it looks into.
BY_INDEX = {
    ("claim.sql", "first_due"): "INDEX jobs_due",
    ("claim.sql", "due"): "SEARCH jobs USING INDEX jobs_due (due_at<?)",
    ("claim.sql", "promote"): "SEARCH jobs USING INTEGER PRIMARY KEY (rowid=?)",
    ("claim.sql", "head"): "SEARCH jobs USING INDEX jobs_ready (queue=?)",
    ("claim.sql", "rows"): "SEARCH jobs USING INTEGER PRIMARY KEY (rowid=?)",
    ("claim.sql", "start"): "SEARCH jobs USING INTEGER PRIMARY KEY (rowid=?)",
    ("claim.sql", "owned"): "SEARCH jobs USING INDEX jobs_groups (state=?)",
    ("claim.sql", "renew"): "SEARCH jobs USING INTEGER PRIMARY KEY (rowid=?)",
    ("control.sql", "run_again"): "SEARCH jobs USING INTEGER PRIMARY KEY (rowid=?)",
    ("control.sql", "unique_holder"): "SEARCH uniques USING PRIMARY KEY (key=?)",
    ("enqueue.sql", "next_seq"): "SEARCH jobs",  # the last entry of the table
    ("enqueue.sql", "free_unique"): "SEARCH uniques USING PRIMARY KEY (key=?)",
    ("enqueue.sql", "known"): "SEARCH jobs USING INDEX sqlite_autoindex_jobs_1 (id=?)",
    ("enqueue.sql", "unique_holder"): "SEARCH u USING PRIMARY KEY (key=?)",
    ("enqueue.sql", "parents"): "SEARCH jobs USING INDEX sqlite_autoindex_jobs_1 (id=?)",
    ("feed.sql", "read"): "SEARCH feed USING INDEX feed_by_job (job=? AND (token,ordinal)>(?,?))",
    ("feed.sql", "newest_progress"): "SEARCH feed USING INDEX feed_progress (job=? AND token=?)",
    ("feed.sql", "trim"): "SEARCH feed USING INDEX feed_by_job (job=? AND token=? AND ordinal<?)",
    ("feed.sql", "drop_older_progress"): "SEARCH feed USING INDEX feed_progress (job=? AND (token,ordinal)<(?,?))",
    ("moves.sql", "by_ids"): "SEARCH jobs USING INDEX sqlite_autoindex_jobs_1 (id=?)",
    ("moves.sql", "by_seqs"): "SEARCH jobs USING INTEGER PRIMARY KEY (rowid=?)",
    ("moves.sql", "end"): "SEARCH jobs USING INTEGER PRIMARY KEY (rowid=?)",
    ("moves.sql", "requeue"): "SEARCH jobs USING INTEGER PRIMARY KEY (rowid=?)",
    ("moves.sql", "free_unique"): "SEARCH uniques USING PRIMARY KEY (key=?)",
    ("moves.sql", "children"): "SEARCH deps USING PRIMARY KEY (parent=?)",
    ("moves.sql", "parent_ended"): "SEARCH deps USING PRIMARY KEY (parent=?)",
    ("moves.sql", "trim_feed"): "SEARCH feed USING INDEX feed_by_job (job=? AND token<?)",
    ("moves.sql", "forget_child"): "SEARCH deps USING INDEX deps_by_child (child=?)",
    ("moves.sql", "trim_attempts"): "SEARCH attempts USING INDEX attempts_by_job (job=? AND token<?)",
    ("reads.sql", "get"): "SEARCH jobs USING INDEX sqlite_autoindex_jobs_1 (id=?)",
    ("reads.sql", "get_with_bodies"): "SEARCH jobs USING INDEX sqlite_autoindex_jobs_1 (id=?)",
    ("reads.sql", "attempts"): "SEARCH attempts USING INDEX attempts_by_job (job=?)",
    ("reads.sql", "head"): "SEARCH jobs USING INDEX jobs_ready (queue=?)",
    ("reads.sql", "metrics"): "SEARCH metrics USING PRIMARY KEY (minute>?)",
    ("reads.sql", "newest"): "SEARCH jobs USING INTEGER PRIMARY KEY (rowid<?)",
    ("reads.sql", "newest_of_group"): "SEARCH jobs USING INDEX jobs_groups (state=? AND queue=? AND task=? AND seq<?)",
    ("reads.sql", "page"): "SEARCH jobs USING INTEGER PRIMARY KEY (rowid=?)",
    ("upkeep.sql", "renew"): "SEARCH jobs USING INTEGER PRIMARY KEY (rowid=?)",
    ("upkeep.sql", "expired_leases"): "SEARCH jobs USING INDEX jobs_groups (state=?)",
    ("upkeep.sql", "held_by"): "SEARCH jobs USING INDEX jobs_groups (state=?)",
    ("upkeep.sql", "not_started_in_time"): "SEARCH jobs USING INDEX jobs_expiry (expires_at>? AND expires_at<?)",
    ("upkeep.sql", "void_leases"): "SEARCH jobs USING INDEX jobs_groups (state=?)",
    ("upkeep.sql", "past_keep"): "SEARCH jobs USING INDEX jobs_keep (keep_until>? AND keep_until<?)",
    ("upkeep.sql", "first_ended"): "INDEX jobs_keep",
    ("upkeep.sql", "old_metrics"): "SEARCH metrics USING PRIMARY KEY (minute<?)",
    ("upkeep.sql", "old_uniques"): "SEARCH uniques USING INDEX uniques_by_until (until>? AND until<?)",
    ("upkeep.sql", "drop_jobs"): "SEARCH jobs USING INTEGER PRIMARY KEY (rowid=?)",
    ("upkeep.sql", "drop_payloads"): "SEARCH payloads USING INTEGER PRIMARY KEY (rowid=?)",
    ("upkeep.sql", "drop_results"): "SEARCH results USING INTEGER PRIMARY KEY (rowid=?)",
    ("upkeep.sql", "drop_attempts"): "SEARCH attempts USING INDEX attempts_by_job (job=?)",
    ("upkeep.sql", "drop_feed"): "SEARCH feed USING INDEX feed_by_job (job=?)",
    ("upkeep.sql", "drop_links"): "SEARCH deps USING PRIMARY KEY (parent=?)",
    ("upkeep.sql", "drop_uniques"): "SEARCH uniques USING INDEX uniques_by_seq (seq=?)",
}
# These look a few rows up by primary key, or in a small table.
BY_KEY = {
    ("claim.sql", "release_pending_unique"),
    ("moves.sql", "dependency_ended"),
    ("upkeep.sql", "get_meta"),
}
MAY_SORT = {
    ("claim.sql", "rows"),  # as many as are claimed
    ("moves.sql", "by_seqs"),  # as many as are named
    ("reads.sql", "page"),  # as many as are shown
    ("reads.sql", "queue_counts"),  # a row a queue, a task and a state
    ("upkeep.sql", "expired_leases"),  # those that run
}
# Read from end to end because they are small: a row a queue, a worker, a task and a state; what the call names.
SMALL = {"CONSTANT", "counts", "queues", "workers", "wanted", "json_each"}


@pytest.fixture(scope="module", params=["empty", "analyzed"])
def conn(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a connection to a new store, and to one with jobs about which SQLite has gathered statistics."""
    path = tmp_path_factory.mktemp("plans") / "jobs.db"

    async def fill() -> None:
        async with SQLiteEngine(f"sqlite:///{path}") as engine:
            if request.param == "analyzed":
                await engine.enqueue([job() for _ in range(1000)])
                await engine.enqueue([job(delay=60, expires_in=60, task="rare") for _ in range(10)])

    asyncio.run(fill())
    conn = sqlite3.connect(path)
    if request.param == "analyzed":
        conn.execute("ANALYZE")
        conn.close()  # statistics are read when a file is opened
        conn = sqlite3.connect(path)
    yield conn
    conn.close()


def text(file: str, name: str) -> str:
    """Return a query as the engine runs it, but for one row where it runs for many."""
    query: str = getattr(load(file), name)
    return query.replace("{rows}", "(1, x'')")


def plan(conn: sqlite3.Connection, query: str) -> list[str]:
    """Return the steps that SQLite would take, whatever the values."""
    names = set(re.findall(r":(\w+)", query))
    values: Any = dict.fromkeys(names, 1) if names else [1] * (1 if "?1" in query else query.count("?"))
    # Whether an index alone answers differs from version to version; by which one, does not.
    return [step[3].replace("COVERING ", "") for step in conn.execute(f"EXPLAIN QUERY PLAN {query}", values)]


@pytest.mark.parametrize(("file", "name"), BY_INDEX, ids=[f"{file}-{name}" for file, name in BY_INDEX])
def test_a_query_takes_its_index(conn: sqlite3.Connection, file: str, name: str) -> None:
    steps = plan(conn, text(file, name))
    assert any(BY_INDEX[file, name] in step for step in steps), steps


EVERY = [
    (file, name)
    for file in (
        "checkpoint.sql",
        "claim.sql",
        "control.sql",
        "enqueue.sql",
        "feed.sql",
        "moves.sql",
        "reads.sql",
        "upkeep.sql",
    )
    for name in vars(load(file))
    if "{rows}" not in getattr(load(file), name)
]


@pytest.mark.parametrize(("file", "name"), EVERY, ids=[f"{file}-{name}" for file, name in EVERY])
def test_no_query_reads_all_jobs_or_sorts_them(conn: sqlite3.Connection, file: str, name: str) -> None:
    steps = plan(conn, text(file, name))
    scanned = {step.split()[1] for step in steps if step.startswith("SCAN")} - SMALL
    if any(f"SCAN jobs USING INDEX {index}" in steps for index in ("jobs_keep", "jobs_due")) and "first_" in name:
        scanned -= {"jobs"}  # from its first entry on, as many as asked
    assert not scanned, steps
    if (file, name) not in MAY_SORT:
        assert not [step for step in steps if "TEMP B-TREE" in step and "json_each" not in step], steps


def test_every_query_that_looks_something_up_is_named_here(conn: sqlite3.Connection) -> None:
    finding = {
        (file, name)
        for file, name in EVERY
        if any(" USING " in step and step.split()[1] not in SMALL for step in plan(conn, text(file, name)))
        and not re.search(r"WHERE seq = \?$", text(file, name))
    }
    assert finding - BY_INDEX.keys() == BY_KEY
