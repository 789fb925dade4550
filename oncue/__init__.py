"""Background jobs for FastAPI, right on cue: durable, typed, watched live."""

from __future__ import annotations

from oncue.app import Oncue
from oncue.client import Client
from oncue.context import Context
from oncue.errors import (
    ConfigError,
    EngineError,
    EngineUnavailable,
    EngineUnusable,
    GiveUp,
    InvalidArguments,
    InvalidJob,
    InvalidName,
    JobCancelled,
    JobFailed,
    JobNotFound,
    LeaseLost,
    MissingExtra,
    OncueError,
    PayloadError,
    PayloadTooLarge,
    QueueFull,
    ResultError,
    ResultTimeout,
    RetryLater,
    Snooze,
    UniqueConflict,
    UnknownTask,
)
from oncue.handles import Job, JobEvent, Request, Task
from oncue.job import JobInfo, Reason, State, Unique
from oncue.retry import Retry
from oncue.router import TaskRouter
from oncue.version import __version__
from oncue.worker import Worker, WorkerSettings

__all__ = [
    "Client",
    "ConfigError",
    "Context",
    "EngineError",
    "EngineUnavailable",
    "EngineUnusable",
    "GiveUp",
    "InvalidArguments",
    "InvalidJob",
    "InvalidName",
    "Job",
    "JobCancelled",
    "JobEvent",
    "JobFailed",
    "JobInfo",
    "JobNotFound",
    "LeaseLost",
    "MissingExtra",
    "Oncue",
    "OncueError",
    "PayloadError",
    "PayloadTooLarge",
    "QueueFull",
    "Reason",
    "Request",
    "ResultError",
    "ResultTimeout",
    "Retry",
    "RetryLater",
    "Snooze",
    "State",
    "Task",
    "TaskRouter",
    "Unique",
    "UniqueConflict",
    "UnknownTask",
    "Worker",
    "WorkerSettings",
    "__version__",
]
