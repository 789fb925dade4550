"""The operations on a job's feed: progress, log lines and streamed output, in order and resumable."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from oncue.engines.sqlite import states
from oncue.engines.sqlite.clock import from_ms
from oncue.engines.sqlite.finish import holds
from oncue.engines.sqlite.moves import rows_by_ids
from oncue.engines.sqlite.statements import load
from oncue.engines.sqlite.unit import Unit
from oncue.job import FeedItem, FeedKind, Lease

__all__ = ["AppendRequest", "ReadRequest", "append", "read"]

_sql = load("feed.sql")
_LIMIT = 10_000


@dataclass(frozen=True, slots=True)
class AppendRequest:
    """The arguments of `Engine.append`."""

    lease: Lease
    items: tuple[FeedItem, ...]


@dataclass(frozen=True, slots=True)
class ReadRequest:
    """The arguments of `Engine.read`."""

    job_id: str
    after: tuple[int, int]
    limit: int


def append(unit: Unit, requests: Sequence[AppendRequest]) -> list[bool]:
    """Add to feeds; see `Engine.append`."""
    rows = rows_by_ids(unit, {request.lease.job_id for request in requests})
    answers: list[bool] = []
    for request in requests:
        lease = request.lease
        row = rows.get(lease.job_id)
        if row is None or row.state != states.RUNNING or not holds(row, lease):
            if row is not None:
                unit.measure(row.queue, row.task, "fenced")
            answers.append(False)
            continue
        answers.append(True)
        if not request.items:
            continue
        _store(unit, row.seq, lease.token, request.items)
        unit.moved.append(row.id)
    return answers


def _store(unit: Unit, seq: int, token: int, items: Sequence[FeedItem]) -> None:
    progress = [item for item in items if item.kind is FeedKind.PROGRESS]
    others = [item for item in items if item.kind is not FeedKind.PROGRESS]
    latest = progress[-1] if progress else None
    if latest is not None:
        (known,) = unit.conn.execute(_sql.newest_progress, (seq, token)).fetchone()
        # A resent report must not take the place of one that came after it.
        if known is None or latest.ordinal > known:
            others.append(latest)
            unit.conn.execute(_sql.set_progress, (latest.body, seq))
    unit.change(_sql.append, [(seq, item.token, item.ordinal, unit.now, item.kind.value, item.body) for item in others])
    if latest is not None:
        unit.conn.execute(_sql.drop_older_progress, (seq, latest.token, latest.ordinal))
    newest = items[-1].ordinal
    if newest > _LIMIT:
        unit.conn.execute(_sql.trim, (seq, token, newest - _LIMIT))


def read(unit: Unit, requests: Sequence[ReadRequest]) -> list[list[FeedItem]]:
    """Read feeds; see `Engine.read`."""
    return [
        [
            FeedItem(token, ordinal, FeedKind(kind), body, from_ms(at))
            for token, ordinal, kind, body, at in unit.conn.execute(
                _sql.read, (request.job_id, *request.after, request.limit)
            )
        ]
        for request in requests
    ]
