"""A registered function with its options: how it is called, and what it asks for when it is enqueued.

Nothing here knows of a store or a worker. `oncue.handles.Task` is what applications hold.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import Enum
from typing import Any, Final, Literal

from oncue.context import Context
from oncue.errors import ConfigError, UnknownTask
from oncue.job import check_id, check_name
from oncue.retry import NO_RETRY, Retry
from oncue.serializers import MAX_PAYLOAD, Envelope
from oncue.signature import Signature

__all__ = ["DAY", "Kind", "Registry", "TaskSpec", "seconds"]

DAY: Final = 86_400.0

Delivery = Literal["at_least_once", "at_most_once"]


class Kind(Enum):
    """How a task's function runs."""

    ASYNC = "async"
    """On the worker's event loop."""
    THREAD = "thread"
    """A plain function, in a thread."""
    STREAM = "stream"
    """An async generator on the event loop; what it yields goes to the job's feed."""


def seconds(option: str, value: float | timedelta | None, *, least: float = 0.0, example: str = "30") -> float | None:
    """Return a duration option in seconds, or raise `ConfigError` naming it."""
    if value is None:
        return None
    number = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(number, bool) or not isinstance(number, (int, float)) or not least <= number <= 1e10:
        raise ConfigError(
            f"{option} must be seconds or a timedelta, {least:g} or more, for example {example}; not {value!r:.80}"
        )
    return float(number)


@dataclass(frozen=True, slots=True, eq=False)
class TaskSpec:
    """What is known of a task.

    Attributes:
        name: unique in an application; what the store knows it by.
        function: as it was registered.
        kind: how it runs.
        signature: its arguments and its result.
        queue: where its jobs go.
        timeout: seconds an attempt may take; None is no limit.
        retry: which failures are tried again, and when.
        asks_for_retry: whether a policy was given; without one a task may still raise `RetryLater`.
        priority: larger runs sooner within the queue.
        keep: seconds an ended job and its result stay.
        at_most_once: never started again after a crash.
        max_crashes: starts that may end by the death of the worker.
        max_payload: bytes of stored arguments, and of a stored result.
    """

    name: str
    function: Callable[..., Any]
    kind: Kind
    signature: Signature
    queue: str = "default"
    timeout: float | None = None
    retry: Retry = NO_RETRY
    asks_for_retry: bool = False
    priority: int = 0
    keep: float = DAY
    at_most_once: bool = False
    max_crashes: int = 3
    max_payload: int = MAX_PAYLOAD

    @classmethod
    def of(
        cls,
        function: Callable[..., Any],
        *,
        name: str | None,
        queue: str,
        timeout: float | timedelta | None,
        retry: Retry | int | bool | None,
        priority: int,
        keep: float | timedelta,
        delivery: Delivery,
        max_crashes: int,
        max_payload: int,
    ) -> TaskSpec:
        """Check a function and its options. Raises `ConfigError` or `InvalidName`, naming what cannot be."""
        if not callable(function):
            raise ConfigError(f"a task must be a function, not {function!r:.80}")
        signature = Signature.of(function, context_type=Context, name=name)
        name = check_id(signature.name, what="task name")
        if "<lambda>" in name:
            raise ConfigError("a lambda has no name that jobs could be stored under; write a function")
        if signature.parameters and signature.parameters[0].name == "self":
            raise ConfigError(f"task {name!r} is a method: whose `self` would a worker take? Write a function")
        if delivery not in ("at_least_once", "at_most_once"):
            raise ConfigError(
                f"task {name!r}: delivery must be 'at_least_once' or 'at_most_once', not {delivery!r:.80}"
            )
        if isinstance(max_crashes, bool) or not isinstance(max_crashes, int) or not 1 <= max_crashes <= 1000:
            raise ConfigError(f"task {name!r}: max_crashes must be 1 to 1000, for example 3; not {max_crashes!r:.80}")
        return cls(
            name=name,
            function=function,
            kind=_kind(function, name),
            signature=signature,
            queue=check_name(queue),
            timeout=seconds(f"task {name!r}: timeout", timeout, least=0.001, example="60"),
            retry=Retry.of(retry),
            asks_for_retry=retry is not None and retry is not False,
            priority=check_priority(priority),
            keep=seconds(f"task {name!r}: keep", keep, example="86400") or 0.0,
            at_most_once=delivery == "at_most_once",
            max_crashes=1 if delivery == "at_most_once" else max_crashes,
            max_payload=max_payload,
        )

    def with_envelope(self, envelope: Envelope) -> TaskSpec:
        """Return the same task with what its application puts around stored bytes."""
        signature = Signature.of(self.function, context_type=Context, name=self.name, envelope=envelope)
        return replace(self, signature=signature)


def check_priority(priority: int) -> int:
    """Return a priority, or raise `ConfigError`."""
    if isinstance(priority, bool) or not isinstance(priority, int) or not -(2**31) <= priority < 2**31:
        raise ConfigError(f"priority must be a whole number of 32 bits, larger runs sooner; not {priority!r:.80}")
    return priority


def _kind(function: Callable[..., Any], name: str) -> Kind:
    inner = function
    while hasattr(inner, "func"):  # functools.partial
        inner = inner.func
    if not inspect.isroutine(inner) and not inspect.isclass(inner):
        inner = type(inner).__call__
    if inspect.isasyncgenfunction(inner):
        return Kind.STREAM
    if inspect.iscoroutinefunction(inner):
        return Kind.ASYNC
    if inspect.isgeneratorfunction(inner):
        raise ConfigError(
            f"task {name!r} is a plain generator, which nobody would read; make it `async def` to stream what it "
            "yields, or return a list"
        )
    return Kind.THREAD


class Registry(Mapping[str, TaskSpec]):
    """The tasks of one application, by name. Only what is in here can be run, whatever a store says."""

    def __init__(self) -> None:
        self._specs: dict[str, TaskSpec] = {}

    def add(self, spec: TaskSpec) -> None:
        """Add a task; two of one name are refused."""
        known = self._specs.get(spec.name)
        if known is not None:
            raise ConfigError(
                f"there are two tasks named {spec.name!r}: {_place(known.function)} and {_place(spec.function)}; "
                "give one of them another name, as in @jobs.task(name='…')"
            )
        self._specs[spec.name] = spec

    def __getitem__(self, name: str) -> TaskSpec:
        try:
            return self._specs[name]
        except KeyError:
            near = ", ".join(sorted(self._specs)[:10]) or "none yet"
            raise UnknownTask(f"no task is named {name!r:.80}; registered are: {near}") from None

    def __iter__(self) -> Iterator[str]:
        return iter(self._specs)

    def __len__(self) -> int:
        return len(self._specs)

    def __contains__(self, name: object) -> bool:
        return name in self._specs

    def find(self, name: str) -> TaskSpec | None:
        """Return the task of that name, or None."""
        return self._specs.get(name)


def _place(function: Callable[..., Any]) -> str:
    line = getattr(getattr(function, "__code__", None), "co_firstlineno", None)
    where = f"{getattr(function, '__module__', '?')}.{getattr(function, '__qualname__', function)!s:.80}"
    return where if line is None else f"{where} (line {line})"
