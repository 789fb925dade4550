"""An application of its own for each test, with a store in a file."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest

from oncue import Oncue, Worker

Working = Callable[..., AbstractAsyncContextManager[Worker]]


@pytest.fixture
async def jobs(tmp_path: Path) -> AsyncIterator[Oncue]:
    async with Oncue(f"sqlite:///{tmp_path / 'jobs.db'}") as opened:
        yield opened


@pytest.fixture
def working(jobs: Oncue) -> Working:
    """`async with working(): …` runs a worker meanwhile."""

    @contextlib.asynccontextmanager
    async def run(**options: Any) -> AsyncIterator[Worker]:
        worker = jobs.worker(**options)
        task = asyncio.create_task(worker.run())
        try:
            yield worker
        finally:
            worker.stop()
            await task

    return run
