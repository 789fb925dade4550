"""The operations that people ask for: cancel (T14, T15), run again (T16), delete, pause and resume."""

from __future__ import annotations

from collections.abc import Sequence

from oncue.engine import CancelAnswer, topic_cancel
from oncue.engines.sqlite import states
from oncue.engines.sqlite.moves import Moves, Row, rows_by_ids
from oncue.engines.sqlite.statements import load
from oncue.engines.sqlite.unit import Unit
from oncue.engines.sqlite.upkeep import drop_jobs
from oncue.job import Reason, UniqueWhile

__all__ = ["cancel", "delete", "retry", "set_queue"]

_sql = load("control.sql")


def cancel(unit: Unit, ids: Sequence[str]) -> list[CancelAnswer]:
    """Cancel jobs; see `Engine.cancel`."""
    moves = Moves(unit)
    rows = rows_by_ids(unit, ids)
    answers: list[CancelAnswer] = []
    for job_id in ids:
        row = rows.get(job_id)
        if row is None:
            answers.append(CancelAnswer.NOT_FOUND)
        elif row.state == states.RUNNING:
            if not row.cancel_requested:
                unit.conn.execute(_sql.request_cancel, (row.seq,))
                unit.moved.append(row.id)
            unit.hints.add(topic_cancel(row.owner or ""))
            answers.append(CancelAnswer.REQUESTED)
        elif row.state in states.PENDING:
            moves.end(row, states.CANCELLED, Reason.USER)
            rows[job_id] = row._replace(state=states.CANCELLED)  # named twice in one call: ends once
            answers.append(CancelAnswer.CANCELLED)
        else:
            done = row.state == states.CANCELLED
            answers.append(CancelAnswer.CANCELLED if done else CancelAnswer.FINISHED)
    moves.flush()
    return answers


def retry(unit: Unit, ids: Sequence[str]) -> list[bool]:
    """Put ended jobs back in line; see `Engine.retry`."""
    rows = rows_by_ids(unit, ids)
    answers: list[bool] = []
    for job_id in ids:
        row = rows.get(job_id)
        if row is not None and row.state in states.FINAL and _take_back_unique(unit, row):
            unit.conn.execute(_sql.run_again, (unit.now, row.seq))
            unit.conn.execute(_sql.drop_result, (row.seq,))
            unit.count(row.queue, row.task, row.state, -1)
            unit.count(row.queue, row.task, states.QUEUED, 1)
            unit.hint_queue(row.queue)
            unit.moved.append(row.id)
            row = rows[job_id] = row._replace(state=states.QUEUED)
        answers.append(row is not None and row.state not in states.FINAL)
    return answers


def _take_back_unique(unit: Unit, row: Row) -> bool:
    """Hold the job's unique key again; False if another job has it."""
    if row.unique_key is None:
        return True
    found = unit.conn.execute(_sql.unique_holder, (row.unique_key,)).fetchone()
    if found is not None and found[0] != row.id and (found[1] is None or found[1] > unit.now):
        return False
    if row.unique_while != UniqueWhile.TTL:
        unit.conn.execute(_sql.take_unique, (row.unique_key, row.seq, row.id))
    return True


def delete(unit: Unit, ids: Sequence[str]) -> list[bool]:
    """Remove jobs; see `Engine.delete`."""
    moves = Moves(unit)
    rows = rows_by_ids(unit, ids)
    running = {job_id for job_id, row in rows.items() if row.state == states.RUNNING}
    going = [row for job_id, row in rows.items() if job_id not in running]
    # First ended, then dropped: what hangs on an open job is settled by the same door as ever.
    for row in going:
        if row.state in states.PENDING:
            moves.end(row, states.CANCELLED, Reason.USER)
    moves.flush()
    drop_jobs(unit, list(rows_by_ids(unit, [row.id for row in going]).values()))
    return [job_id not in running for job_id in ids]


def set_queue(unit: Unit, requests: Sequence[tuple[str, bool]]) -> list[None]:
    """Pause or resume queues; see `Engine.set_queue`."""
    for queue, paused in requests:
        unit.conn.execute(_sql.set_queue, (queue, paused))
        unit.hint_queue(queue)
    return [None] * len(requests)
