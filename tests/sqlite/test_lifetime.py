"""What opening a store takes of its process, and gives back: threads and file handles; also in a fork."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import threading
import warnings
from pathlib import Path

import pytest

from oncue.engines.sqlite import SQLiteEngine
from oncue.errors import EngineError, EngineUnusable
from oncue.testing.conformance.steps import put_one, start
from oncue.testing.invariants import check_file, check_invariants
from tests.measured import Report

pytestmark = pytest.mark.anyio


def engine_of(path: Path, options: str = "") -> SQLiteEngine:
    return SQLiteEngine(f"sqlite:///{path}{options}")


def engine_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("oncue")]


async def test_opening_and_closing_again_and_again_leaves_nothing_behind(path: Path, report: Report) -> None:
    engine = engine_of(path)

    async def once() -> None:
        await engine.open()
        await put_one(engine)
        await engine.queues()
        sibling = engine.sibling()
        async with sibling:
            await sibling.queues()
        await engine.close()

    for _ in range(3):  # what is made once in a process is there from now on
        await once()
    handles = len(os.listdir("/proc/self/fd"))
    for _ in range(200):
        await once()
    report("threads left by 400 openings", len(engine_threads()))
    report("file handles left by 400 openings", len(os.listdir("/proc/self/fd")) - handles)
    assert engine_threads() == []
    assert len(os.listdir("/proc/self/fd")) <= handles


async def test_openings_that_fail_leave_nothing_behind(tmp_path: Path) -> None:
    path = tmp_path / "jobs.db"
    path.write_bytes(b"garbage!" * 4096)
    for _ in range(10):  # the pool that the loop opens files with
        with contextlib.suppress(EngineError):
            await engine_of(path).open()
    handles = len(os.listdir("/proc/self/fd"))
    for _ in range(50):
        with pytest.raises(EngineUnusable):
            await engine_of(path).open()
    assert engine_threads() == []
    assert len(os.listdir("/proc/self/fd")) <= handles


async def test_a_process_without_free_file_handles_is_told_and_leaves_nothing_behind(store: Path) -> None:
    async with engine_of(store):
        pass  # what the loop needs for it is there from now on
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    handles = len(os.listdir("/proc/self/fd"))
    refused = 0
    for free in range(12):
        engine = engine_of(store, "?timeout=0.2")
        lowest = os.dup(0)
        os.close(lowest)
        resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + free, hard))
        try:
            await engine.open()
            assert [found and found.id for found in await engine.get(["a"])] == ["a"]
        except EngineError as error:
            refused += str(store) in str(error)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            await engine.close()
        assert engine_threads() == []
        assert len(os.listdir("/proc/self/fd")) <= handles
    assert 2 < refused < 12
    check_file(store)


async def test_a_process_that_was_forked_is_told_to_open_its_own(store: Path) -> None:
    async with engine_of(store) as engine:
        read, write = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of forking beside threads: that is the subject
            child = os.fork()
        if child == 0:
            answer = b"no answer"
            try:
                answer = _in_child(engine)
            finally:
                os.write(write, answer)
                os._exit(0)
        os.close(write)
        said = os.read(read, 4096).decode()
        os.close(read)
        assert os.waitpid(child, 0)[1] == 0
        assert said == "this engine was opened before a fork; open one of its own in each process | opened, found b"
        assert (await start(engine, "parent", queue="p")).id == "parent"
        await check_invariants(engine)


def _in_child(engine: SQLiteEngine) -> bytes:
    async def use() -> str:
        try:
            await engine.get(["b"])
        except EngineUnusable as error:
            said = str(error)
        else:
            said = "answered"
        await asyncio.wait_for(engine.close(), 5)
        async with SQLiteEngine(engine.url) as own:
            (found,) = await own.get(["b"])
        return f"{said} | opened, found {found and found.id}"

    # The running loop is the parent's, which a fork copies without the thread that turns it.
    asyncio._set_running_loop(None)
    loop = asyncio.new_event_loop()
    return loop.run_until_complete(use()).encode()
