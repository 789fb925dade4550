"""The wiring of the demo: store, tasks, routes, headers, and the embedded worker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final
from urllib.parse import quote

from fastapi import FastAPI
from starlette.staticfiles import StaticFiles

from oncue import Oncue, WorkerSettings
from oncue.demo import api, pages
from oncue.demo.desk import Desk
from oncue.demo.headers import SameSite, SecurityHeaders
from oncue.demo.limits import SmallBodies
from oncue.demo.problems import handle_problems
from oncue.demo.tasks import register
from oncue.demo.uploads import Uploads
from oncue.fastapi import oncue_router

__all__ = ["build"]

AT_ONCE: Final = 10
"""How many jobs run at the same time: few, so that the others are seen waiting."""
LEASE: Final = 5.0
"""Seconds. Shorter than usual, so that jobs go on soon after the server was killed and started again."""


def build(url: str | None, data_dir: Path) -> FastAPI:
    """Return the application; see `oncue.demo.create_app`."""
    uploads = Uploads(data_dir)
    jobs = Oncue(url or _store_in(data_dir), settings=WorkerSettings(concurrency=AT_ONCE, lease=LEASE))
    desk = Desk(jobs, register(jobs, uploads), uploads)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        uploads.open()  # before the store, whose file is in the same folder
        yield

    # FastAPI's own documentation pages load scripts from elsewhere; what they show is at /openapi.json.
    app = FastAPI(title="Oncue demo", lifespan=lifespan, docs_url=None, redoc_url=None)
    app.include_router(pages.routes(desk))
    app.include_router(api.routes(desk))
    app.include_router(oncue_router(jobs, worker="embedded"), prefix="/api/jobs")
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"))
    handle_problems(app)
    app.add_middleware(SmallBodies)
    app.add_middleware(SameSite)
    app.add_middleware(SecurityHeaders)
    return app


def _store_in(folder: Path) -> str:
    return f"sqlite:///{quote(str(folder.absolute() / 'jobs.db'))}"
