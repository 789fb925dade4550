"""What every response carries, and from whom a change is taken."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from oncue.demo.headers import HEADERS, SameSite, SecurityHeaders
from oncue.demo.limits import LIMIT, SmallBodies

pytestmark = pytest.mark.anyio


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    async def fine(request: Request) -> Response:
        return PlainTextResponse(f"took {len(await request.body())} bytes")

    async def broken(request: Request) -> Response:
        raise RuntimeError("a <b>secret</b>")

    async def cached(request: Request) -> Response:
        return PlainTextResponse("", headers={"Cache-Control": "private, max-age=60"})

    routes = [
        Route("/fine", fine, methods=["GET", "POST", "DELETE"]),
        Route("/broken", broken),
        Route("/cached", cached),
    ]
    stack = [Middleware(SecurityHeaders), Middleware(SameSite), Middleware(SmallBodies)]
    transport = httpx.ASGITransport(Starlette(routes=routes, middleware=stack), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://demo.test") as client:
        yield client


@pytest.mark.parametrize("path", ["/fine", "/broken", "/none", "/cached"])
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "OPTIONS"])
async def test_every_response_has_the_headers(client: httpx.AsyncClient, path: str, method: str) -> None:
    response = await client.request(method, path)
    assert {name: response.headers.get(name) for name in HEADERS} == HEADERS
    assert "Cache-Control" in response.headers
    policy = response.headers["Content-Security-Policy"]
    for part in ("default-src 'self'", "object-src 'none'", "base-uri 'none'", "frame-ancestors 'none'"):
        assert part in policy
    assert "unsafe" not in policy


async def test_only_what_says_so_may_be_cached(client: httpx.AsyncClient) -> None:
    assert (await client.get("/fine")).headers["Cache-Control"] == "no-store"
    assert (await client.get("/cached")).headers["Cache-Control"] == "private, max-age=60"


async def test_an_unforeseen_error_tells_nothing_of_itself(client: httpx.AsyncClient) -> None:
    for accept in ("text/html", "*/*"):
        response = await client.get("/broken", headers={"Accept": accept})
        assert response.status_code == 500
        assert "secret" not in response.text
        assert ("<h1>" in response.text) == (accept == "text/html")


@pytest.mark.parametrize(
    ("headers", "done"),
    [
        ({}, True),  # a program
        ({"Sec-Fetch-Site": "same-origin", "Origin": "http://demo.test"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Origin": "http://demo.test"}, True),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),
        ({"Sec-Fetch-Site": "cross-site", "Origin": "http://demo.test"}, False),
        ({"Sec-Fetch-Site": "anything"}, False),
        ({"Origin": "http://evil.test"}, False),
        ({"Origin": "http://demo.test.evil.test"}, False),
        ({"Origin": "http://demo.test:81"}, False),
        ({"Origin": "http://evil.demo.test"}, False),
        ({"Origin": "null"}, False),
        ({"Origin": "garbage"}, False),
        ({"Origin": ""}, False),
    ],
)
@pytest.mark.parametrize("method", ["POST", "DELETE"])
async def test_a_change_is_not_taken_from_another_sites_page(
    client: httpx.AsyncClient, method: str, headers: dict[str, str], done: bool
) -> None:
    response = await client.request(method, "/fine", headers=headers)
    assert response.status_code == (200 if done else 403)


async def test_reading_is_open_to_links_from_everywhere(client: httpx.AsyncClient) -> None:
    assert (await client.get("/fine", headers={"Sec-Fetch-Site": "cross-site"})).status_code == 200


@pytest.mark.parametrize("declared", [True, False])
async def test_a_body_larger_than_anything_asked_for_is_refused(client: httpx.AsyncClient, declared: bool) -> None:
    async def pieces(size: int) -> AsyncIterator[bytes]:
        for start in range(0, size, 1024):
            yield b"x" * min(1024, size - start)

    for size, status in ((LIMIT, 200), (LIMIT + 1, 413), (50 * LIMIT, 413)):
        content = b"x" * size if declared else pieces(size)
        assert (await client.post("/fine", content=content)).status_code == status
