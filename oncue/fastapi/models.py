"""The bodies that the routes answer with, as pydantic models: what the OpenAPI document shows is what is sent."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field

from oncue.client import Client
from oncue.errors import PayloadError
from oncue.job import JobInfo, Reason, State

__all__ = ["JobLinks", "JobProgress", "JobStatus", "LastError", "Problem", "job_status"]


class JobProgress(BaseModel):
    """How far a job said it was, the last time it said so."""

    model_config = ConfigDict(allow_inf_nan=False)

    done: int | float
    total: int | float | None = None
    message: str | None = None


class LastError(BaseModel):
    """The error of the latest attempt that failed, without its traceback."""

    type: str
    message: str


class JobLinks(BaseModel):
    """Where to go on, relative to the server's root."""

    self: str
    result: str
    events: str
    cancel: str


class JobStatus(BaseModel):
    """A job as the store knows it at one moment, without its arguments and its result."""

    id: str
    task: str
    queue: str
    state: State
    reason: Annotated[Reason | None, Field(description="Why it is in this state, where the state alone does not say.")]
    attempts: Annotated[int, Field(description="Attempts started so far.")]
    max_attempts: int
    cancel_requested: bool
    created_at: datetime
    due_at: datetime
    started_at: Annotated[datetime | None, Field(description="Start of the latest attempt.")]
    finished_at: datetime | None
    progress: JobProgress | None
    error: LastError | None
    links: JobLinks


class Problem(BaseModel):
    """What went wrong with a request (RFC 9457). Members beside these belong to the type of the problem."""

    model_config = ConfigDict(extra="allow")

    type: Annotated[str, Field(description="Names the kind of problem; about:blank says no more than the status.")]
    title: str
    status: int
    detail: str
    instance: Annotated[str, Field(description="The path that was asked for.")]


def job_status(client: Client, info: JobInfo, base: str) -> JobStatus:
    """Return the body for a job whose router is at `base`."""
    here = f"{base}/{quote(info.id, safe='')}"
    return JobStatus(
        id=info.id,
        task=info.task,
        queue=info.queue,
        state=info.state,
        reason=info.reason,
        attempts=info.attempts,
        max_attempts=info.max_attempts,
        cancel_requested=info.cancel_requested,
        created_at=info.created_at,
        due_at=info.due_at,
        started_at=info.started_at,
        finished_at=info.finished_at,
        progress=_progress(client, info.progress),
        error=last_error(info),
        links=JobLinks(self=here, result=f"{here}/result", events=f"{here}/events", cancel=f"{here}/cancel"),
    )


def last_error(info: JobInfo) -> LastError | None:
    """Return the error that a job shows; one that has completed shows none, whatever its attempts before."""
    if info.error is None or info.state is State.COMPLETED:
        return None
    kind, _, message = info.error.partition(": ")
    return LastError(type=kind, message=message)


def _progress(client: Client, stored: bytes | None) -> JobProgress | None:
    if stored is None:
        return None
    try:
        return JobProgress.model_validate(client.read_json(stored))
    except (PayloadError, ValueError):
        return None  # written by another release, or with another serializer: a status without it is still one
