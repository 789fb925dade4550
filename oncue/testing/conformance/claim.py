"""`claim`: what is handed out, in which order, when, to whom, and what a worker is told whose reply was lost."""

from __future__ import annotations

import pytest

from oncue.engine import MAX_BATCH, Engine
from oncue.job import Outcome, State
from oncue.testing.conformance.base import Conformance
from oncue.testing.conformance.steps import (
    BOOM,
    COMPLETED,
    LEASE,
    advance,
    drain,
    end,
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

__all__ = ["ClaimConformance"]


class ClaimConformance(Conformance):
    """Cases of `claim`."""

    async def test_an_empty_store_has_nothing_to_claim(self, engine: Engine) -> None:
        claim = await engine.claim(["default"], limit=10, worker_id="w", lease=LEASE, held=())
        assert (list(claim.jobs), claim.next_due_in) == ([], None)

    async def test_a_claimed_job_is_running_at_its_worker(self, engine: Engine) -> None:
        await put_one(engine, "j", payload=b"p")
        claimed = await take_one(engine, worker="w1")
        assert (claimed.id, claimed.payload, claimed.attempt) == ("j", b"p", 1)
        read = await info(engine, "j")
        assert (read.state, read.worker, read.attempts) == (State.RUNNING, "w1", 1)
        assert read.started_at == claimed.started_at >= claimed.due_at
        assert (claimed.created_at, claimed.due_at) == (read.created_at, read.due_at)

    async def test_a_claimed_job_is_not_handed_out_again(self, engine: Engine) -> None:
        await start(engine)
        assert await take(engine, 10) == []

    async def test_no_more_jobs_than_asked_for_are_handed_out(self, engine: Engine) -> None:
        ids = await put(engine, *[job() for _ in range(5)])
        assert [claimed.id for claimed in await take(engine, 2)] == ids[:2]
        assert [claimed.id for claimed in await take(engine, 10)] == ids[2:]

    async def test_a_thousand_jobs_are_handed_out_in_one_call(self, engine: Engine) -> None:
        ids = await put(engine, *[job() for _ in range(MAX_BATCH)])
        assert [claimed.id for claimed in await take(engine, MAX_BATCH)] == ids

    async def test_every_attempt_has_a_larger_token_and_another_nonce(self, engine: Engine) -> None:
        await put_one(engine, "j", max_attempts=20)
        leases = []
        for _ in range(8):
            claimed = await take_one(engine)
            leases.append(claimed.lease)
            await end(engine, claimed, Outcome.retrying(0, BOOM))
        tokens = [lease.token for lease in leases]
        assert tokens == sorted(set(tokens))
        assert len({lease.nonce for lease in leases}) == 8
        assert all(len(lease.nonce) >= 8 for lease in leases)

    async def test_larger_priority_comes_first(self, engine: Engine) -> None:
        await put(engine, *[job(str(priority), priority=priority) for priority in (0, 5, -3, 100, 1)])
        assert [claimed.id for claimed in await take(engine, 10)] == ["100", "5", "1", "0", "-3"]

    async def test_larger_priority_comes_first_also_one_by_one(self, engine: Engine) -> None:
        await put(engine, *[job(str(priority), priority=priority) for priority in (0, 5, -3, 100, 1)])
        assert await drain(engine) == ["100", "5", "1", "0", "-3"]

    async def test_equals_come_in_the_order_in_which_one_call_brought_them(self, engine: Engine) -> None:
        ids = await put(engine, *[job(f"{number * 37 % 100}") for number in range(100)])
        assert [claimed.id for claimed in await take(engine, 60)] == ids[:60]
        assert [claimed.id for claimed in await take(engine, 60)] == ids[60:]

    async def test_equals_come_in_the_order_in_which_calls_brought_them(self, engine: Engine) -> None:
        ids = [await put_one(engine, f"{number * 7 % 20}") for number in range(20)]
        assert await drain(engine) == ids

    async def test_what_was_due_first_comes_first_whenever_it_was_enqueued(self, engine: Engine) -> None:
        await put(engine, job("due-30", delay=30), job("due-10", delay=10))
        advance(engine, 20)
        await put_one(engine, "due-20")
        advance(engine, 20)
        await put_one(engine, "due-40")
        assert [claimed.id for claimed in await take(engine, 10)] == ["due-10", "due-20", "due-30", "due-40"]

    async def test_due_times_count_only_among_equal_priorities(self, engine: Engine) -> None:
        await put_one(engine, "early")
        advance(engine, 10)
        await put_one(engine, "late", priority=1)
        assert await drain(engine) == ["late", "early"]

    async def test_only_the_named_queues_are_claimed_from(self, engine: Engine) -> None:
        await put(engine, job("a", queue="a"), job("b", queue="b"), job("c", queue="c"))
        assert sorted(claimed.id for claimed in await take(engine, 10, queues=["a", "c", "unknown"])) == ["a", "c"]
        assert await state(engine, "b") is State.QUEUED

    async def test_no_queue_is_claimed_from_if_none_is_named(self, engine: Engine) -> None:
        await put_one(engine, "j")
        assert await take(engine, 10, queues=()) == []
        assert await state(engine, "j") is State.QUEUED

    async def test_a_queue_named_twice_gives_each_job_once(self, engine: Engine) -> None:
        await put_one(engine, "j")
        assert [claimed.id for claimed in await take(engine, 10, queues=["default", "default"])] == ["j"]

    async def test_priority_decides_across_queues(self, engine: Engine) -> None:
        await put(engine, job("a0", queue="a"), job("b5", queue="b", priority=5), job("a9", queue="a", priority=9))
        assert await drain(engine, "a", "b") == ["a9", "b5", "a0"]

    async def test_due_time_decides_across_queues_of_equal_priority(self, engine: Engine) -> None:
        for number, queue in enumerate("abbaab"):
            await put_one(engine, str(number), queue=queue)
            advance(engine, 1)
        assert [claimed.id for claimed in await take(engine, 10, queues=["b", "a"])] == list("012345")

    async def test_a_scheduled_job_is_handed_out_when_it_is_due_and_not_before(self, engine: Engine) -> None:
        await put_one(engine, "j", delay=600)
        advance(engine, 500)
        assert await take(engine) == []
        assert await state(engine, "j") is State.SCHEDULED
        advance(engine, 101)
        assert (await take_one(engine)).id == "j"

    async def test_what_is_due_does_not_take_along_what_is_not(self, engine: Engine) -> None:
        await put(engine, *[job(str(number), delay=number) for number in range(1, 60)])
        order: list[str] = []
        for _ in range(30):
            advance(engine, 2)
            order += [claimed.id for claimed in await take(engine, 100)]
        assert order == [str(number) for number in range(1, 60)]

    async def test_a_claim_tells_when_the_next_scheduled_job_is_due(self, engine: Engine) -> None:
        await put(engine, job(delay=500), job(delay=100), job(delay=300), job())
        claim = await engine.claim(["default"], limit=10, worker_id="w", lease=LEASE, held=())
        assert len(claim.jobs) == 1
        assert claim.next_due_in is not None
        assert 70 < claim.next_due_in <= 100
        advance(engine, 50)
        claim = await engine.claim(["default"], limit=10, worker_id="w", lease=LEASE, held=[claim.jobs[0].id])
        assert claim.next_due_in is not None
        assert 20 < claim.next_due_in <= 50

    async def test_a_claim_tells_when_the_next_retrying_job_is_due(self, engine: Engine) -> None:
        await put_one(engine, delay=900)
        await put_one(engine, "j")
        await end(engine, await take_one(engine), Outcome.retrying(100, BOOM))
        claim = await engine.claim(["default"], limit=10, worker_id="w", lease=LEASE, held=())
        assert not claim.jobs
        assert claim.next_due_in is not None
        assert 70 < claim.next_due_in <= 100

    async def test_jobs_that_have_no_time_to_wait_for_are_not_next(self, engine: Engine) -> None:
        parent = await start(engine, "parent")
        await put(engine, job("child", after=("parent",)), job("other", delay=5))
        advance(engine, 6)
        claim = await engine.claim(["default"], limit=10, worker_id="w", lease=LEASE, held=())
        assert [claimed.id for claimed in claim.jobs] == ["other"]
        assert claim.next_due_in is None
        await end(engine, parent)

    async def test_a_retrying_job_takes_its_place_by_its_new_due_time(self, engine: Engine) -> None:
        await put_one(engine, "again")
        await end(engine, await take_one(engine), Outcome.retrying(20, BOOM))
        advance(engine, 10)
        await put_one(engine, "before")
        advance(engine, 20)
        await put_one(engine, "behind")
        assert await drain(engine) == ["before", "again", "behind"]

    async def test_released_jobs_return_to_the_front_of_their_line(self, engine: Engine) -> None:
        for number in range(6):
            await put_one(engine, str(number))
            advance(engine, 1)
        claimed = await take(engine, 3)
        assert await engine.finish([(one.lease, Outcome.released()) for one in claimed]) == [True] * 3
        assert [one.id for one in await take(engine, 10)] == list("012345")

    async def test_crashed_jobs_return_to_the_front_of_their_line(self, engine: Engine) -> None:
        for number in range(6):
            await put_one(engine, str(number))
            advance(engine, 1)
        await take(engine, 3)
        assert len(await pass_leases(engine)) == 3
        await put_one(engine, "6")
        assert await drain(engine) == list("0123456")

    async def test_a_job_that_returns_stays_behind_larger_priorities(self, engine: Engine) -> None:
        claimed = await start(engine, "low")
        await put(engine, job("low-too"), job("high", priority=1))
        await end(engine, claimed, Outcome.released())
        assert await drain(engine) == ["high", "low", "low-too"]

    async def test_more_jobs_than_one_call_works_on_become_due_and_are_all_handed_out(self, engine: Engine) -> None:
        ids: list[str] = []
        for _ in range(3):
            ids += await put(engine, *[job(delay=60) for _ in range(700)])
        advance(engine, 61)
        claimed: list[str] = []
        for _ in range(20):
            claimed += [one.id for one in await take(engine, 400)]
        assert sorted(claimed) == sorted(ids)

    async def test_jobs_wait_behind_many_that_are_running(self, engine: Engine) -> None:
        await put(engine, *[job() for _ in range(300)])
        assert len(await take(engine, 300)) == 300
        await put_one(engine, "j")
        assert [claimed.id for claimed in await take(engine, 10)] == ["j"]

    async def test_a_job_whose_reply_was_lost_is_answered_again_under_its_lease(self, engine: Engine) -> None:
        await put(engine, job("a"), job("b"))
        first = await take(engine, 2, worker="w1")
        again = await take(engine, 2, worker="w1", held=["a"])
        assert again == [one for one in first if one.id == "b"]
        read = await info(engine, "b")
        assert (read.attempts, read.crashes, read.worker) == (1, 0, "w1")
        await end(engine, again[0])

    async def test_a_reply_that_was_lost_twice_still_comes(self, engine: Engine) -> None:
        claimed = await start(engine, worker="w1")
        assert await take(engine, worker="w1") == [claimed]
        assert await take(engine, worker="w1") == [claimed]
        assert await take(engine, worker="w1", held=[claimed.id]) == []

    async def test_a_lost_reply_comes_whatever_queue_is_asked_for_next(self, engine: Engine) -> None:
        claimed = await start(engine, worker="w1", queue="a")
        assert await take(engine, worker="w1", queues=["b"]) == [claimed]

    async def test_a_lost_reply_of_a_queue_that_was_paused_meanwhile_still_comes(self, engine: Engine) -> None:
        claimed = await start(engine, worker="w1")
        await engine.set_queue("default", paused=True)
        assert await take(engine, worker="w1") == [claimed]

    async def test_a_worker_that_does_not_say_what_it_holds_is_not_told_again(self, engine: Engine) -> None:
        claimed = await start(engine, worker="w1")
        claim = await engine.claim(["default"], limit=10, worker_id="w1", lease=LEASE, held=None)
        assert list(claim.jobs) == []
        assert await take(engine, worker="w1") == [claimed]

    async def test_new_jobs_come_with_those_whose_reply_was_lost(self, engine: Engine) -> None:
        claimed = await start(engine, "lost", worker="w1")
        await put_one(engine, "new")
        again = await take(engine, 10, worker="w1")
        assert sorted(one.id for one in again) == ["lost", "new"]
        assert claimed in again

    async def test_a_worker_is_not_told_of_the_jobs_of_another(self, engine: Engine) -> None:
        await start(engine, worker="w1")
        assert await take(engine, 10, worker="w2") == []

    async def test_ids_that_a_worker_believes_to_hold_change_nothing(self, engine: Engine) -> None:
        running = await start(engine, "running", worker="w2")
        await put_one(engine, "queued")
        claimed = await take(engine, 10, worker="w1", held=["unknown", "running", "queued", ""])
        assert [one.id for one in claimed] == ["queued"]
        assert (await info(engine, "running")).worker == "w2"
        await end(engine, running)

    @pytest.mark.parametrize(
        "outcome", [COMPLETED, Outcome.retrying(60, BOOM), Outcome.snoozed(60)], ids=lambda o: o.state
    )
    async def test_an_attempt_that_is_over_is_not_answered_again(self, engine: Engine, outcome: Outcome) -> None:
        await end(engine, await start(engine, worker="w1"), outcome)
        assert await take(engine, 10, worker="w1") == []

    async def test_an_attempt_that_was_rescued_is_handed_out_as_a_new_one(self, engine: Engine) -> None:
        first = await start(engine, "j", worker="w1")
        await pass_leases(engine)
        (second,) = await take(engine, 10, worker="w1", held=["j"])
        assert (second.id, second.crashes) == ("j", 1)
        assert second.lease.token > first.lease.token
        assert second.lease.nonce != first.lease.nonce
