"""The OpenAPI document: valid, and true of what the routes answer to anything that is thrown at them."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import pytest
import schemathesis
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from oncue.fastapi import oncue_router
from tests.fastapi.application import Application, build
from tests.fastapi.test_routes import ROUTES

CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
BUDGET = 4.0
"""Seconds for the examples of one test; those left over are not looked at."""


async def ended_jobs(application: Application) -> list[str]:
    """Make one job of each kind of end, and return their ids."""
    jobs = application.jobs
    async with jobs:
        ids = [await application.start(*job) for job in (("add", 1, 2), ("fail", "no"), ("stream", 3), ("echo", None))]
        cancelled = await jobs.tasks_by_name["add"].options(delay=60).enqueue(1, 2)
        await cancelled.cancel()
        await jobs.worker(burst=True).run()
        infos = await jobs.client.infos([*ids, cancelled.id])
        assert all(info is not None and info.state.final for info in infos)
    return [*ids, cancelled.id]


@pytest.fixture(scope="module")
def described(tmp_path_factory: pytest.TempPathFactory) -> tuple[Application, list[str]]:
    application = build(tmp_path_factory.mktemp("openapi") / "jobs.db")
    return application, asyncio.run(ended_jobs(application))


@pytest.fixture(scope="module")
def schema(described: tuple[Application, list[str]]) -> Any:
    application, _ = described
    return schemathesis.openapi.from_asgi("/openapi.json", application.app)


def test_the_document_is_valid_openapi(schema: Any) -> None:
    schema.validate()


def test_the_document_names_every_route(schema: Any) -> None:
    documented = {(method.upper(), path) for path in schema for method in schema[path] if path.startswith("/jobs/")}
    assert documented == {(method, path.format("{job_id}")) for method, path in ROUTES}


def test_two_routers_in_one_document_do_not_share_operation_ids(described: tuple[Application, list[str]]) -> None:
    application, _ = described
    app = FastAPI()
    for version in ("v1", "v2"):
        app.include_router(oncue_router(application.jobs), prefix=f"/{version}/jobs")
    paths = app.openapi()["paths"]
    ids = [operation["operationId"] for path in paths.values() for operation in path.values()]
    assert len(ids) == len(set(ids)) == 2 * len(ROUTES)


VALID, INVALID = GenerationMode.POSITIVE, GenerationMode.NEGATIVE


@pytest.mark.parametrize(
    ("method", "path", "mode"),
    # Where a path is all there is, there is nothing to be invalid but its id, and that is any string.
    [(*route, VALID) for route in ROUTES] + [(*route, INVALID) for route in ROUTES if route[0] == "GET"],
)
def test_whatever_is_asked_the_answer_is_one_of_those_documented(
    schema: Any, described: tuple[Application, list[str]], method: str, path: str, mode: GenerationMode
) -> None:
    _, ids = described
    seen: Counter[int] = Counter()
    until = time.monotonic() + BUDGET

    @settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(case=schema[path.format("{job_id}")][method].as_strategy(mode), known=st.sampled_from([None, *ids]))
    def ask(case: Any, known: str | None) -> None:
        if time.monotonic() > until:
            return
        if known is not None:
            case.path_parameters["job_id"] = known
        answer = case.call_and_validate(checks=CHECKS)
        seen[answer.status_code] += 1

    ask()
    assert 404 in seen or 422 in seen, seen
    if mode is VALID:
        assert min(seen) < 300 or 409 in seen, seen
