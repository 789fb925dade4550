"""What the routes ask of the jobs: the one place of the demo that reads them, and puts
what the store knows into the words of the pages and of arq.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import anyio
from fastapi.encoders import jsonable_encoder

from oncue import Oncue, State
from oncue.demo.batches import Batch, Row, Snapshot, arq_status
from oncue.demo.images import ImageReport
from oncue.demo.tasks import DemoTasks, hard_number
from oncue.demo.uploads import Uploads
from oncue.engine import topic_job
from oncue.errors import JobNotFound
from oncue.job import FeedKind, JobInfo, Reason

__all__ = ["AttemptView", "Desk", "ProgressView"]

PACE: Final = 0.1
"""Seconds between two looks at a batch: more often nobody can see."""
PATIENCE: Final = 1.0
"""Seconds until a batch is looked at again though nothing was heard of it."""


@dataclass(frozen=True)
class ProgressView:
    """How far a job is."""

    done: float
    total: float | None
    message: str | None


@dataclass(frozen=True)
class AttemptView:
    """One attempt of a job as a page tells it; `wait` is the seconds until the next one."""

    title: str
    outcome: str
    at: datetime | None
    words: str
    wait: float | None = None


@dataclass(frozen=True)
class Desk:
    """The jobs of the demo, its tasks and its uploads."""

    jobs: Oncue
    tasks: DemoTasks
    uploads: Uploads

    async def start_batch(self, count: int) -> Batch:
        """Start a batch of small tasks, all of them in one step."""
        batch = Batch.new(count)
        requests = [self.tasks.factorise.options(id=job_id).request(hard_number()) for job_id in batch.job_ids()]
        await self.jobs.enqueue_many(requests)
        return batch

    async def find(self, job_id: str, *, task: str | None = None) -> JobInfo:
        """Read a job with its arguments and its result. Raises `JobNotFound`, also if it is not of that task."""
        [info] = await self.jobs.client.infos([job_id], bodies=True)
        if info is None or (task is not None and info.task != task):
            raise JobNotFound(job_id)
        return info

    def arguments(self, info: JobInfo) -> tuple[list[Any], dict[str, Any]]:
        """Return what a job was called with, as JSON values: by position, by name."""
        spec = self.jobs.registry.find(info.task)
        if spec is None or info.payload is None:
            return [], {}
        args, kwargs = spec.signature.decode(info.payload)
        return jsonable_encoder(list(args)), jsonable_encoder(dict(kwargs))

    def result(self, info: JobInfo) -> Any:
        """Return what a job gave as a JSON value; None if it gave nothing, or not yet."""
        return None if info.result is None else self.jobs.client.read_json(info.result)

    def row(self, job_id: str, info: JobInfo | None) -> Row:
        """Return what a table shows of a job."""
        result = None if info is None else self.result(info)
        if info is not None and info.state in (State.FAILED, State.CANCELLED):
            result = f"{info.state}: {info.error or info.reason}"
        return Row(job_id, arq_status(info), result)

    async def rows(self, job_ids: list[str]) -> list[Row]:
        """Read many jobs at once."""
        infos = await self.jobs.client.infos(job_ids, bodies=True)
        return [self.row(job_id, info) for job_id, info in zip(job_ids, infos, strict=True)]

    async def snapshot(self, batch: Batch) -> Snapshot:
        """Read a batch as it is now."""
        return Snapshot(batch.id, await self.rows(batch.job_ids()))

    async def changes(self, batch: Batch) -> AsyncIterator[tuple[Snapshot, list[Row]]]:
        """Yield a batch as it is, then whenever it changed, with the rows that did; end when all its jobs have."""
        known: dict[str, Row] = {}
        hints = self.jobs.engine.subscribe(*(topic_job(job_id) for job_id in batch.job_ids()))
        try:
            while True:
                snapshot = await self.snapshot(batch)
                changed = [row for row in snapshot.rows if known.get(row.job_id) != row]
                if changed:
                    known.update((row.job_id, row) for row in changed)
                    yield snapshot, changed
                if snapshot.ended:
                    return
                await anyio.sleep(PACE)
                await hints.wait(PATIENCE)
        finally:
            hints.close()

    def progress(self, info: JobInfo) -> ProgressView:
        """Return how far a job says it is."""
        if info.progress is None:
            return ProgressView(0, None, None)
        return ProgressView(**self.jobs.client.read_json(info.progress))

    async def report(self, info: JobInfo) -> ImageReport | None:
        """Return what came of a picture; None if nothing did, or not yet."""
        if info.state is not State.COMPLETED:
            return None
        report = await self.jobs.job(info.id).result(timeout=0)
        assert isinstance(report, ImageReport)
        return report

    async def complaint(self, info: JobInfo) -> str | None:
        """Return in a sentence why a job has failed; None if it has not."""
        if info.state is State.CANCELLED:
            return "It was cancelled."
        if info.state is not State.FAILED:
            return None
        if info.reason is Reason.GAVE_UP:  # the task said why, in its own words
            attempts = await self.jobs.engine.attempts(info.id)
            if attempts and attempts[-1].failure:
                return attempts[-1].failure.message
        if info.reason is Reason.TIMEOUT:
            return "It took too long and was stopped."
        return f"The work on it failed ({info.reason}): {info.error or 'the log of the server says more'}"

    async def attempts(self, info: JobInfo) -> list[AttemptView]:
        """Return the attempts of a job in order, the one under way or just done last."""
        views = []
        for attempt in await self.jobs.engine.attempts(info.id):
            failure = attempt.failure
            words = f"{failure.type}: {failure.message}." if failure else f"It ended {attempt.outcome}."
            views.append(AttemptView(f"Attempt {attempt.number}", "failed", attempt.started_at, words))
        if info.state is State.RETRYING and views:
            wait = max(0.0, (info.due_at - datetime.now(UTC)).total_seconds())
            last = views.pop()
            views.append(AttemptView(last.title, last.outcome, last.at, last.words, round(wait, 2)))
        elif info.state is State.RUNNING:
            views.append(AttemptView(f"Attempt {info.attempts}", "running", info.started_at, "Asking the service…"))
        elif info.state is State.COMPLETED:
            views.append(AttemptView(f"Attempt {info.attempts}", "completed", info.started_at, "It worked."))
        elif info.state is State.QUEUED:
            views.append(AttemptView(f"Attempt {info.attempts + 1}", "queued", None, "Waiting in line."))
        return views

    async def streamed(self, job_id: str) -> list[Any]:
        """Return what a job has yielded so far."""
        items: list[Any] = []
        cursor = None
        while found := await self.jobs.engine.read(job_id, after=cursor):
            items += [self.jobs.client.read_json(item.body) for item in found if item.kind == FeedKind.STREAM]
            cursor = found[-1].cursor
        return items
