"""What a type checker makes of the public names: checked by mypy, never run."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, assert_type

from oncue import Context, Job, JobEvent, JobInfo, Oncue, State, TaskRouter
from oncue.engine import CancelAnswer

jobs = Oncue("sqlite://:memory:")
router = TaskRouter()


@jobs.task()
async def plain(x: int, y: str = "") -> float:
    return float(x)


@jobs.task(queue="images", timeout=60, retry=5)
async def with_context(ctx: Context, data: bytes, width: int = 320) -> dict[str, int]:
    return {}


@jobs.task()
def in_a_thread(ctx: Context, path: str) -> bytes:
    return b""


@jobs.task()
def thread_without_context(path: str) -> bytes:
    return b""


@jobs.task()
async def stream(ctx: Context, n: int) -> AsyncIterator[int]:
    yield n


@router.task()
async def grouped() -> None: ...


async def use() -> None:
    job = await plain.enqueue(1, y="a")
    assert_type(job, Job[float])
    assert_type(await job.result(timeout=1), float)
    assert_type(await job.status(), State)
    assert_type(await job.info(), JobInfo)
    assert_type(await job.cancel(), CancelAnswer)
    async for event in job.events():
        assert_type(event, JobEvent)

    assert_type(await with_context.enqueue(b"", width=3), Job[dict[str, int]])
    assert_type(await with_context.options(delay=1).enqueue(b""), Job[dict[str, int]])
    assert_type(await in_a_thread.enqueue("a"), Job[bytes])
    assert_type(await thread_without_context.enqueue("a"), Job[bytes])
    assert_type(await stream.enqueue(3), Job[None])
    assert_type(await grouped.enqueue(), Job[None])
    assert_type(jobs.job("id"), Job[Any])
    assert_type(plain.enqueue_sync(1), Job[float])

    await plain.enqueue("1")  # type: ignore[arg-type]
    await plain.enqueue()  # type: ignore[call-arg]
    await plain.enqueue(1, z=2)  # type: ignore[call-arg]
    await with_context.enqueue()  # type: ignore[call-arg]
    await with_context.enqueue(b"", hight=3)  # type: ignore[call-arg]
    await in_a_thread.enqueue(7)  # type: ignore[arg-type]
    await plain.options(dely=3).enqueue(1)  # type: ignore[call-arg]
    plain.request("x")  # type: ignore[arg-type]
