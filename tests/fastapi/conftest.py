"""Applications, with and without a server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import httpx
import pytest

from tests.fastapi.application import Application, build
from tests.fastapi.serving import Server


@pytest.fixture
def store(tmp_path: Path) -> Path:
    return tmp_path / "jobs.db"


@pytest.fixture
async def application(store: Path) -> AsyncIterator[Application]:
    """An application that runs, with an embedded worker."""
    application = build(store, worker="embedded")
    async with application.app.router.lifespan_context(application.app):
        yield application
        application.gate.open()


@pytest.fixture
async def client(application: Application) -> AsyncIterator[httpx.AsyncClient]:
    async with client_of(application) as client:
        yield client


def client_of(application: Application) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(application.app), base_url="http://test")


@pytest.fixture
def server(store: Path) -> Iterator[Server]:
    """The application in a process of its own, under uvicorn."""
    with Server(store) as server:
        yield server
