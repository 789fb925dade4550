"""The operations that only read: jobs, attempts, lists, queues, workers, metrics."""

from __future__ import annotations

import heapq
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby, islice
from typing import Any

from oncue.engine import JobFilter, MetricsRow, QueueInfo, WorkerInfo
from oncue.engines.sqlite.clock import from_ms
from oncue.engines.sqlite.statements import load
from oncue.engines.sqlite.unit import Unit
from oncue.job import NO_META, Attempt, Failure, JobInfo, Reason, State

__all__ = ["ListRequest", "attempts", "get", "list_jobs", "metrics", "queues", "workers"]

_sql = load("reads.sql")
_HOUR = 3_600_000

Page = tuple[list[JobInfo], str | None]


@dataclass(frozen=True, slots=True)
class ListRequest:
    """The arguments of `Engine.list_jobs`; `before` is the position behind which the page begins."""

    where: JobFilter
    limit: int
    before: int


def _when(ms: int | None) -> datetime | None:
    return None if ms is None else from_ms(ms)


def _info(row: Sequence[Any]) -> JobInfo:
    """Make a JobInfo from the columns of reads.sql, with or without the two bodies behind them."""
    return JobInfo(
        id=row[0],
        task=row[1],
        queue=row[2],
        state=State(row[3]),
        reason=None if row[4] is None else Reason(row[4]),
        priority=row[5],
        created_at=from_ms(row[6]),
        due_at=from_ms(row[7]),
        expires_at=_when(row[8]),
        started_at=_when(row[9]),
        finished_at=_when(row[10]),
        attempts=row[11],
        crashes=row[12],
        max_attempts=row[13],
        max_crashes=row[14],
        timeout=None if row[15] is None else row[15] / 1000,
        worker=row[16],
        cancel_requested=bool(row[17]),
        waiting_for=row[18],
        unique_key=row[19],
        error=row[20],
        progress=row[21],
        meta=json.loads(row[22]) if row[22] else NO_META,
        revision=row[23],
        payload=row[24] if len(row) > 24 else None,
        result=row[25] if len(row) > 24 else None,
    )


def get(unit: Unit, requests: Sequence[tuple[str, bool]]) -> list[JobInfo | None]:
    """Read jobs by id; see `Engine.get`. A request is an id and whether its bodies are wanted."""
    found: dict[tuple[str, bool], JobInfo] = {}
    for bodies in (False, True):
        ids = [job_id for job_id, wants_bodies in requests if wants_bodies is bodies]
        if ids:
            query = _sql.get_with_bodies if bodies else _sql.get
            for row in unit.conn.execute(query, (json.dumps(ids),)):
                found[row[0], bodies] = _info(row)
    return [found.get(request) for request in requests]


def attempts(unit: Unit, ids: Sequence[str]) -> list[list[Attempt]]:
    """Read the attempts of jobs; see `Engine.attempts`."""
    return [
        [
            Attempt(
                token,
                number,
                worker,
                from_ms(started_at),
                from_ms(finished_at),
                outcome,
                None if type_ is None else Failure(type_, message, traceback),
            )
            for token, number, worker, started_at, finished_at, outcome, type_, message, traceback in (
                unit.conn.execute(_sql.attempts, (job_id,))
            )
        ]
        for job_id in ids
    ]


def list_jobs(unit: Unit, requests: Sequence[ListRequest]) -> list[Page]:
    """Read pages of jobs; see `Engine.list_jobs`."""
    return [_page(unit, request) for request in requests]


def _page(unit: Unit, request: ListRequest) -> Page:
    where, limit = request.where, request.limit + 1  # one more tells whether there is a next page
    if where == JobFilter():
        found = [seq for (seq,) in unit.conn.execute(_sql.newest, (request.before, limit))]
    else:
        groups = unit.conn.execute(_sql.groups, {"queue": where.queue, "task": where.task}).fetchall()
        lines = [
            unit.conn.execute(_sql.newest_of_group, (*group, request.before, limit))
            for group in groups
            if not where.states or group[0] in where.states
        ]
        found = [seq for (seq,) in islice(heapq.merge(*lines, reverse=True), limit)]
    page = found[: request.limit]
    cursor = str(page[-1]) if len(found) > request.limit else None
    return [_info(row) for row in unit.conn.execute(_sql.page, (json.dumps(page),))], cursor


def queues(unit: Unit, requests: Sequence[None]) -> list[list[QueueInfo]]:
    """Read the queues; see `Engine.queues`."""
    counts: dict[str, dict[State, int]] = {}
    for queue, state, n in unit.conn.execute(_sql.queue_counts):
        counts.setdefault(queue, {})[State(state)] = n
    paused = {name: bool(flag) for name, flag in unit.conn.execute(_sql.queue_flags)}
    names = sorted(counts.keys() | {name for name, flag in paused.items() if flag})
    answer = []
    for name in names:
        head = unit.conn.execute(_sql.head, (name,)).fetchone()
        age = None if head is None else max(unit.now - head[0], 0) / 1000
        answer.append(QueueInfo(name, paused.get(name, False), counts.get(name, {}), age))
    return [answer for _ in requests]


def workers(unit: Unit, requests: Sequence[None]) -> list[list[WorkerInfo]]:
    """Read the workers; see `Engine.workers`."""
    found = []
    for _, info, seen_at, expires in unit.conn.execute(_sql.workers, (unit.now - _HOUR,)):
        fields = json.loads(info)
        started_at = fields["started_at"]
        fields |= {
            "queues": tuple(fields["queues"]),
            "tasks": tuple(fields["tasks"]),
            "started_at": datetime.fromisoformat(started_at) if started_at else None,
        }
        found.append(replace(WorkerInfo(**fields), seen_at=from_ms(seen_at), alive=unit.steady < expires))
    oldest = datetime.fromtimestamp(0).astimezone()
    found.sort(key=lambda worker: (worker.started_at or oldest, worker.id))
    return [found for _ in requests]


def metrics(unit: Unit, requests: Sequence[int]) -> list[list[MetricsRow]]:
    """Read the metrics of the last so many milliseconds; see `Engine.metrics`."""
    answers = []
    for since_ms in requests:
        found = unit.conn.execute(_sql.metrics, (unit.now - since_ms,)).fetchall()
        rows = []
        for (minute, queue, task), cells in groupby(found, key=lambda cell: cell[:3]):
            row = MetricsRow(from_ms(minute), queue, task)
            histograms = {"wait": row.wait, "run": row.run}
            for *_, kind, bucket, n in cells:
                histograms.get(kind, row.counts)[bucket if kind in histograms else kind] = n
            rows.append(row)
        answers.append(rows)
    return answers
