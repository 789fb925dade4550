"""`subscribe`: hints arrive soon, also for who asks late, and only for the topics asked for.

A hint may be lost by contract, and nothing is correct because of it; an engine that loses them here is slow everywhere.
"""

from __future__ import annotations

import asyncio
import time

import pytest

from oncue.engine import TOPIC_ALL, Engine, Subscription, topic_cancel, topic_job, topic_queue
from oncue.job import FeedItem, FeedKind, Outcome
from oncue.testing.conformance.base import Conformance
from oncue.testing.conformance.steps import (
    BOOM,
    COMPLETED,
    DEADLINE,
    end,
    ended,
    info,
    pass_leases,
    put_one,
    start,
    take_one,
)

__all__ = ["HintsConformance"]

QUIET = 0.3
"""Seconds without a hint that count as silence: late and doubled hints have come by then."""


async def hinted(subscription: Subscription) -> bool:
    """Wait for a hint that must come."""
    return await subscription.wait(timeout=DEADLINE)


async def quiet(subscription: Subscription) -> None:
    """Take all hints that are on their way."""
    deadline = time.monotonic() + DEADLINE
    while await subscription.wait(timeout=QUIET):
        assert time.monotonic() < deadline, "hints do not end"


class HintsConformance(Conformance):
    """Cases of `subscribe`."""

    async def test_a_new_job_hints_its_queue(self, engine: Engine) -> None:
        subscription = engine.subscribe(topic_queue("q"))
        await put_one(engine, queue="q")
        assert await hinted(subscription)
        subscription.close()

    async def test_a_hint_reaches_who_waits_already(self, engine: Engine) -> None:
        subscription = engine.subscribe(topic_queue("q"))
        waiting = asyncio.create_task(hinted(subscription))
        await asyncio.sleep(0)
        await put_one(engine, queue="q")
        assert await waiting
        subscription.close()

    async def test_without_a_hint_waiting_ends_in_time(self, engine: Engine) -> None:
        subscription = engine.subscribe(topic_queue("q"))
        begin = time.monotonic()
        assert await subscription.wait(timeout=0.1) is False
        assert 0.09 <= time.monotonic() - begin < DEADLINE
        assert await subscription.wait(timeout=0) is False
        subscription.close()

    async def test_a_hint_is_taken_by_the_wait_that_it_ends(self, engine: Engine) -> None:
        subscription = engine.subscribe(topic_queue("q"))
        for _ in range(3):
            await put_one(engine, queue="q")
            assert await hinted(subscription)
            await quiet(subscription)
        subscription.close()

    async def test_what_was_hinted_before_the_subscription_is_not_told(self, engine: Engine) -> None:
        await put_one(engine, queue="q")
        early = engine.subscribe(topic_queue("q"))
        await quiet(early)
        late = engine.subscribe(topic_queue("q"))
        assert await late.wait(timeout=QUIET) is False
        early.close()
        late.close()

    async def test_only_the_topics_asked_for_are_hinted(self, engine: Engine) -> None:
        mine = engine.subscribe(topic_queue("mine"), topic_job("mine"), topic_cancel("mine"))
        everything = engine.subscribe(TOPIC_ALL)
        claimed = await start(engine, "other", queue="other", worker="other")
        await engine.append(claimed.lease, [FeedItem(claimed.lease.token, 1, FeedKind.LOG, b"x")])
        await engine.cancel(["other"])
        await end(engine, claimed)
        assert await hinted(everything)
        await quiet(everything)
        assert await mine.wait(timeout=0) is False
        mine.close()
        everything.close()

    async def test_each_of_several_topics_is_hinted(self, engine: Engine) -> None:
        subscription = engine.subscribe(topic_queue("a"), topic_queue("b"), topic_job("j"))
        await quiet(subscription)
        for queue in ("b", "a"):
            await put_one(engine, queue=queue)
            assert await hinted(subscription)
            await quiet(subscription)
        await put_one(engine, "j", queue="c")
        await quiet(subscription)
        await engine.cancel(["j"])
        assert await hinted(subscription)
        subscription.close()

    async def test_every_subscription_is_hinted(self, engine: Engine) -> None:
        subscriptions = [engine.subscribe(topic_queue("q")) for _ in range(20)]
        await put_one(engine, queue="q")
        assert await asyncio.gather(*[hinted(one) for one in subscriptions]) == [True] * 20
        for one in subscriptions:
            one.close()

    async def test_every_move_of_a_job_hints_it(self, engine: Engine) -> None:
        await put_one(engine, "j", max_attempts=3)
        subscription = engine.subscribe(topic_job("j"))
        await quiet(subscription)
        claimed = await take_one(engine)
        assert await hinted(subscription)
        await quiet(subscription)
        await engine.append(claimed.lease, [FeedItem(claimed.lease.token, 1, FeedKind.LOG, b"x")])
        assert await hinted(subscription)
        await quiet(subscription)
        await end(engine, claimed, Outcome.retrying(0, BOOM))
        assert await hinted(subscription)
        await quiet(subscription)
        await take_one(engine)
        await quiet(subscription)
        await pass_leases(engine)
        assert await hinted(subscription)
        await quiet(subscription)
        await engine.cancel(["j"])
        assert await hinted(subscription)
        await quiet(subscription)
        await engine.retry(["j"])
        assert await hinted(subscription)
        await quiet(subscription)
        await engine.delete(["j"])
        assert await hinted(subscription)
        subscription.close()

    @pytest.mark.parametrize("way", ["released", "retried", "run again", "resumed", "paused", "rescued", "dependency"])
    async def test_a_queue_is_hinted_when_it_may_have_work_or_its_pause_changed(self, engine: Engine, way: str) -> None:
        claimed = await start(engine, "j", queue="q", max_attempts=3)
        if way == "run again":
            await end(engine, claimed)
        elif way == "resumed":
            await engine.set_queue("q", paused=True)
        elif way == "dependency":
            await put_one(engine, "child", queue="q2", after=("j",))
        subscription = engine.subscribe(topic_queue("q2" if way == "dependency" else "q"))
        await quiet(subscription)
        if way == "released":
            await end(engine, claimed, Outcome.released())
        elif way == "retried":
            await end(engine, claimed, Outcome.retrying(0, BOOM))
        elif way == "run again":
            await engine.retry(["j"])
        elif way == "resumed":
            await engine.set_queue("q", paused=False)
        elif way == "paused":
            await engine.set_queue("q", paused=True)
        elif way == "rescued":
            await pass_leases(engine)
        else:
            await end(engine, claimed)
        assert await hinted(subscription)
        subscription.close()

    async def test_a_worker_is_hinted_when_its_job_is_asked_to_stop(self, engine: Engine) -> None:
        await start(engine, "j", worker="w1")
        mine = engine.subscribe(topic_cancel("w1"))
        other = engine.subscribe(topic_cancel("w2"))
        await engine.cancel(["j"])
        assert await hinted(mine)
        assert await other.wait(timeout=QUIET) is False
        mine.close()
        other.close()

    async def test_a_job_cancelled_by_its_dependency_is_hinted(self, engine: Engine) -> None:
        await put_one(engine, "parent")
        await put_one(engine, "child", after=("parent",))
        subscription = engine.subscribe(topic_job("child"))
        await quiet(subscription)
        await engine.cancel(["parent"])
        assert await hinted(subscription)
        subscription.close()

    async def test_everything_is_hinted_to_who_asks_for_everything(self, engine: Engine) -> None:
        subscription = engine.subscribe(TOPIC_ALL)
        await put_one(engine, "j")
        assert await hinted(subscription)
        await quiet(subscription)
        await engine.cancel(["j"])
        assert await hinted(subscription)
        await quiet(subscription)
        await engine.set_queue("q", paused=True)
        assert await hinted(subscription)
        subscription.close()

    async def test_the_result_can_be_read_when_its_hint_arrives(self, engine: Engine) -> None:
        claimed = await start(engine, "j")
        subscription = engine.subscribe(topic_job("j"))
        await quiet(subscription)
        finishing = asyncio.create_task(engine.finish([(claimed.lease, COMPLETED)]))
        while (await info(engine, "j", bodies=True)).result is None:
            assert await hinted(subscription)
        assert await finishing == [True]
        subscription.close()

    async def test_what_a_sibling_writes_is_hinted(self, engine: Engine) -> None:
        subscription = engine.subscribe(topic_queue("q"))
        async with engine.sibling() as sibling:
            await put_one(sibling, queue="q")
            assert await hinted(subscription)
        subscription.close()

    async def test_what_is_written_is_hinted_to_siblings(self, engine: Engine) -> None:
        async with engine.sibling() as sibling:
            subscription = sibling.subscribe(topic_queue("q"))
            await put_one(engine, queue="q")
            assert await hinted(subscription)
            subscription.close()

    async def test_closing_ends_a_wait_under_way(self, engine: Engine) -> None:
        subscription = engine.subscribe(topic_queue("q"))
        waiting = asyncio.create_task(subscription.wait())
        await asyncio.sleep(0)
        subscription.close()
        assert await asyncio.wait_for(waiting, DEADLINE) is False

    async def test_a_closed_subscription_is_told_nothing(self, engine: Engine) -> None:
        subscription = engine.subscribe(topic_queue("q"))
        subscription.close()
        subscription.close()
        await put_one(engine, queue="q")
        assert await asyncio.wait_for(subscription.wait(), DEADLINE) is False

    async def test_a_wait_that_was_given_up_loses_no_later_hint(self, engine: Engine) -> None:
        subscription = engine.subscribe(topic_queue("q"))
        waiting = asyncio.create_task(subscription.wait())
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await put_one(engine, queue="q")
        assert await hinted(subscription)
        subscription.close()

    async def test_a_thousand_subscriptions_leave_nothing_behind(self, engine: Engine) -> None:
        for number in range(1000):
            engine.subscribe(topic_job(str(number))).close()
        await ended(engine)
