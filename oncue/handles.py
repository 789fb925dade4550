"""What applications hold: `Task` to enqueue with, `Job` to ask about."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Generic, NoReturn, ParamSpec, TypedDict, TypeVar, Unpack, cast

from oncue.client import Client
from oncue.engine import CancelAnswer, Enqueued, topic_job
from oncue.errors import ConfigError, JobCancelled, JobFailed, JobNotFound, ResultTimeout
from oncue.job import FeedKind, JobInfo, NewJob, State, Unique, UniqueWhile, check_id, check_name, new_id
from oncue.tasks import TaskSpec, check_priority, seconds

__all__ = ["Job", "JobEvent", "JobOptions", "Request", "Task", "status_data"]

_PAGE: Final = 100
"""Items of a feed read at once: each may be as large as a payload."""
_EVENT_ID: Final = re.compile(r"(-1|[0-9]{1,18})\.([0-9]{1,18}-[0-9]{1,18})?")

P = ParamSpec("P")
R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class JobEvent:
    """Something that happened to a job.

    Attributes:
        id: names the event; `job.events(after=id)` goes on behind it.
        kind: `status`, `progress`, `log` or `stream`.
        data: a JSON value. For `status` an object with `state`, `reason`, `attempt`, `error`; for `progress` one with
            `done`, `total`, `message`; for `log` one with `level`, `message`; for `stream` the item.
    """

    id: str
    kind: str
    data: Any


class Job(Generic[R]):
    """A job in the store, by its id.

    Attributes:
        id: the job's id.
        created: whether the call that gave this handle made the job, or found it already there.
    """

    __slots__ = ("_client", "_spec", "created", "id")

    def __init__(self, client: Client, job_id: str, *, spec: TaskSpec | None = None, created: bool = False) -> None:
        self._client = client
        self._spec = spec
        self.id = job_id
        self.created = created

    def __repr__(self) -> str:
        return f"<Job {self.id}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Job) and other.id == self.id and other._client is self._client

    def __hash__(self) -> int:
        return hash(self.id)

    async def info(self) -> JobInfo:
        """Read all that the store knows of the job, but its arguments and result. Raises `JobNotFound`."""
        return await self._client.info(self.id)

    async def status(self) -> State:
        """Read the job's state. Raises `JobNotFound`."""
        return (await self.info()).state

    async def wait(self, timeout: float | None = None) -> JobInfo:
        """Wait until the job has ended; after `timeout` seconds answer what it is then. Raises `JobNotFound`."""
        return await self._client.wait(self.id, timeout)

    async def result(self, timeout: float | None = None) -> R:
        """Wait until the job has ended and return what its task returned.

        Raises:
            JobFailed: it failed; has the type, message and traceback of the last error.
            JobCancelled: it was cancelled.
            ResultTimeout: it has not ended within `timeout` seconds; it goes on.
            JobNotFound: it is not there, or its retention passed.
            PayloadError: the result is no longer what the task's annotation says.
        """
        info = await self.wait(timeout)
        if info.state is State.COMPLETED:
            return await self._read_result()
        if info.state is State.FAILED:
            raise await self._failure(info)
        if info.state is State.CANCELLED:
            why = "was cancelled" if info.reason == "user" else f"was cancelled ({info.reason})"
            raise JobCancelled(f"job {self.id} {why}", job_id=self.id)
        raise ResultTimeout(f"job {self.id} is {info.state} after {timeout:g} seconds; it goes on")

    def result_sync(self, timeout: float | None = None) -> R:
        """`result` for code without an event loop, such as scripts and `def` endpoints."""
        return self._client.run_sync(self.result(timeout))

    async def _read_result(self) -> R:
        info = await self._client.info(self.id, bodies=True)
        stored = info.result if info.result is not None else b"\x01null"
        spec = self._spec or self._client.registry.find(info.task)
        return cast(R, spec.signature.decode_result(stored) if spec else self._client.read_json(stored))

    async def _failure(self, info: JobInfo) -> JobFailed:
        attempts = await self._client.engine.attempts(self.id)
        failure = attempts[-1].failure if attempts else None
        what = info.error or (f"{failure.type}: {failure.message}" if failure else "it was not run")
        return JobFailed(
            f"job {self.id} failed ({info.reason}): {what}",
            job_id=self.id,
            reason=info.reason or "",
            type=failure.type if failure else "",
            traceback=failure.traceback if failure else "",
        )

    async def cancel(self) -> CancelAnswer:
        """Cancel the job: at once if it is not running, else its worker stops it within a second or so.

        Raises `JobNotFound`.
        """
        return await self._client.cancel(self.id)

    async def events(self, after: str | None = None) -> AsyncIterator[JobEvent]:
        """Yield what happens to the job, from its first known state on, and end after its last.

        `after` is the id of an event seen before: what follows it comes exactly once, from any process. Of progress
        and state only the latest is certain to be seen. Raises `JobNotFound`.
        """
        revision, cursor = _position(after)
        client = self._client
        hints = client.engine.subscribe(topic_job(self.id))
        try:
            while True:
                [info] = await client.engine.get([self.id])
                if info is None:
                    if after is None and cursor is None and revision < 0:
                        raise JobNotFound(self.id)
                    return
                if info.state is State.RUNNING and info.revision != revision:  # before what the attempt reports
                    revision = info.revision
                    yield JobEvent(f"{revision}.{cursor or ''}", "status", status_data(info))
                # A job that has not started had nothing to report when it was read; by now it may.
                while (info.attempts or info.state.final) and (
                    items := await client.engine.read(self.id, after=cursor, limit=_PAGE)
                ):
                    for item in items:
                        cursor = item.cursor
                        data = client.read_json(item.body)
                        yield JobEvent(f"{revision}.{cursor}", FeedKind(item.kind).value, data)
                if info.revision != revision:
                    revision = info.revision
                    yield JobEvent(f"{revision}.{cursor or ''}", "status", status_data(info))
                if info.state.final:
                    return
                await hints.wait(1.0)
        finally:
            hints.close()


def status_data(info: JobInfo) -> dict[str, Any]:
    """Return the data of a `status` event."""
    return {
        "state": info.state.value,
        "reason": None if info.reason is None else info.reason.value,
        "attempt": info.attempts,
        "max_attempts": info.max_attempts,
        "error": info.error,
        "due_at": info.due_at.isoformat().replace("+00:00", "Z"),
        "cancel_requested": info.cancel_requested,
    }


def _position(after: str | None) -> tuple[int, str | None]:
    """Read an event's id: the revision of the last state seen, and the cursor of the last feed item."""
    if not after:
        return -1, None
    match = _EVENT_ID.fullmatch(after)
    if match is None:
        raise ConfigError(f"after={after!r:.80} is not the id of an event")
    return int(match[1]), match[2] or None


class JobOptions(TypedDict, total=False):
    """What one job may ask for beyond its task. Durations are seconds or timedeltas."""

    id: str
    """Chosen by the caller: a second job of that id is not made, the first one is answered."""
    queue: str
    delay: float | timedelta
    run_at: datetime
    priority: int
    timeout: float | timedelta
    keep: float | timedelta
    expires_in: float | timedelta
    """Fail it rather than start it later than this after it was due."""
    max_attempts: int
    meta: dict[str, str]
    unique: Unique | str
    after: list[Job[Any] | str]
    """Start it only when these have completed."""
    after_any: bool
    """Start it when those have ended, however they did."""


@dataclass(frozen=True, slots=True)
class Request(Generic[R]):
    """A job that is ready to be enqueued: `await jobs.enqueue_many([task.request(…), …])`."""

    job: NewJob
    spec: TaskSpec

    def accepted(self, client: Client, answer: Enqueued) -> Job[R]:
        """Return the handle for what became of it."""
        spec = self.spec if answer.conflict is None else None
        return Job(client, answer.id, spec=spec, created=answer.created)


class Task(Generic[P, R]):
    """A registered function: call `.enqueue(…)` with its arguments, less the context.

    Attributes:
        spec: its options and its signature.
        function: the function itself, for a call right here, without a job.
    """

    __slots__ = ("_client", "_options", "spec")

    def __init__(self, spec: TaskSpec, client: Client | None = None, options: JobOptions | None = None) -> None:
        self.spec = spec
        self._client = client
        self._options = options

    def __repr__(self) -> str:
        return f"<Task {self.spec.name}{self.spec.signature.describe()}>"

    @property
    def name(self) -> str:
        """What the store knows it by."""
        return self.spec.name

    @property
    def function(self) -> Callable[..., Any]:
        """The function itself."""
        return self.spec.function

    def attach(self, client: Client, spec: TaskSpec) -> None:
        """Tell where to enqueue. For `Oncue.include`."""
        self._client, self.spec = client, spec

    def __call__(self, *args: object, **kwargs: object) -> NoReturn:
        """Refuse: a task is not called but enqueued."""
        raise TypeError(
            f"task {self.name!r} is not called: `await {self.name}.enqueue(…)` makes a job of it, "
            f"`{self.name}.function(…)` runs it right here"
        )

    def options(self, **options: Unpack[JobOptions]) -> Task[P, R]:
        """Return the same task with options for the jobs that it enqueues; see `JobOptions`.

        Raises `ConfigError` or `InvalidName` for an option that cannot be.
        """
        merged: JobOptions = {**(self._options or {}), **options}
        _new_job(self.spec, b"", merged)  # a wrong option is an error where it is given
        return Task(self.spec, self._client, merged)

    def request(self, *args: P.args, **kwargs: P.kwargs) -> Request[R]:
        """Return a job with these arguments, not enqueued yet. Raises `InvalidJob`."""
        payload = self.spec.signature.encode(args, kwargs, max_payload=self.spec.max_payload)
        return Request(_new_job(self.spec, payload, self._options), self.spec)

    async def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """Store a job that will call the function with these arguments, and return its handle.

        When this returns the job is on record. The arguments are checked here, against the signature.

        Raises:
            InvalidJob: the arguments do not fit or cannot be stored; nothing was.
            UniqueConflict: another job holds the unique key, with `on_conflict="raise"`.
            EngineError: the store could not take it.
        """
        request = self.request(*args, **kwargs)
        client = self._sender()
        return request.accepted(client, await client.send(request.job))

    def enqueue_sync(self, *args: P.args, **kwargs: P.kwargs) -> Job[R]:
        """`enqueue` for code without an event loop, such as scripts and `def` endpoints."""
        client = self._sender()
        return client.run_sync(self.enqueue(*args, **kwargs))

    def _sender(self) -> Client:
        if self._client is None:
            raise ConfigError(
                f"task {self.name!r} belongs to a TaskRouter that no Oncue has: say jobs.include(router) first"
            )
        return self._client


def _new_job(spec: TaskSpec, payload: bytes, options: JobOptions | None) -> NewJob:
    if not options:
        return NewJob(
            new_id(),
            spec.name,
            spec.queue,
            payload,
            priority=spec.priority,
            max_attempts=spec.retry.max,
            max_crashes=spec.max_crashes,
            keep=spec.keep,
        )
    unknown = options.keys() - JobOptions.__annotations__.keys()
    if unknown:
        raise ConfigError(
            f"unknown option {min(unknown)!r}; a job may have: {', '.join(sorted(JobOptions.__annotations__))}"
        )
    run_at = options.get("run_at")
    if run_at is not None:
        if "delay" in options:
            raise ConfigError("give either delay or run_at, not both")
        if not isinstance(run_at, datetime) or run_at.tzinfo is None:
            raise ConfigError(
                f"run_at must be a datetime with a time zone, for example datetime.now(UTC); not {run_at!r}"
            )
        run_at = max(run_at.astimezone(UTC), datetime(1970, 1, 1, tzinfo=UTC))
    chosen = options.get("id")
    keep = seconds("keep", options.get("keep"))
    return NewJob(
        check_id(chosen) if chosen is not None else new_id(),
        spec.name,
        check_name(options.get("queue", spec.queue)),
        payload,
        # A resent call is told from a second one with the same id.
        request=None if chosen is None else os.urandom(8),
        priority=check_priority(options.get("priority", spec.priority)),
        delay=seconds("delay", options.get("delay")) or 0.0,
        run_at=run_at,
        expires_in=seconds("expires_in", options.get("expires_in")),
        timeout=seconds("timeout", options.get("timeout"), least=0.001),
        max_attempts=options.get("max_attempts", spec.retry.max),
        max_crashes=spec.max_crashes,
        keep=spec.keep if keep is None else keep,
        meta=_checked_meta(options.get("meta") or {}),
        after=tuple(job.id if isinstance(job, Job) else check_id(job) for job in options.get("after", ())),
        after_any=options.get("after_any", False),
        unique=_checked_unique(options.get("unique")),
    )


def _checked_meta(meta: dict[str, str]) -> dict[str, str]:
    for key, value in meta.items():
        if not isinstance(key, str) or not isinstance(value, str):
            raise ConfigError(
                f"meta must be strings by strings, for example {{'user': '7'}}; not {key!r}: {value!r:.80}"
            )
        (key + value).encode()
    return dict(meta)


def _checked_unique(unique: Unique | str | None) -> Unique | None:
    if unique is None:
        return None
    if isinstance(unique, str):
        unique = Unique(unique)
    check_id(unique.key, what="unique key")
    if unique.while_ not in set(UniqueWhile):
        raise ConfigError(f"Unique(while_=…) must be 'pending', 'running' or 'ttl', not {unique.while_!r:.80}")
    if unique.on_conflict not in ("return", "skip", "raise", "replace"):
        raise ConfigError(
            f"Unique(on_conflict=…) must be 'return', 'skip', 'raise' or 'replace', not {unique.on_conflict!r:.80}"
        )
    if unique.while_ == UniqueWhile.TTL and not seconds("Unique(ttl=…)", unique.ttl, example="60"):
        raise ConfigError("Unique(while_='ttl') needs ttl=…, in seconds, for example 60")
    return unique
