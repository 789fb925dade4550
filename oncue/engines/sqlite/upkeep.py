"""The operations that keep the store in order: heartbeats, rescue of silent workers' jobs, pruning."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass

from oncue.engine import Hold, Rescued, WorkerInfo
from oncue.engines.sqlite import states
from oncue.engines.sqlite.finish import holds
from oncue.engines.sqlite.moves import Moves, Row, rows_by_ids, rows_by_seqs
from oncue.engines.sqlite.statements import load
from oncue.engines.sqlite.unit import Unit
from oncue.job import Failure, Lease, Reason

__all__ = ["HeartbeatRequest", "PruneRequest", "RescueRequest", "heartbeat", "prune", "rescue"]

_sql = load("upkeep.sql")
_DAY = 86_400_000
_HOUR = 3_600_000


@dataclass(frozen=True, slots=True)
class HeartbeatRequest:
    """The arguments of `Engine.heartbeat`."""

    worker: WorkerInfo
    leases: tuple[Lease, ...]
    lease_ms: int


@dataclass(frozen=True, slots=True)
class RescueRequest:
    """The arguments of `Engine.rescue`."""

    limit: int
    lease_ms: int
    dead: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PruneRequest:
    """The arguments of `Engine.prune`."""

    limit: int
    keep_finished: int


def heartbeat(unit: Unit, requests: Sequence[HeartbeatRequest]) -> list[list[Hold]]:
    """Record that workers live and renew their leases (T13); see `Engine.heartbeat`."""
    return [_beat(unit, request) for request in requests]


def _beat(unit: Unit, request: HeartbeatRequest) -> list[Hold]:
    worker = request.worker
    if worker.stopped:
        unit.conn.execute(_sql.forget_worker, (worker.id,))
    else:
        info = json.dumps(asdict(worker), default=str)
        expires = unit.steady + request.lease_ms
        unit.conn.execute(_sql.save_worker, (worker.id, info, unit.now, expires))
    rows = rows_by_ids(unit, [lease.job_id for lease in request.leases])
    answers: list[Hold] = []
    renewed: list[int] = []
    for lease in request.leases:
        row = rows.get(lease.job_id)
        if row is None or row.state != states.RUNNING or not holds(row, lease):
            answers.append(Hold.LOST)
            continue
        renewed.append(row.seq)
        answers.append(Hold.CANCEL_REQUESTED if row.cancel_requested else Hold.HELD)
    if renewed:
        unit.conn.execute(_sql.renew, (unit.steady + request.lease_ms, json.dumps(renewed)))
    return answers


def rescue(unit: Unit, requests: Sequence[RescueRequest]) -> list[list[Rescued]]:
    """Take back jobs of silent workers (T11) and expire what was not started in time (T6); see `Engine.rescue`."""
    return [_rescue(unit, request) for request in requests]


def _rescue(unit: Unit, request: RescueRequest) -> list[Rescued]:
    moves = Moves(unit)
    late = [seq for (seq,) in unit.conn.execute(_sql.not_started_in_time, (unit.now, request.limit))]
    for row in rows_by_seqs(unit, late):
        moves.end(row, states.FAILED, Reason.EXPIRED)
    seqs: list[int] = []
    if request.dead:
        seqs = [seq for (seq,) in unit.conn.execute(_sql.held_by, (json.dumps(request.dead), request.limit))]
        unit.change(_sql.forget_worker, [(worker,) for worker in request.dead])
    if not _in_grace(unit, request.lease_ms):
        expired = unit.conn.execute(_sql.expired_leases, (unit.steady, request.limit)).fetchall()
        seqs = list(dict.fromkeys([*seqs, *(seq for (seq,) in expired)]))[: request.limit]
    # Read again inside this very transaction: a lease renewed a moment ago is not in the list.
    rescued = [_take_back(moves, row) for row in rows_by_seqs(unit, seqs)]
    moves.flush()
    return rescued


def _in_grace(unit: Unit, lease_ms: int) -> bool:
    """Whether the store may have been away, so that its workers could not renew: then all get one more lease."""
    last, not_before = _get_meta(unit, "last_rescue"), _get_meta(unit, "no_rescue_before")
    _set_meta(unit, "last_rescue", unit.steady)
    if last is None or not 0 <= unit.steady - last <= lease_ms:
        not_before = unit.steady + lease_ms
        _set_meta(unit, "no_rescue_before", not_before)
    return not_before is not None and unit.steady < not_before <= unit.steady + lease_ms


def _get_meta(unit: Unit, key: str) -> int | None:
    row = unit.conn.execute(_sql.get_meta, (key,)).fetchone()
    return None if row is None else int(row[0])


def _set_meta(unit: Unit, key: str, value: int) -> None:
    unit.conn.execute(_sql.set_meta, (key, value))


def _take_back(moves: Moves, row: Row) -> Rescued:
    crashes = row.crashes + 1
    owner = row.owner or ""
    if row.cancel_requested:
        state = states.CANCELLED
        moves.end(row, state, Reason.USER, crash=True)
    elif crashes >= row.max_crashes:
        state = states.FAILED
        times = "once" if crashes == 1 else f"{crashes} times"
        failure = Failure("WorkerLost", f"its worker died or fell silent {times} while running it")
        moves.end(row, state, Reason.CRASHED, failure=failure, crash=True)
    else:
        state = states.QUEUED
        failure = Failure("WorkerLost", f"worker {owner} died or fell silent while running it")
        moves.requeue(row, state, Reason.CRASHED, due_at=row.due_at, failure=failure, crash=True)
    return Rescued(row.id, row.task, row.queue, owner, states.STATE[state], crashes)


def prune(unit: Unit, requests: Sequence[PruneRequest]) -> list[int]:
    """Delete what need not be kept (T17); see `Engine.prune`."""
    return [_prune(unit, request) for request in requests]


def _prune(unit: Unit, request: PruneRequest) -> int:
    seqs = [seq for (seq,) in unit.conn.execute(_sql.past_keep, (unit.now, request.limit))]
    drop_jobs(unit, rows_by_seqs(unit, seqs))
    unit.write_sums()  # the count below reads them
    surplus = unit.conn.execute(_sql.finished_count).fetchone()[0] - request.keep_finished
    if surplus > 0 and len(seqs) < request.limit:
        oldest = unit.conn.execute(_sql.first_ended, (min(surplus, request.limit - len(seqs)),)).fetchall()
        drop_jobs(unit, rows_by_seqs(unit, [seq for (seq,) in oldest]))
        seqs += [seq for (seq,) in oldest]
    unit.conn.execute(_sql.old_metrics, (unit.now - _DAY,))
    unit.conn.execute(_sql.old_uniques, (unit.now,))
    unit.conn.execute(_sql.old_workers, (unit.now - _HOUR,))
    unit.conn.execute(_sql.empty_counts)
    return len(seqs)


def drop_jobs(unit: Unit, rows: Sequence[Row]) -> None:
    """Remove jobs and all that belongs to them."""
    if not rows:
        return
    seqs = json.dumps([row.seq for row in rows])
    for statement in (
        _sql.drop_jobs,
        _sql.drop_payloads,
        _sql.drop_results,
        _sql.drop_attempts,
        _sql.drop_feed,
        _sql.drop_uniques,
        _sql.drop_links,
    ):
        unit.conn.execute(statement, (seqs,))
    for row in rows:
        unit.count(row.queue, row.task, row.state, -1)
        unit.moved.append(row.id)
