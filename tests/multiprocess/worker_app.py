"""The application whose worker processes the tests start, freeze and kill.

A process is told by the environment, `ONCUE_TEST_PLAN`, what to work on. Run as a module it is one worker on asyncio's
own event loop; `oncue worker tests.multiprocess.worker_app:jobs` is another. The tasks note what they did in a file
outside the queue, by which the tests judge what the store says.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import json
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Literal

from oncue import Context, Oncue, Retry, WorkerSettings

__all__ = ["Effects", "build"]

OLD_RELEASE = "old"


class Effects:
    """Notes what tasks do: one line each, with one write, so that processes do not cut into each other's lines."""

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def note(self, what: str, ctx: Context) -> None:
        """Write `what job attempt token pid monotonic`."""
        line = f"{what} {ctx.job_id} {ctx.attempt} {ctx.token} {os.getpid()} {time.monotonic():.6f}\n"
        os.write(self._file, line.encode())

    def close(self) -> None:
        os.close(self._file)


def build(url: str, effects: Path, *, release: str = "", settings: WorkerSettings | None = None) -> Oncue:
    """Return the application; the old release lacks the task `novel`."""
    jobs = Oncue(url, settings=settings)
    notes = Effects(effects)

    @jobs.task(max_crashes=1000)
    async def work(ctx: Context, seconds: float = 0.0) -> str:
        """Wait, as code does that waits for a network."""
        notes.note("start", ctx)
        await asyncio.sleep(seconds)
        notes.note("end", ctx)
        return f"{ctx.job_id} by {ctx.token}"

    @jobs.task()
    async def fragile(ctx: Context, seconds: float = 0.0) -> None:
        """`work` with the default number of crashes."""
        notes.note("start", ctx)
        await asyncio.sleep(seconds)
        notes.note("end", ctx)

    @jobs.task()
    async def block(ctx: Context, seconds: float) -> None:
        """Block the event loop, as faulty code does."""
        notes.note("start", ctx)
        time.sleep(seconds)  # noqa: ASYNC251
        notes.note("end", ctx)

    @jobs.task()
    def sleep_in_thread(ctx: Context, seconds: float) -> None:
        """Wait in a thread, deaf to everything."""
        notes.note("start", ctx)
        time.sleep(seconds)
        notes.note("end", ctx)

    @jobs.task()
    async def sleep_in_own_thread(ctx: Context, seconds: float) -> None:
        """Wait in a thread that the worker knows nothing of."""
        notes.note("start", ctx)
        await asyncio.to_thread(time.sleep, seconds)
        notes.note("end", ctx)

    @jobs.task()
    async def stubborn(ctx: Context, seconds: float) -> None:
        """Wait, and swallow every cancellation."""
        notes.note("start", ctx)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0.1)
        notes.note("end", ctx)

    @jobs.task()
    async def tidy(ctx: Context, seconds: float, cleanup: float) -> None:
        """Wait, and take time to clean up when interrupted."""
        notes.note("start", ctx)
        try:
            await asyncio.sleep(seconds)
            notes.note("end", ctx)
        except asyncio.CancelledError:
            await asyncio.sleep(cleanup)
            notes.note("cleaned", ctx)
            raise

    @jobs.task(delivery="at_most_once")
    async def once(ctx: Context, seconds: float) -> None:
        """Wait, and never again."""
        notes.note("start", ctx)
        await asyncio.sleep(seconds)
        notes.note("end", ctx)

    @jobs.task(retry=Retry(max=2, base=0.05, jitter="none"))
    async def fail_once(ctx: Context) -> int:
        """Fail at the first attempt."""
        notes.note("start", ctx)
        if ctx.attempt == 1:
            raise OSError("not yet")
        notes.note("end", ctx)
        return ctx.attempt

    @jobs.task()
    async def poison(ctx: Context, how: Literal["exit", "segfault", "kill"], after: float = 0.0) -> None:
        """Take the whole process down."""
        notes.note("start", ctx)
        await asyncio.sleep(after)
        _DEATHS[how]()

    @jobs.task()
    async def chatter(ctx: Context, seconds: float) -> int:
        """Write to the job's feed all the time."""
        notes.note("start", ctx)
        until, lines = time.monotonic() + seconds, 0
        while time.monotonic() < until:
            lines += 1
            await ctx.log(f"{ctx.token} {lines}")
            await asyncio.sleep(0.02)
        notes.note("end", ctx)
        return ctx.token

    @jobs.task()
    async def count_aloud(ctx: Context, to: int) -> AsyncIterator[int]:
        """Stream numbers, with progress and log lines between."""
        notes.note("start", ctx)
        for number in range(to):
            await ctx.progress(number, to)
            await ctx.log(str(number))
            yield number
            await asyncio.sleep(0.005)
        notes.note("end", ctx)

    if release != OLD_RELEASE:

        @jobs.task()
        async def novel(ctx: Context) -> int:
            """Be unknown to the old release."""
            notes.note("start", ctx)
            notes.note("end", ctx)
            return ctx.attempt

    return jobs


def _segfault() -> None:
    signal.signal(signal.SIGSEGV, signal.SIG_DFL)
    ctypes.string_at(0)


_DEATHS: dict[str, Callable[[], Any]] = {
    "exit": lambda: os._exit(3),
    "segfault": _segfault,
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
}


async def _serve(jobs: Oncue, *, exit_when_stuck: bool) -> None:
    async with jobs:
        worker = jobs.worker()
        if exit_when_stuck:
            worker.on_stall = lambda: os._exit(70)
        await worker.run(signals=True)


if "ONCUE_TEST_PLAN" in os.environ:
    plan: dict[str, Any] = json.loads(os.environ["ONCUE_TEST_PLAN"])
    jobs = build(
        plan["url"], Path(plan["effects"]), release=plan["release"], settings=WorkerSettings(**plan["settings"])
    )
    if __name__ == "__main__":
        logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
        asyncio.run(_serve(jobs, exit_when_stuck=plan["exit_when_stuck"]))
