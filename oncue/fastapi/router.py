"""The routes of jobs: status, result, events, cancel.

They name jobs by id alone. No route starts one, and none answers with what a job was called with. An id of the caller's
own making that has a slash in it cannot be asked for: servers decode paths before they are matched.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final, Literal
from urllib.parse import quote

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.params import Depends

from oncue.app import Oncue
from oncue.engine import CancelAnswer
from oncue.errors import ConfigError, PayloadError
from oncue.fastapi.dependencies import JobsDep
from oncue.fastapi.models import JobStatus, job_status, last_error
from oncue.fastapi.problems import RETRY_AFTER, RETRY_AFTER_SCHEMA, ProblemError, documented, problem, problem_route
from oncue.fastapi.runtime import Runtime
from oncue.fastapi.stream import JobStream, Seats
from oncue.fastapi.watch import BEGINNING, Position
from oncue.job import FeedKind, JobInfo, State, check_id

__all__ = ["OncueRouter", "oncue_router"]

_JSON: Final = "application/json"
_NO_STORE: Final = {"Cache-Control": "no-store"}

_JobId = Annotated[str, Path(description="The job's id.")]
_Wait = Annotated[
    float, Query(ge=0, le=60, allow_inf_nan=False, description="Seconds to wait for the job to end, up to 60.")
]


class OncueRouter(APIRouter):
    """The routes of one application's jobs, with what starts and stops with the server; made by `oncue_router`.

    Its `lifespan_context` runs by itself in the application that includes it. In one that is mounted in another it does
    not, as no mounted application's does: give it to the outer one, `FastAPI(lifespan=router.lifespan_context)`.

    Attributes:
        jobs: whose jobs.
    """

    def __init__(self, runtime: Runtime, **options: Any) -> None:
        super().__init__(lifespan=runtime.lifespan, **options)
        self.jobs = runtime.jobs
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
    max_streams: int = 200,
) -> OncueRouter:
    """Return the routes of `jobs`, for `app.include_router(…, prefix="/jobs")`; with it, the store opens and closes.

    Args:
        worker: `"embedded"` runs the jobs in this very process, with the settings of `jobs`: for development and small
            applications. None leaves that to processes of their own, `oncue worker`.
        dependencies: guard every route, for example `[Depends(require_user)]`. There is no guard otherwise: a job's id,
            which cannot be guessed, is all that it takes to see its result and to cancel it.
        tags: of the routes in the OpenAPI document.
        max_streams: how many clients may follow events at once; another one is told to come back later.

    Raises:
        ConfigError: an option cannot be.
    """
    if worker not in (None, "embedded"):
        raise ConfigError(f"worker must be 'embedded' or None, for example worker='embedded'; not {worker!r:.80}")
    if isinstance(max_streams, bool) or not isinstance(max_streams, int) or max_streams < 1:
        raise ConfigError(f"max_streams must be at least 1, for example 200; not {max_streams!r:.80}")
    runtime = Runtime(jobs, embedded=worker == "embedded")
    router = OncueRouter(
        runtime, dependencies=list(dependencies), tags=list(tags), route_class=problem_route(jobs, runtime.trouble)
    )
    _add_status(router, runtime)
    _add_result(router, runtime)
    _add_events(router, runtime, Seats(max_streams))
    _add_cancel(router)
    return router


def _add_status(router: APIRouter, runtime: Runtime) -> None:
    @router.get("/{job_id}", responses=documented({404: _UNKNOWN, 422: _INVALID, 503: _AWAY}))
    async def read_job(
        job_id: _JobId, jobs: JobsDep, request: Request, response: Response, wait: _Wait = 0
    ) -> JobStatus:
        """Tell what a job is at; with `wait`, as soon as it has ended or the time is up."""
        info = await runtime.watches.wait(jobs.client, check_id(job_id), wait)
        response.headers.update(_NO_STORE)
        return job_status(jobs.client, info, _base(request))


def _add_result(router: APIRouter, runtime: Runtime) -> None:
    responses: dict[int | str, dict[str, Any]] = {
        200: {"description": "What the job returned.", "content": {_JSON: {"schema": {}}}},
        202: {
            "description": "The job has not ended yet; this is what it is at.",
            "model": JobStatus,
            "headers": RETRY_AFTER_SCHEMA,
        },
        **documented(
            {
                404: _UNKNOWN,
                409: "There is no result: the job failed or was cancelled.",
                422: _INVALID,
                500: "The stored result cannot be read: it was written with another serializer.",
                503: _AWAY,
            }
        ),
    }

    @router.get("/{job_id}/result", response_class=Response, responses=responses)
    async def read_result(job_id: _JobId, jobs: JobsDep, request: Request, wait: _Wait = 0) -> Response:
        """Return the result of a job that has completed; with `wait`, as soon as it has, or the time is up."""
        info = await runtime.watches.wait(jobs.client, check_id(job_id), wait)
        if info.state is State.COMPLETED:
            return Response(await _result(jobs, job_id), headers=_NO_STORE, media_type=_JSON)
        if info.state.final:
            raise _no_result(info)
        status = job_status(jobs.client, info, _base(request, "/result"))
        return Response(status.model_dump_json(), 202, headers={**_NO_STORE, **RETRY_AFTER}, media_type=_JSON)


async def _result(jobs: Oncue, job_id: str) -> bytes:
    """Return the JSON of a completed job's result."""
    stored = (await jobs.client.info(job_id, bodies=True)).result
    if stored is None:
        return b"null"
    try:
        return jobs.client.envelope.open(stored)
    except PayloadError as error:
        raise ProblemError(500, "unreadable-result", f"The result of job {job_id} cannot be read: {error}.") from error


def _no_result(info: JobInfo) -> ProblemError:
    error = last_error(info)
    what = "failed" if info.state is State.FAILED else "was cancelled"
    why = f": {info.error}" if info.error else "" if info.reason is None else f" ({info.reason})"
    return ProblemError(
        409,
        f"job-{info.state}",
        f"Job {info.id} has no result: it {what}{why}.",
        job_id=info.id,
        state=info.state,
        reason=info.reason,
        error=None if error is None else error.model_dump(),
    )


def _add_events(router: APIRouter, runtime: Runtime, seats: Seats) -> None:
    responses: dict[int | str, dict[str, Any]] = {
        200: {
            "description": _EVENTS,
            "content": {"text/event-stream": {"schema": _EVENT}},
        },
        204: {"description": "Nothing follows the last event seen, nor will: browsers stop asking."},
        **documented({404: _UNKNOWN, 422: _INVALID, 503: f"{_AWAY} Or too many clients follow events."}),
    }

    @router.get("/{job_id}/events", response_class=Response, responses=responses)
    async def follow_job(
        job_id: _JobId,
        jobs: JobsDep,
        request: Request,
        after: Annotated[str | None, Query(description="Go on behind the event with this id.")] = None,
        last_event_id: Annotated[str | None, Header(description="The same, as browsers send it; it wins.")] = None,
    ) -> Response:
        """Stream what happens to a job, from its first known state to its last.

        What a job streams and logs comes exactly once, also over several connections, if each names the last event
        seen. Of progress and states only the latest is certain to come.
        """
        position = _position(last_event_id or after)
        info = await jobs.client.info(check_id(job_id))
        if info.state.final and position.revision == info.revision:
            return Response(status_code=204, headers=_NO_STORE)
        full = problem(request, 503, "too-many-streams", "Too many clients follow events; try again.", RETRY_AFTER)
        return JobStream(runtime.watches.events(jobs.client, job_id, position), seats, full)


def _position(event_id: str | None) -> Position:
    try:
        return Position.parse(event_id) if event_id else BEGINNING
    except ValueError as error:
        raise ProblemError(422, "invalid-event-id", f"{error}.") from None


def _add_cancel(router: APIRouter) -> None:
    responses: dict[int | str, dict[str, Any]] = {
        200: {"description": "The job is cancelled."},
        202: {
            "description": "The job is running, and its worker was asked to stop it.",
            "model": JobStatus,
            "headers": RETRY_AFTER_SCHEMA,
        },
        **documented({404: _UNKNOWN, 409: "The job has completed or failed before.", 422: _INVALID, 503: _AWAY}),
    }

    async def cancel(job_id: str, jobs: Oncue, response: Response, base: str) -> JobStatus:
        answer = await jobs.client.cancel(check_id(job_id))
        info = await jobs.client.info(job_id)
        if answer is CancelAnswer.FINISHED:
            raise ProblemError(
                409, "job-ended", f"Job {job_id} cannot be cancelled any more: it is {info.state}.", state=info.state
            )
        response.headers.update(_NO_STORE)
        if answer is CancelAnswer.REQUESTED:
            response.status_code = 202
            response.headers.update(RETRY_AFTER)
        return job_status(jobs.client, info, base)

    @router.post("/{job_id}/cancel", responses=responses)
    async def cancel_job(job_id: _JobId, jobs: JobsDep, request: Request, response: Response) -> JobStatus:
        """Cancel a job: at once if it is not running, else its worker stops it within a second or so."""
        return await cancel(job_id, jobs, response, _base(request, "/cancel"))

    @router.delete("/{job_id}", responses=responses)
    async def delete_job(job_id: _JobId, jobs: JobsDep, request: Request, response: Response) -> JobStatus:
        """Cancel a job, as `POST …/cancel` does; what is known of it stays until its retention has passed."""
        return await cancel(job_id, jobs, response, _base(request))


def _base(request: Request, suffix: str = "") -> str:
    """Return the path at which the router is, as clients see it, from that of a route with a job's id and a suffix."""
    path, root = request.scope["path"], request.scope.get("root_path", "")
    if not path.startswith(root):
        path = root + path  # a proxy in front has taken it off
    return quote(path.removesuffix(suffix).rpartition("/")[0])


_EVENTS: Final = (
    "Server-sent events; the schema is that of each. The data of `status` is an object with `state`, `reason`, "
    "`attempt`, `max_attempts`, `error`, `due_at` and `cancel_requested`; that of `progress` one with `done`, `total` "
    "and `message`; that of `log` one with `level` and `message`; that of `stream` is what the job yielded."
)
_EVENT: Final = {
    "type": "object",
    "required": ["id", "event", "data"],
    "properties": {
        "id": {"type": "string", "description": "What to go on behind."},
        "event": {"type": "string", "enum": ["status", *(kind.value for kind in FeedKind)]},
        "data": {"type": "string", "contentMediaType": "application/json"},
        "retry": {"type": "integer", "minimum": 0},
    },
}
_UNKNOWN: Final = "The store has no job of that id, or not any more."
_INVALID: Final = "The request cannot be understood."
_AWAY: Final = "The job store does not answer."
