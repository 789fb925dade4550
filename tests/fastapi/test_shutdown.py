"""How a server ends and reloads while clients wait and jobs run: soon, and with nothing lost."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from oncue import JobInfo, Oncue
from tests.fastapi.serving import ROOT, Server, until
from tests.measured import Report

pytestmark = pytest.mark.anyio


async def stored(store: Path, *ids: str) -> list[JobInfo | None]:
    async with Oncue(f"sqlite:///{store}") as jobs:
        return await jobs.client.infos(ids)


async def follow(client: httpx.AsyncClient, url: str, begun: asyncio.Event) -> str:
    """Read a stream to its end, which must come in order and not by a broken connection."""
    text = ""
    async with client.stream("GET", url) as answer:
        assert answer.status_code == 200
        async for part in answer.aiter_text():
            text += part
            if "event: status" in text:
                begun.set()
    return text


async def test_a_server_ends_soon_though_clients_wait_and_gives_the_running_job_back(
    server: Server, store: Path, report: Report
) -> None:
    job_id = server.enqueue("sleep", 600)
    waiting_id = server.enqueue("hold")
    url = f"{server.url}/jobs/{job_id}"
    async with httpx.AsyncClient(timeout=60, limits=httpx.Limits(max_connections=None)) as client:
        begun = [asyncio.Event() for _ in range(20)]
        async with asyncio.timeout(60), asyncio.TaskGroup() as group:
            streams = [group.create_task(follow(client, f"{url}/events", one)) for one in begun]
            polls = [
                group.create_task(client.get(one, params={"wait": 60}))
                for one in (url, f"{url}/result", f"{server.url}/jobs/{waiting_id}")
            ]
            for one in begun:
                await one.wait()
            took = await asyncio.to_thread(server.stop)
    report("SIGTERM to exit, 20 streams and 3 long polls open, 2 jobs running", took, "s")
    assert took < 2.5
    for stream in streams:
        assert '"state": "running"' in stream.result()
    assert [poll.result().status_code for poll in polls] == [200, 202, 200]
    for info in await stored(store, job_id, waiting_id):
        assert info is not None
        assert info.state == "queued"
        assert info.attempts == 0
        assert info.worker is None
    assert "Traceback" not in server.log


def test_a_client_that_reads_nothing_is_waited_for_no_longer_than_the_server_is_told_to(store: Path) -> None:
    with Server(store, PATIENCE_UNDER_TEST="1") as server, socket.socket() as client:
        job_id = server.enqueue("flood", 200)
        assert httpx.get(f"{server.url}/jobs/{job_id}?wait=30").json()["state"] == "completed"
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.connect((httpx.URL(server.url).host, httpx.URL(server.url).port or 0))
        client.sendall(f"GET /jobs/{job_id}/events HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        assert client.recv(12) == b"HTTP/1.1 200"
        assert server.stop() < 3
        assert "Application shutdown complete" in server.log


async def test_a_second_interrupt_does_not_wait_for_running_jobs(store: Path) -> None:
    with Server(store, GRACE_UNDER_TEST="600") as server:
        job_id = server.enqueue("sleep", 600)
        until(lambda: httpx.get(f"{server.url}/jobs/{job_id}").json()["state"] == "running", "the job runs")
        assert server.process is not None
        server.process.send_signal(signal.SIGINT)
        until(lambda: "Waiting for application shutdown" in server.log, "the lifespan ends")
        assert server.process.poll() is None
        assert server.stop(signal.SIGINT) < 5
    [info] = await stored(store, job_id)
    assert info is not None
    assert (info.state, info.attempts) == ("queued", 0)


@contextmanager
def reloading(module: Path, store: Path, port: int) -> Iterator[Path]:
    """Run `uvicorn --reload` on a module; yields its log."""
    log = module.with_suffix(".log")
    command = [sys.executable, "-m", "uvicorn", f"{module.stem}:app", "--reload", f"--port={port}"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{module.parent}", "JOBS_UNDER_TEST": str(store)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--reload-dir", str(module.parent)],
            cwd=module.parent,
            env=environment,
            stdout=output,
            stderr=output,
        )
        try:
            yield log
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


async def test_a_reload_does_not_wait_for_open_streams(tmp_path: Path, report: Report) -> None:
    folder = tmp_path / "app"
    folder.mkdir()
    module = folder / "reloaded_application.py"
    source = "from tests.fastapi.application import served\napp = served()\napp.get('/version')(lambda: {})\n"
    module.write_text(source.format(1))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"http://127.0.0.1:{port}"

    def version() -> int | None:
        try:
            return int(httpx.get(f"{url}/version", timeout=1).text)
        except (httpx.TransportError, ValueError):
            return None

    with reloading(module, tmp_path / "jobs.db", port) as log:
        until(lambda: version() == 1, f"the first version is served; see {log}")
        async with httpx.AsyncClient(timeout=60) as client:
            job_id = (await client.post(f"{url}/start/hold", json=[])).json()["id"]
            begun = [asyncio.Event() for _ in range(5)]
            async with asyncio.timeout(60), asyncio.TaskGroup() as group:
                for one in begun:
                    group.create_task(follow(client, f"{url}/jobs/{job_id}/events", one))
                for one in begun:
                    await one.wait()
                changed = time.monotonic()
                module.write_text(source.format(22))
                await asyncio.to_thread(until, lambda: version() == 22, "the second version is served")
        took = time.monotonic() - changed
    report("uvicorn --reload with 5 streams open, from the change to the new version", took, "s")
    assert took < 15
