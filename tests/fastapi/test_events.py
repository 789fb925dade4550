"""Events: what a client sees of a job, over one connection and over several."""

from __future__ import annotations

import asyncio
import json
import math
import socket
import time
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import psutil
import pytest

from oncue import Context, JobEvent, Oncue
from oncue.engines.sqlite import SQLiteEngine
from oncue.fastapi.watch import BEGINNING, Event, Position, Watches
from oncue.job import FeedItem, JobInfo
from tests.fastapi.application import QUICK, Application, Gate, eventually, register
from tests.fastapi.serving import Server, until
from tests.fastapi.test_routes import problem_of
from tests.measured import Report

pytestmark = pytest.mark.anyio


class Sent(NamedTuple):
    """An event as a browser takes it from the stream."""

    id: str
    name: str
    data: Any


def parse(lines: Collection[str]) -> list[Sent]:
    """Read server-sent events as a browser does."""
    events: list[Sent] = []
    fields: dict[str, str] = {}
    for line in lines:
        if line.startswith(":"):
            continue
        if line:
            name, _, value = line.partition(": ")
            fields[name] = fields[name] + "\n" + value if name == "data" and name in fields else value
            continue
        if "data" in fields:
            events.append(Sent(fields["id"], fields["event"], json.loads(fields["data"])))
        fields = {}
    return events


async def test_a_stream_tells_what_the_handle_in_python_tells(
    client: httpx.AsyncClient, application: Application
) -> None:
    job_id = await application.start("hold")
    watching = asyncio.create_task(client.get(f"/jobs/{job_id}/events"))
    handle = asyncio.create_task(collect(application.jobs.job(job_id).events()))
    await application.held_up(job_id)
    application.gate.open()
    answer = await watching
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["x-accel-buffering"] == "no"
    sent = parse(answer.text.splitlines())
    assert sent[-1].data["state"] == "completed"
    in_python = [Sent(event.id, event.kind, event.data) for event in await handle]
    assert [event for event in sent if event.name == "progress"] == [
        event for event in in_python if event.name == "progress"
    ]
    assert sent[-1] == in_python[-1]


async def collect(events: AsyncIterator[JobEvent]) -> list[JobEvent]:
    return [event async for event in events]


async def test_what_was_seen_is_not_sent_again_and_a_browser_that_has_seen_all_is_told_to_stop(
    client: httpx.AsyncClient, application: Application
) -> None:
    job_id = await application.start("stream", 10)
    path = f"/jobs/{job_id}/events"
    events = parse((await client.get(path)).text.splitlines())
    assert [event.data for event in events if event.name == "stream"] == list(range(10))
    for seen, event in enumerate(events[:-1], 1):
        for rest in (
            await client.get(path, headers={"Last-Event-ID": event.id}),
            await client.get(path, params={"after": event.id}),
            await client.get(path, params={"after": "0."}, headers={"Last-Event-ID": event.id}),
        ):
            streamed = [one for one in parse(rest.text.splitlines()) if one.name == "stream"]
            assert streamed == [
                one._replace(id=again.id)
                for one, again in zip([one for one in events[seen:] if one.name == "stream"], streamed, strict=True)
            ]
            assert parse(rest.text.splitlines())[-1].data["state"] == "completed"
    over = await client.get(path, headers={"Last-Event-ID": events[-1].id})
    assert (over.status_code, over.content) == (204, b"")


async def test_ids_of_the_handle_in_python_and_of_the_stream_are_good_for_each_other(
    client: httpx.AsyncClient, application: Application
) -> None:
    job_id = await application.start("stream", 6)
    job = application.jobs.job(job_id)
    await job.wait(10)
    in_python = await collect(job.events())
    streamed = parse((await client.get(f"/jobs/{job_id}/events", params={"after": in_python[2].id})).text.splitlines())
    assert [event.data for event in streamed[:-1]] == [3, 4, 5]
    assert [event.data for event in await collect(job.events(after=streamed[0].id))][:-1] == [4, 5]


@pytest.mark.parametrize(
    "position", [BEGINNING, Position(0), Position(7), Position(-1, (1_795_254_667_801, 12)), Position(3, (1, 0))]
)
def test_a_position_survives_being_an_event_id(position: Position) -> None:
    assert Position.parse(str(position)) == position


async def test_items_of_any_json_come_as_they_are(client: httpx.AsyncClient, application: Application) -> None:
    values = ["line\nbreak\r\nand\rmore", "data: x\n\nevent: status", "\u2028\u2029\x85", {"é": [None, 1.5]}, ""]

    @application.jobs.task(name="recite")
    async def recite() -> AsyncIterator[Any]:
        for value in values:
            yield value

    job = await recite.enqueue()
    events = parse((await client.get(f"/jobs/{job.id}/events")).text.split("\r\n"))
    assert [event.data for event in events if event.name == "stream"] == values


async def test_progress_that_is_no_number_does_not_break_a_browser(
    client: httpx.AsyncClient, application: Application
) -> None:
    @application.jobs.task(name="lose_count")
    async def lose_count(ctx: Context) -> None:
        await ctx.progress(math.nan, math.inf, "NaN and Infinity")

    def refuse(constant: str) -> None:
        pytest.fail(f"{constant} is no JSON")

    job = await lose_count.enqueue()
    text = (await client.get(f"/jobs/{job.id}/events")).text
    for line in text.splitlines():
        if line.startswith("data: "):
            json.loads(line.removeprefix("data: "), parse_constant=refuse)
    assert (await client.get(f"/jobs/{job.id}")).json()["state"] in ("completed", "failed")


class CountingEngine(SQLiteEngine):
    """An engine that counts how often it is asked."""

    gets = reads = 0

    async def get(self, ids: Sequence[str], *, bodies: bool = False) -> list[JobInfo | None]:
        self.gets += 1
        return await super().get(ids, bodies=bodies)

    async def read(self, job_id: str, *, after: str | None = None, limit: int = 500) -> list[FeedItem]:
        self.reads += 1
        return await super().read(job_id, after=after, limit=limit)


@pytest.fixture
async def watched(store: Path) -> AsyncIterator[tuple[Oncue, CountingEngine, Gate]]:
    """An Oncue application with a worker, on an engine that counts."""
    engine, gate = CountingEngine(f"sqlite:///{store}"), Gate()
    jobs = Oncue(engine, settings=QUICK)
    register(jobs, gate)
    async with jobs:
        worker = jobs.worker()
        running = asyncio.create_task(worker.run())
        yield jobs, engine, gate
        gate.open()
        worker.stop()
        await running


async def test_many_watchers_of_a_job_ask_the_store_no_more_often_than_one(
    watched: tuple[Oncue, CountingEngine, Gate], report: Report
) -> None:
    jobs, engine, _ = watched
    asked: dict[int, int] = {}
    for watchers in (1, 200):
        job = await jobs.enqueue("stream", 20, 0.02)
        watches = Watches()
        before = engine.gets + engine.reads
        seen = await asyncio.gather(
            *(texts(watches.events(jobs.client, job.id)) for _ in range(watchers)),
            *(watches.wait(jobs.client, job.id, 30) for _ in range(watchers)),
        )
        asked[watchers] = engine.gets + engine.reads - before - watchers  # each `wait` looks once by itself
        assert all(one == [str(n) for n in range(20)] for one in seen[:watchers])
        assert all(isinstance(one, JobInfo) and one.state.final for one in seen[watchers:])
    report("asking the store while a job streams 20 items: 1 watcher", asked[1], "calls")
    report("asking the store while a job streams 20 items: 200 watchers", asked[200], "calls")
    assert asked[200] < 3 * asked[1] + 20


async def texts(events: AsyncIterator[Event]) -> list[str]:
    """Return what is streamed, as JSON texts."""
    return [event.data async for event in events if event.kind == "stream"]


async def test_a_watcher_that_comes_late_or_is_slow_gets_everything_once(
    watched: tuple[Oncue, CountingEngine, Gate],
) -> None:
    jobs, _, gate = watched
    job = await jobs.enqueue("gated_stream", 2_000, 1_500)
    expected = [str(n) for n in range(3_500)]
    watches = Watches()
    first: list[str] = []
    half = asyncio.Event()

    async def eager() -> None:
        async for event in watches.events(jobs.client, job.id):
            if event.kind == "stream":
                first.append(event.data)
                if len(first) == 2_000:
                    half.set()

    async def slow() -> list[str]:
        seen: list[str] = []
        async for event in watches.events(jobs.client, job.id):
            if event.kind == "stream":
                seen.append(event.data)
                await asyncio.sleep(0)
        return seen

    async def resuming() -> list[str]:
        seen: list[str] = []
        position = BEGINNING
        while True:
            async with aclosing(watches.events(jobs.client, job.id, position)) as events:
                async for event in events:
                    position = Position.parse(event.id)
                    if event.kind == "stream":
                        seen.append(event.data)
                        if len(seen) % 700 == 0:
                            break  # the connection is lost
                else:
                    return seen

    async with asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(eager())
        await half.wait()
        late = group.create_task(slow())
        broken = group.create_task(resuming())
        await asyncio.sleep(0.05)
        gate.open()
    assert first == expected
    assert late.result() == expected
    assert broken.result() == expected


async def test_an_id_from_the_future_takes_nothing_from_other_watchers(
    watched: tuple[Oncue, CountingEngine, Gate],
) -> None:
    jobs, _, gate = watched
    job = await jobs.enqueue("gated_stream", 3, 3)
    watches = Watches()
    async with asyncio.timeout(20), asyncio.TaskGroup() as group:
        ahead = group.create_task(texts(watches.events(jobs.client, job.id, Position(5, (9 * 10**17, 9)))))
        await asyncio.sleep(0.05)
        honest = group.create_task(texts(watches.events(jobs.client, job.id)))
        await asyncio.sleep(0.05)
        gate.open()
    assert honest.result() == ["0", "1", "2", "3", "4", "5"]
    assert ahead.result() == []


async def test_watching_outlasts_an_outage_of_the_store(watched: tuple[Oncue, CountingEngine, Gate]) -> None:
    jobs, engine, gate = watched
    job = await jobs.enqueue("gated_stream", 2, 2)
    watches = Watches()
    watching = asyncio.create_task(texts(watches.events(jobs.client, job.id)))
    async with asyncio.timeout(30):
        await jobs.job(job.id).wait(0.3)
        await engine.close()
        await asyncio.sleep(1.5)  # long enough to be noticed
        assert not watching.done()
        await engine.open()
        gate.open()
        assert await watching == ["0", "1", "2", "3"]


async def test_a_watch_ends_with_its_last_watcher(watched: tuple[Oncue, CountingEngine, Gate]) -> None:
    jobs, engine, _ = watched
    job = await jobs.enqueue("hold")
    watches = Watches()
    streams = [watches.events(jobs.client, job.id) for _ in range(3)]
    for stream in streams:
        assert (await anext(stream)).kind == "status"
    assert f"oncue-watch-{job.id}" in tasks()

    for stream in streams:
        await stream.aclose()
    await eventually(lambda: not any("oncue-watch" in name or "oncue-lookout" in name for name in tasks()), "it ended")
    asked = engine.gets
    await asyncio.sleep(1.3)  # the pace at which a watch looks
    assert engine.gets == asked


async def test_a_stream_ends_after_its_life_and_goes_on_over_the_next_one(
    watched: tuple[Oncue, CountingEngine, Gate],
) -> None:
    jobs, _, gate = watched
    job = await jobs.enqueue("gated_stream", 2, 2)
    watches = Watches()
    seen: list[Event] = []
    async with asyncio.timeout(20):
        while len([event for event in seen if event.kind == "stream"]) < 2:
            position = Position.parse(seen[-1].id) if seen else BEGINNING
            seen += [event async for event in watches.events(jobs.client, job.id, position, life=0.3)]
        gate.open()
        seen += [event async for event in watches.events(jobs.client, job.id, Position.parse(seen[-1].id))]
    assert [event.data for event in seen if event.kind == "stream"] == ["0", "1", "2", "3"]


def tasks() -> set[str]:
    return {task.get_name() for task in asyncio.all_tasks()}


def read_some(server: Server, path: str, count: int, last: str | None) -> list[Sent]:
    """Read events from a server until there are some, or the stream ends."""
    headers = {} if last is None else {"Last-Event-ID": last}
    lines: list[str] = []
    with httpx.stream("GET", f"{server.url}{path}", headers=headers, timeout=30) as answer:
        assert answer.status_code == 200, answer.read()
        for line in answer.iter_lines():
            lines.append(line)
            if line == "" and len(parse(lines)) >= count:
                break
    return parse(lines)


def test_a_stream_goes_on_after_a_restart_of_the_server_with_each_item_exactly_once(server: Server) -> None:
    ended = server.enqueue("stream", 20)
    assert httpx.get(f"{server.url}/jobs/{ended}?wait=10").json()["state"] == "completed"
    before = read_some(server, f"/jobs/{ended}/events", 8, None)
    job_id = server.enqueue("stream", 60, 0.02)
    path = f"/jobs/{job_id}/events"
    seen = read_some(server, path, 12, None)
    server.stop()
    server.start()
    after = read_some(server, f"/jobs/{ended}/events", 100, before[-1].id)
    assert [event.data for event in before + after if event.name == "stream"] == list(range(20))
    while not (seen[-1].name == "status" and seen[-1].data["state"] == "completed"):
        seen += read_some(server, path, 7, seen[-1].id)
    # The job was given back when the server ended, and its second attempt streamed from the start: each attempt's
    # items come once, in order, and those of the second are all there.
    tokens = {event.id.split(".")[1].split("-")[0] for event in seen if event.name == "stream"}
    by_attempt = [
        [event.data for event in seen if event.name == "stream" and f".{token}-" in event.id]
        for token in sorted(tokens)
    ]
    assert len(by_attempt) == 2
    assert by_attempt[0] == list(range(len(by_attempt[0])))
    assert by_attempt[1] == list(range(60))
    assert len({event.id for event in seen}) == len(seen)
    assert httpx.get(f"{server.url}{path}", headers={"Last-Event-ID": seen[-1].id}).status_code == 204


def test_more_streams_than_there_are_seats_are_told_to_come_back(store: Path) -> None:
    with Server(store, STREAMS_UNDER_TEST="2") as server:
        job_id = server.enqueue("hold")
        url = f"{server.url}/jobs/{job_id}/events"
        with httpx.stream("GET", url) as first:
            assert first.status_code == 200
            with httpx.stream("GET", url) as second:
                assert second.status_code == 200
                refused = httpx.get(url)
                assert problem_of(refused, 503)["type"] == "urn:oncue:problem:too-many-streams"
                assert int(refused.headers["retry-after"]) >= 1
                assert httpx.get(f"{server.url}/jobs/{job_id}").status_code == 200

            def is_free() -> bool:
                with httpx.stream("GET", url) as third:
                    return third.status_code == 200

            until(is_free, "the seat of a client that left is free", 1.0)


async def stream_of(url: httpx.URL, path: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """Open a stream, and read until its first event has come."""
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert b" 200 " in head.splitlines()[0]
    await reader.readuntil(b"event: status")
    return reader, writer


async def test_as_many_streams_as_are_allowed_cost_little(server: Server, report: Report) -> None:
    assert server.process is not None
    process = psutil.Process(server.process.pid)
    url = httpx.URL(server.url)
    path = f"/jobs/{server.enqueue('hold')}/events"

    async def p99() -> float:
        waits = []
        for _ in range(100):
            asked = time.perf_counter()
            assert (await client.get(f"{server.url}{path.removesuffix('/events')}")).status_code == 200
            waits.append((time.perf_counter() - asked) * 1000)
        return sorted(waits)[98]

    async with httpx.AsyncClient() as client:
        alone = await p99()
        before = process.memory_info().rss
        streams = await asyncio.gather(*(stream_of(url, path) for _ in range(200)))
        grown = (process.memory_info().rss - before) / 1e6
        assert (await client.get(f"{server.url}{path}")).status_code == 503
        crowded = await p99()
        for _, writer in streams:
            writer.close()
        left = time.monotonic()
        await asyncio.gather(*(writer.wait_closed() for _, writer in streams))
        status = 503
        while status == 503:
            assert time.monotonic() < left + 5
            async with client.stream("GET", f"{server.url}{path}") as answer:
                status = answer.status_code
        assert status == 200
        freed = time.monotonic() - left
    report("200 streams: memory of the server", grown, "MB more")
    report("200 streams: GET of a status, p99 of 100", f"{alone:.3g} ms without them, {crowded:.3g}", "ms with them")
    report("200 streams: seats free after the clients left", freed, "s")
    assert grown < 30


def test_a_hostile_request_line_breaks_nothing(server: Server) -> None:
    paths = [b"/jobs/%00", b"/jobs/\xff\xfe", b"/jobs/%ff%fe", b"/jobs/%ED%A0%80", b"/jobs/" + b"x" * 10_000]
    paths += [
        b"/jobs/../../etc/passwd",
        b"/jobs/..%2f..%2fetc",
        b"//jobs//a",
        b"/jobs/a/../b",
        b"/jobs/a;b=c",
        b"/jobs/%",
    ]
    paths += [b"/jobs/a/events?after=%00", b"/jobs/a?wait=%00", b"/jobs/a?wait=1&wait=2", b"/jobs/a?\xff=\xfe"]
    host = httpx.URL(server.url)
    for path in paths:
        for method in (b"GET", b"DELETE"):
            with socket.create_connection((host.host, host.port or 0), timeout=10) as connection:
                connection.sendall(method + b" " + path + b" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                answer = b""
                while part := connection.recv(65_536):
                    answer += part
            status = int(answer.split(b" ", 2)[1])
            assert status in (400, 404, 405, 422), (path, answer[:300])
    assert "Traceback" not in server.log
