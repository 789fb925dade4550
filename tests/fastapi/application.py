"""The application under test: its tasks, its endpoints, and one file of jobs."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Response

from oncue import Context, Oncue, WorkerSettings
from oncue.fastapi import JobsDep, OncueRouter, oncue_router

QUICK = WorkerSettings(lease=5, grace=0.3, cleanup=1)


async def eventually(condition: Callable[[], bool], what: str, patience: float = 10) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"waited {patience:g} s in vain until {what}"
        await asyncio.sleep(0.01)


class Gate:
    """Holds tasks up until a test opens it."""

    def __init__(self) -> None:
        self._open = asyncio.Event()

    def open(self) -> None:
        self._open.set()

    async def passed(self) -> None:
        await self._open.wait()


def register(jobs: Oncue, gate: Gate | None = None) -> None:
    """Register the tasks."""
    gate = gate or Gate()

    @jobs.task()
    async def add(a: int, b: int) -> int:
        return a + b

    @jobs.task()
    async def nothing() -> None:
        return None

    @jobs.task()
    async def echo(value: Any) -> Any:
        return value

    @jobs.task()
    async def fail(message: str) -> None:
        local_secret = "a local variable"
        raise ValueError(message, len(local_secret))

    @jobs.task()
    async def hold(ctx: Context) -> str:
        await ctx.progress(1, 4, "waiting at the gate")
        await gate.passed()
        return "held"

    @jobs.task()
    async def stream(count: int, pause: float = 0) -> AsyncIterator[int]:
        for number in range(count):
            yield number
            await asyncio.sleep(pause)

    @jobs.task()
    async def gated_stream(before: int, after: int) -> AsyncIterator[int]:
        for number in range(before):
            yield number
        await gate.passed()
        for number in range(before, before + after):
            yield number

    @jobs.task()
    async def flood(count: int) -> AsyncIterator[str]:
        for _ in range(count):
            yield "x" * 65_536

    @jobs.task()
    async def sleep(seconds: float) -> None:
        await asyncio.sleep(seconds)


@dataclass
class Application:
    """A FastAPI application with jobs at /jobs, and what a test needs of it."""

    jobs: Oncue
    app: FastAPI
    router: OncueRouter
    gate: Gate = field(default_factory=Gate)

    async def start(self, task: str, *arguments: Any) -> str:
        """Enqueue a job and return its id."""
        return (await self.jobs.enqueue(task, *arguments)).id

    async def held_up(self, job_id: str) -> None:
        """Wait until a job of the task `hold` has come to the gate, and said so."""
        async with asyncio.timeout(10):
            async for event in self.jobs.job(job_id).events():
                if event.kind == "progress":
                    return


def build(store: Path | str, *, settings: WorkerSettings = QUICK, **options: Any) -> Application:
    """Return an application on a file; `options` are those of its router."""
    gate = Gate()
    jobs = Oncue(f"sqlite:///{store}", settings=settings)
    register(jobs, gate)
    router = oncue_router(jobs, **options)
    app = FastAPI()
    app.include_router(router, prefix="/jobs")

    @app.post("/start/{task}")
    async def start(task: str, jobs: JobsDep, arguments: Sequence[Any]) -> dict[str, str]:
        return {"id": (await jobs.enqueue(task, *arguments)).id}

    @app.get("/ready")
    async def ready() -> Response:
        return Response(status_code=200 if router.ready else 503)

    return Application(jobs, app, router, gate)


def served() -> FastAPI:
    """Return the application that a server of its own serves; see `serving.py`."""
    asked = os.environ.get
    return build(
        os.environ["JOBS_UNDER_TEST"],
        settings=QUICK.with_options({"grace": float(asked("GRACE_UNDER_TEST", QUICK.grace))}),
        worker="embedded",
        max_streams=int(asked("STREAMS_UNDER_TEST", 200)),
    ).app
