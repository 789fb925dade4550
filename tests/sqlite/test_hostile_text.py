"""Any text goes through the store unchanged, or is refused as a `ValueError`; none ever means another job."""

from __future__ import annotations

import asyncio
import contextlib
import re
import unicodedata
from collections.abc import Callable, Coroutine, Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, example, given, settings
from hypothesis import strategies as st

from oncue.engine import JobFilter, WorkerInfo, topic_job
from oncue.engines.sqlite import SQLiteEngine
from oncue.errors import InvalidName
from oncue.job import Failure, FeedItem, FeedKind, NewJob, Outcome, Reason, Unique, check_id, check_name
from oncue.testing.conformance.steps import LEASE, drain
from oncue.testing.invariants import check_invariants
from tests.measured import Report

HOSTILE = [
    "",
    "\x00",
    "a\x00b",
    "a",
    "line\nfeed\r",
    "x" * 1_000_000,
    "{tag}",
    "*?[",
    "../../etc/passwd",
    "%00%s%d",
    "\u202eright to left",
    unicodedata.normalize("NFC", "café"),
    unicodedata.normalize("NFD", "café"),
    "👩‍👩‍👧‍👦",
    "\ud800",
    "\ud83d\ude00",
    "😀",
    str(2**63),
    "-0",
    "'",
    '"',
    "`",
    "]]",
    '"..os.execute("x").."',
    "'; DROP TABLE jobs; --",
    "' OR '1'='1",
    "1); DELETE FROM jobs; --",
    "\\",
    "\\u0000",
    "<script>alert(1)</script>",
    "javascript:alert(1)",
    "=cmd|' /C calc'!A0",
    "null",
    "[]",
    '{"a": 1}',
    "?1 :name @x $y",
    "\x1b[31m",
    "\x7f\x85",
    "\ufffe\uffff\U0010ffff",
    " ",
]

# Characters that programs trip over come up often.
texts = st.one_of(
    st.sampled_from(HOSTILE),
    st.text(st.characters(codec=None), max_size=40),
    st.text(st.sampled_from("a'\";\\%_?:{}[]*\x00\n\t\x7f\u2028\ud800\udc00é😀"), max_size=12),
)


Run = Callable[[Coroutine[Any, Any, None]], None]


@pytest.fixture(scope="module")
def runner() -> Iterator[Run]:
    """Return what runs coroutines on one loop: the engine lives longer than one example."""
    with asyncio.Runner() as runner:
        yield runner.run


@pytest.fixture
def engine(runner: Run) -> Iterator[SQLiteEngine]:
    """Open an engine in memory for all examples of a test."""
    engine = SQLiteEngine("sqlite://:memory:")
    runner(engine.open())
    yield engine
    runner(check_invariants(engine))
    runner(engine.close())


def thorough(examples: int) -> settings:
    return settings(
        max_examples=examples,
        deadline=None,
        derandomize=True,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    )


def storable(text: str) -> bool:
    """Whether a text can be stored at all: a lone surrogate is no character."""
    return text.encode(errors="replace").decode() == text


def allowed(check: Callable[[str], str], text: str, instead: str) -> str:
    """Return a text if the rules allow it, else another."""
    try:
        return check(text)
    except InvalidName:
        return instead


async def live(text: str) -> None:
    """Send a text through every field of one job's life that may have it, and see that it comes back as it was."""
    async with SQLiteEngine("sqlite://:memory:") as engine:
        await life(engine, text)
        await check_invariants(engine)


async def life(engine: SQLiteEngine, text: str) -> None:
    name, queue = allowed(check_id, text, "name"), allowed(check_name, text, "queue")
    failure, whole = Failure(text, text, text), text
    text = text if storable(text) else "text"
    await engine.enqueue([NewJob("bystander", "task", queue="elsewhere")])
    new = NewJob(
        name, name, queue, unique=Unique(name), meta={text: text}, payload=whole.encode(errors="surrogatepass")
    )
    (accepted,) = await engine.enqueue([new])
    assert (accepted.id, accepted.created) == (name, True)
    (claimed,) = (await engine.claim([queue], limit=1, worker_id=name, lease=LEASE, held=[])).jobs
    assert (claimed.id, claimed.task, claimed.queue, dict(claimed.meta)) == (name, name, queue, {text: text})
    assert claimed.payload == new.payload
    worker = WorkerInfo(name, host=text, version=text, queues=(queue,), tasks=(name, text))
    await engine.heartbeat(worker, [claimed.lease], lease=LEASE)
    (told,) = await engine.workers()
    assert (told.id, told.host, told.version, told.queues, told.tasks) == (name, text, text, (queue,), (name, text))
    assert await engine.append(claimed.lease, [FeedItem(claimed.lease.token, 1, FeedKind.LOG, new.payload)])
    (read,) = await engine.get([name])
    assert read is not None
    assert (read.id, read.task, read.queue, read.worker, read.unique_key) == (name, name, queue, name, name)
    assert dict(read.meta) == {text: text}
    assert await engine.finish([(claimed.lease, Outcome.failed(Reason.ERROR, failure))]) == [True]
    (attempt,) = await engine.attempts(name)
    assert attempt.failure == failure or not storable(whole)
    assert [one.body for one in await engine.read(name)] == [new.payload]
    for where in (JobFilter(task=name), JobFilter(queue=queue)):
        assert [one.id for one in (await engine.list_jobs(where, limit=9))[0]] == [name]
    await engine.set_queue(queue, paused=True)
    assert {one.name for one in await engine.queues()} == {queue, "elsewhere"}
    await engine.set_queue(queue, paused=False)
    await engine.heartbeat(WorkerInfo(name, stopped=True), [], lease=LEASE)
    assert await engine.delete([name]) == [True]
    assert await drain(engine, "elsewhere") == ["bystander"]
    assert await engine.delete(["bystander"]) == [True]


@thorough(300)
@given(text=texts)
def test_any_text_goes_through_every_field_or_is_refused(runner: Run, text: str) -> None:
    runner(live(text))


@pytest.mark.soak
@thorough(10_000)
@given(text=texts)
def test_ten_thousand_texts_go_through_every_field_or_are_refused(runner: Run, text: str) -> None:
    runner(live(text))


async def strangers(engine: SQLiteEngine, text: str, other: str) -> None:
    """Ask for a job by a text that is not its id: nothing may happen to it."""
    await engine.enqueue([NewJob(other, "task")])
    assert await engine.get([text]) == [None]
    assert await engine.cancel([text]) == ["not_found"]
    assert await engine.retry([text]) == [False]
    assert await engine.delete([text]) == [True]
    (found,) = await engine.get([other])
    assert found is not None, f"{other!r} is gone"
    assert found.state == "queued", f"{other!r} was changed by asking for {text!r}"
    await engine.delete([other])


def is_id(text: str) -> bool:
    return allowed(check_id, text, "another") == text


@thorough(300)
@given(text=texts.filter(is_id), other=texts.filter(is_id))
@example(text="caf\u00e9", other="cafe\u0301")
@example(text="A", other="a")
@example(text="1", other="1.0")
@example(text="1", other="01")
@example(text="a ", other="a")
@example(text="\\u0061", other="a")
@example(text="\ufeffa", other="a")
def test_no_id_means_a_job_with_another_one(runner: Run, engine: SQLiteEngine, text: str, other: str) -> None:
    if text != other:
        runner(strangers(engine, text, other))


@pytest.mark.parametrize("text", ["", "a\x00b", "\ud800", "\ud83d\ude00", "a\n", "\x7f", "\x85", "x" * 256, "é" * 128])
def test_what_could_mean_another_job_is_no_id(text: str) -> None:
    with pytest.raises(InvalidName):
        check_id(text)


@thorough(1_000)
@given(text=texts)
def test_ids_and_names_outside_the_rules_are_refused_before_any_engine(text: str) -> None:
    keeps_the_rules = (
        storable(text)
        and 1 <= len(text.encode()) <= 255
        and not any(unicodedata.category(character) == "Cc" for character in text)
    )
    assert is_id(text) == keeps_the_rules
    assert (allowed(check_name, text, "another") == text) == bool(re.fullmatch(r"[A-Za-z0-9_.:-]{1,128}", text))
    with contextlib.suppress(ValueError):  # and nothing else
        check_id(text)
    with contextlib.suppress(ValueError):
        check_name(text)


def test_a_text_that_is_refused_does_not_harm_those_that_travel_with_it(runner: Run, engine: SQLiteEngine) -> None:
    async def together() -> None:
        results = await asyncio.gather(
            *[engine.enqueue([NewJob(text, "task")]) for text in ("one", "\ud800", "two")], return_exceptions=True
        )
        assert [type(result) for result in results] == [list, UnicodeEncodeError, list]
        assert await drain(engine) == ["one", "two"]
        await engine.delete(["one", "two"])

    runner(together())


def test_five_hundred_injections_change_nothing_else(runner: Run, engine: SQLiteEngine, report: Report) -> None:
    quotes, ends, tails = (
        ["", "'", '"', "`", "]", ")"],
        ["", ";", " --", "/*", "\n"],
        [
            "DROP TABLE jobs",
            "UPDATE jobs SET state = 'failed'",
            "DELETE FROM payloads",
            "OR 1=1",
            "UNION SELECT * FROM jobs",
            "ATTACH 'x' AS y",
            "PRAGMA writable_schema = 1",
            "VALUES (1)",
            "|| (SELECT 1) ||",
            "RETURNING *",
            "LIMIT -1",
            "COMMIT",
            "ROLLBACK",
            "json('{')",
            "$.id",
            "%s %d {0} {rows} {columns}",
            ":seqs ?1",
        ],
    )
    strings = [f"x{quote}{end} {tail}{end}{quote}" for quote in quotes for end in ends for tail in tails]

    async def inject() -> None:
        await engine.enqueue([NewJob(f"kept {number}", "task", queue="kept", priority=-number) for number in range(3)])
        before = await engine.list_jobs(JobFilter(queue="kept"), limit=9)
        for text in strings:
            await engine.enqueue([NewJob(text, text, queue="in", unique=Unique(text), meta={text: text})])
            (claimed,) = (await engine.claim(["in", text], limit=1, worker_id=text, lease=LEASE, held=[text])).jobs
            await engine.finish([(claimed.lease, Outcome.failed(Reason.ERROR, Failure(text, text, text)))])
            await engine.rescue(limit=9, lease=LEASE, dead=[text])
            await engine.list_jobs(JobFilter(queue=text, task=text), limit=9)
            await engine.retry([text])
            await engine.cancel([text])
            assert await engine.delete([text]) == [True]
        assert await engine.list_jobs(JobFilter(queue="kept"), limit=9) == before
        await engine.delete([f"kept {number}" for number in range(3)])

    runner(inject())
    report("injected strings, rows changed elsewhere", f"{len(strings)}, 0")
    assert len(strings) >= 500


def test_topics_and_times_take_any_text_and_year(runner: Run, engine: SQLiteEngine) -> None:
    async def extremes() -> None:
        for text in HOSTILE:
            engine.subscribe(topic_job(text)).close()
        for year in (1, 1969, 9999):
            moment = datetime(year, 12, 31, 23, 59, 59, 999_000, tzinfo=UTC)
            await engine.enqueue([NewJob(f"{year}", "task", run_at=moment, expires_in=1e300)])
            (found,) = await engine.get([f"{year}"])
            assert found is not None
            assert abs((found.due_at - moment).total_seconds()) < 1
        await engine.delete(["1", "1969", "9999"])

    runner(extremes())
