"""`list_jobs`: pages by key, newest first, that other work does not tear."""

from __future__ import annotations

import pytest

from oncue.engine import MAX_BATCH, Engine, JobFilter
from oncue.job import JobInfo, Outcome, State
from oncue.testing.conformance.base import Conformance
from oncue.testing.conformance.invariants import all_jobs
from oncue.testing.conformance.steps import (
    BOOM,
    COMPLETED,
    FAILED,
    advance,
    ended,
    info,
    job,
    put,
    put_one,
    start,
    take,
)

__all__ = ["ListingConformance"]

ALL = JobFilter()


def ids(jobs: list[JobInfo]) -> list[str]:
    """Return the ids of jobs."""
    return [one.id for one in jobs]


def states(*which: State) -> JobFilter:
    """Return the filter for states."""
    return JobFilter(states=frozenset(which))


class ListingConformance(Conformance):
    """Cases of `list_jobs`."""

    async def test_an_empty_store_lists_nothing(self, engine: Engine) -> None:
        assert await engine.list_jobs(ALL, limit=10) == ([], None)

    async def test_jobs_are_listed_newest_first(self, engine: Engine) -> None:
        for number in range(5):
            await put_one(engine, str(number))
            advance(engine, 1)
        page, _ = await engine.list_jobs(ALL, limit=10)
        assert ids(page) == list("43210")

    async def test_newest_is_who_came_last_whatever_happened_since(self, engine: Engine) -> None:
        await put_one(engine, "old", priority=-1)
        advance(engine, 1)
        await put_one(engine, "new", delay=10**6)
        advance(engine, 1)
        await ended(engine, job_id="newest", priority=1)
        await take(engine)
        assert ids(await all_jobs(engine)) == ["newest", "new", "old"]

    async def test_a_listed_job_reads_as_by_its_id_without_bodies(self, engine: Engine) -> None:
        await ended(engine, COMPLETED, "j", payload=b"p", meta={"a": "b"})
        (listed,), _ = await engine.list_jobs(ALL, limit=10)
        assert listed == await info(engine, "j")
        assert (listed.payload, listed.result) == (None, None)

    @pytest.mark.parametrize("limit", [1, 2, 7, 25, 26, MAX_BATCH])
    async def test_pages_follow_each_other_without_gap_or_repetition(self, engine: Engine, limit: int) -> None:
        for _ in range(5):
            await put(engine, *[job() for _ in range(5)])
        listed = await all_jobs(engine, limit=limit)
        assert len(listed) == len(set(ids(listed))) == 25
        assert ids(listed) == ids(await all_jobs(engine))

    async def test_no_page_is_longer_than_asked_for(self, engine: Engine) -> None:
        await put(engine, *[job() for _ in range(10)])
        page, cursor = await engine.list_jobs(ALL, limit=4)
        assert len(page) == 4
        assert cursor is not None

    async def test_the_last_page_has_no_cursor(self, engine: Engine) -> None:
        await put(engine, *[job() for _ in range(3)])
        page, cursor = await engine.list_jobs(ALL, limit=4)
        assert (len(page), cursor) == (3, None)

    async def test_a_page_can_be_read_again(self, engine: Engine) -> None:
        await put(engine, *[job() for _ in range(10)])
        _, cursor = await engine.list_jobs(ALL, limit=4)
        first = await engine.list_jobs(ALL, limit=4, after=cursor)
        assert await engine.list_jobs(ALL, limit=4, after=cursor) == first

    async def test_jobs_that_come_in_meanwhile_do_not_tear_the_pages(self, engine: Engine) -> None:
        old = set(await put(engine, *[job() for _ in range(20)]))
        seen: list[str] = []
        page, cursor = await engine.list_jobs(ALL, limit=3)
        seen += ids(page)
        while cursor is not None:
            await put(engine, *[job() for _ in range(5)])
            page, cursor = await engine.list_jobs(ALL, limit=3, after=cursor)
            seen += ids(page)
        assert len(seen) == len(set(seen))
        assert old <= set(seen)

    async def test_jobs_that_move_meanwhile_do_not_tear_the_pages(self, engine: Engine) -> None:
        old = set(await put(engine, *[job(max_attempts=9) for _ in range(20)]))
        seen: list[str] = []
        page, cursor = await engine.list_jobs(ALL, limit=3)
        seen += ids(page)
        outcomes = [COMPLETED, FAILED, Outcome.retrying(0, BOOM), Outcome.released()]
        while cursor is not None:
            claimed = await take(engine, 4)
            await engine.finish([(one.lease, outcome) for one, outcome in zip(claimed, outcomes, strict=False)])
            page, cursor = await engine.list_jobs(ALL, limit=3, after=cursor)
            seen += ids(page)
        assert len(seen) == len(set(seen))
        assert old == set(seen)

    async def test_jobs_that_leave_the_filter_meanwhile_do_not_hide_others(self, engine: Engine) -> None:
        old = await put(engine, *[job() for _ in range(20)])
        where = states(State.QUEUED)
        page, cursor = await engine.list_jobs(where, limit=5)
        seen = ids(page)
        assert await engine.cancel([*seen[:3], *[one for one in old if one not in seen][:2]]) == ["cancelled"] * 5
        while cursor is not None:
            page, cursor = await engine.list_jobs(where, limit=5, after=cursor)
            seen += ids(page)
        assert len(seen) == len(set(seen))
        still = {one.id for one in await all_jobs(engine, where)}
        assert still <= set(seen)

    async def test_jobs_that_are_deleted_meanwhile_do_not_hide_others(self, engine: Engine) -> None:
        old = await put(engine, *[job() for _ in range(20)])
        page, cursor = await engine.list_jobs(ALL, limit=5)
        seen = ids(page)
        await engine.delete(seen)
        while cursor is not None:
            page, cursor = await engine.list_jobs(ALL, limit=5, after=cursor)
            seen += ids(page)
        assert sorted(seen) == sorted(old)

    async def test_jobs_are_listed_by_state(self, engine: Engine) -> None:
        await ended(engine, COMPLETED, "completed")
        await ended(engine, FAILED, "failed")
        await ended(engine, Outcome.cancelled(), "cancelled")
        await ended(engine, Outcome.retrying(60, BOOM), "retrying")
        await start(engine, "running")
        await put(engine, job("queued"), job("scheduled", delay=60), job("waiting", after=("running",)))
        for where in State:
            assert ids(await all_jobs(engine, states(where))) == [str(where)]
        several = await all_jobs(engine, states(State.FAILED, State.QUEUED, State.WAITING))
        assert sorted(ids(several)) == ["failed", "queued", "waiting"]

    async def test_jobs_are_listed_by_queue_and_task(self, engine: Engine) -> None:
        for queue in "ab":
            for task in "xy":
                await put_one(engine, queue + task, queue=queue, task=task)
                advance(engine, 1)
        assert ids(await all_jobs(engine, JobFilter(queue="a"))) == ["ay", "ax"]
        assert ids(await all_jobs(engine, JobFilter(task="x"))) == ["bx", "ax"]
        assert ids(await all_jobs(engine, JobFilter(queue="b", task="y"))) == ["by"]
        assert await all_jobs(engine, JobFilter(queue="unknown")) == []
        assert await all_jobs(engine, JobFilter(task="unknown")) == []
        assert await all_jobs(engine, JobFilter(task="")) == []

    async def test_every_filter_narrows_the_others(self, engine: Engine) -> None:
        await ended(engine, FAILED, "hit", queue="q", task="t")
        await ended(engine, COMPLETED, "state", queue="q", task="t")
        await ended(engine, FAILED, "queue", queue="other", task="t")
        await ended(engine, FAILED, "task", queue="q", task="other")
        where = JobFilter(states=frozenset({State.FAILED}), queue="q", task="t")
        assert ids(await all_jobs(engine, where)) == ["hit"]

    async def test_pages_of_a_filter_follow_each_other(self, engine: Engine) -> None:
        await put(engine, *[job(str(number), queue="even" if number % 2 == 0 else "odd") for number in range(40)])
        listed = await all_jobs(engine, JobFilter(queue="odd"), limit=3)
        assert sorted(map(int, ids(listed))) == list(range(1, 40, 2))
