"""What starts and stops with the application: the store, the embedded worker; and whose jobs an endpoint gets."""

from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, Depends, FastAPI, HTTPException
from fastapi.routing import APIRoute

from oncue import ConfigError, EngineUnavailable, MissingExtra, Oncue
from oncue.engine import Rescued
from oncue.engines.sqlite import SQLiteEngine
from oncue.fastapi import JobsDep, get_jobs, oncue_router
from tests.fastapi.application import QUICK, Application, Gate, build, eventually, register
from tests.fastapi.conftest import client_of
from tests.fastapi.test_routes import ROUTES, problem_of
from tests.measured import Report

pytestmark = pytest.mark.anyio


@asynccontextmanager
async def running(app: FastAPI) -> AsyncIterator[httpx.AsyncClient]:
    """Run an application as a server does, and talk to it."""
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client,
    ):
        yield client


def other(store: Path, name: str) -> Oncue:
    """Return an Oncue application with a file and a task of its own."""
    jobs = Oncue(f"sqlite:///{store.with_name(name)}.db", settings=QUICK)

    @jobs.task(name="whoami")
    async def whoami() -> str:
        return name

    return jobs


def embedded_workers() -> int:
    """Return how many embedded workers run on this event loop."""
    return sum(task.get_name() == "oncue-embedded-worker" for task in asyncio.all_tasks())


async def test_an_embedded_worker_runs_jobs_while_the_application_does(store: Path) -> None:
    application = build(store, worker="embedded")
    async with running(application.app) as client:
        job_id = await application.start("add", 1, 2)
        assert (await client.get(f"/jobs/{job_id}/result", params={"wait": 10})).json() == 3
        assert application.router.ready
    assert not application.router.ready
    with pytest.raises(EngineUnavailable, match="not open"):
        await application.start("add", 1, 2)


async def test_without_a_worker_jobs_wait_for_one_elsewhere(store: Path, caplog: pytest.LogCaptureFixture) -> None:
    application = build(store)
    with caplog.at_level(logging.INFO, "oncue"):
        async with running(application.app) as client:
            assert application.router.ready
            assert embedded_workers() == 0
            job_id = await application.start("add", 1, 2)
            assert (await client.get(f"/jobs/{job_id}")).json()["state"] == "queued"
            await application.jobs.worker(burst=True).run()
            assert (await client.get(f"/jobs/{job_id}/result")).json() == 3
    assert "oncue worker" in caplog.text


async def test_an_application_can_be_started_again(store: Path) -> None:
    application = build(store, worker="embedded")
    for _ in range(3):
        async with running(application.app) as client:
            job_id = await application.start("add", 1, 2)
            answer = await client.get(f"/jobs/{job_id}/result", params={"wait": 10})
            assert answer.json() == 3


async def test_the_embedded_worker_has_the_settings_of_its_application_but_never_ends_by_itself(store: Path) -> None:
    jobs = Oncue(f"sqlite:///{store}", settings=QUICK.with_options({"concurrency": 3, "burst": True}))
    register(jobs, gate := Gate())
    app = FastAPI()
    app.include_router(router := oncue_router(jobs, worker="embedded"), prefix="/jobs")
    application = Application(jobs, app, router)
    async with running(app) as client:
        for _ in range(2):
            job_id = await application.start("add", 1, 2)
            assert (await client.get(f"/jobs/{job_id}", params={"wait": 10})).json()["state"] == "completed"
        assert router.ready
        held = [await application.start("hold") for _ in range(5)]
        for job_id in held[:3]:
            await application.held_up(job_id)
        states = [info.state.value for info in await jobs.client.infos(held) if info is not None]
        assert states == ["running"] * 3 + ["queued"] * 2
        gate.open()


async def test_the_applications_own_lifespan_has_the_store_neither_before_nor_after(store: Path) -> None:
    jobs = Oncue(f"sqlite:///{store}", settings=QUICK)
    register(jobs)
    told: list[str] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[dict[str, str]]:
        told.append("own start")
        yield {"mine": "kept"}
        told.append("own stop")

    app = FastAPI(lifespan=lifespan)
    app.include_router(oncue_router(jobs, worker="embedded"), prefix="/jobs")
    async with app.router.lifespan_context(app) as state:
        assert state == {"mine": "kept"}
        assert await (await jobs.enqueue("add", 1, 2)).result(10) == 3
    assert told == ["own start", "own stop"]


async def test_a_router_works_within_a_router(store: Path) -> None:
    jobs = other(store, "nested")
    api, inner, app = APIRouter(prefix="/v1"), APIRouter(prefix="/deep"), FastAPI()
    inner.include_router(oncue_router(jobs, worker="embedded"), prefix="/jobs")
    api.include_router(inner)
    app.include_router(api, prefix="/api")
    async with running(app) as client:
        job = await jobs.enqueue("whoami")
        status = (await client.get(f"/api/v1/deep/jobs/{job.id}", params={"wait": 10})).json()
        assert status["state"] == "completed"
        assert status["links"]["result"] == f"/api/v1/deep/jobs/{job.id}/result"
        assert (await client.get(status["links"]["result"])).json() == "nested"


async def test_a_router_in_a_mounted_application_runs_by_the_lifespan_of_the_outer_one(store: Path) -> None:
    jobs = other(store, "mounted")
    router = oncue_router(jobs, worker="embedded")
    inner = FastAPI()
    inner.include_router(router, prefix="/jobs")
    outer = FastAPI(lifespan=router.lifespan_context)
    outer.mount("/inner", inner)
    async with running(outer) as client:
        job = await jobs.enqueue("whoami")
        status = (await client.get(f"/inner/jobs/{job.id}", params={"wait": 10})).json()
        assert status["state"] == "completed"
        assert (await client.get(status["links"]["result"])).json() == "mounted"

    forgetful = FastAPI()
    forgetful.mount("/inner", inner)
    async with running(forgetful) as client:
        problem = problem_of(await client.get(f"/inner/jobs/{job.id}"), 503)
        assert "lifespan=router.lifespan_context" in str(problem["detail"])


async def test_a_router_that_is_included_twice_has_one_worker(store: Path) -> None:
    jobs = other(store, "twice")
    app = FastAPI()
    router = oncue_router(jobs, worker="embedded")
    app.include_router(router, prefix="/v1/jobs")
    app.include_router(router, prefix="/v2/jobs")

    @app.post("/start")
    async def start(jobs: JobsDep) -> str:
        return (await jobs.enqueue("whoami")).id

    async with running(app) as client:
        job_id = (await client.post("/start")).json()
        for version in ("v1", "v2"):
            assert (await client.get(f"/{version}/jobs/{job_id}", params={"wait": 10})).json()["state"] == "completed"
        assert embedded_workers() == 1
        assert router.ready
    assert not router.ready


async def test_a_store_that_cannot_be_used_stops_the_start(tmp_path: Path) -> None:
    (tmp_path / "jobs.db").write_text("this is no database, and long enough to be looked at " * 100)
    application = build(tmp_path / "jobs.db", worker="embedded")
    with pytest.raises(Exception, match="database"):
        async with running(application.app):
            pass
    assert not application.router.ready


async def test_an_embedded_worker_without_tasks_stops_the_start_and_leaves_the_store_closed(store: Path) -> None:
    jobs = Oncue(f"sqlite:///{store}")
    app = FastAPI()
    app.include_router(oncue_router(jobs, worker="embedded"), prefix="/jobs")
    with pytest.raises(ConfigError, match="at least one task"):
        async with running(app):
            pass
    with pytest.raises(EngineUnavailable, match="not open"):
        await jobs.engine.queues()


@pytest.mark.parametrize(
    ("options", "named"),
    [({"worker": "inline"}, "'embedded'"), ({"worker": True}, "worker"), ({"max_streams": 0}, "max_streams")],
)
def test_an_option_that_cannot_be_is_refused_with_one_that_can(store: Path, options: Any, named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        oncue_router(Oncue(f"sqlite:///{store}"), **options)


class BreakingEngine(SQLiteEngine):
    """An engine with a bug, which a test brings out."""

    broken = False

    async def rescue(self, *, limit: int, lease: timedelta, dead: Any = ()) -> list[Rescued]:
        if self.broken:
            raise RuntimeError("a bug in the engine")
        return await super().rescue(limit=limit, lease=lease, dead=dead)


async def test_a_worker_that_dies_is_loudly_logged_and_the_application_is_not_ready_any_more(
    store: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = BreakingEngine(f"sqlite:///{store}")
    jobs = Oncue(engine, settings=QUICK.with_options({"maintenance": 0.05}))
    register(jobs)
    app = FastAPI()
    app.include_router(router := oncue_router(jobs, worker="embedded"), prefix="/jobs")
    async with running(app) as client:
        job = await jobs.enqueue("add", 1, 2)
        assert (await client.get(f"/jobs/{job.id}/result", params={"wait": 10})).json() == 3
        assert router.ready
        engine.broken = True
        await eventually(lambda: not router.ready, "the application is not ready")
        assert (await client.get(f"/jobs/{job.id}/result")).json() == 3, "what is stored can still be read"
    criticals = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    [record] = [record for record in criticals if record.name == "oncue.fastapi"]
    assert "embedded worker died" in record.getMessage()
    assert record.exc_info is not None
    assert "a bug in the engine" in str(record.exc_info[1])


async def test_an_idle_embedded_worker_starts_a_job_at_once(store: Path, report: Report) -> None:
    jobs = Oncue(f"sqlite:///{store}", settings=QUICK)
    started: dict[int, float] = {}

    @jobs.task()
    async def note(number: int) -> None:
        started[number] = time.perf_counter()

    app = FastAPI()
    app.include_router(oncue_router(jobs, worker="embedded"), prefix="/jobs")
    waits: list[float] = []
    async with running(app):
        for number in range(200):
            asked = time.perf_counter()
            await (await note.enqueue(number)).wait(10)
            waits.append((started[number] - asked) * 1000)
    waits.sort()
    report("embedded worker: from enqueue to start, p50 of 200", waits[100], "ms")
    report("embedded worker: from enqueue to start, p99 of 200", waits[197], "ms")
    assert waits[100] < 25


async def test_jobs_dep_gives_the_jobs_of_the_application(store: Path) -> None:
    application = build(store, worker="embedded")
    async with running(application.app) as client:
        job_id = (await client.post("/start/add", json=[1, 2])).json()["id"]
        assert (await client.get(f"/jobs/{job_id}/result", params={"wait": 10})).json() == 3


async def test_two_applications_beside_each_other_never_meet(store: Path) -> None:
    first, second = other(store, "first"), other(store, "second")
    app = FastAPI()
    app.include_router(oncue_router(first, worker="embedded"), prefix="/first")
    app.include_router(oncue_router(second, worker="embedded"), prefix="/second")

    @app.post("/ambiguous")
    async def ambiguous(jobs: JobsDep) -> None: ...

    the_second = Depends(lambda: second)

    @app.post("/named")
    async def named(jobs: Oncue = the_second) -> str:
        return (await jobs.enqueue("whoami")).id

    async with running(app) as client:
        of_first, of_second = await first.enqueue("whoami"), await second.enqueue("whoami")
        for mine, yours, name in (("first", "second", of_first.id), ("second", "first", of_second.id)):
            assert (await client.get(f"/{mine}/{name}/result", params={"wait": 10})).json() == mine
            for method, path in ROUTES:
                path = path.replace("jobs", yours).format(name)
                assert (await client.request(method, path)).status_code == 404
        with pytest.raises(ConfigError, match="which of 2"):
            await client.post("/ambiguous")
        job_id = (await client.post("/named")).json()
        assert (await client.get(f"/second/{job_id}/result", params={"wait": 10})).json() == "second"


async def test_jobs_dep_without_a_router_says_what_is_missing() -> None:
    app = FastAPI()

    @app.get("/")
    async def endpoint(jobs: JobsDep) -> None: ...

    async with running(app) as client:
        with pytest.raises(ConfigError, match="include_router"):
            await client.get("/")


async def test_a_test_can_put_other_jobs_in_the_place_of_the_real_ones(store: Path) -> None:
    application = build(store)  # its lifespan does not run: the real store is never opened
    replacement = Oncue("sqlite://:memory:", settings=QUICK)
    register(replacement)
    application.app.dependency_overrides[get_jobs] = lambda: replacement
    async with replacement, client_of(application) as client:
        job_id = (await client.post("/start/add", json=[1, 2])).json()["id"]
        assert (await client.get(f"/jobs/{job_id}")).json()["state"] == "queued"
        await replacement.worker(burst=True).run()
        assert (await client.get(f"/jobs/{job_id}/result")).json() == 3
        assert "completed" in (await client.get(f"/jobs/{job_id}/events")).text
    assert not store.exists()


async def test_a_guard_guards_every_route(store: Path) -> None:
    def guard(key: str | None = None) -> None:
        if key != "let me in":
            raise HTTPException(401, "no key", headers={"WWW-Authenticate": "Key"})

    application = build(store, worker="embedded", dependencies=[Depends(guard)])
    routes = [
        (method, f"/jobs{route.path}")
        for route in application.router.routes
        if isinstance(route, APIRoute)
        for method in route.methods or ()
    ]
    assert len(routes) == len(application.router.routes) == len(ROUTES), "a route of another kind would be open"
    async with running(application.app) as client:
        job_id = await application.start("add", 1, 2)
        await application.jobs.job(job_id).wait(10)
        for method, path in routes:
            for known in (job_id, "nobody", "a%00b"):
                answer = await client.request(method, path.format(job_id=known))
                assert answer.status_code == 401, (method, path, known)
                assert answer.json() == {"detail": "no key"}
                assert answer.headers["www-authenticate"] == "Key"
            answer = await client.request(method, path.format(job_id=job_id), params={"key": "let me in"})
            assert answer.status_code in (200, 409)


@pytest.mark.parametrize("missing", ["fastapi", "sse_starlette"])
def test_without_the_extra_the_import_says_what_to_install(missing: str) -> None:
    code = f"import sys; sys.modules[{missing!r}] = None; import oncue; import oncue.fastapi"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert run.returncode == 1
    assert f"{MissingExtra.__name__}: oncue.fastapi needs an extra: pip install 'oncue[fastapi]'" in run.stderr


def test_oncue_itself_does_without_fastapi() -> None:
    code = "import sys, oncue; assert not {'fastapi', 'starlette', 'sse_starlette', 'uvicorn'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
