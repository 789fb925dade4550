"""Groups of tasks that know no store yet: a module declares them, the application takes them in with `include`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Concatenate, Literal, ParamSpec, Protocol, TypeVar, overload

from oncue.context import Context
from oncue.errors import ConfigError, InvalidArguments
from oncue.handles import Task
from oncue.job import check_name
from oncue.retry import Retry
from oncue.serializers import MAX_PAYLOAD
from oncue.tasks import DAY, TaskSpec, seconds

__all__ = ["Schedule", "TaskDecorator", "TaskRouter"]

P = ParamSpec("P")
R = TypeVar("R")
AnyTask = TypeVar("AnyTask", bound=Task[..., Any])


class TaskDecorator(Protocol):
    """What `@jobs.task(…)` is: from a function to the `Task` whose parameters are the function's, less its context.

    The return type of the task is what the function returns, awaited; None for an async generator, whose items are
    streamed.
    """

    @overload
    def __call__(self, function: Callable[Concatenate[Context, P], AsyncIterator[Any]], /) -> Task[P, None]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[Context, P], Awaitable[R]], /) -> Task[P, R]: ...
    @overload
    def __call__(self, function: Callable[Concatenate[Context, P], R], /) -> Task[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, AsyncIterator[Any]], /) -> Task[P, None]: ...
    @overload
    def __call__(self, function: Callable[P, Awaitable[R]], /) -> Task[P, R]: ...
    @overload
    def __call__(self, function: Callable[P, R], /) -> Task[P, R]: ...


@dataclass(frozen=True, slots=True)
class Schedule:
    """A rule that enqueues a task every `interval` seconds, counted from 1970: once, however many workers there are."""

    name: str
    interval: float
    task: Task[..., Any]


class TaskRouter:
    """A group of tasks; `jobs.include(router)` makes them the application's.

    Attributes:
        tasks: those declared so far.
        schedules: those declared so far.
    """

    def __init__(self) -> None:
        self.tasks: list[Task[..., Any]] = []
        self.schedules: list[Schedule] = []

    def task(
        self,
        function: None = None,
        /,
        *,
        name: str | None = None,
        queue: str = "default",
        timeout: float | timedelta | None = None,
        retry: Retry | int | bool | None = None,
        priority: int = 0,
        keep: float | timedelta = DAY,
        delivery: Literal["at_least_once", "at_most_once"] = "at_least_once",
        max_crashes: int = 3,
        max_payload: int = MAX_PAYLOAD,
    ) -> TaskDecorator:
        """Register a function as a task.

        `async def` runs on the worker's event loop, `def` in a thread, an async generator streams what it yields to
        the job's feed. A parameter annotated `Context` gets the attempt's context; callers do not give it.

        Args:
            name: unique in the application; the function's own name if not given. Jobs in the store name it, so keep
                it when you rename the function.
            queue: where its jobs go unless a job says otherwise.
            timeout: seconds or timedelta that one attempt may take; None is no limit. A plain function cannot be
                interrupted: it is told (`ctx.cancelled`) and waited for, up to the worker's `cleanup` time.
            retry: attempts in all, or a `Retry`. None: a job whose task raises has failed; with `RetryLater` it may
                ask for up to five attempts.
            priority: larger runs sooner within the queue.
            keep: seconds or timedelta that an ended job stays, with its result.
            delivery: `"at_least_once"`: after a crash of the worker the job is started again, up to `max_crashes`
                times; `"at_most_once"`: it fails then.
            max_crashes: starts that may end by the death of the worker before the job fails as `crashed`.
            max_payload: bytes of stored arguments, and of a stored result.

        Raises:
            ConfigError: an option, or the function's signature, cannot be.
            InvalidName: the name or the queue is outside the rules.
        """

        if function is not None:
            raise ConfigError("write @jobs.task() with parentheses above the function")

        def register(function: Callable[..., Any]) -> Task[..., Any]:
            task: Task[..., Any] = Task(
                TaskSpec.of(
                    function,
                    name=name,
                    queue=queue,
                    timeout=timeout,
                    retry=retry,
                    priority=priority,
                    keep=keep,
                    delivery=delivery,
                    max_crashes=max_crashes,
                    max_payload=max_payload,
                )
            )
            self._add(task)
            return task

        return register  # type: ignore[return-value]

    def every(self, interval: float | timedelta, *, name: str | None = None) -> Callable[[AnyTask], AnyTask]:
        """Enqueue the task below once in every `interval`, however many workers run; it takes no arguments.

        Args:
            interval: seconds or timedelta, at least one second. Intervals are counted from 1970, so all workers
                agree when one begins. The one under way when the first worker ever starts counts.
            name: of the schedule; the task's if not given.
        """
        pace = seconds("every(…)", interval, least=1.0, example="3600") or 1.0

        def schedule(task: AnyTask) -> AnyTask:
            if not isinstance(task, Task):
                raise ConfigError("@jobs.every(…) goes above @jobs.task(…), not below")
            try:
                task.request()
            except InvalidArguments as error:  # here, and not every hour in a worker
                raise ConfigError(f"a scheduled task is called without arguments: {error}") from None
            self._add_schedule(Schedule(check_name(name or task.name, what="schedule"), pace, task))
            return task

        return schedule

    def _add(self, task: Task[..., Any]) -> None:
        self.tasks.append(task)

    def _add_schedule(self, schedule: Schedule) -> None:
        self.schedules.append(schedule)
