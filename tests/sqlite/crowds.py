"""Fills a store with very many jobs in seconds: copies of one that the engine accepted."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from oncue.engines.sqlite import SQLiteEngine
from oncue.job import NewJob

__all__ = ["crowd"]


async def crowd(path: Path, jobs: int, like: NewJob) -> None:
    """Put so many jobs `like` this one into the store of a file that no engine has open."""
    async with SQLiteEngine(f"sqlite:///{path}") as engine:
        await engine.enqueue([like])
    conn = sqlite3.connect(path, isolation_level=None)
    columns = [row[1] for row in conn.execute("PRAGMA table_info(jobs)") if row[1] not in ("seq", "id", "due_at")]
    copied = ", ".join(columns)
    numbers = f"WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < {jobs - 1}) "
    conn.execute("PRAGMA synchronous = OFF")
    conn.execute("BEGIN IMMEDIATE")
    conn.execute(
        f"INSERT INTO jobs (seq, id, due_at, {copied}) {numbers}"
        f"SELECT seq + i, id || '-' || i, due_at + i / 10, {copied} FROM jobs, n WHERE id = ?",
        (like.id,),
    )
    conn.execute(f"INSERT INTO payloads (seq, body) {numbers} SELECT seq + i, body FROM payloads, n")
    conn.execute("UPDATE counts SET n = ?", (jobs,))
    conn.execute("COMMIT")
    conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    conn.close()
