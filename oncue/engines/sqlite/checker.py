"""Finds broken invariants in a store, for tests and for the doctor: what no order of calls and crashes may lead to.

Every invariant is one query of checker.sql. It reads one snapshot, so others may work on the store meanwhile. The ways
in for tests are in `oncue.testing.invariants`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Final, NamedTuple

from oncue.engines.sqlite import states
from oncue.engines.sqlite.engine import SQLiteEngine
from oncue.engines.sqlite.statements import load
from oncue.engines.sqlite.unit import Unit

__all__ = ["Mark", "Marks", "broken", "broken_in_file", "broken_since", "marks"]

_INVARIANTS: Final = vars(load("checker.sql"))
_SHOWN: Final = 5
"""Rows told of one broken invariant; the others are counted."""


class Mark(NamedTuple):
    """What of a job may only grow; `created_at` tells it from a later one of the same id."""

    created_at: int
    state: str
    token: int
    attempts: int
    crashes: int
    revision: int


Marks = dict[str, Mark]


async def broken(engine: SQLiteEngine) -> list[str]:
    """Return one sentence for each broken invariant of an open engine's store."""
    return (await engine._read(_inspect, [None]))[0]  # type: ignore[no-any-return]


async def marks(engine: SQLiteEngine) -> Marks:
    """Return what of each job may only grow, for a later `broken_since`."""
    return (await engine._read(_mark, [None]))[0]  # type: ignore[no-any-return]


def broken_in_file(path: Path) -> list[str]:
    """Return one sentence for each broken invariant of a file, whether it is open elsewhere or not. Blocks."""
    conn = sqlite3.connect(path, isolation_level=None)
    try:
        conn.execute("PRAGMA query_only = ON")
        damage = [row[0] for row in conn.execute("PRAGMA integrity_check(5)") if row[0] != "ok"]
        return [f"I0 the file is whole: {line}" for line in damage] or _sentences(conn)
    except sqlite3.DatabaseError as error:
        return [f"I0 the file can be read: {error}"]
    finally:
        conn.close()


def broken_since(before: Marks, after: Marks) -> list[str]:
    """Return one sentence for each job of which something fell or moved that may not."""
    found = []
    for job_id, old in before.items():
        new = after.get(job_id)
        if new is None or new.created_at != old.created_at:
            continue  # deleted, and perhaps enqueued again
        if why := _fault(old, new):
            found.append(f"I4 tokens and revisions grow, counters fall only when a job is run again: {job_id!r} {why}")
    return found


def _fault(old: Mark, new: Mark) -> str | None:
    if new.token < old.token:
        return f"had token {old.token}, has {new.token}"
    if new.revision < old.revision:
        return f"had revision {old.revision}, has {new.revision}"
    if new.revision == old.revision and new != old:
        return f"was {old}, is {new}, under one revision"
    # To be run again, a job must have ended: from an open state that takes two moves.
    moves = new.revision - old.revision
    if new.crashes < old.crashes and moves < (1 if old.state in states.FINAL else 2):
        return f"had {old.crashes} crashes, has {new.crashes}, after {moves} moves"
    return None


def _inspect(unit: Unit, requests: Sequence[None]) -> list[list[str]]:
    found = _sentences(unit.conn)
    return [found for _ in requests]


def _mark(unit: Unit, requests: Sequence[None]) -> list[Marks]:
    rows = unit.conn.execute("SELECT id, created_at, state, token, attempts, crashes, revision FROM jobs")
    found = {job_id: Mark(*fields) for job_id, *fields in rows}
    return [found for _ in requests]


def _sentences(conn: sqlite3.Connection) -> list[str]:
    found = []
    for name, query in _INVARIANTS.items():
        rows = conn.execute(query)
        if told := [f"{subject!r} ({fault})" for subject, fault in islice(rows, _SHOWN)]:
            more = sum(1 for _ in rows)
            number, _, sentence = name.partition("_")
            tail = f" and {more} more" if more else ""
            found.append(f"{number.upper()} {sentence.replace('_', ' ')}: {', '.join(told)}{tail}")
    return found
