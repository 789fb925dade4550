"""One transaction's worth of work: its time, and what must be written with it or told after it.

Operations take a `Unit` and a list of requests, and answer one by one. What many of them need in common, counters
and metrics, is summed up here and written once a transaction. Hints collect here and are published by the lane after
the commit. Bookkeeping of the moves themselves is in `moves`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import cache

from oncue.engine import topic_queue
from oncue.engines.sqlite.statements import load

__all__ = ["Unit", "bucket"]

_sql = load("upkeep.sql")
_MINUTE = 60_000
_SIZES = (64, 16, 4, 1)
"""Rows in one statement: few different texts, so that each is prepared once."""


@cache
def _expanded(query: str, width: int, size: int) -> str:
    row = f"({', '.join('?' * width)})"
    return query.replace("{rows}", ", ".join([row] * size))


def bucket(ms: int) -> int:
    """Return the lower bound of a duration's histogram bucket: eight buckets an octave, exact below 16 ms."""
    if ms < 16:
        return max(ms, 0)
    shift = ms.bit_length() - 4
    return ms >> shift << shift


class Unit:
    """An open transaction.

    Attributes:
        now: wall-clock milliseconds, the same for everything in this transaction.
        steady: milliseconds since boot.
        hints: topics to publish after the commit.
        moved: ids of the jobs that changed, for the same end; a list because most have no listener.
    """

    __slots__ = ("_counts", "_metrics", "conn", "hints", "moved", "now", "steady")

    def __init__(self, conn: sqlite3.Connection, now: int, steady: int) -> None:
        self.conn = conn
        self.now = now
        self.steady = steady
        self.hints: set[str] = set()
        self.moved: list[str] = []
        self._counts: dict[tuple[str, str, str], int] = {}
        self._metrics: dict[tuple[str, str, str, int], int] = {}

    def count(self, queue: str, task: str, state: str, by: int) -> None:
        """Note that `by` jobs entered (or, negative, left) a state."""
        key = (queue, task, state)
        self._counts[key] = self._counts.get(key, 0) + by

    def measure(self, queue: str, task: str, kind: str, at: int = 0) -> None:
        """Note one event of a kind, in the histogram bucket `at` if it is a duration."""
        key = (queue, task, kind, at)
        self._metrics[key] = self._metrics.get(key, 0) + 1

    def hint_queue(self, queue: str) -> None:
        """Tell, after the commit, that a queue may have work."""
        self.hints.add(topic_queue(queue))

    def write_sums(self) -> None:
        """Write the counters and metrics collected so far; the last thing before the commit."""
        counts = [(*key, n) for key, n in self._counts.items() if n]
        if counts:
            self.conn.executemany(_sql.add_counts, counts)
        if self._metrics:
            minute = self.now // _MINUTE * _MINUTE
            self.conn.executemany(_sql.add_metrics, [(minute, *key, n) for key, n in self._metrics.items()])
        self._counts, self._metrics = {}, {}

    def insert(self, query: str, rows: Sequence[tuple[object, ...]]) -> None:
        """Insert rows with few statements: `{rows}` in the query stands for them.

        Not `executemany`, which gives the interpreter's lock away and takes it back for each row: beside a busy event
        loop that costs far more than the row.
        """
        start = 0
        while start < len(rows):
            size = next(size for size in _SIZES if size <= len(rows) - start)
            values = [value for row in rows[start : start + size] for value in row]
            self.conn.execute(_expanded(query, len(rows[0]), size), values)
            start += size

    def change(self, query: str, rows: Sequence[tuple[object, ...]]) -> None:
        """Run a statement once a row of values."""
        if rows:
            self.conn.executemany(query, rows)
