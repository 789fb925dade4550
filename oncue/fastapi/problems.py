"""Errors as answers: `application/problem+json` (RFC 9457), whose `detail` says what to do.

Third-party exceptions are left to the application: a guard's `HTTPException` keeps its meaning and its headers.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Coroutine, Mapping
from http import HTTPStatus
from typing import Any, Final
from urllib.parse import quote

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute

from oncue.app import Oncue
from oncue.errors import (
    EngineError,
    InvalidArguments,
    InvalidJob,
    JobNotFound,
    OncueError,
    PayloadError,
    PayloadTooLarge,
    QueueFull,
    UniqueConflict,
)
from oncue.fastapi.dependencies import BOUND
from oncue.fastapi.models import Problem

__all__ = ["ProblemError", "documented", "handle_problems", "problem", "problem_route"]

logger = logging.getLogger("oncue.fastapi")

RETRY_AFTER: Final = {"Retry-After": "1"}
_MEDIA_TYPE: Final = "application/problem+json"
_ANSWERED: Final = (JobNotFound, InvalidJob, UniqueConflict, EngineError)


class ProblemError(Exception):
    """Ends a request with a problem."""

    def __init__(
        self, status: int, kind: str | None, detail: str, headers: Mapping[str, str] | None = None, **more: Any
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.kind = kind
        self.headers = headers
        self.more = more


def problem(
    request: Request,
    status: int,
    kind: str | None,
    detail: str,
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> Response:
    """Return the answer to a request that failed.

    Args:
        kind: what the problem is called, such as `job-not-found`; None where the status says it all.
        more: further members of the body.
    """
    body = {
        "type": "about:blank" if kind is None else f"urn:oncue:problem:{kind}",
        "title": HTTPStatus(status).phrase if kind is None else kind.replace("-", " ").capitalize(),
        "status": status,
        "detail": detail,
        "instance": _path(request),
        **more,
    }
    return Response(
        json.dumps(body), status, headers={"Cache-Control": "no-store", **(headers or {})}, media_type=_MEDIA_TYPE
    )


def _path(request: Request) -> str:
    """Return the path that was asked for, fit for a header, a log line or a URI; cut, as it may be anything."""
    return quote(request.scope["path"][:300])


def _answer(request: Request, error: Exception) -> Response:
    match error:
        case ProblemError():
            return problem(request, error.status, error.kind, str(error), error.headers, **error.more)
        case RequestValidationError():
            found = [{"at": ".".join(map(str, one["loc"])), "error": one["msg"]} for one in error.errors()]
            detail = "; ".join(f"{one['at']}: {one['error']}" for one in found)
            return problem(request, 422, "invalid-request", detail, errors=found)
        case JobNotFound():
            return problem(request, 404, "job-not-found", str(error))
        case PayloadTooLarge():
            return problem(request, 413, "payload-too-large", str(error))
        case InvalidArguments() | PayloadError():
            return problem(request, 422, "invalid-arguments", str(error))
        case InvalidJob():
            return problem(request, 422, "invalid-request", str(error))
        case UniqueConflict():
            return problem(request, 409, "unique-conflict", str(error), holder=error.holder)
        case QueueFull():
            return problem(request, 503, "store-full", "The job store takes no new jobs now.", {"Retry-After": "10"})
        case _:
            logger.warning("%s %s: the job store failed: %s", request.method, _path(request), error)
            return problem(request, 503, "store-unavailable", "The job store does not answer; try again.", RETRY_AFTER)


def problem_route(jobs: Oncue, trouble: Callable[[], str | None]) -> type[APIRoute]:
    """Return the class of a router's routes: they know their jobs, and answer Oncue's errors with problems.

    `trouble` says what is wrong with the application, if anything is, when the store has failed.
    """

    class ProblemRoute(APIRoute):
        def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
            handle = super().get_route_handler()

            async def handle_with_problems(request: Request) -> Response:
                request.scope[BOUND] = jobs
                try:
                    return await handle(request)
                except (*_ANSWERED, ProblemError, RequestValidationError) as error:
                    if isinstance(error, EngineError) and (why := trouble()) is not None:
                        logger.error("%s", why)
                        return problem(request, 503, "not-started", why, RETRY_AFTER)
                    return _answer(request, error)

            return handle_with_problems

    return ProblemRoute


def handle_problems(app: FastAPI) -> None:
    """Make an application answer with problems where its own endpoints let an error of Oncue pass.

    `InvalidJob` becomes 422, `JobNotFound` 404, `UniqueConflict` 409, and a store that is away or full 503 with
    `Retry-After`.
    """

    async def answer(request: Request, error: Exception) -> Response:
        assert isinstance(error, OncueError)
        return _answer(request, error)

    for kind in _ANSWERED:
        app.add_exception_handler(kind, answer)


_SCHEMA: Final = Problem.model_json_schema()
RETRY_AFTER_SCHEMA: Final = {
    "Retry-After": {"description": "Seconds after which to ask again.", "schema": {"type": "integer"}}
}


def documented(problems: Mapping[int, str]) -> dict[int | str, dict[str, Any]]:
    """Return what the OpenAPI document says of a route's problems, from a description for each status."""
    return {
        status: {
            "description": description,
            "content": {_MEDIA_TYPE: {"schema": _SCHEMA}},
            **({"headers": RETRY_AFTER_SCHEMA} if status == 503 else {}),
        }
        for status, description in problems.items()
    }
