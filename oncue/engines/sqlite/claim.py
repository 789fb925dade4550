"""The operation that hands out jobs: promotion of what is due (T2), expiry (T6), start (T5)."""

from __future__ import annotations

import heapq
import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from oncue.engine import Claim
from oncue.engines.sqlite import states
from oncue.engines.sqlite.clock import from_ms
from oncue.engines.sqlite.moves import Moves, rows_by_seqs
from oncue.engines.sqlite.statements import load
from oncue.engines.sqlite.unit import Unit, bucket
from oncue.job import NO_META, Claimed, Lease, Reason, UniqueWhile

__all__ = ["ClaimRequest", "claim"]

_sql = load("claim.sql")


@dataclass(frozen=True, slots=True)
class ClaimRequest:
    """The arguments of `Engine.claim`."""

    queues: tuple[str, ...]
    limit: int
    worker_id: str
    lease_ms: int
    held: frozenset[str] | None


def claim(unit: Unit, requests: Sequence[ClaimRequest]) -> list[Claim]:
    """Hand out jobs; see `Engine.claim`."""
    next_due_in = _promote(unit)
    return [Claim(_forgotten(unit, request) + _start(unit, request), next_due_in) for request in requests]


def _promote(unit: Unit) -> float | None:
    """Queue what is due; return the seconds until the next is, None if nothing is scheduled."""
    first = _first_due(unit)
    if first is None:
        return None
    if first <= unit.now:
        due = unit.conn.execute(_sql.due, (unit.now,)).fetchall()
        unit.conn.execute(_sql.promote, (json.dumps([row[0] for row in due]),))
        for _, state, queue, task, job_id in due:
            unit.count(queue, task, state, -1)
            unit.count(queue, task, states.QUEUED, 1)
            unit.hint_queue(queue)
            unit.moved.append(job_id)
        first = _first_due(unit)
        if first is None:
            return None
    return max(first - unit.now, 0) / 1000


def _first_due(unit: Unit) -> int | None:
    row = unit.conn.execute(_sql.first_due).fetchone()
    return None if row is None else row[0]


def _start(unit: Unit, request: ClaimRequest) -> list[Claimed]:
    paused = {name for (name,) in unit.conn.execute(_sql.paused)}
    queues = [queue for queue in dict.fromkeys(request.queues) if queue not in paused]
    started: list[Claimed] = []
    while (wanted := request.limit - len(started)) > 0:
        heads = [unit.conn.execute(_sql.head, (queue, wanted)).fetchall() for queue in queues]
        if len(heads) == 1:
            seqs = [seq for _, _, seq in heads[0]]
        else:
            ordered = heapq.merge(*heads, key=lambda head: (-head[0], head[1], head[2]))
            seqs = [seq for (_, _, seq), _ in zip(ordered, range(wanted), strict=False)]
        if not seqs:
            break
        started += _start_these(unit, request, seqs)
        if len(seqs) < wanted:
            break
    return started


class _Row(NamedTuple):
    """The columns of claim.sql's `rows`."""

    seq: int
    id: str
    task: str
    queue: str
    attempts: int
    crashes: int
    max_attempts: int
    max_crashes: int
    priority: int
    timeout_ms: int | None
    keep_ms: int
    created_at: int
    due_at: int
    expires_at: int | None
    token: int
    unique_key: str | None
    unique_while: str | None
    meta: str | None
    payload: bytes | None


def _rows(unit: Unit, seqs: list[int]) -> Iterator[_Row]:
    return map(_Row._make, unit.conn.execute(_sql.rows, (json.dumps(seqs),)))


def _claimed(row: _Row, lease: Lease, attempt: int, started_at: datetime) -> Claimed:
    return Claimed(
        lease,
        row.task,
        row.queue,
        row.payload or b"",
        attempt,
        row.crashes,
        row.max_attempts,
        row.max_crashes,
        row.priority,
        None if row.timeout_ms is None else row.timeout_ms / 1000,
        row.keep_ms / 1000,
        from_ms(row.created_at),
        from_ms(row.due_at),
        started_at,
        json.loads(row.meta) if row.meta else NO_META,
    )


def _start_these(unit: Unit, request: ClaimRequest, seqs: list[int]) -> list[Claimed]:
    now, nonce = unit.now, os.urandom(16)
    lease_until = unit.steady + request.lease_ms
    started_at = from_ms(now)
    claimed: list[Claimed] = []
    starts: list[int] = []
    expired: list[int] = []
    for row in _rows(unit, seqs):
        if row.expires_at is not None and row.expires_at <= now and row.token == 0:  # never started
            expired.append(row.seq)
            continue
        token = max(row.token + 1, now)  # as the statement below will
        starts.append(row.seq)
        if row.unique_key is not None and row.unique_while == UniqueWhile.PENDING:
            unit.conn.execute(_sql.release_pending_unique, (row.unique_key, row.seq))
        unit.count(row.queue, row.task, states.QUEUED, -1)
        unit.count(row.queue, row.task, states.RUNNING, 1)
        unit.measure(row.queue, row.task, "wait", bucket(now - row.due_at))
        unit.moved.append(row.id)
        claimed.append(_claimed(row, Lease(row.id, token, nonce), row.attempts + 1, started_at))
    values = {"now": now, "nonce": nonce, "owner": request.worker_id, "lease_until": lease_until}
    unit.conn.execute(_sql.start, values | {"seqs": json.dumps(starts)})
    if expired:
        moves = Moves(unit)
        for gone in rows_by_seqs(unit, expired):
            moves.end(gone, states.FAILED, Reason.EXPIRED)
        moves.flush()
    return claimed


def _forgotten(unit: Unit, request: ClaimRequest) -> list[Claimed]:
    """Return the attempts that this worker holds but did not list: their claim's reply was lost."""
    if request.held is None:
        return []
    owned = unit.conn.execute(_sql.owned, (request.worker_id,)).fetchall()
    unknown = {seq: row for seq, *row in owned if row[0] not in request.held}
    if not unknown:
        return []
    lease_until = unit.steady + request.lease_ms
    unit.conn.execute(_sql.renew, (lease_until, json.dumps(list(unknown))))
    forgotten: list[Claimed] = []
    for row in _rows(unit, list(unknown)):
        job_id, token, nonce, started_at = unknown[row.seq]
        forgotten.append(_claimed(row, Lease(job_id, token, nonce), row.attempts, from_ms(started_at)))
    return forgotten
