"""The one door for every change of state, and what hangs on it: counters, unique keys, dependents, history.

`end` and `requeue` collect; `flush` writes what ended alike in one statement. An operation calls `flush` before
it reads again what it moved. The numbers T1 to T17 are those of docs/states.md.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from oncue.engines.sqlite import states
from oncue.engines.sqlite.statements import load
from oncue.engines.sqlite.unit import Unit, bucket
from oncue.job import Failure, Reason, UniqueWhile

__all__ = ["Moves", "Row", "rows_by_ids", "rows_by_seqs"]

_sql = load("moves.sql")

_ERROR_LIMIT = 500


class Row(NamedTuple):
    """What a move needs to know of a job; the columns of moves.sql."""

    seq: int
    id: str
    task: str
    queue: str
    state: str
    attempts: int
    crashes: int
    max_crashes: int
    token: int
    nonce: bytes | None
    owner: str | None
    due_at: int
    started_at: int | None
    cancel_requested: int
    has_dependents: int
    has_parents: int
    unique_key: str | None
    unique_while: str | None


def rows_by_ids(unit: Unit, ids: Iterable[str]) -> dict[str, Row]:
    """Read jobs by id; those that are not there are left out."""
    asked = set(ids)
    # SQLite cuts an id that a JSON list carries at a NUL: what it finds then is another job.
    found = unit.conn.execute(_sql.by_ids, (json.dumps(list(asked)),))
    return {row[1]: Row._make(row) for row in found if row[1] in asked}


def rows_by_seqs(unit: Unit, seqs: Sequence[int]) -> list[Row]:
    """Read jobs by position."""
    return [Row._make(row) for row in unit.conn.execute(_sql.by_seqs, (json.dumps(seqs),))]


def _short(failure: Failure | None) -> str | None:
    if failure is None:
        return None
    text = f"{failure.type}: {failure.message}" if failure.message else failure.type
    return _storable(text if len(text) <= _ERROR_LIMIT else text[: _ERROR_LIMIT - 1] + "…")


def _storable(text: str) -> str:
    """Return a text without lone surrogates, which SQLite cannot take: storing an outcome must not fail."""
    return text.encode(errors="replace").decode()


class Moves:
    """Collects the moves of one operation in one transaction."""

    def __init__(self, unit: Unit) -> None:
        self._unit = unit
        self._ends: dict[tuple[str, str | None, str | None, bool], list[int]] = {}
        self._requeues: list[tuple[object, ...]] = []
        self._results: list[tuple[int, bytes]] = []
        self._parents: list[tuple[int, bool]] = []

    def end(
        self,
        row: Row,
        state: str,
        reason: Reason | None,
        *,
        result: bytes | None = None,
        failure: Failure | None = None,
        crash: bool = False,
    ) -> None:
        """Move a job to a final state and settle what hung on it.

        `crash` counts one and takes the attempt away from its worker: whatever it still sends is refused.
        """
        unit = self._unit
        move = (state, None if reason is None else reason.value, None if failure is None else _short(failure), crash)
        self._ends.setdefault(move, []).append(row.seq)
        if result is not None:
            self._results.append((row.seq, result))
        unit.count(row.queue, row.task, row.state, -1)
        unit.count(row.queue, row.task, state, 1)
        unit.measure(row.queue, row.task, state)
        if row.state == states.RUNNING:
            self._leave_attempt(row, "crashed" if crash else state, failure)
        if row.has_parents:
            unit.conn.execute(_sql.forget_child, (row.seq,))
        if row.unique_key is not None and row.unique_while != UniqueWhile.TTL:
            unit.conn.execute(_sql.free_unique, (row.unique_key, row.seq))
        unit.moved.append(row.id)
        if row.has_dependents:
            self.parent_ended(row.seq, completed=state == states.COMPLETED)

    def requeue(
        self,
        row: Row,
        state: str,
        reason: Reason | None,
        *,
        due_at: int,
        refund: bool = False,
        failure: Failure | None = None,
        crash: bool = False,
    ) -> None:
        """Move a running job back in line; `refund` gives the attempt back, `crash` is as in `end`."""
        unit = self._unit
        self._requeues.append((state, reason and reason.value, _short(failure), due_at, refund, crash, crash, row.seq))
        unit.count(row.queue, row.task, row.state, -1)
        unit.count(row.queue, row.task, state, 1)
        if state == states.RETRYING:
            unit.measure(row.queue, row.task, "retried")
        if reason != Reason.NO_WORKER:  # handed back unread, perhaps every few seconds for days: no attempt
            self._leave_attempt(row, "crashed" if crash else state, failure)
        unit.hint_queue(row.queue)
        unit.moved.append(row.id)

    def _leave_attempt(self, row: Row, outcome: str, failure: Failure | None) -> None:
        unit = self._unit
        started = unit.now if row.started_at is None else row.started_at
        unit.measure(row.queue, row.task, "run", bucket(unit.now - started))
        if outcome == states.COMPLETED:
            return
        if outcome == "crashed":
            unit.measure(row.queue, row.task, "crashed")
        error: tuple[str | None, ...] = (None, None, None)
        if failure is not None:
            error = tuple(map(_storable, (failure.type, failure.message, failure.traceback)))
        unit.conn.execute(
            _sql.record_attempt,
            (row.seq, row.token, row.attempts, row.owner or "", started, unit.now, outcome, *error),
        )
        unit.conn.execute(_sql.trim_attempts, (row.seq,))
        unit.conn.execute(_sql.trim_feed, (row.seq, row.seq))

    def parent_ended(self, seq: int, *, completed: bool) -> None:
        """Note that a job others may wait for ended, or is gone; `flush` settles them."""
        self._parents.append((seq, completed))

    def _settle_dependents(self, seq: int, completed: bool) -> None:
        unit = self._unit
        children = unit.conn.execute(_sql.children, (seq,)).fetchall()
        unit.conn.execute(_sql.parent_ended, (seq,))
        for child, after_any in children:
            if not (completed or after_any):
                [row] = rows_by_seqs(unit, [child])
                self.end(row, states.CANCELLED, Reason.DEPENDENCY)
                continue
            answer = unit.conn.execute(_sql.dependency_ended, (child,)).fetchall()
            [(still_open, due_at, queue, task, job_id)] = answer
            if still_open == 0:
                state = states.SCHEDULED if due_at > unit.now else states.QUEUED
                unit.conn.execute(_sql.ready, (state, child))
                unit.count(queue, task, states.WAITING, -1)
                unit.count(queue, task, state, 1)
                unit.hint_queue(queue)
                unit.moved.append(job_id)

    def flush(self) -> None:
        """Write what was collected."""
        unit = self._unit
        while self._parents:  # a loop, not recursion: a chain of jobs may be long
            self._settle_dependents(*self._parents.pop())
        for (state, reason, error, crash), seqs in self._ends.items():
            values = {"state": state, "reason": reason, "error": error, "crash": crash, "now": unit.now}
            unit.conn.execute(_sql.end, values | {"seqs": json.dumps(seqs)})
        unit.change(_sql.requeue, self._requeues)
        unit.insert(_sql.store_result, self._results)
        self._ends, self._requeues, self._results = {}, [], []
