"""`cancel`: a definite answer in every state, and no start after it."""

from __future__ import annotations

from datetime import timedelta

import pytest

from oncue.engine import MAX_BATCH, CancelAnswer, Engine
from oncue.job import Outcome, Reason, State, Unique
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

__all__ = ["CancelConformance"]


async def make(engine: Engine, where: State) -> str:
    """Bring a job into a state that is not running and not final; return its id."""
    if where is State.WAITING:
        await start(engine, "parent")
        return await put_one(engine, "j", after=("parent",))
    if where is State.SCHEDULED:
        return await put_one(engine, "j", delay=100)
    if where is State.RETRYING:
        return await ended(engine, Outcome.retrying(100, BOOM), "j", max_attempts=5)
    return await put_one(engine, "j")


class CancelConformance(Conformance):
    """Cases of `cancel`."""

    async def test_an_empty_list_of_jobs_to_cancel_is_answered_with_nothing(self, engine: Engine) -> None:
        assert await engine.cancel([]) == []

    @pytest.mark.parametrize("where", [State.SCHEDULED, State.WAITING, State.QUEUED, State.RETRYING])
    async def test_a_job_that_does_not_run_is_cancelled_at_once_and_never_started(
        self, engine: Engine, where: State
    ) -> None:
        await make(engine, where)
        before = await info(engine, "j")
        assert before.state is where
        assert await engine.cancel(["j"]) == [CancelAnswer.CANCELLED]
        read = await info(engine, "j")
        assert (read.state, read.reason, read.waiting_for) == (State.CANCELLED, Reason.USER, 0)
        assert read.revision > before.revision
        advance(engine, 200)
        assert await take(engine, 10) == []
        assert await engine.cancel(["j"]) == [CancelAnswer.CANCELLED]

    async def test_a_job_whose_time_came_but_was_not_promoted_is_cancelled(self, engine: Engine) -> None:
        await put_one(engine, "j", delay=10)
        advance(engine, 11)
        assert await engine.cancel(["j"]) == [CancelAnswer.CANCELLED]
        assert await take(engine) == []

    async def test_a_released_job_is_cancelled_at_once(self, engine: Engine) -> None:
        await ended(engine, Outcome.released(), "j")
        assert await engine.cancel(["j"]) == [CancelAnswer.CANCELLED]
        assert await take(engine) == []

    async def test_a_running_job_is_asked_to_stop(self, engine: Engine) -> None:
        claimed = await start(engine, "j", worker="w1")
        assert await engine.cancel(["j"]) == [CancelAnswer.REQUESTED]
        read = await info(engine, "j")
        assert (read.state, read.cancel_requested, read.worker) == (State.RUNNING, True, "w1")
        await end(engine, claimed, Outcome.cancelled())
        assert await engine.cancel(["j"]) == [CancelAnswer.CANCELLED]

    async def test_a_request_that_was_recorded_before_the_outcome_wins(self, engine: Engine) -> None:
        claimed = await start(engine, "j")
        assert await engine.cancel(["j"]) == [CancelAnswer.REQUESTED]
        await end(engine, claimed, COMPLETED)
        assert await state(engine, "j") is State.CANCELLED
        assert await engine.cancel(["j"]) == [CancelAnswer.CANCELLED]

    async def test_a_request_survives_the_worker_that_should_have_heard_it(self, engine: Engine) -> None:
        await start(engine, "j")
        assert await engine.cancel(["j"]) == [CancelAnswer.REQUESTED]
        await pass_leases(engine)
        assert await state(engine, "j") is State.CANCELLED
        assert await take(engine) == []

    @pytest.mark.parametrize("outcome", [COMPLETED, FAILED], ids=["completed", "failed"])
    async def test_a_job_that_ended_before_is_finished(self, engine: Engine, outcome: Outcome) -> None:
        await ended(engine, outcome, "j")
        before = await info(engine, "j")
        assert await engine.cancel(["j"]) == [CancelAnswer.FINISHED]
        assert await info(engine, "j") == before

    async def test_a_job_that_was_cancelled_by_its_dependency_is_cancelled(self, engine: Engine) -> None:
        await put_one(engine, "j", after=("never",))
        assert await engine.cancel(["j"]) == [CancelAnswer.CANCELLED]
        assert (await info(engine, "j")).reason is Reason.DEPENDENCY

    async def test_an_unknown_job_is_not_found(self, engine: Engine) -> None:
        assert await engine.cancel(["unknown"]) == [CancelAnswer.NOT_FOUND]

    async def test_cancel_answers_come_in_the_order_of_the_ids(self, engine: Engine) -> None:
        await ended(engine, job_id="done")
        running = await start(engine, "running")
        await put(engine, job("queued"), job("later", delay=60))
        assert await engine.cancel(["queued", "unknown", "done", "running", "later", "queued"]) == [
            CancelAnswer.CANCELLED,
            CancelAnswer.NOT_FOUND,
            CancelAnswer.FINISHED,
            CancelAnswer.REQUESTED,
            CancelAnswer.CANCELLED,
            CancelAnswer.CANCELLED,
        ]
        await end(engine, running)

    @pytest.mark.parametrize("order", [["parent", "child"], ["child", "parent"]], ids=["parent-first", "child-first"])
    async def test_jobs_that_wait_for_each_other_are_cancelled_once(self, engine: Engine, order: list[str]) -> None:
        await put(engine, job("parent"), job("child", after=("parent",)), job("grandchild", after=("child",)))
        assert await engine.cancel(order) == [CancelAnswer.CANCELLED, CancelAnswer.CANCELLED]
        assert await state(engine, "grandchild") is State.CANCELLED
        counted = [row.counts.get("cancelled", 0) for row in await engine.metrics(since=timedelta(hours=1))]
        assert sum(counted) == 3

    async def test_a_thousand_jobs_are_cancelled_in_one_call(self, engine: Engine) -> None:
        ids = await put(engine, *[job() for _ in range(MAX_BATCH)])
        assert await engine.cancel(ids) == [CancelAnswer.CANCELLED] * MAX_BATCH
        assert await take(engine, 10) == []

    async def test_a_cancelled_job_leaves_the_line_to_the_others(self, engine: Engine) -> None:
        await put(engine, *[job(str(number)) for number in range(5)])
        await engine.cancel(["0", "2"])
        assert [claimed.id for claimed in await take(engine, 10)] == ["1", "3", "4"]

    async def test_a_cancelled_job_gives_its_unique_key_back(self, engine: Engine) -> None:
        await put_one(engine, "j", unique=Unique("k"))
        await engine.cancel(["j"])
        await put_one(engine, "next", unique=Unique("k"))

    async def test_a_job_that_will_stop_holds_its_unique_key_until_it_did(self, engine: Engine) -> None:
        claimed = await start(engine, "j", unique=Unique("k"))
        await engine.cancel(["j"])
        (answer,) = await engine.enqueue([job(unique=Unique("k"))])
        assert (answer.id, answer.created) == ("j", False)
        await end(engine, claimed)
        await put_one(engine, "next", unique=Unique("k"))

    async def test_a_job_that_runs_again_after_a_request_is_not_asked_to_stop(self, engine: Engine) -> None:
        claimed = await start(engine, "j")
        await engine.cancel(["j"])
        await end(engine, claimed)
        assert await engine.retry(["j"]) == [True]
        assert (await info(engine, "j")).cancel_requested is False
        await end(engine, await take_one(engine))
        assert await state(engine, "j") is State.COMPLETED
