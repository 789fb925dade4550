"""Oncue in a FastAPI application: the routes of its jobs, and what starts and stops with the server.

    jobs = Oncue("sqlite:///jobs.db")
    app = FastAPI()
    app.include_router(oncue_router(jobs, worker="embedded"), prefix="/jobs")

Needs the extra `oncue[fastapi]`. Nothing outside this package imports FastAPI or Starlette.
"""

from __future__ import annotations

from oncue.errors import MissingExtra

try:
    import fastapi as _fastapi
    import sse_starlette as _sse_starlette
except ModuleNotFoundError as _error:
    if _error.name not in ("fastapi", "sse_starlette"):
        raise  # it is there, and something it needs is not: that message says more
    raise MissingExtra("fastapi", needed_for="oncue.fastapi") from _error

from oncue.fastapi.dependencies import JobsDep, get_jobs
from oncue.fastapi.models import JobProgress, JobStatus, LastError, Problem
from oncue.fastapi.problems import handle_problems
from oncue.fastapi.router import OncueRouter, oncue_router

del _fastapi, _sse_starlette

__all__ = [
    "JobProgress",
    "JobStatus",
    "JobsDep",
    "LastError",
    "OncueRouter",
    "Problem",
    "get_jobs",
    "handle_problems",
    "oncue_router",
]
