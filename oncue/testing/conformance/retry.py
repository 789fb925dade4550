"""`retry`: ended jobs run again, with a new budget but under the old id and with growing tokens."""

from __future__ import annotations

import pytest

from oncue.engine import MAX_BATCH, Engine
from oncue.job import Outcome, State, Unique
from oncue.testing.conformance.base import Conformance
from oncue.testing.conformance.steps import (
    BOOM,
    COMPLETED,
    FAILED,
    advance,
    end,
    ended,
    info,
    job,
    pass_leases,
    put,
    put_one,
    start,
    state,
    take,
    take_one,
)

__all__ = ["RetryConformance"]


class RetryConformance(Conformance):
    """Cases of `retry`."""

    async def test_an_empty_list_of_jobs_to_retry_is_answered_with_nothing(self, engine: Engine) -> None:
        assert await engine.retry([]) == []

    @pytest.mark.parametrize("outcome", [COMPLETED, FAILED, Outcome.cancelled()], ids=lambda outcome: outcome.state)
    async def test_an_ended_job_is_put_back_in_line(self, engine: Engine, outcome: Outcome) -> None:
        first = await start(engine, "j", payload=b"p", priority=3, meta={"a": "b"})
        await end(engine, first, outcome)
        before = await info(engine, "j")
        assert await engine.retry(["j"]) == [True]
        read = await info(engine, "j", bodies=True)
        assert (read.state, read.reason, read.finished_at, read.result) == (State.QUEUED, None, None, None)
        assert (read.payload, read.priority, dict(read.meta)) == (b"p", 3, {"a": "b"})
        assert read.created_at == before.created_at
        assert read.revision > before.revision
        second = await take_one(engine)
        assert (second.id, second.attempt, second.payload) == ("j", 1, b"p")
        assert second.lease.token > first.lease.token
        assert second.lease.nonce != first.lease.nonce
        await end(engine, second, Outcome.completed(b"new"))
        assert (await info(engine, "j", bodies=True)).result == b"new"

    async def test_a_retried_job_has_its_attempts_again(self, engine: Engine) -> None:
        await put_one(engine, "j", max_attempts=2)
        await end(engine, await take_one(engine), Outcome.retrying(0, BOOM))
        await end(engine, await take_one(engine), FAILED)
        assert await engine.retry(["j"]) == [True]
        numbers = []
        for _ in range(2):
            claimed = await take_one(engine)
            numbers.append((claimed.attempt, claimed.max_attempts))
            await end(engine, claimed, Outcome.retrying(0, BOOM))
        assert numbers == [(1, 2), (2, 2)]

    async def test_a_job_that_never_started_is_put_back_in_line(self, engine: Engine) -> None:
        await put_one(engine, "j", delay=1000)
        await engine.cancel(["j"])
        assert await engine.retry(["j"]) == [True]
        assert await state(engine, "j") is State.QUEUED
        assert (await take_one(engine)).id == "j"

    async def test_a_job_that_expired_can_be_started_after_a_retry(self, engine: Engine) -> None:
        await put_one(engine, "j", expires_in=30)
        advance(engine, 31)
        await pass_leases(engine)
        assert await state(engine, "j") is State.FAILED
        assert await engine.retry(["j"]) == [True]
        await end(engine, await take_one(engine))
        assert await state(engine, "j") is State.COMPLETED

    async def test_a_job_that_crashed_too_often_can_be_started_after_a_retry(self, engine: Engine) -> None:
        await put_one(engine, "j", max_crashes=1)
        await take_one(engine)
        await pass_leases(engine)
        assert await state(engine, "j") is State.FAILED
        assert await engine.retry(["j"]) == [True]
        await end(engine, await take_one(engine))
        assert await state(engine, "j") is State.COMPLETED

    async def test_open_jobs_stay_as_they_are(self, engine: Engine) -> None:
        await ended(engine, Outcome.retrying(60, BOOM), "retrying")
        await start(engine, "running")
        await put(engine, job("queued"), job("scheduled", delay=60), job("waiting", after=("running",)))
        ids = ["retrying", "running", "queued", "scheduled", "waiting"]
        before = await engine.get(ids)
        assert await engine.retry(ids) == [True] * 5
        assert await engine.get(ids) == before

    async def test_a_job_that_is_gone_cannot_be_retried(self, engine: Engine) -> None:
        assert await engine.retry(["unknown"]) == [False]
        await ended(engine, job_id="j")
        await engine.delete(["j"])
        assert await engine.retry(["j"]) == [False]
        assert await take(engine) == []

    async def test_a_job_whose_unique_key_is_held_cannot_be_retried(self, engine: Engine) -> None:
        await ended(engine, FAILED, "j", unique=Unique("k"))
        holder = await start(engine, "holder", unique=Unique("k"))
        assert await engine.retry(["j"]) == [False]
        assert await state(engine, "j") is State.FAILED
        await end(engine, holder)
        assert await engine.retry(["j"]) == [True]

    async def test_a_retried_job_holds_its_unique_key_again(self, engine: Engine) -> None:
        await ended(engine, FAILED, "j", unique=Unique("k"))
        await engine.retry(["j"])
        (answer,) = await engine.enqueue([job(unique=Unique("k"))])
        assert (answer.id, answer.created, answer.conflict) == ("j", False, "unique")
        await end(engine, await take_one(engine))
        await put_one(engine, "next", unique=Unique("k"))

    async def test_of_two_jobs_with_one_unique_key_one_is_retried(self, engine: Engine) -> None:
        await ended(engine, FAILED, "a", unique=Unique("k"))
        await ended(engine, FAILED, "b", unique=Unique("k"))
        assert await engine.retry(["a", "b"]) == [True, False]

    async def test_retry_answers_come_in_the_order_of_the_ids(self, engine: Engine) -> None:
        await ended(engine, FAILED, "a")
        await ended(engine, FAILED, "b")
        assert await engine.retry(["b", "unknown", "a", "b"]) == [True, False, True, True]
        assert sorted(claimed.id for claimed in await take(engine, 10)) == ["a", "b"]

    async def test_a_thousand_jobs_are_retried_in_one_call(self, engine: Engine) -> None:
        ids = await put(engine, *[job() for _ in range(MAX_BATCH)])
        await engine.cancel(ids)
        assert await engine.retry(ids) == [True] * MAX_BATCH
        assert len(await take(engine, MAX_BATCH)) == MAX_BATCH

    async def test_a_job_can_be_retried_many_times(self, engine: Engine) -> None:
        await ended(engine, FAILED, "j")
        tokens = []
        for _ in range(5):
            assert await engine.retry(["j"]) == [True]
            claimed = await take_one(engine)
            assert claimed.attempt == 1
            tokens.append(claimed.lease.token)
            await end(engine, claimed, FAILED)
        assert tokens == sorted(set(tokens))
