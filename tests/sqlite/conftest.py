"""An open engine on a file of its own, whose store is checked when the test has ended."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from oncue.engines.sqlite import SQLiteEngine
from oncue.testing.conformance.steps import job, put
from oncue.testing.invariants import check_invariants


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Return where the store's file is, or will be."""
    return tmp_path / "jobs.db"


@pytest.fixture
async def engine(path: Path) -> AsyncIterator[SQLiteEngine]:
    """Open an engine on an empty file."""
    async with SQLiteEngine(f"sqlite:///{path}") as engine:
        yield engine
        await check_invariants(engine)


@pytest.fixture
def store(path: Path) -> Path:
    """Return the closed file of a store with three jobs."""

    async def make() -> None:
        async with SQLiteEngine(f"sqlite:///{path}") as engine:
            await put(engine, job("a"), job("b"), job("c"))

    asyncio.run(make())
    return path
