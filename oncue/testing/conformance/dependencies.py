"""`after`: a job waits until others ended, moves exactly once when they did, and is never stuck."""

from __future__ import annotations

import pytest

from oncue.engine import Engine
from oncue.job import Outcome, Reason, State, Unique
from oncue.testing.conformance.base import Conformance
from oncue.testing.conformance.invariants import all_jobs
from oncue.testing.conformance.steps import (
    BOOM,
    COMPLETED,
    FAILED,
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
    take_one,
)

__all__ = ["DependenciesConformance"]

badly = pytest.mark.parametrize("outcome", [FAILED, Outcome.cancelled()], ids=lambda outcome: outcome.state)


async def assert_cancelled(engine: Engine, *ids: str) -> None:
    """Check that jobs were cancelled because of their dependencies."""
    for job_id in ids:
        read = await info(engine, job_id)
        assert (read.id, read.state, read.reason) == (job_id, State.CANCELLED, Reason.DEPENDENCY)


class DependenciesConformance(Conformance):
    """Cases of jobs that wait for others."""

    async def test_a_job_waits_until_the_other_completed(self, engine: Engine) -> None:
        await put_one(engine, "parent")
        (answer,) = await engine.enqueue([job("child", after=("parent",))])
        assert answer.state is State.WAITING
        read = await info(engine, "child")
        assert (read.state, read.waiting_for) == (State.WAITING, 1)
        claimed = await take_one(engine)
        assert claimed.id == "parent"
        assert await take(engine, 10) == []
        await end(engine, claimed)
        read = await info(engine, "child")
        assert (read.state, read.waiting_for) == (State.QUEUED, 0)
        assert (await take_one(engine)).id == "child"

    async def test_a_job_waits_for_all_of_several(self, engine: Engine) -> None:
        parents = await put(engine, *[job() for _ in range(5)])
        await put_one(engine, "child", after=tuple(parents))
        for left, claimed in zip((4, 3, 2, 1, 0), await take(engine, 5), strict=True):
            assert (await info(engine, "child")).waiting_for == left + 1
            await end(engine, claimed)
            assert (await info(engine, "child")).waiting_for == left
        assert (await take_one(engine)).id == "child"

    async def test_jobs_that_ended_in_one_batch_are_each_counted(self, engine: Engine) -> None:
        parents = await put(engine, *[job() for _ in range(5)])
        await put_one(engine, "child", after=tuple(parents))
        await engine.finish([(claimed.lease, COMPLETED) for claimed in await take(engine, 5)])
        assert await state(engine, "child") is State.QUEUED

    @pytest.mark.parametrize("turn", [1, -1], ids=["good-first", "bad-first"])
    async def test_jobs_that_ended_differently_in_one_batch_settle_their_child_once(
        self, engine: Engine, turn: int
    ) -> None:
        good, bad = await start(engine, "good"), await start(engine, "bad")
        await put(
            engine,
            job("strict", after=("good", "bad")),
            job("lenient", after=("good", "bad"), after_any=True),
            job("below", after=("strict", "lenient")),
        )
        await engine.finish([(good.lease, COMPLETED), (bad.lease, FAILED)][::turn])
        await assert_cancelled(engine, "strict", "below")
        assert await drain(engine) == ["lenient"]

    async def test_a_job_named_twice_is_waited_for_once(self, engine: Engine) -> None:
        await put(engine, job("parent"), job("child", after=("parent", "parent")))
        await end(engine, await take_one(engine))
        assert (await take_one(engine)).id == "child"

    async def test_a_job_that_completed_before_is_not_waited_for(self, engine: Engine) -> None:
        await ended(engine, COMPLETED, "done")
        (answer,) = await engine.enqueue([job("child", after=("done",))])
        assert (answer.created, answer.state) == (True, State.QUEUED)
        assert (await take_one(engine)).id == "child"

    async def test_only_jobs_that_are_open_are_waited_for(self, engine: Engine) -> None:
        await ended(engine, COMPLETED, "done")
        running = await start(engine, "running")
        await put_one(engine, "child", after=("done", "running"))
        assert (await info(engine, "child")).waiting_for == 1
        await end(engine, running)
        assert await state(engine, "child") is State.QUEUED

    @badly
    async def test_a_job_that_ended_badly_before_cancels_at_once(self, engine: Engine, outcome: Outcome) -> None:
        await ended(engine, outcome, "bad")
        (answer,) = await engine.enqueue([job("child", after=("bad",))])
        assert (answer.created, answer.state, answer.conflict) == (True, State.CANCELLED, None)
        await assert_cancelled(engine, "child")
        assert await take(engine) == []

    async def test_a_job_that_is_gone_cancels_at_once(self, engine: Engine) -> None:
        await ended(engine, COMPLETED, "pruned", keep=0)
        advance(engine, 1)
        assert await engine.prune(limit=10, keep_finished=10) == 1
        running = await start(engine, "running")
        await put(engine, job("a", after=("pruned",)), job("b", after=("running", "never")))
        await assert_cancelled(engine, "a", "b")
        await end(engine, running)
        await assert_cancelled(engine, "b")

    @badly
    async def test_a_job_that_ends_badly_cancels_those_that_wait(self, engine: Engine, outcome: Outcome) -> None:
        parent = await start(engine, "parent")
        other = await start(engine, "other")
        await put(engine, job("child", after=("parent", "other")))
        await end(engine, parent, outcome)
        await assert_cancelled(engine, "child")
        assert (await info(engine, "child")).waiting_for == 0
        await end(engine, other)
        await assert_cancelled(engine, "child")
        assert await take(engine) == []

    async def test_a_job_cancelled_before_it_started_cancels_those_that_wait(self, engine: Engine) -> None:
        await put(engine, job("parent"), job("child", after=("parent",)))
        await engine.cancel(["parent"])
        await assert_cancelled(engine, "child")

    async def test_a_job_that_crashed_too_often_cancels_those_that_wait(self, engine: Engine) -> None:
        await put(engine, job("parent", max_crashes=1), job("child", after=("parent",)))
        await take_one(engine)
        await pass_leases(engine)
        await assert_cancelled(engine, "child")

    async def test_a_job_that_expired_cancels_those_that_wait(self, engine: Engine) -> None:
        await put(engine, job("parent", expires_in=5), job("child", after=("parent",)))
        advance(engine, 6)
        await pass_leases(engine)
        await assert_cancelled(engine, "child")

    async def test_a_job_cancelled_by_request_cancels_those_that_wait_when_it_ends(self, engine: Engine) -> None:
        parent = await start(engine, "parent")
        await put(engine, job("child", after=("parent",)))
        await engine.cancel(["parent"])
        assert await state(engine, "child") is State.WAITING
        await end(engine, parent, COMPLETED)
        await assert_cancelled(engine, "child")

    @pytest.mark.parametrize(
        "outcome",
        [Outcome.retrying(10, BOOM), Outcome.snoozed(10), Outcome.parked(10), Outcome.released()],
        ids=["retrying", "snoozed", "parked", "released"],
    )
    async def test_a_job_that_did_not_end_is_waited_for(self, engine: Engine, outcome: Outcome) -> None:
        parent = await start(engine, "parent", max_attempts=2)
        await put(engine, job("child", after=("parent",)))
        await end(engine, parent, outcome)
        assert await state(engine, "child") is State.WAITING
        advance(engine, 11)
        assert await drain(engine) == ["parent", "child"]

    async def test_a_crash_that_is_retried_is_waited_for(self, engine: Engine) -> None:
        await start(engine, "parent")
        await put(engine, job("child", after=("parent",)))
        await pass_leases(engine)
        assert await drain(engine) == ["parent", "child"]

    async def test_a_job_that_runs_in_any_case_waits_for_the_end_only(self, engine: Engine) -> None:
        good, bad, cancelled = [await start(engine, name) for name in ("good", "bad", "cancelled")]
        await put_one(engine, "child", after=("good", "bad", "cancelled"), after_any=True)
        await end(engine, bad, FAILED)
        await end(engine, cancelled, Outcome.cancelled())
        read = await info(engine, "child")
        assert (read.state, read.waiting_for) == (State.WAITING, 1)
        await end(engine, good, COMPLETED)
        assert (await take_one(engine)).id == "child"

    async def test_a_job_that_runs_in_any_case_starts_though_others_ended_badly_or_are_gone(
        self, engine: Engine
    ) -> None:
        await ended(engine, FAILED, "bad")
        (answer,) = await engine.enqueue([job("child", after=("bad", "never"), after_any=True)])
        assert (answer.created, answer.state) == (True, State.QUEUED)
        running = await start(engine, "running", queue="other")
        await put_one(engine, "second", after=("bad", "running", "never"), after_any=True)
        assert (await info(engine, "second")).waiting_for == 1
        await end(engine, running, FAILED)
        assert await drain(engine) == ["child", "second"]

    async def test_a_chain_can_be_enqueued_in_one_call(self, engine: Engine) -> None:
        chain = [job("0"), *[job(str(place), after=(str(place - 1),)) for place in range(1, 20)]]
        await put(engine, *chain)
        assert [read.state for read in await all_jobs(engine)].count(State.WAITING) == 19
        assert await drain(engine) == [str(place) for place in range(20)]

    async def test_a_chain_that_breaks_is_cancelled_to_its_end(self, engine: Engine) -> None:
        await put(engine, job("0"), *[job(str(place), after=(str(place - 1),)) for place in range(1, 50)])
        await end(engine, await take_one(engine), FAILED)
        await assert_cancelled(engine, *[str(place) for place in range(1, 50)])
        assert await take(engine, 10) == []

    async def test_a_chain_that_breaks_goes_on_where_a_job_runs_in_any_case(self, engine: Engine) -> None:
        await put(
            engine, job("a"), job("b", after=("a",)), job("c", after=("b",), after_any=True), job("d", after=("c",))
        )
        await end(engine, await take_one(engine), FAILED)
        await assert_cancelled(engine, "b")
        assert await drain(engine) == ["c", "d"]

    async def test_a_diamond_comes_together_once(self, engine: Engine) -> None:
        await put(
            engine,
            job("top"),
            job("left", after=("top",)),
            job("right", after=("top",)),
            job("bottom", after=("left", "right")),
        )
        assert await drain(engine) == ["top", "left", "right", "bottom"]
        assert (await info(engine, "bottom")).attempts == 1

    async def test_a_diamond_that_breaks_on_one_side_is_cancelled_below(self, engine: Engine) -> None:
        await put(
            engine,
            job("top"),
            job("left", after=("top",)),
            job("right", after=("top",)),
            job("bottom", after=("left", "right")),
        )
        await end(engine, await take_one(engine))
        await engine.cancel(["left"])
        await assert_cancelled(engine, "bottom")
        assert await drain(engine) == ["right"]
        await assert_cancelled(engine, "bottom")

    async def test_many_may_wait_for_one(self, engine: Engine) -> None:
        await put_one(engine, "parent")
        children = await put(engine, *[job(after=("parent",)) for _ in range(300)])
        await end(engine, await take_one(engine))
        assert [claimed.id for claimed in await take(engine, 400)] == children

    async def test_one_may_wait_for_many(self, engine: Engine) -> None:
        parents = await put(engine, *[job() for _ in range(300)])
        await put_one(engine, "child", after=tuple(parents))
        claimed = await take(engine, 400)
        await engine.finish([(one.lease, COMPLETED) for one in claimed[:-1]])
        assert (await info(engine, "child")).waiting_for == 1
        await end(engine, claimed[-1])
        assert (await take_one(engine)).id == "child"

    async def test_a_waiting_job_may_be_cancelled(self, engine: Engine) -> None:
        parent = await start(engine, "parent")
        await put(engine, job("child", after=("parent",)), job("grandchild", after=("child",)))
        assert await engine.cancel(["child"]) == ["cancelled"]
        assert (await info(engine, "child")).reason is Reason.USER
        await assert_cancelled(engine, "grandchild")
        await end(engine, parent)
        assert await state(engine, "child") is State.CANCELLED
        assert await take(engine) == []

    async def test_a_job_that_waited_is_due_when_its_delay_has_passed_too(self, engine: Engine) -> None:
        await put(engine, job("parent"), job("child", after=("parent",), delay=1000))
        await end(engine, await take_one(engine))
        assert await state(engine, "child") is State.SCHEDULED
        assert await take(engine) == []
        advance(engine, 1001)
        assert (await take_one(engine)).id == "child"

    async def test_a_job_that_waited_longer_than_its_delay_runs_at_once(self, engine: Engine) -> None:
        parent = await start(engine, "parent")
        await put_one(engine, "child", after=("parent",), delay=100)
        advance(engine, 200)
        assert await take(engine) == []
        await end(engine, parent)
        assert (await take_one(engine)).id == "child"

    async def test_a_job_that_waits_does_not_expire_before_it_could_run(self, engine: Engine) -> None:
        parent = await start(engine, "parent")
        await put_one(engine, "child", after=("parent",))
        advance(engine, 10**6)
        await end(engine, parent)
        assert (await take_one(engine)).id == "child"

    async def test_a_job_that_waits_for_itself_is_not_stuck(self, engine: Engine) -> None:
        await put_one(engine, "j", after=("j",))
        await assert_cancelled(engine, "j")

    async def test_a_parent_that_is_retried_does_not_bring_its_children_back(self, engine: Engine) -> None:
        await put(engine, job("parent"), job("child", after=("parent",)))
        await end(engine, await take_one(engine), FAILED)
        assert await engine.retry(["parent"]) == [True]
        await assert_cancelled(engine, "child")
        await put_one(engine, "new", after=("parent",))
        assert await state(engine, "new") is State.WAITING
        assert await drain(engine) == ["parent", "new"]
        await assert_cancelled(engine, "child")

    async def test_a_parent_that_is_retried_is_not_counted_twice(self, engine: Engine) -> None:
        done, still = await start(engine, "done"), await start(engine, "still")
        await put_one(engine, "child", after=("done", "still"))
        await end(engine, done)
        assert await engine.retry(["done"]) == [True]
        await end(engine, await take_one(engine))
        read = await info(engine, "child")
        assert (read.state, read.waiting_for) == (State.WAITING, 1)
        await end(engine, still)
        assert (await take_one(engine)).id == "child"

    async def test_a_child_that_is_retried_waits_no_longer(self, engine: Engine) -> None:
        bad, slow = await start(engine, "bad"), await start(engine, "slow")
        await put_one(engine, "child", after=("bad", "slow"))
        await end(engine, bad, FAILED)
        assert await engine.retry(["child"]) == [True]
        read = await info(engine, "child")
        assert (read.state, read.waiting_for) == (State.QUEUED, 0)
        await end(engine, slow)
        assert await state(engine, "child") is State.QUEUED
        assert await drain(engine) == ["child"]

    async def test_a_resent_outcome_is_not_counted_twice(self, engine: Engine) -> None:
        first, second = await start(engine, "first"), await start(engine, "second")
        await put_one(engine, "child", after=("first", "second"))
        for _ in range(3):
            await end(engine, first)
        assert (await info(engine, "child")).waiting_for == 1
        await end(engine, second)
        assert await drain(engine) == ["child"]

    async def test_children_keep_their_place_by_priority(self, engine: Engine) -> None:
        await put(engine, job("parent"), job("low", after=("parent",)), job("high", after=("parent",), priority=1))
        assert await drain(engine) == ["parent", "high", "low"]

    async def test_dependencies_cross_queues(self, engine: Engine) -> None:
        await put(engine, job("parent", queue="a"), job("child", queue="b", after=("parent",)))
        await end(engine, await take_one(engine, queues=["a"]))
        assert (await take_one(engine, queues=["b"])).id == "child"

    async def test_a_job_that_takes_the_place_of_one_it_waits_for_can_never_run(self, engine: Engine) -> None:
        unique = Unique("k", "running", "replace")
        await put(engine, job("a", unique=unique))
        await engine.enqueue([job("b", after=("a",), unique=unique)])
        assert (await info(engine, "b")).state is State.CANCELLED
        await put(engine, job("c", unique=Unique("k")))
