"""`set_queue` and `queues`: pausing holds jobs back without losing or reordering them, and the counts are exact."""

from __future__ import annotations

from oncue.engine import Engine, QueueInfo
from oncue.job import Outcome, State
from oncue.testing.conformance.base import Conformance
from oncue.testing.conformance.invariants import check_invariants
from oncue.testing.conformance.steps import (
    BOOM,
    COMPLETED,
    FAILED,
    LEASE,
    advance,
    drain,
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
)

__all__ = ["QueuesConformance"]


async def by_name(engine: Engine) -> dict[str, QueueInfo]:
    """Read the queues."""
    return {queue.name: queue for queue in await engine.queues()}


def counts(queue: QueueInfo) -> dict[State, int]:
    """Return the states that have jobs."""
    return {where: number for where, number in queue.counts.items() if number}


class QueuesConformance(Conformance):
    """Cases of `set_queue` and `queues`."""

    async def test_no_job_of_a_paused_queue_is_claimed(self, engine: Engine) -> None:
        await put_one(engine, "before")
        await engine.set_queue("default", paused=True)
        await put_one(engine, "after")
        assert await take(engine, 10) == []
        assert await state(engine, "before") is State.QUEUED

    async def test_other_queues_go_on_while_one_is_paused(self, engine: Engine) -> None:
        await put(engine, job("a", queue="a", priority=9), job("b", queue="b"))
        await engine.set_queue("a", paused=True)
        assert [claimed.id for claimed in await take(engine, 10, queues=["a", "b"])] == ["b"]

    async def test_pause_and_resume_keep_jobs_and_their_order(self, engine: Engine) -> None:
        await put(engine, job("1"), job("2"), job("0", priority=5))
        await engine.set_queue("default", paused=True)
        advance(engine, 1)
        await put(engine, job("3"), job("4", delay=10))
        assert await take(engine, 10) == []
        advance(engine, 20)
        await put_one(engine, "5")
        assert await take(engine, 10) == []
        await engine.set_queue("default", paused=False)
        assert await drain(engine) == list("012345")

    async def test_a_job_that_runs_in_a_paused_queue_can_be_renewed_and_finished(self, engine: Engine) -> None:
        claimed = await start(engine, "j")
        await engine.set_queue("default", paused=True)
        await end(engine, claimed)
        assert await state(engine, "j") is State.COMPLETED

    async def test_a_job_released_into_a_paused_queue_stays_there(self, engine: Engine) -> None:
        claimed = await start(engine, "j")
        await engine.set_queue("default", paused=True)
        await end(engine, claimed, Outcome.released())
        assert await take(engine) == []
        await engine.set_queue("default", paused=False)
        assert len(await take(engine)) == 1

    async def test_a_job_rescued_into_a_paused_queue_stays_there(self, engine: Engine) -> None:
        await start(engine, "j")
        await engine.set_queue("default", paused=True)
        assert len(await pass_leases(engine)) == 1
        assert await take(engine) == []
        assert (await info(engine, "j")).state is State.QUEUED

    async def test_a_queue_can_be_paused_before_it_has_jobs(self, engine: Engine) -> None:
        await engine.set_queue("new", paused=True)
        (queue,) = await engine.queues()
        assert (queue.name, queue.paused, counts(queue), queue.oldest_age) == ("new", True, {}, None)
        await put_one(engine, queue="new")
        assert await take(engine, queues=["new"]) == []

    async def test_a_resumed_queue_without_jobs_is_not_read(self, engine: Engine) -> None:
        await engine.set_queue("new", paused=True)
        await engine.set_queue("new", paused=False)
        assert await engine.queues() == []

    async def test_resuming_a_queue_that_was_not_paused_changes_nothing(self, engine: Engine) -> None:
        await put_one(engine, "j")
        await engine.set_queue("default", paused=False)
        (queue,) = await engine.queues()
        assert not queue.paused
        assert len(await take(engine)) == 1

    async def test_queues_are_read_by_name(self, engine: Engine) -> None:
        await engine.set_queue("m", paused=True)
        await put(engine, *[job(queue=name) for name in ("b", "a", "z", "a.b", "a:b", "B")])
        names = [queue.name for queue in await engine.queues()]
        assert names == sorted(["b", "a", "z", "a.b", "a:b", "B", "m"])

    async def test_every_state_is_counted(self, engine: Engine) -> None:
        await ended(engine, COMPLETED)
        await ended(engine, FAILED)
        await ended(engine, Outcome.cancelled())
        await ended(engine, Outcome.retrying(60, BOOM))
        running = await start(engine)
        await put(engine, job(), job(), job(delay=60), job(after=(running.id,)), job(after=("never",)))
        (queue,) = await engine.queues()
        assert counts(queue) == {
            State.COMPLETED: 1,
            State.FAILED: 1,
            State.CANCELLED: 2,
            State.RETRYING: 1,
            State.RUNNING: 1,
            State.QUEUED: 2,
            State.SCHEDULED: 1,
            State.WAITING: 1,
        }

    async def test_queues_are_counted_apart(self, engine: Engine) -> None:
        await put(engine, *[job(queue="a") for _ in range(3)], *[job(queue="b") for _ in range(5)])
        await take(engine, 2, queues=["b"])
        queues = await by_name(engine)
        assert counts(queues["a"]) == {State.QUEUED: 3}
        assert counts(queues["b"]) == {State.QUEUED: 3, State.RUNNING: 2}

    async def test_the_counts_are_exact_after_every_kind_of_move(self, engine: Engine) -> None:
        await put(engine, *[job(str(number), queue=f"q{number % 3}", max_attempts=9, keep=50) for number in range(30)])
        await put(engine, *[job(f"child{number}", after=(str(number),)) for number in range(10)])
        await put(engine, *[job(f"later{number}", delay=30 + number) for number in range(5)])
        await check_invariants(engine)
        claimed = await take(engine, 20, queues=["q0", "q1", "q2"], worker="w")
        await check_invariants(engine)
        outcomes = [COMPLETED, FAILED, Outcome.retrying(10, BOOM), Outcome.snoozed(10), Outcome.released()]
        await engine.finish([(one.lease, outcomes[place % 5]) for place, one in enumerate(claimed[:15])])
        await check_invariants(engine)
        await engine.cancel([one.id for one in claimed[8:18]] + ["later0", "child9"])
        await check_invariants(engine)
        await engine.rescue(limit=100, lease=LEASE, dead=["w"])
        await check_invariants(engine)
        await engine.retry([one.id for one in claimed[:4]])
        await check_invariants(engine)
        advance(engine, 40)
        await take(engine, 3, queues=["q0", "default"])
        await check_invariants(engine)
        await engine.delete([one.id for one in claimed[4:9]] + ["later4"])
        await check_invariants(engine)
        await pass_leases(engine)
        await check_invariants(engine)
        await drain(engine, "q0", "q1", "q2", "default")
        await check_invariants(engine)
        advance(engine, 10**6)
        await engine.prune(limit=1000, keep_finished=1)
        await check_invariants(engine)
        await engine.prune(limit=1000, keep_finished=0)
        assert await engine.queues() == []

    async def test_the_age_of_a_queue_is_that_of_its_first_claimable_job(self, engine: Engine) -> None:
        await put_one(engine)
        advance(engine, 30)
        await put_one(engine)
        age = (await by_name(engine))["default"].oldest_age
        assert age is not None
        assert 30 <= age < 60
        await take(engine)
        age = (await by_name(engine))["default"].oldest_age
        assert age is not None
        assert 0 <= age < 30

    async def test_the_age_of_a_queue_runs_from_the_due_time(self, engine: Engine) -> None:
        await put_one(engine, delay=100)
        advance(engine, 120)
        await take(engine, queues=["default", "other"], limit=1)
        await put_one(engine, delay=100)
        advance(engine, 160)
        await engine.set_queue("other", paused=True)
        await put_one(engine)
        age = (await by_name(engine))["default"].oldest_age
        assert age is not None
        assert age < 100

    async def test_a_queue_without_claimable_jobs_has_no_age(self, engine: Engine) -> None:
        await ended(engine)
        running = await start(engine)
        await put(engine, job(delay=60), job(after=(running.id,)))
        advance(engine, 30)
        assert (await by_name(engine))["default"].oldest_age is None
