"""Everything Oncue raises, in one tree.

OncueError
├── ConfigError (ValueError)            a setting that cannot be: names the option, the value, a valid one
├── InvalidJob (ValueError)             refused at enqueue, before anything was stored
│   ├── InvalidName                     an id, queue or task name outside the rules
│   ├── InvalidArguments                arguments that do not fit the task's signature
│   └── PayloadError                    arguments that cannot be stored so that they come back as they were
│       └── PayloadTooLarge
├── UniqueConflict                      another job holds the unique key, and the caller asked to be told
├── UnknownTask (LookupError)           no task of that name is registered
├── JobNotFound (LookupError)           the store has no job of that id
├── ResultError                         the job has no result to give
│   ├── JobFailed                       it ended `failed`; carries type, message and traceback of the last error
│   ├── JobCancelled                    it ended `cancelled`
│   └── ResultTimeout (TimeoutError)    it has not ended yet
├── LeaseLost                           this attempt is no longer the current one
├── MissingExtra (ImportError)          an optional dependency is not installed; says what to type
└── EngineError
    ├── EngineUnavailable               no answer within the deadline; trying again may work
    ├── QueueFull                       the store has no room for new jobs; finishing jobs still works
    └── EngineUnusable                  needs a person: read-only, damaged, newer schema, not ours, network disk

Raised by task code to say how its attempt ends (they are no errors of Oncue):

Signal
├── RetryLater                          run again after a delay; the attempt counts
├── Snooze                              run again after a delay; the attempt does not count
└── GiveUp                              fail now, whatever the retry policy says
"""

from __future__ import annotations

from datetime import timedelta

__all__ = [
    "ConfigError",
    "EngineError",
    "EngineUnavailable",
    "EngineUnusable",
    "GiveUp",
    "InvalidArguments",
    "InvalidJob",
    "InvalidName",
    "JobCancelled",
    "JobFailed",
    "JobNotFound",
    "LeaseLost",
    "MissingExtra",
    "OncueError",
    "PayloadError",
    "PayloadTooLarge",
    "QueueFull",
    "ResultError",
    "ResultTimeout",
    "RetryLater",
    "Signal",
    "Snooze",
    "UniqueConflict",
    "UnknownTask",
]


class OncueError(Exception):
    """The base of every error that Oncue raises."""


class ConfigError(OncueError, ValueError):
    """A setting cannot be; the message names the option, the value and a valid one."""


class InvalidJob(OncueError, ValueError):
    """A job was refused at enqueue; nothing was stored."""


class InvalidName(InvalidJob):
    """An id, queue or task name is outside the rules of `oncue.job`."""


class InvalidArguments(InvalidJob):
    """The arguments do not fit the task's signature."""


class PayloadError(InvalidJob):
    """The arguments cannot be stored so that they come back as they were."""


class PayloadTooLarge(PayloadError):
    """The stored arguments would be larger than the limit."""


class UniqueConflict(OncueError):
    """Another job holds the unique key.

    Attributes:
        holder: id of the job that holds it.
    """

    def __init__(self, message: str, *, holder: str) -> None:
        super().__init__(message)
        self.holder = holder


class UnknownTask(OncueError, LookupError):
    """No task of that name is registered."""


class JobNotFound(OncueError, LookupError):
    """The store has no job of that id: it never was, or it was pruned."""

    def __init__(self, job_id: str) -> None:
        super().__init__(f"no job {job_id!r}: it was never enqueued here, or its retention has passed")
        self.job_id = job_id


class ResultError(OncueError):
    """The job has no result to give."""


class JobFailed(ResultError):
    """The job ended `failed`.

    Attributes:
        job_id: the job.
        reason: why, one of `oncue.job.Reason`.
        type: class name of the last error, such as `ValueError`; empty if there was none.
        traceback: text of its traceback, without local variables; may be empty.
    """

    def __init__(self, message: str, *, job_id: str, reason: str, type: str = "", traceback: str = "") -> None:
        super().__init__(message)
        self.job_id = job_id
        self.reason = reason
        self.type = type
        self.traceback = traceback


class JobCancelled(ResultError):
    """The job ended `cancelled`."""

    def __init__(self, message: str, *, job_id: str) -> None:
        super().__init__(message)
        self.job_id = job_id


class ResultTimeout(ResultError, TimeoutError):
    """The job has not ended within the time given; it goes on."""


class LeaseLost(OncueError):
    """This attempt is no longer the current one: its lease expired and the job was taken back."""


class MissingExtra(OncueError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, extra: str, *, needed_for: str) -> None:
        super().__init__(f"{needed_for} needs an extra: pip install 'oncue[{extra}]'")
        self.extra = extra


class EngineError(OncueError):
    """The store could not do what was asked."""


class EngineUnavailable(EngineError):
    """The store gave no answer within the deadline; the call may be repeated."""


class QueueFull(EngineError):
    """The store has no room for new jobs; running jobs can still be finished."""


class EngineUnusable(EngineError):
    """The store cannot be used until a person repairs something; the message says what."""


class Signal(Exception):
    """How task code says that its attempt ends in another way than by returning or failing."""


def _seconds(delay: float | timedelta) -> float:
    seconds = delay.total_seconds() if isinstance(delay, timedelta) else float(delay)
    if not 0 <= seconds < float("inf"):
        raise ConfigError(f"delay must be zero or more seconds, not {delay!r}; for example 30 or timedelta(minutes=5)")
    return seconds


class RetryLater(Signal):
    """Run the job again after `delay` (seconds or timedelta). The attempt counts as failed."""

    def __init__(self, delay: float | timedelta = 0, message: str = "asked to be retried") -> None:
        super().__init__(message)
        self.delay = _seconds(delay)


class Snooze(Signal):
    """Run the job again after `delay` (seconds or timedelta). The attempt does not count."""

    def __init__(self, delay: float | timedelta) -> None:
        super().__init__("snoozed")
        self.delay = _seconds(delay)


class GiveUp(Signal):
    """Fail the job now; no retry policy applies."""
