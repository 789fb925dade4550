"""The operation that ends attempts (T7 to T10, T12)."""

from __future__ import annotations

from collections.abc import Sequence

from oncue.engines.sqlite import states
from oncue.engines.sqlite.clock import later
from oncue.engines.sqlite.moves import Moves, Row, rows_by_ids
from oncue.engines.sqlite.unit import Unit
from oncue.job import Lease, Outcome, Reason

__all__ = ["finish", "holds"]


def holds(row: Row, lease: Lease) -> bool:
    """Whether this lease is the one of the job's latest attempt: the fence."""
    return row.token == lease.token and row.nonce == lease.nonce


def finish(unit: Unit, outcomes: Sequence[tuple[Lease, Outcome]]) -> list[bool]:
    """End attempts; see `Engine.finish`."""
    moves = Moves(unit)
    rows = rows_by_ids(unit, [lease.job_id for lease, _ in outcomes])
    answers: list[bool] = []
    for lease, outcome in outcomes:
        row = rows.get(lease.job_id)
        if row is None:  # pruned or deleted by force: there is nothing left to write to
            answers.append(False)
        elif not holds(row, lease):
            unit.measure(row.queue, row.task, "fenced")
            answers.append(False)
        else:
            if row.state == states.RUNNING:
                _move(unit, moves, row, outcome)
                rows[lease.job_id] = row._replace(state=outcome.state.value)  # twice in one batch moves once
            answers.append(True)
    moves.flush()
    return answers


def _move(unit: Unit, moves: Moves, row: Row, outcome: Outcome) -> None:
    state = outcome.state.value
    if row.cancel_requested:
        moves.end(row, states.CANCELLED, Reason.USER, failure=outcome.failure)
    elif state in states.FINAL:
        moves.end(row, state, outcome.reason, result=outcome.result, failure=outcome.failure)
    else:
        # A released job keeps its due time, and with it its place in line.
        due_at = row.due_at if state == states.QUEUED else later(unit.now, outcome.delay)
        moves.requeue(row, state, outcome.reason, due_at=due_at, refund=outcome.refund, failure=outcome.failure)
