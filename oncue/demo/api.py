"""The JSON side of the demo: small tasks, uploads, and any job by its id.

Statuses here are arq's words (deferred, queued, in_progress, complete, not_found), and no route waits for a job. The
router of `oncue.fastapi`, which has Oncue's own words, progress and events, stands beside it at /api/jobs.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import asdict
from typing import Annotated, Any, Final

from fastapi import APIRouter, HTTPException, Query, Request, Response
from pydantic import BaseModel, Field
from sse_starlette import EventSourceResponse
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect
from starlette.responses import FileResponse, JSONResponse, RedirectResponse

from oncue.demo.batches import MOST, Batch
from oncue.demo.decoding import BrokenImage, TooManyPixels, UnknownFormat, inspect
from oncue.demo.desk import Desk
from oncue.demo.pages import upload_page
from oncue.demo.problems import hung_up, problem, wants_html
from oncue.demo.uploads import NoFile, UploadTooLarge, receive
from oncue.errors import JobNotFound

__all__ = ["routes"]

MEDIA_TYPES: Final = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp"}
STATUS_OF: Final[dict[type[Exception], int]] = {
    NoFile: 422,
    UploadTooLarge: 413,
    UnknownFormat: 415,
    TooManyPixels: 422,
    BrokenImage: 422,
}
Number = Annotated[int, Query(ge=-(10**12), le=10**12)]


class Order(BaseModel):
    """How many tasks to start."""

    count: Annotated[int, Field(strict=True, ge=1, le=MOST)]


class Started(BaseModel):
    """The tasks that were started, in order."""

    queued: int
    task_ids: list[str]


class TaskStatus(BaseModel):
    """What a task is at, in arq's words."""

    job_id: str
    status: str
    result: Any


class JobStarted(BaseModel):
    """The job that was started."""

    job_id: str


class JobDescription(BaseModel):
    """A job with what it was called with, in arq's words."""

    id: str
    status: str
    name: str
    args: list[Any]
    kwargs: dict[str, Any]
    result: Any


def routes(desk: Desk) -> APIRouter:
    """Return the JSON routes."""
    router = APIRouter()

    @router.post("/task", status_code=201)
    async def start_tasks(order: Order, response: Response) -> Started:
        """Start small tasks; `Location` is the page on which they can be watched."""
        batch = await desk.start_batch(order.count)
        response.headers["Location"] = f"/?batch={batch.id}"
        return Started(queued=batch.count, task_ids=batch.job_ids())

    @router.get("/task/{job_id}")
    async def task_status(job_id: str) -> TaskStatus:
        """Tell at once what a task is at; one that is not there is `not_found`."""
        [row] = await desk.rows([job_id])
        return TaskStatus(**asdict(row))

    @router.get("/batches/{batch_id}/events")
    async def batch_events(batch_id: str) -> Response:
        """Stream what changes in a batch, from what it is now until all its jobs have ended."""
        batch = _batch(batch_id)

        async def events() -> AsyncIterator[dict[str, Any]]:
            async for snapshot, changed in desk.changes(batch):
                data = {
                    "done": snapshot.done,
                    "total": snapshot.total,
                    "summary": snapshot.summary,
                    "ended": snapshot.ended,
                    "rows": [asdict(row) for row in changed],
                }
                yield {"event": "rows", "data": json.dumps(data), "retry": 1000}

        return EventSourceResponse(events())

    @router.post("/upload-image/", status_code=202, response_model=JobStarted, openapi_extra=UPLOAD_BODY)
    async def upload_image(request: Request) -> Response:
        """Take a picture and start the work on it; `Location` is where its status is.

        A browser that sends the form gets the picture's page. What can be seen from the file's head is refused here; a
        picture that proves damaged while it is decoded makes its job fail.
        """
        try:
            job_id = await _start_picture(desk, request)
        except tuple(STATUS_OF) as error:
            status = STATUS_OF[type(error)]
            if wants_html(request.headers):
                return hung_up(upload_page(problem=str(error), status=status))
            return problem(request.scope, status, str(error))
        except ClientDisconnect:
            return Response(status_code=400)  # nobody reads it
        if wants_html(request.headers):
            return RedirectResponse(f"/images/{job_id}", 303)
        return JSONResponse({"job_id": job_id}, 202, headers={"Location": f"/api/jobs/{job_id}"})

    @router.get("/images/{job_id}/files/{name}")
    async def image_file(job_id: str, name: str) -> Response:
        """Return one of the files that a job has made."""
        try:
            path = desk.uploads.version(job_id, name)
        except LookupError as error:
            raise HTTPException(404, f"There is no such picture: {error}.") from None
        kind = MEDIA_TYPES[path.suffix[1:]]
        return FileResponse(path, media_type=kind, headers={"Cache-Control": "private, max-age=3600"})

    @router.post("/jobs")
    async def start_sum(a: Number, b: Number) -> JobStarted:
        """Start a job that adds two numbers."""
        job = await desk.tasks.add.enqueue(a, b)
        return JobStarted(job_id=job.id)

    @router.get("/jobs/{job_id}")
    async def describe_job(job_id: str) -> JobDescription:
        """Tell what is known of any job of the demo."""
        try:
            info = await desk.find(job_id)
        except JobNotFound as error:
            raise HTTPException(404, str(error)) from None
        args, kwargs = desk.arguments(info)
        row = desk.row(job_id, info)
        return JobDescription(
            id=info.id, status=row.status, name=info.task, args=args, kwargs=kwargs, result=row.result
        )

    return router


async def _start_picture(desk: Desk, request: Request) -> str:
    received = await receive(request, desk.uploads)
    try:
        await run_in_threadpool(inspect, desk.uploads.original(received.key))
        job = await desk.tasks.work_on_image.enqueue(received.key, received.name)
    except BaseException:
        desk.uploads.discard(received.key)
        raise
    return str(job.id)


def _batch(batch_id: str) -> Batch:
    try:
        return Batch.parse(batch_id)
    except LookupError as error:
        raise HTTPException(404, f"There is no such batch: {error}.") from None


UPLOAD_BODY: Final[dict[str, Any]] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            }
        },
    }
}
