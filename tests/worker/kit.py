"""A worker inside the test, and a store that can be hindered."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from inspect import isawaitable
from typing import Any

from oncue import Oncue, Worker
from oncue.engine import Engine
from oncue.engines.sqlite import SQLiteEngine

__all__ = ["HinderedEngine", "eventually", "working"]

Hook = Callable[[str], Awaitable[None]]


@asynccontextmanager
async def working(jobs: Oncue, **options: Any) -> AsyncIterator[Worker]:
    """Run a worker beside the test; at the end stop it, and fail if it does not end or ended with an error."""
    worker = jobs.worker(**options)
    running = asyncio.create_task(worker.run(), name="worker")
    try:
        yield worker
    finally:
        worker.stop()
        async with asyncio.timeout(30):
            await running


async def eventually(
    condition: Callable[[], Any | Awaitable[Any]], what: str, *, within: float = 10.0, every: float = 0.01
) -> Any:
    """Wait until a condition holds and return what it answered; past the deadline fail, saying what did not come."""
    deadline = time.monotonic() + within
    while True:
        answer = condition()
        if isawaitable(answer):
            answer = await answer
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"within {within:g} s it did not come about that {what}")
        await asyncio.sleep(every)


class HinderedEngine(SQLiteEngine):
    """The SQLite engine, with something done before and after its calls: waiting, or an error.

    Args:
        url: names a file; siblings open it again, and are hindered alike.
    """

    def __init__(self, url: str) -> None:
        super().__init__(url)
        self.before: dict[str, Hook] = {}
        """By method name, or `*` for each; what it raises the call raises, not done."""
        self.after: dict[str, Hook] = {}
        """The same, when the call is done: what it raises is a reply lost."""

    def sibling(self) -> Engine:
        sibling = HinderedEngine(self.url)
        sibling.before, sibling.after = self.before, self.after
        return sibling


_CALLS = (
    "append", "cancel", "claim", "enqueue", "finish", "get", "heartbeat", "prune", "queues", "read", "rescue",
)  # fmt: skip


def _hindered(name: str) -> Callable[..., Awaitable[Any]]:
    original = getattr(SQLiteEngine, name)

    async def call(self: HinderedEngine, *args: Any, **kwargs: Any) -> Any:
        for hook in (self.before.get("*"), self.before.get(name)):
            if hook is not None:
                await hook(name)
        answer = await original(self, *args, **kwargs)
        if (hook := self.after.get(name)) is not None:
            await hook(name)
        return answer

    return call


for _name in _CALLS:
    setattr(HinderedEngine, _name, _hindered(_name))
