"""User code raises, returns and does anything: the job ends with a text that helps, and the worker goes on (F35)."""

from __future__ import annotations

import asyncio
import threading
import warnings
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from oncue import Context, JobFailed, Oncue, State
from tests.measured import Report
from tests.worker.kit import working

pytestmark = pytest.mark.anyio


class MuteError(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no text")

    __repr__ = __str__


class TouchyError(Exception):
    """Raises whatever is done with it."""

    def _raise(self, *args: object) -> Any:
        raise ValueError("do not touch")

    __eq__ = __reduce__ = __reduce_ex__ = __bool__ = __len__ = __iter__ = _raise
    __hash__ = Exception.__hash__


class DemandingError(Exception):
    """Cannot be made again from its `args`."""

    def __init__(self, one: str, *, other: str) -> None:
        super().__init__()
        self.text = one + other


class UnmakeableError(Exception):
    def __init__(self) -> None:
        raise ZeroDivisionError("while making the exception")


class Chained(Exception):
    @property
    def __cause__(self) -> BaseException:  # type: ignore[override]
        raise LookupError("no cause")


class Unwritable:
    """Pydantic knows no way to write it."""

    def __repr__(self) -> str:
        raise RuntimeError("no repr")


def raises(error: Callable[[], BaseException]) -> Callable[[], Any]:
    def act() -> Any:
        raise error()

    return act


def cycle_of_causes() -> BaseException:
    first, second = ValueError("first"), ValueError("second")
    first.__cause__, second.__cause__ = second, first
    first.__context__ = first
    return first


def deep_group() -> BaseException:
    error: Exception = ValueError("innermost")
    for depth in range(50):
        error = ExceptionGroup(f"level {depth}", [error])
    return error


def recurse() -> Any:
    return recurse()


def warn() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.warn("taken seriously", stacklevel=1)


def cyclic_list() -> list[Any]:
    items: list[Any] = []
    items.append(items)
    return items


def deep_list() -> list[Any]:
    items: list[Any] = []
    for _ in range(100_000):
        items = [items]
    return items


RAISED: dict[str, tuple[Callable[[], Any], str]] = {
    "an error whose __str__ and __repr__ raise": (raises(MuteError), "MuteError"),
    "an error that raises when it is touched": (raises(lambda: TouchyError("x")), "TouchyError"),
    "an error that cannot be made again": (raises(lambda: DemandingError("a", other="b")), "DemandingError"),
    "an error that cannot be made": (raises(UnmakeableError), "while making the exception"),
    "an error whose cause raises": (raises(lambda: Chained("x")), "Chained"),
    "a cycle of causes": (raises(cycle_of_causes), "first"),
    "a message of 10 MB": (raises(lambda: ValueError("x" * 10_000_000)), "ValueError: xxx"),
    "a message of control characters": (raises(lambda: ValueError("\x00\x1b[31m\ud800\n\u202e")), "ValueError: "),
    "a group 50 deep": (raises(deep_group), "ExceptionGroup: level 49"),
    "KeyboardInterrupt": (raises(KeyboardInterrupt), "KeyboardInterrupt"),
    "SystemExit": (raises(lambda: SystemExit(3)), "SystemExit"),
    "CancelledError": (raises(asyncio.CancelledError), "CancelledError"),
    "GeneratorExit": (raises(GeneratorExit), "GeneratorExit"),
    "StopIteration": (raises(lambda: StopIteration(1)), "StopIteration"),
    "StopAsyncIteration": (raises(StopAsyncIteration), "StopAsyncIteration"),
    "MemoryError": (raises(MemoryError), "MemoryError"),
    "BaseException": (raises(lambda: BaseException("bare")), "BaseException: bare"),
    "endless recursion": (recurse, "RecursionError"),
    "a warning taken for an error": (warn, "taken seriously"),
    "raise of no exception": (raises(lambda: 7), "TypeError"),  # type: ignore[arg-type, return-value]
}
RETURNED: dict[str, Callable[[], Any]] = {
    "an object": Unwritable,
    "a lock": threading.Lock,
    "a function": lambda: warn,
    "a list that holds itself": cyclic_list,
    "a list 100,000 deep": deep_list,
    "a lone surrogate": lambda: "\ud800",
    "an exception": lambda: MuteError("x"),
    "an integer of 20,000 digits": lambda: 1 << 66_000,
}
KINDS = [*RAISED, *(f"a result that is {name}" for name in RETURNED)]
FLAVOURS = ["async", "thread", "stream"]


def register(jobs: Oncue, flavour: str, act: Callable[[], Any]) -> None:
    """Declare the task `odd`, which does the odd thing after it has reported something."""

    async def in_loop(ctx: Context) -> Any:
        await ctx.log("about to")
        return act()

    def in_thread(ctx: Context) -> Any:
        ctx.log_sync("about to")
        return act()

    async def as_stream(ctx: Context) -> AsyncIterator[Any]:
        yield "about to"
        yield act()

    function = {"async": in_loop, "thread": in_thread, "stream": as_stream}[flavour]
    jobs.task(name="odd")(function)


@pytest.mark.parametrize("flavour", FLAVOURS)
@pytest.mark.parametrize("kind", KINDS)
async def test_the_job_fails_with_a_useful_text_and_the_next_one_runs(
    jobs: Oncue, kind: str, flavour: str, caplog: pytest.LogCaptureFixture
) -> None:
    returned = kind.removeprefix("a result that is ")
    act, text = RAISED[kind] if kind in RAISED else (RETURNED[returned], "")
    register(jobs, flavour, act)

    @jobs.task()
    async def sane() -> str:
        return "well"

    async with working(jobs, concurrency=1) as worker:
        job = await jobs.enqueue("odd")
        after = await sane.enqueue()
        with pytest.raises(JobFailed) as caught:
            await job.result(10)
        assert await after.result(10) == "well"
        assert worker.ready
    info = await job.info()
    assert info.state is State.FAILED
    assert info.reason == ("error" if kind in RAISED else "result")
    assert info.error
    assert text in info.error
    assert len(info.error) <= 600
    assert len(str(caught.value)) < 2_000
    [attempt] = await jobs.engine.attempts(job.id)
    assert attempt.failure is not None
    assert len(attempt.failure.message) <= 5_000
    if kind in RAISED:
        assert "act" in attempt.failure.traceback or "RecursionError" in attempt.failure.traceback
    assert "internal error" not in caplog.text
    assert "never retrieved" not in caplog.text


def test_the_count_of_odd_kinds(report: Report) -> None:
    report("odd Python: kinds × (async, thread, stream) that fail well, next job runs", f"{len(KINDS)} × 3")
    assert len(RAISED) >= 20


async def test_a_task_that_cancels_itself_fails_and_leaves_the_worker_alone(jobs: Oncue) -> None:
    @jobs.task()
    async def selfish(ctx: Context) -> None:
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        await ctx.log("the next await is cancelled")

    @jobs.task()
    async def careless(ctx: Context) -> str:
        """Its own cancellation is still to come when it returns."""
        task = asyncio.current_task()
        assert task is not None
        ctx.log_sync("something to be stored behind it")
        task.cancel()
        return "done"

    async with working(jobs):
        with pytest.raises(JobFailed, match="CancelledError"):
            await (await selfish.enqueue()).result(5)
        await (await careless.enqueue()).wait(5)
        with pytest.raises(JobFailed, match="CancelledError"):
            await (await selfish.enqueue()).result(5)


async def test_arguments_that_no_longer_fit_fail_the_job_as_unreadable(jobs: Oncue) -> None:
    @jobs.task()
    async def count(number: int) -> int:
        return number

    async with working(jobs):
        job = await count.enqueue(1)
        assert await job.result(5) == 1
        for payload in (b"", b"\x01", b"\x01{", b'\x01{"number":"x"}', b"\xff\xff", b'\x01{"other":1}', b"\x02{}"):
            request = count.request(1).job
            broken = type(request)(request.id, request.task, payload=payload)
            await jobs.client.send(broken)
            info = await jobs.job(request.id).wait(5)
            assert (info.state, info.reason) == (State.FAILED, "unreadable"), payload
            assert info.error
        assert await (await count.enqueue(2)).result(5) == 2
