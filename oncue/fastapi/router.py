"""The routes of jobs: status, result, events, cancel.

They name jobs by id alone. No route starts one, and none answers with what a job was called with.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from typing import Annotated, Any, Final, Literal

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.params import Depends
from sse_starlette import EventSourceResponse, ServerSentEvent

from oncue.app import Oncue
from oncue.engine import CancelAnswer
from oncue.errors import ConfigError
from oncue.fastapi.dependencies import JobsDep
from oncue.fastapi.models import JobStatus, job_status, last_error
from oncue.fastapi.problems import RETRY_AFTER, RETRY_AFTER_HEADER, ProblemError, documented, problem_route
from oncue.fastapi.runtime import Runtime
from oncue.job import JobInfo, State, check_id

__all__ = ["OncueRouter", "oncue_router"]

_NO_STORE: Final = {"Cache-Control": "no-store"}

JobId = Annotated[str, Path(description="The job's id.")]
Wait = Annotated[
    float, Query(ge=0, le=60, description="Seconds to wait for the job to end before answering, up to 60.")
]


class OncueRouter(APIRouter):
    """The routes of one application's jobs; made by `oncue_router`.

    Attributes:
        jobs: whose jobs.
    """

    def __init__(self, jobs: Oncue, runtime: Runtime, **options: Any) -> None:
        super().__init__(**options)
        self.jobs = jobs
        self._runtime = runtime

    @property
    def ready(self) -> bool:
        """Whether the store is open and the embedded worker, if there is one, takes jobs: for a readiness probe."""
        return self._runtime.ready


def oncue_router(
    jobs: Oncue,
    *,
    worker: Literal["embedded"] | None = None,
    dependencies: Sequence[Depends] = (),
    tags: Sequence[str] = ("jobs",),
) -> OncueRouter:
    """Return the routes of `jobs`, for `app.include_router(…, prefix="/jobs")`; its lifespan opens the store.

    Args:
        worker: `"embedded"` runs the jobs in this very process, with the settings of `jobs`: for development and small
            applications. None leaves that to `oncue worker` processes.
        dependencies: guard every route, for example `[Depends(require_user)]`.
        tags: of the routes in the OpenAPI document.
    """
    if worker not in (None, "embedded"):
        raise ConfigError(f"worker must be 'embedded' or None, for example worker='embedded'; not {worker!r:.80}")
    runtime = Runtime(jobs, embedded=worker == "embedded")

    def explain() -> str | None:
        if runtime.started:
            return None
        return (
            "This application's job store is not open, because the lifespan of its jobs router has not run: include "
            "the router in the application that is served, or give it lifespan=router.lifespan_context."
        )

    router = OncueRouter(
        jobs,
        runtime,
        dependencies=list(dependencies),
        tags=list(tags),
        lifespan=runtime.lifespan,
        route_class=problem_route(jobs, explain),
    )
    _add_routes(router)
    return router


def _base(request: Request, suffix: str) -> str:
    path: str = request.scope["path"]
    return path.removesuffix(suffix).rpartition("/")[0]


async def _info(jobs: Oncue, job_id: str, wait: float) -> JobInfo:
    check_id(job_id)
    return await jobs.client.wait(job_id, wait)


def _add_routes(router: APIRouter) -> None:
    @router.get("/{job_id}", responses=documented(404, 422, 503))
    async def read_job(job_id: JobId, jobs: JobsDep, request: Request, response: Response, wait: Wait = 0) -> JobStatus:
        """Tell what a job is at; with `wait`, as soon as it has ended or the time is up."""
        info = await _info(jobs, job_id, wait)
        response.headers.update(_NO_STORE)
        return job_status(jobs.client, info, _base(request, ""))

    @router.get(
        "/{job_id}/result",
        response_class=Response,
        responses={
            200: {"description": "What the job returned.", "content": {"application/json": {"schema": {}}}},
            202: {
                "description": "The job has not ended yet.",
                "model": JobStatus,
                "headers": RETRY_AFTER_HEADER,
            },
            **documented(404, 409, 422, 503, status_409="The job failed or was cancelled: there is no result."),
        },
    )
    async def read_result(job_id: JobId, jobs: JobsDep, request: Request, wait: Wait = 0) -> Response:
        """Return the result of a job that has completed; with `wait`, as soon as it has, or the time is up."""
        info = await _info(jobs, job_id, wait)
        if info.state is State.COMPLETED:
            stored = (await jobs.client.info(job_id, bodies=True)).result
            body = b"null" if stored is None else jobs.client.envelope.open(stored)
            return Response(body, headers=_NO_STORE, media_type="application/json")
        status = job_status(jobs.client, info, _base(request, "/result"))
        if not info.state.final:
            return Response(
                status.model_dump_json(), 202, headers={**_NO_STORE, **RETRY_AFTER}, media_type="application/json"
            )
        raise _no_result(info)

    @router.get(
        "/{job_id}/events",
        response_class=EventSourceResponse,
        responses=documented(404, 422, 503),
    )
    async def follow_job(
        job_id: JobId,
        jobs: JobsDep,
        after: Annotated[str | None, Query(description="Id of the last event seen.")] = None,
        last_event_id: Annotated[str | None, Header(description="The same, as browsers send it.")] = None,
    ) -> Response:
        """Stream what happens to a job, from its first known state to its last, as server-sent events."""
        await _info(jobs, job_id, 0)
        events = jobs.job(job_id).events(last_event_id or after)

        async def frames() -> AsyncIterator[ServerSentEvent]:
            async for event in events:
                yield ServerSentEvent(json.dumps(event.data), event=event.kind, id=event.id)

        return EventSourceResponse(frames(), ping=15)

    async def cancel_job(job_id: JobId, jobs: JobsDep, request: Request, response: Response) -> JobStatus:
        """Cancel a job: at once if it is not running, else its worker stops it within a second or so."""
        check_id(job_id)
        answer = await jobs.client.cancel(job_id)
        info = await jobs.client.info(job_id)
        if answer is CancelAnswer.FINISHED:
            raise ProblemError(409, "job-ended", f"Job {job_id} has already ended: it is {info.state}.")
        response.status_code = 202 if answer is CancelAnswer.REQUESTED else 200
        response.headers.update(_NO_STORE)
        return job_status(jobs.client, info, _base(request, "/cancel" if request.method == "POST" else ""))

    cancelling: dict[int | str, dict[str, Any]] = {
        200: {"description": "The job is cancelled."},
        202: {"description": "The job is running; its worker was asked to stop it.", "model": JobStatus},
        **documented(404, 409, 422, 503, status_409="The job had already ended."),
    }
    router.post("/{job_id}/cancel", responses=cancelling)(cancel_job)
    router.delete("/{job_id}", responses=cancelling, name="delete_job")(cancel_job)


def _no_result(info: JobInfo) -> ProblemError:
    error = last_error(info)
    why = "" if info.reason is None else f" ({info.reason})"
    return ProblemError(
        409,
        f"job-{info.state}",
        f"Job {info.id} has no result: it {'failed' if info.state is State.FAILED else 'was cancelled'}{why}"
        + (f": {info.error}" if info.error else "."),
        job_id=info.id,
        state=info.state,
        reason=info.reason,
        error=None if error is None else error.model_dump(),
    )
