"""Status, result and cancel over HTTP, and every way in which a request can be refused."""

from __future__ import annotations

import asyncio
import base64
import time
from datetime import datetime
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from oncue import Context, Oncue, Unique
from oncue.engine import JobFilter
from oncue.fastapi import handle_problems, oncue_router
from tests.fastapi.application import QUICK, Application, build, register
from tests.fastapi.conftest import client_of

pytestmark = pytest.mark.anyio

EVERYTHING = JobFilter()
ROUTES = [
    ("GET", "/jobs/{}"),
    ("GET", "/jobs/{}/result"),
    ("GET", "/jobs/{}/events"),
    ("POST", "/jobs/{}/cancel"),
    ("DELETE", "/jobs/{}"),
]


def problem_of(answer: httpx.Response, status: int) -> dict[str, object]:
    """Check that an answer is a problem, and return it."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert {"type", "title", "status", "detail", "instance"} <= body.keys()
    assert body["status"] == status
    assert body["detail"]
    return dict(body)


async def test_a_job_is_described_by_its_id(client: httpx.AsyncClient, application: Application) -> None:
    job_id = await application.start("add", 1, 2)
    answer = await client.get(f"/jobs/{job_id}", params={"wait": 10})
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == "no-store"
    body = answer.json()
    assert body["id"] == job_id
    assert body["task"] == "add"
    assert body["queue"] == "default"
    assert body["state"] == "completed"
    assert body["reason"] is None
    assert (body["attempts"], body["max_attempts"]) == (1, 1)
    assert body["error"] is None
    times = [datetime.fromisoformat(body[name]) for name in ("created_at", "due_at", "started_at", "finished_at")]
    assert times == sorted(times)
    assert all(at.tzinfo is not None for at in times)


async def test_the_links_of_a_job_lead_to_its_other_routes(client: httpx.AsyncClient, application: Application) -> None:
    job = await application.jobs.tasks_by_name["add"].options(id="50% of é?#&;").enqueue(1, 2)
    links = (await client.get("/jobs/50%25 of é%3F%23&;", params={"wait": 10})).json()["links"]
    assert (await client.get(links["self"])).json()["id"] == job.id
    assert (await client.get(links["result"])).json() == 3
    assert (await client.get(links["events"])).headers["content-type"].startswith("text/event-stream")
    assert (await client.post(links["cancel"])).status_code == 409
    assert (await client.get(links["result"], params={"wait": 1})).status_code == 200


async def test_the_links_in_a_pending_result_are_those_of_the_job(
    client: httpx.AsyncClient, application: Application
) -> None:
    job_id = await application.start("hold")
    pending = (await client.get(f"/jobs/{job_id}/result")).json()["links"]
    cancelled = (await client.post(f"/jobs/{job_id}/cancel")).json()["links"]
    assert pending == cancelled == (await client.get(f"/jobs/{job_id}")).json()["links"]


async def test_links_are_those_that_a_client_in_front_of_a_proxy_sees(store: Path) -> None:
    jobs = Oncue(f"sqlite:///{store}", settings=QUICK)
    register(jobs)
    app = FastAPI()
    app.include_router(router := oncue_router(jobs, worker="embedded"), prefix="/of/{customer}/jobs")
    application = Application(jobs, app, router)
    transport = httpx.ASGITransport(app, root_path="/outside")
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as client,
    ):
        job_id = await application.start("add", 1, 2)
        for path in (f"/of/a%20b/jobs/{job_id}", f"/outside/of/a%20b/jobs/{job_id}"):
            links = (await client.get(path, params={"wait": 10})).json()["links"]
            assert links["self"] == f"/outside/of/a%20b/jobs/{job_id}"
            assert (await client.get(links["result"])).json() == 3


async def test_progress_is_part_of_the_status(client: httpx.AsyncClient, application: Application) -> None:
    job_id = await application.start("hold")
    await application.held_up(job_id)
    assert (await client.get(f"/jobs/{job_id}")).json()["progress"] == {
        "done": 1,
        "total": 4,
        "message": "waiting at the gate",
    }


async def test_waiting_ends_when_the_job_does(client: httpx.AsyncClient, application: Application) -> None:
    job_id = await application.start("hold")
    waiting = asyncio.create_task(client.get(f"/jobs/{job_id}", params={"wait": 60}))
    await asyncio.sleep(0.1)
    assert not waiting.done()
    application.gate.open()
    async with asyncio.timeout(5):
        assert (await waiting).json()["state"] == "completed"


async def test_waiting_ends_when_the_time_is_up(client: httpx.AsyncClient, application: Application) -> None:
    job_id = await application.start("hold")
    begun = time.monotonic()
    answer = await client.get(f"/jobs/{job_id}", params={"wait": 0.3})
    assert 0.3 <= time.monotonic() - begun < 3
    assert answer.status_code == 200
    assert answer.json()["state"] == "running"


async def test_what_is_answered_when_the_time_is_up_is_of_that_moment(
    client: httpx.AsyncClient, application: Application
) -> None:
    @application.jobs.task(name="advance")
    async def advance(ctx: Context) -> None:
        for step in range(100):
            await ctx.progress(step, message=f"step {step}")
            await asyncio.sleep(0.05)

    job = await advance.enqueue()
    answer = (await client.get(f"/jobs/{job.id}", params={"wait": 2})).json()
    assert answer["state"] == "running"
    assert answer["progress"]["done"] > 5
    await job.cancel()


async def test_waiting_for_a_job_that_is_deleted_ends_with_a_404(
    client: httpx.AsyncClient, application: Application
) -> None:
    job = await application.jobs.tasks_by_name["add"].options(delay=600).enqueue(1, 2)
    waiting = asyncio.create_task(client.get(f"/jobs/{job.id}", params={"wait": 60}))
    await asyncio.sleep(0.1)
    assert await application.jobs.engine.delete([job.id]) == [True]
    async with asyncio.timeout(5):
        problem_of(await waiting, 404)


@pytest.mark.parametrize(
    "value", [3, None, "text", [1, [2, {"three": 4.5}]], {"é": "\u2028 </script>", "": []}, 2**53, True]
)
async def test_a_result_is_answered_as_the_json_value_it_is(
    client: httpx.AsyncClient, application: Application, value: object
) -> None:
    job_id = await application.start("echo", value)
    answer = await client.get(f"/jobs/{job_id}/result", params={"wait": 10})
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == value


async def test_a_task_that_returns_nothing_has_the_result_null(
    client: httpx.AsyncClient, application: Application
) -> None:
    job_id = await application.start("nothing")
    assert (await client.get(f"/jobs/{job_id}/result", params={"wait": 10})).json() is None


async def test_the_result_of_a_running_job_is_told_to_come_back(
    client: httpx.AsyncClient, application: Application
) -> None:
    job_id = await application.start("hold")
    answer = await client.get(f"/jobs/{job_id}/result")
    assert answer.status_code == 202
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.json()["id"] == job_id
    application.gate.open()
    assert (await client.get(f"/jobs/{job_id}/result", params={"wait": 10})).json() == "held"


async def test_a_failed_job_has_no_result_but_a_reason(client: httpx.AsyncClient, application: Application) -> None:
    job_id = await application.start("fail", "no such luck")
    answer = await client.get(f"/jobs/{job_id}/result", params={"wait": 10})
    problem = problem_of(answer, 409)
    assert problem["type"] == "urn:oncue:problem:job-failed"
    assert problem["reason"] == "error"
    assert problem["error"] == {"type": "ValueError", "message": "('no such luck', 16)"}
    assert "no such luck" in str(problem["detail"])
    status = (await client.get(f"/jobs/{job_id}")).json()
    assert status["state"] == "failed"
    assert status["error"] == problem["error"]


async def test_no_route_shows_a_traceback_or_what_the_job_was_called_with(
    client: httpx.AsyncClient, application: Application
) -> None:
    failed = await application.start("fail", "message")
    called = await application.start("add", 7410258963, -7410258960)
    await client.get(f"/jobs/{failed}", params={"wait": 10})
    await client.get(f"/jobs/{called}", params={"wait": 10})
    for method, path in ROUTES:
        about_failed = (await client.request(method, path.format(failed))).text
        assert "Traceback" not in about_failed
        assert "local variable" not in about_failed
        assert __file__ not in about_failed
        assert "7410258963" not in (await client.request(method, path.format(called))).text


async def test_a_job_that_waits_is_cancelled_at_once(client: httpx.AsyncClient, application: Application) -> None:
    for method, path in ROUTES[-2:]:
        job = await application.jobs.tasks_by_name["add"].options(delay=600).enqueue(1, 2)
        answer = await client.request(method, path.format(job.id))
        assert answer.status_code == 200
        assert (answer.json()["state"], answer.json()["reason"]) == ("cancelled", "user")
        assert (await client.request(method, path.format(job.id))).status_code == 200, "again is no error"
        problem = problem_of(await client.get(f"/jobs/{job.id}/result"), 409)
        assert problem["type"] == "urn:oncue:problem:job-cancelled"


@pytest.mark.parametrize(("method", "path"), ROUTES[-2:])
async def test_a_running_job_is_asked_to_stop_and_ends_cancelled(
    client: httpx.AsyncClient, application: Application, method: str, path: str
) -> None:
    job_id = await application.start("hold")
    await application.held_up(job_id)
    answer = await client.request(method, path.format(job_id))
    assert answer.status_code == 202
    assert answer.json()["cancel_requested"] is True
    assert (await client.get(f"/jobs/{job_id}", params={"wait": 10})).json()["state"] == "cancelled"


@pytest.mark.parametrize(("method", "path"), ROUTES[-2:])
async def test_a_job_that_has_ended_cannot_be_cancelled(
    client: httpx.AsyncClient, application: Application, method: str, path: str
) -> None:
    job_id = await application.start("add", 1, 2)
    await client.get(f"/jobs/{job_id}", params={"wait": 10})
    problem = problem_of(await client.request(method, path.format(job_id)), 409)
    assert problem["type"] == "urn:oncue:problem:job-ended"
    assert (await client.get(f"/jobs/{job_id}/result")).json() == 3


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_an_unknown_job_is_a_problem(client: httpx.AsyncClient, method: str, path: str) -> None:
    problem = problem_of(await client.request(method, path.format("nobody")), 404)
    assert problem["type"] == "urn:oncue:problem:job-not-found"
    assert "nobody" in str(problem["detail"])
    assert problem["instance"] == path.format("nobody")


HOSTILE = [
    "%00",
    "a%00b",
    "%0A",
    "%0D%0ASet-Cookie:%20a=b",
    "x" * 10_000,
    "%F0%9F%92%A3" * 64,
    "%FF%FE",
    "%ED%A0%80",
    "..%2F..%2Fetc%2Fpasswd",
    "%2e%2e",
    ".",
    "%252e%252e",
    "%25",
    "é",
    "e%CC%81",
    "%E2%80%AEtxt",
    "*",
    "[a-z]*",
    "'%3B%20DROP%20TABLE%20jobs%3B--",
    "<script>alert(1)</script>",
    "${jndi:ldap://x}",
    "-1",
    "9223372036854775808",
    "null",
    "os:system",
    "__class__",
    "add",
]


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_a_hostile_id_is_refused_or_unknown_and_breaks_nothing(
    client: httpx.AsyncClient, application: Application, method: str, path: str
) -> None:
    for job_id in HOSTILE:
        answer = await client.request(method, path.format(job_id))
        # Where the decoded id has a slash, or httpx itself resolved dots, the path is another one: not ours to answer.
        assert answer.status_code in (404, 405, 422), (job_id, answer.status_code, answer.text)
        assert "set-cookie" not in answer.headers
        assert len(answer.content) < 4_000
        if answer.status_code == 422:
            problem_of(answer, 422)
    assert (await application.jobs.engine.list_jobs(EVERYTHING, limit=10))[0] == []


@pytest.mark.parametrize(
    "event_id",
    ["x", "1", "1.", "1.2-3x", "1.2", "٣.", "1_0.", " 1.", "-2.", "9" * 30 + ".", "1." + "9" * 30 + "-1", "\x7f"],
)
@pytest.mark.parametrize("place", ["header", "query"])
async def test_what_is_no_event_id_is_refused_and_what_may_be_one_is_not(
    client: httpx.AsyncClient, application: Application, event_id: str, place: str
) -> None:
    job_id = await application.start("add", 1, 2)
    await client.get(f"/jobs/{job_id}", params={"wait": 10})
    path = f"/jobs/{job_id}/events"
    if place == "query":
        answer = await client.get(path, params={"after": event_id})
    else:
        answer = await client.get(path, headers=[(b"Last-Event-ID", event_id.encode())])
    if event_id == "1.":
        assert answer.status_code == 200
    else:
        assert problem_of(answer, 422)["type"] == "urn:oncue:problem:invalid-event-id"


@pytest.mark.parametrize("wait", ["-1", "61", "x", "nan", "inf", "1e400", "", "٣" * 3, "0x10"])
async def test_a_wait_outside_its_bounds_is_a_problem_that_names_it(client: httpx.AsyncClient, wait: str) -> None:
    for path in ("/jobs/a", "/jobs/a/result"):
        problem = problem_of(await client.get(path, params={"wait": wait}), 422)
        assert "wait" in str(problem["detail"])


async def test_no_route_starts_a_job(client: httpx.AsyncClient, application: Application) -> None:
    for path in ("/jobs", "/jobs/", "/jobs/add", "/jobs/add/result", "/jobs/add/events", "/jobs/add/run"):
        for method in ("POST", "PUT", "PATCH"):
            answer = await client.request(method, path, json=[1, 2])
            assert answer.status_code in (404, 405)
    assert (await application.jobs.engine.list_jobs(EVERYTHING, limit=10))[0] == []


@pytest.mark.parametrize(("method", "path"), ROUTES)
async def test_a_store_that_is_away_is_a_503_that_says_when_to_come_back(
    client: httpx.AsyncClient, application: Application, store: Path, method: str, path: str
) -> None:
    job_id = await application.start("add", 1, 2)
    await application.jobs.engine.close()
    answer = await client.request(method, path.format(job_id))
    problem = problem_of(answer, 503)
    assert problem["type"] == "urn:oncue:problem:store-unavailable"
    assert int(answer.headers["retry-after"]) >= 1
    assert str(store) not in answer.text
    await application.jobs.engine.open()
    assert (await client.request(method, path.format(job_id))).status_code < 500


async def test_an_application_whose_lifespan_has_not_run_says_so(store: Path) -> None:
    application = build(store)
    async with client_of(application) as client:
        problem = problem_of(await client.get("/jobs/a"), 503)
    assert problem["type"] == "urn:oncue:problem:not-started"
    assert "lifespan" in str(problem["detail"])


class Scrambled:
    """A serializer of the application's own."""

    def dumps(self, data: bytes) -> bytes:
        return base64.b85encode(data)

    def loads(self, data: bytes) -> bytes:
        return base64.b85decode(data)


async def test_results_and_events_go_through_the_serializer_of_the_application(store: Path) -> None:
    jobs = Oncue(f"sqlite:///{store}", serializer=Scrambled(), settings=QUICK)
    register(jobs)
    app = FastAPI()
    app.include_router(router := oncue_router(jobs, worker="embedded"), prefix="/jobs")
    application = Application(jobs, app, router)
    async with app.router.lifespan_context(app), client_of(application) as client:
        job_id = await application.start("stream", 3)
        events = (await client.get(f"/jobs/{job_id}/events")).text
        assert [line for line in events.splitlines() if line.startswith("data: ") and "state" not in line] == [
            "data: 0",
            "data: 1",
            "data: 2",
        ]
        job_id = await application.start("echo", "plain")
        assert (await client.get(f"/jobs/{job_id}/result", params={"wait": 10})).json() == "plain"
    stranger = build(store)
    async with stranger.app.router.lifespan_context(stranger.app), client_of(stranger) as client:
        problem = problem_of(await client.get(f"/jobs/{job_id}/result"), 500)
        assert problem["type"] == "urn:oncue:problem:unreadable-result"
        assert (await client.get(f"/jobs/{job_id}")).json()["state"] == "completed"


async def test_an_application_can_have_problems_for_its_own_endpoints(application: Application) -> None:
    handle_problems(application.app)
    jobs = application.jobs

    @application.app.post("/invalid")
    async def invalid() -> None:
        await jobs.enqueue("add", "one", "two")

    @application.app.post("/taken")
    async def taken() -> None:
        unique = Unique("only one", on_conflict="raise")
        await jobs.tasks_by_name["add"].options(unique=unique, delay=60).enqueue(1, 2)

    @application.app.get("/missing")
    async def missing() -> None:
        await jobs.job("nobody").info()

    async with client_of(application) as client:
        assert problem_of(await client.post("/invalid"), 422)["type"] == "urn:oncue:problem:invalid-arguments"
        assert (await client.post("/taken")).status_code == 200
        conflict = problem_of(await client.post("/taken"), 409)
        assert (await jobs.job(str(conflict["holder"])).info()).task == "add"
        problem_of(await client.get("/missing"), 404)
        await jobs.engine.close()
        assert problem_of(await client.get("/missing"), 503)["title"] == "Store unavailable"
        await jobs.engine.open()
