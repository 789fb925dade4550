"""Hostile and extreme values: whatever the rules of `oncue.job` allow is stored and comes back as it was."""

from __future__ import annotations

from contextlib import suppress
from datetime import timedelta

import pytest

from oncue.engine import Engine, JobFilter, topic_job
from oncue.errors import OncueError
from oncue.job import FeedItem, FeedKind, Outcome, State, Unique, check_id, check_name
from oncue.testing.conformance.base import Conformance
from oncue.testing.conformance.invariants import all_jobs
from oncue.testing.conformance.steps import (
    BOOM,
    DEADLINE,
    drain,
    end,
    info,
    job,
    put,
    put_one,
    start,
    state,
    take,
    take_one,
)

__all__ = ["HostileConformance"]

TEXTS = {
    "sql": "'; DROP TABLE jobs; --",
    "quotes": "\"double\" 'single' `back` \\ \\\\ \\0",
    "hash-tag": "{other}:{tag}",
    "open-tag": "}{",
    "glob": "*?[a-z]^",
    "percent": "%s %d %% %(name)s {0} {name}",
    "parameter": ":name ?1 @x $1 #{x} ${x}",
    "path": "../../etc/passwd",
    "colons": "a:b::c:",
    "markup": "<script>alert(1)</script>&amp;",
    "emoji": "👩‍👩‍👧‍👦 🏴󠁧󠁢󠁥󠁮󠁧󠁿",
    "right-to-left": "שלום \u202eevil\u202c مرحبا",
    "combining": "Z̸̢͇a̵̡l̶g̴o̷",
    "invisible": "a\u200bb\u2060c\ufeffd\u00ad",
    "separators": "a\u2028b\u2029c\u00a0d",
    "last-plane": "\U0010ffff\ufffe\uffff\ufdd0",
    "spaces": "   ",
    "dash": "--help",
    "number": "0",
    "255-bytes": "x" * 255,
    "255-bytes-of-four": "🐍" * 63 + "xyz",
    "json": '{"a": [1, null]}',
    "cursor": "1-1",
}

every_text = pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS.keys())

BYTES = {
    "empty": b"",
    "nul": b"\x00",
    "nuls": b"a\x00b\x00\x00",
    "all": bytes(range(256)),
    "not-utf-8": b"\xff\xfe\xfa\xc0\x80",
    "lines": b"a\r\nb\n\rc\r",
    "protocol": b"$-1\r\n*2\r\n+OK\r\n",
    "large": bytes(range(256)) * 4096,
}

every_bytes = pytest.mark.parametrize("body", BYTES.values(), ids=BYTES.keys())

SMALLEST, LARGEST = -(2**63), 2**63 - 1


class HostileConformance(Conformance):
    """Cases of hostile strings and extreme numbers."""

    @every_text
    async def test_any_id_lives_through_a_whole_life(self, engine: Engine, text: str) -> None:
        check_id(text)
        await put(engine, job(text), job("bystander", priority=-1))
        subscription = engine.subscribe(topic_job(text))
        claimed = await take_one(engine)
        assert await subscription.wait(timeout=DEADLINE)
        subscription.close()
        assert claimed.id == claimed.lease.job_id == text
        assert await engine.append(claimed.lease, [FeedItem(claimed.lease.token, 1, FeedKind.LOG, b"x")])
        await end(engine, claimed, Outcome.retrying(0, BOOM))
        assert len(await engine.attempts(text)) == 1
        assert [item.body for item in await engine.read(text)] == [b"x"]
        await put_one(engine, "child", after=(text,))
        await end(engine, await take_one(engine))
        assert await state(engine, "child") is State.QUEUED
        assert {read.id for read in await all_jobs(engine, limit=1)} == {text, "bystander", "child"}
        assert await engine.retry([text]) == [True]
        assert await engine.cancel([text]) == ["cancelled"]
        assert await engine.delete([text]) == [True]
        assert await engine.get([text]) == [None]
        assert await state(engine, "bystander") is State.QUEUED

    @every_text
    async def test_any_name_of_a_task_comes_back_and_can_be_listed_by(self, engine: Engine, text: str) -> None:
        await put(engine, job("j", task=text), job("other", task="other", priority=-1))
        assert (await take_one(engine)).task == text
        assert [read.id for read in await all_jobs(engine, JobFilter(task=text))] == ["j"]
        assert text in {row.task for row in await engine.metrics(since=timedelta(hours=1))}

    @every_text
    async def test_any_unique_key_is_held_and_given_back(self, engine: Engine, text: str) -> None:
        await put_one(engine, "j", unique=Unique(text))
        assert (await info(engine, "j")).unique_key == text
        (answer,) = await engine.enqueue([job(unique=Unique(text))])
        assert answer.id == "j"
        await end(engine, await take_one(engine))
        await put_one(engine, "next", unique=Unique(text))

    @every_text
    async def test_any_meta_comes_back(self, engine: Engine, text: str) -> None:
        meta = {text: "value", "key": text, "nul": "a\x00b", "control": "\x1b[31m\r\n\t\x7f"}
        await put_one(engine, "j", meta=meta)
        assert dict((await info(engine, "j")).meta) == meta
        assert dict((await take_one(engine)).meta) == meta

    @every_bytes
    async def test_any_bytes_come_back(self, engine: Engine, body: bytes) -> None:
        claimed = await start(engine, "j", payload=body)
        assert claimed.payload == body
        await engine.append(claimed.lease, [FeedItem(claimed.lease.token, 1, FeedKind.PROGRESS, body)])
        await end(engine, claimed, Outcome.completed(body))
        read = await info(engine, "j", bodies=True)
        assert (read.payload, read.result, read.progress) == (body, body, body)
        assert [item.body for item in await engine.read("j")] == [body]

    @every_bytes
    async def test_any_mark_of_a_request_is_recognised(self, engine: Engine, body: bytes) -> None:
        request = job("j", request=body)
        for _ in range(2):
            (answer,) = await engine.enqueue([request])
            assert answer.created
        (answer,) = await engine.enqueue([job("j", request=body + b"\x00")])
        assert (answer.created, answer.conflict) == (False, "id")

    @pytest.mark.parametrize(
        "name", ["-", ".", "..", ":", "_", "0", "a:b:c", "constructor", "null", "SELECT", "q" * 128, "A", "queue:a"]
    )
    async def test_any_name_of_a_queue_can_be_used(self, engine: Engine, name: str) -> None:
        check_name(name)
        await put(engine, job("j", queue=name), job("other", queue="other"))
        assert sorted(queue.name for queue in await engine.queues()) == sorted([name, "other"])
        await engine.set_queue(name, paused=True)
        assert await take(engine, queues=[name]) == []
        await engine.set_queue(name, paused=False)
        assert [read.id for read in await all_jobs(engine, JobFilter(queue=name))] == ["j"]
        assert (await take_one(engine, queues=[name], worker=name)).queue == name
        assert (await info(engine, "j")).worker == name

    @every_text
    async def test_looking_for_any_text_finds_nothing_in_an_empty_store(self, engine: Engine, text: str) -> None:
        assert await engine.get([text]) == [None]
        assert await engine.cancel([text]) == ["not_found"]
        assert await engine.retry([text]) == [False]
        assert await engine.delete([text]) == [True]
        assert await engine.attempts(text) == []
        assert await engine.read(text) == []
        assert await all_jobs(engine, JobFilter(task=text)) == []
        assert await all_jobs(engine, JobFilter(queue=text)) == []
        assert await engine.queues() == []

    @pytest.mark.parametrize(
        "cursor",
        ["", " ", "x", "-", "--", "-1", "1-", "-1-1", "0-0", "1e3", "\x00", "9" * 40, f"{'9' * 40}-{'9' * 40}", "²"],
    )
    async def test_a_cursor_that_was_never_given_out_does_no_harm(self, engine: Engine, cursor: str) -> None:
        """Cursors come back from pages and streams through clients: what is none is no answer or an error of ours."""
        claimed = await start(engine, "j")
        await engine.append(claimed.lease, [FeedItem(claimed.lease.token, 1, FeedKind.LOG, b"x")])
        with suppress(OncueError):
            await engine.read("j", after=cursor)
        with suppress(OncueError):
            await engine.list_jobs(JobFilter(), limit=10, after=cursor)
        assert [item.body for item in await engine.read("j")] == [b"x"]

    async def test_priorities_are_whole_numbers_of_64_bits(self, engine: Engine) -> None:
        priorities = [0, SMALLEST, LARGEST, -1, 1, LARGEST - 1, SMALLEST + 1, 2**53, 2**53 + 1, -(2**53) - 1]
        await put(engine, *[job(str(priority), priority=priority) for priority in priorities])
        read = await engine.get([str(priority) for priority in priorities])
        assert [one and one.priority for one in read] == priorities
        assert await drain(engine) == [str(priority) for priority in sorted(priorities, reverse=True)]

    async def test_numbers_of_attempts_are_whole_numbers_of_64_bits(self, engine: Engine) -> None:
        claimed = await start(engine, "j", max_attempts=LARGEST, max_crashes=LARGEST)
        assert (claimed.max_attempts, claimed.max_crashes) == (LARGEST, LARGEST)
        await end(engine, claimed, Outcome.retrying(0, BOOM))
        read = await info(engine, "j")
        assert (read.max_attempts, read.max_crashes) == (LARGEST, LARGEST)

    async def test_durations_may_be_very_long_or_very_short(self, engine: Engine) -> None:
        await put(
            engine,
            job("long", timeout=1e9, keep=1e11, expires_in=1e9),
            job("short", timeout=0.001, keep=0.001, expires_in=1e6),
        )
        long, short = await take(engine, 2)
        assert (long.timeout, long.keep) == (1e9, 1e11)
        assert (short.timeout, short.keep) == (0.001, 0.001)
        await end(engine, long, Outcome.retrying(100_000_000_000, BOOM))
        await end(engine, short, Outcome.snoozed(100_000_000_000))
        assert (await info(engine, "long")).due_at.year > 5000
        assert (await info(engine, "short")).due_at.year > 5000

    @pytest.mark.parametrize("seconds", [0.001, 0.057, 0.29, 1.001, 2.3, 8.2, 16.1, 4503.1])
    async def test_durations_are_exact_to_the_millisecond(self, engine: Engine, seconds: float) -> None:
        claimed = await start(engine, "j", timeout=seconds, keep=seconds, expires_in=seconds * 1000)
        assert (claimed.timeout, claimed.keep) == (seconds, seconds)
        assert (await info(engine, "j")).timeout == seconds

    async def test_a_job_may_have_much_meta(self, engine: Engine) -> None:
        meta = {f"key {number}": "value" * 100 for number in range(200)}
        await put_one(engine, "j", meta=meta)
        assert dict((await info(engine, "j")).meta) == meta

    async def test_a_batch_of_hostile_jobs_keeps_them_apart(self, engine: Engine) -> None:
        requests = [
            job(text, task=text, meta={text: text}, unique=Unique(text), payload=text.encode())
            for text in TEXTS.values()
        ]
        await put(engine, *requests)
        for request, claimed in zip(requests, await take(engine, 100), strict=True):
            assert (claimed.id, claimed.task, dict(claimed.meta)) == (request.id, request.task, dict(request.meta))
            assert claimed.payload == request.payload
