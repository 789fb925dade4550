"""The demo as a process: started in any place, ended by Ctrl+C, killed in the middle, started again."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

import oncue.demo
from oncue.errors import ConfigError, MissingExtra
from tests.demo.conftest import DemoServer, until
from tests.demo.test_api import unfinished
from tests.measured import Report


@pytest.fixture
def server(tmp_path: Path) -> Iterator[DemoServer]:
    server = DemoServer(tmp_path / "data")
    server.start()
    yield server
    if server.running:
        server.kill()


def test_jobs_that_run_when_the_server_is_killed_are_done_by_the_next_one(server: DemoServer) -> None:
    with httpx.Client(base_url=server.url) as client:
        ids = client.post("/task", json={"count": 100}).json()["task_ids"]
        until(lambda: client.get(f"/task/{ids[4]}").json()["status"] == "complete", "some of the jobs are complete")
    server.kill()
    assert unfinished(server), "it was killed while jobs ran"
    server.start()
    with httpx.Client(base_url=server.url) as client:

        def statuses() -> list[str]:
            return [client.get(f"/task/{job_id}").json()["status"] for job_id in ids]

        found = statuses()
        assert found[4] == "complete"
        assert "not_found" not in found
        until(lambda: statuses().count("complete") == 100, "all jobs are complete", within=60)
    server.stop()
    assert "Traceback" not in server.log()


def test_what_was_done_is_on_record_though_another_process_looked_into_the_store_meanwhile(server: DemoServer) -> None:
    with httpx.Client(base_url=server.url) as client:
        for _ in range(3):
            unfinished(server)  # opens the file, reads, and closes it, as `oncue jobs list` does
            ids = client.post("/task", json={"count": 3}).json()["task_ids"]
            until(lambda ids=ids: all(_complete(client, job_id) for job_id in ids), "the jobs are complete")  # type: ignore[misc]
    server.kill()
    assert unfinished(server) == []
    server.start()
    with httpx.Client(base_url=server.url) as client:
        assert all(_complete(client, job_id) for job_id in ids)


def _complete(client: httpx.Client, job_id: str) -> bool:
    return str(client.get(f"/task/{job_id}").json()["status"]) == "complete"


def test_the_schedule_cleans_old_uploads_and_leaves_new_ones(tmp_path: Path) -> None:
    server = DemoServer(tmp_path / "data")
    folder = server.folder / "uploads"
    folder.mkdir(parents=True)
    old, new = folder / ("0" * 32), folder / ("1" * 32)
    for path in (old, new):
        path.write_bytes(b"picture")
    two_hours_ago = time.time() - 7_200
    os.utime(old, (two_hours_ago, two_hours_ago))
    server.start()
    try:
        until(lambda: not old.exists(), "the old upload is gone")
        assert new.exists()
    finally:
        server.stop()


def test_ctrl_c_ends_the_server_while_pages_are_open(server: DemoServer, report: Report) -> None:
    location = httpx.post(f"{server.url}/task", json={"count": 100}).headers["Location"]
    watching = threading.Barrier(3)

    def watch(path: str) -> None:
        try:
            with httpx.stream("GET", server.url + path, timeout=30) as response:
                lines = response.iter_lines()
                next(lines)
                watching.wait()
                for _ in lines:
                    pass
        except httpx.TransportError:
            pass  # cut off, as it should be

    retry = httpx.post(f"{server.url}/retry").headers["Location"].rpartition("/")[2]
    paths = [f"/batches/{location.partition('=')[2]}/events", f"/api/jobs/{retry}/events"]
    threads = [threading.Thread(target=watch, args=(path,)) for path in paths]
    for thread in threads:
        thread.start()
    watching.wait(10)
    seconds = server.stop(within=20)
    for thread in threads:
        thread.join(5)
        assert not thread.is_alive()
    assert "Traceback" not in server.log(), server.log()
    report("demo ended after Ctrl+C, two streams open and 100 jobs under way", seconds, "s")
    assert seconds < 15


def test_a_taken_port_is_one_clear_error(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(ConfigError, match=r"cannot listen on 127\.0\.0\.1 port"):
            oncue.demo.serve(port=taken.getsockname()[1], data_dir=tmp_path / "data")
    with pytest.raises(ConfigError, match="cannot listen on"):
        oncue.demo.serve(host="256.1.1.1", data_dir=tmp_path / "data")
    with pytest.raises(ConfigError, match="cannot listen on"):
        oncue.demo.serve(port=70_000, data_dir=tmp_path / "data")


def test_without_its_extra_the_demo_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(oncue.demo, "find_spec", lambda name: None if name == "PIL" else object())
    for call in (oncue.demo.create_app, oncue.demo.serve):
        with pytest.raises(MissingExtra, match=r"pip install 'oncue\[demo\]'"):
            call()


def test_the_package_is_imported_without_any_extra() -> None:
    code = "import sys, oncue.demo; print(sorted({'PIL', 'fastapi', 'jinja2', 'uvicorn'} & set(sys.modules)))"
    seen = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert seen.stdout.strip() == "[]"
