"""`prune`: ended jobs leave by age and by count, all that belongs to them with them, and nothing else does."""

from __future__ import annotations

import pytest

from oncue.engine import MAX_BATCH, Engine
from oncue.job import FeedItem, FeedKind, Outcome, State
from oncue.testing.conformance.base import Conformance
from oncue.testing.conformance.invariants import all_jobs
from oncue.testing.conformance.steps import (
    BOOM,
    COMPLETED,
    FAILED,
    advance,
    end,
    ended,
    info,
    job,
    put,
    put_one,
    start,
    state,
    take,
    take_one,
)

__all__ = ["PruneConformance"]

NO_LIMIT = 1_000_000


async def prune(engine: Engine, *, limit: int = MAX_BATCH, keep_finished: int = NO_LIMIT) -> int:
    """Delete what may be deleted."""
    return await engine.prune(limit=limit, keep_finished=keep_finished)


class PruneConformance(Conformance):
    """Cases of `prune`."""

    async def test_an_empty_store_has_nothing_to_prune(self, engine: Engine) -> None:
        assert await prune(engine) == 0
        assert await prune(engine, keep_finished=0) == 0

    @pytest.mark.parametrize("outcome", [COMPLETED, FAILED, Outcome.cancelled()], ids=lambda outcome: outcome.state)
    async def test_an_ended_job_is_kept_as_long_as_it_asked(self, engine: Engine, outcome: Outcome) -> None:
        await ended(engine, outcome, "j", keep=500)
        advance(engine, 400)
        assert await prune(engine) == 0
        assert await state(engine, "j") is outcome.state
        advance(engine, 101)
        assert await prune(engine) == 1
        assert await engine.get(["j"]) == [None]

    async def test_a_job_is_kept_from_its_end_on(self, engine: Engine) -> None:
        claimed = await start(engine, "j", keep=100)
        advance(engine, 500)
        await end(engine, claimed)
        assert await prune(engine) == 0
        advance(engine, 101)
        assert await prune(engine) == 1

    async def test_a_job_that_is_not_to_be_kept_is_pruned_at_once(self, engine: Engine) -> None:
        await ended(engine, job_id="j", keep=0)
        advance(engine, 0.01)
        assert await prune(engine) == 1
        assert await all_jobs(engine) == []

    async def test_each_job_is_kept_as_long_as_it_asked_itself(self, engine: Engine) -> None:
        for seconds in (10, 10_000, 100, 1000):
            await ended(engine, job_id=str(seconds), keep=seconds)
        advance(engine, 500)
        assert await prune(engine) == 2
        assert sorted(read.id for read in await all_jobs(engine)) == ["1000", "10000"]

    async def test_jobs_cancelled_before_they_started_are_pruned_too(self, engine: Engine) -> None:
        await put(
            engine, job("queued", keep=5), job("scheduled", delay=60, keep=5), job("gone", after=("never",), keep=5)
        )
        await engine.cancel(["queued", "scheduled"])
        advance(engine, 6)
        assert await prune(engine) == 3

    async def test_open_jobs_are_never_pruned(self, engine: Engine) -> None:
        await ended(engine, Outcome.retrying(10**7, BOOM), "retrying", keep=0)
        running = await start(engine, "running", keep=0)
        await put(
            engine,
            job("waiting", after=("running",), keep=0),
            job("scheduled", delay=10**7, keep=0),
            job("queued", keep=0),
        )
        advance(engine, 10**6)
        assert await prune(engine, keep_finished=0) == 0
        assert len(await all_jobs(engine)) == 5
        await end(engine, running)

    async def test_the_oldest_ended_jobs_beyond_the_number_to_keep_are_pruned(self, engine: Engine) -> None:
        for number in range(6):
            await ended(engine, job_id=str(number))
            advance(engine, 1)
        assert await prune(engine, keep_finished=4) == 2
        assert sorted(read.id for read in await all_jobs(engine)) == ["2", "3", "4", "5"]
        assert await prune(engine, keep_finished=4) == 0
        assert await prune(engine, keep_finished=0) == 4

    async def test_what_counts_as_oldest_is_the_end(self, engine: Engine) -> None:
        slow = await start(engine, "slow")
        advance(engine, 1)
        await ended(engine, job_id="quick")
        advance(engine, 1)
        await end(engine, slow)
        assert await prune(engine, keep_finished=1) == 1
        assert [read.id for read in await all_jobs(engine)] == ["slow"]

    async def test_open_jobs_do_not_count_against_the_number_to_keep(self, engine: Engine) -> None:
        await ended(engine, job_id="done")
        await put(engine, *[job() for _ in range(20)])
        assert await prune(engine, keep_finished=1) == 0
        assert await state(engine, "done") is State.COMPLETED

    async def test_no_more_jobs_than_asked_for_are_pruned(self, engine: Engine) -> None:
        await put(engine, *[job(keep=0) for _ in range(10)])
        await engine.finish([(one.lease, COMPLETED) for one in await take(engine, 10)])
        advance(engine, 1)
        numbers = [await prune(engine, limit=4) for _ in range(3)]
        assert numbers == [4, 4, 2]
        assert await all_jobs(engine) == []

    async def test_no_more_jobs_than_asked_for_are_pruned_by_count(self, engine: Engine) -> None:
        await put(engine, *[job() for _ in range(10)])
        await engine.finish([(one.lease, COMPLETED) for one in await take(engine, 10)])
        numbers = [await prune(engine, limit=4, keep_finished=1) for _ in range(3)]
        assert numbers == [4, 4, 1]
        assert len(await all_jobs(engine)) == 1

    async def test_a_pruned_job_leaves_nothing_behind(self, engine: Engine) -> None:
        claimed = await start(engine, "j", keep=0, max_attempts=2)
        await engine.append(claimed.lease, [FeedItem(claimed.lease.token, 1, FeedKind.LOG, b"line")])
        await end(engine, claimed, Outcome.retrying(0, BOOM))
        await end(engine, await take_one(engine))
        advance(engine, 1)
        assert await prune(engine) == 1
        assert await engine.read("j") == []
        assert await engine.attempts("j") == []
        assert await engine.queues() == []
        await put_one(engine, "j")
        read = await info(engine, "j", bodies=True)
        assert (read.state, read.result, read.error, read.progress) == (State.QUEUED, None, None, None)
        assert await engine.read("j") == []
        assert await engine.attempts("j") == []

    async def test_a_job_that_another_one_waits_for_is_not_pruned(self, engine: Engine) -> None:
        running = await start(engine, "running")
        await ended(engine, job_id="done", keep=0)
        await put(engine, job("child", after=("done", "running")), job("other", after=("running",)))
        advance(engine, 1000)
        await prune(engine, keep_finished=0)
        assert (await info(engine, "child")).waiting_for == 1
        await end(engine, running)
        assert await state(engine, "child") is State.QUEUED

    async def test_a_job_that_ended_while_another_one_waits_for_more_is_not_pruned(self, engine: Engine) -> None:
        first = await start(engine, "first", keep=0)
        second = await start(engine, "second")
        await put_one(engine, "child", after=("first", "second"))
        await end(engine, first)
        advance(engine, 1000)
        assert await prune(engine, keep_finished=0) == 0
        assert await state(engine, "first") is State.COMPLETED
        await end(engine, second)
        await end(engine, await take_one(engine))
        assert await prune(engine, keep_finished=0) == 3

    async def test_a_job_that_was_retried_is_kept_from_its_new_end_on(self, engine: Engine) -> None:
        await ended(engine, FAILED, "j", keep=100)
        advance(engine, 90)
        await engine.retry(["j"])
        advance(engine, 200)
        assert await prune(engine, keep_finished=0) == 0
        await end(engine, await take_one(engine))
        advance(engine, 90)
        assert await prune(engine) == 0
        advance(engine, 11)
        assert await prune(engine) == 1
