"""A store for each test, and proof that its worker left nothing behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from oncue import Oncue
from tests.worker.kit import HinderedEngine, eventually


@pytest.fixture
async def jobs(tmp_path: Path) -> AsyncIterator[Oncue]:
    """An application on a store in memory."""
    async with Oncue("sqlite://:memory:") as app:
        yield app
    await nothing_is_left()


@pytest.fixture
def engine(tmp_path: Path) -> HinderedEngine:
    """A store in a file that can be hindered."""
    return HinderedEngine(f"sqlite:///{tmp_path / 'jobs.db'}")


@pytest.fixture
async def hindered(engine: HinderedEngine) -> AsyncIterator[Oncue]:
    """An application on a store that can be hindered."""
    async with Oncue(engine) as app:
        yield app
    await nothing_is_left()


async def nothing_is_left() -> None:
    """Prove that no part of a worker runs on."""

    def parts() -> list[str]:
        tasks = [task.get_name() for task in asyncio.all_tasks()]
        threads = [thread.name for thread in threading.enumerate()]
        return [name for name in (*tasks, *threads) if name.startswith("oncue-")]

    try:
        await eventually(lambda: not parts(), "nothing of the worker is left", within=2)
    except AssertionError:
        raise AssertionError(f"left behind: {parts()}") from None
