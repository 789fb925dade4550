"""Errors as answers: a page for people, `application/problem+json` (RFC 9457) for programs."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import Any

from fastapi import FastAPI, HTTPException, Request
from fastapi.exceptions import RequestValidationError
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.responses import HTMLResponse, Response
from starlette.types import Scope

from oncue.demo.templating import render

__all__ = ["handle_problems", "hung_up", "problem", "wants_html"]


def wants_html(headers: Headers) -> bool:
    """Return whether a person is waiting: browsers ask for HTML when they load a page, and programs do not."""
    return "text/html" in headers.get("accept", "")


def problem(scope: Scope, status: int, detail: str, **more: Any) -> Response:
    """Return the answer to a request that failed; `more` are further members of the JSON form."""
    title = HTTPStatus(status).phrase
    if wants_html(Headers(scope=scope)):
        page = render("error.html", status=status, title=title, detail=detail, path=scope["path"])
        response: Response = HTMLResponse(page, status)
    else:
        body = {"type": "about:blank", "title": title, "status": status, "detail": detail, **more}
        response = Response(json.dumps(body), status, media_type="application/problem+json")
    return hung_up(response)


def hung_up(response: Response) -> Response:
    """Make a refusal of a large body end its connection: the server would read the rest of the body otherwise."""
    if response.status_code == HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
        response.headers["Connection"] = "close"
    return response


def handle_problems(app: FastAPI) -> None:
    """Make an app answer its errors with `problem`."""

    @app.exception_handler(StarletteHTTPException)
    async def http_error(request: Request, error: HTTPException) -> Response:
        bare = error.status_code == 404 and error.detail == HTTPStatus.NOT_FOUND.phrase
        detail = "There is nothing at this address." if bare else str(error.detail)
        response = problem(request.scope, error.status_code, detail)
        response.headers.update(error.headers or {})
        return response

    @app.exception_handler(RequestValidationError)
    async def invalid(request: Request, error: RequestValidationError) -> Response:
        found = [{"at": ".".join(str(part) for part in one["loc"]), "error": one["msg"]} for one in error.errors()]
        detail = "; ".join(f"{one['at']}: {one['error']}" for one in found)
        return problem(request.scope, 422, detail, errors=found)
