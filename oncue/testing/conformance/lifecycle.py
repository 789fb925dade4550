"""`open`, `close`, `sibling`, `advance`: connections come and go, the store and its clock stay."""

from __future__ import annotations

import asyncio

import pytest

from oncue.engine import Engine
from oncue.job import State, Unique
from oncue.testing.conformance.base import Conformance
from oncue.testing.conformance.steps import (
    FAILED,
    LEASE,
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

__all__ = ["LifecycleConformance"]


class LifecycleConformance(Conformance):
    """Cases of what an engine does besides its calls."""

    async def test_an_engine_has_all_that_the_contract_names(self, engine: Engine) -> None:
        assert isinstance(engine, Engine)

    async def test_an_engine_says_where_its_store_is(self, engine: Engine) -> None:
        assert "://" in engine.url
        assert engine.sibling().url == engine.url

    async def test_opening_twice_is_free(self, engine: Engine) -> None:
        await put_one(engine, "j")
        await engine.open()
        await engine.open()
        assert (await take_one(engine)).id == "j"

    async def test_closing_twice_is_free(self, new_engine: Engine) -> None:
        await new_engine.open()
        await new_engine.close()
        await new_engine.close()

    async def test_closing_an_engine_that_was_not_opened_is_free(self, new_engine: Engine) -> None:
        await new_engine.close()

    async def test_a_closed_engine_can_be_opened_again(self, engine: Engine) -> None:
        for _ in range(3):
            await engine.close()
            await engine.open()
            await ended(engine)

    async def test_an_engine_is_open_inside_its_context(self, new_engine: Engine) -> None:
        async with new_engine as engine:
            assert engine is new_engine
            await put_one(engine, "j")
            assert await state(engine, "j") is State.QUEUED

    async def test_jobs_are_still_there_after_closing_and_opening(self, engine: Engine) -> None:
        if not self.keeps_jobs_when_closed:
            pytest.skip("the store lives as long as its connections, by its nature")
        await ended(engine, job_id="done", payload=b"p")
        running = await start(engine, "running", unique=Unique("k"))
        await put(engine, job("queued"), job("scheduled", delay=60), job("waiting", after=("running",)))
        await engine.set_queue("paused", paused=True)
        ids = ["done", "running", "queued", "scheduled", "waiting"]
        before = await engine.get(ids, bodies=True)
        await engine.close()
        await engine.open()
        assert await engine.get(ids, bodies=True) == before
        assert [queue.name for queue in await engine.queues() if queue.paused] == ["paused"]
        (answer,) = await engine.enqueue([job(unique=Unique("k"))])
        assert answer.id == "running"
        await end(engine, running)
        assert await state(engine, "waiting") is State.QUEUED

    async def test_tokens_grow_also_over_closing_and_opening(self, engine: Engine) -> None:
        if not self.keeps_jobs_when_closed:
            pytest.skip("the store lives as long as its connections, by its nature")
        first = await start(engine, "j")
        await end(engine, first, FAILED)
        await engine.close()
        await engine.open()
        await engine.retry(["j"])
        assert (await take_one(engine)).lease.token > first.lease.token

    async def test_closing_finishes_what_was_asked(self, new_engine: Engine) -> None:
        async with new_engine as engine, engine.sibling() as sibling:
            requests = [job() for _ in range(50)]
            asked = [asyncio.create_task(engine.enqueue([request])) for request in requests]
            await asyncio.sleep(0)
            await engine.close()
            answers = await asyncio.gather(*asked)
            assert [answer.created for (answer,) in answers] == [True] * 50
            read = await sibling.get([request.id for request in requests])
            assert [one and one.id for one in read] == [request.id for request in requests]

    async def test_siblings_see_one_store(self, engine: Engine) -> None:
        async with engine.sibling() as sibling:
            await put_one(engine, "j")
            assert await state(sibling, "j") is State.QUEUED
            claimed = await take_one(sibling)
            assert await state(engine, "j") is State.RUNNING
            await end(engine, claimed)
            assert await state(sibling, "j") is State.COMPLETED
            await sibling.set_queue("default", paused=True)
            await put_one(engine)
            assert await take(engine) == []

    async def test_closing_a_sibling_closes_no_other(self, engine: Engine) -> None:
        sibling = engine.sibling()
        await sibling.open()
        await sibling.close()
        await ended(engine)

    async def test_a_sibling_lives_on_when_the_first_is_closed(self, engine: Engine) -> None:
        async with engine.sibling() as sibling:
            await put_one(engine, "j")
            await engine.close()
            await end(sibling, await take_one(sibling))
            await engine.open()
            assert await state(engine, "j") is State.COMPLETED

    async def test_siblings_of_siblings_see_the_same_store(self, engine: Engine) -> None:
        async with engine.sibling() as sibling, sibling.sibling() as third:
            await put_one(third, "j")
            assert await state(engine, "j") is State.QUEUED

    async def test_a_sibling_serves_another_thread(self, engine: Engine) -> None:
        sibling = engine.sibling()

        async def work() -> str:
            async with sibling:
                claimed = await take_one(sibling)
                await end(sibling, claimed)
                return claimed.id

        await put_one(engine, "j")
        assert await asyncio.to_thread(lambda: asyncio.run(work())) == "j"
        assert await state(engine, "j") is State.COMPLETED

    async def test_siblings_share_the_clock(self, engine: Engine) -> None:
        async with engine.sibling() as sibling:
            await put_one(engine, "j", delay=1000)
            advance(sibling, 600)
            assert await take(engine) == []
            advance(engine, 401)
            assert (await take_one(sibling)).id == "j"

    async def test_a_sibling_made_later_shares_the_clock(self, engine: Engine) -> None:
        await put_one(engine, "j", delay=1000)
        advance(engine, 1001)
        async with engine.sibling() as sibling:
            assert (await take_one(sibling)).id == "j"

    async def test_the_clock_moves_all_times(self, engine: Engine) -> None:
        await put_one(engine, "before")
        advance(engine, 86_400)
        await put_one(engine, "after")
        apart = (await info(engine, "after")).created_at - (await info(engine, "before")).created_at
        assert 86_400 <= apart.total_seconds() < 86_460

    async def test_the_clock_stands_on_its_own(self, engine: Engine) -> None:
        """Time also passes without being told."""
        subscription = engine.subscribe("queue:never")
        await put_one(engine, "j", delay=0.05)
        assert await take(engine) == []
        await subscription.wait(timeout=0.06)
        claim = await engine.claim(["default"], limit=1, worker_id="w", lease=LEASE, held=())
        assert [claimed.id for claimed in claim.jobs] == ["j"]
        subscription.close()
