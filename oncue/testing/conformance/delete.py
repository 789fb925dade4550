"""`delete`: jobs and all that belongs to them go, but never from under a worker."""

from __future__ import annotations

import pytest

from oncue.engine import MAX_BATCH, Engine
from oncue.job import FeedItem, FeedKind, Outcome, Reason, State, Unique
from oncue.testing.conformance.base import Conformance
from oncue.testing.conformance.invariants import all_jobs
from oncue.testing.conformance.steps import (
    BOOM,
    COMPLETED,
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

__all__ = ["DeleteConformance"]


class DeleteConformance(Conformance):
    """Cases of `delete`."""

    async def test_an_empty_list_of_jobs_to_delete_is_answered_with_nothing(self, engine: Engine) -> None:
        assert await engine.delete([]) == []

    async def test_jobs_that_do_not_run_are_deleted_wherever_they_are(self, engine: Engine) -> None:
        await ended(engine, Outcome.retrying(60, BOOM), "retrying")
        await ended(engine, job_id="completed")
        parent = await start(engine, "running")
        await put(engine, job("queued"), job("scheduled", delay=60), job("waiting", after=("running",)))
        ids = ["retrying", "completed", "queued", "scheduled", "waiting"]
        assert await engine.delete(ids) == [True] * 5
        assert await engine.get(ids) == [None] * 5
        await end(engine, parent)
        advance(engine, 100)
        assert await take(engine, 10) == []
        assert [read.id for read in await all_jobs(engine)] == ["running"]

    async def test_a_running_job_is_not_deleted(self, engine: Engine) -> None:
        claimed = await start(engine, "j")
        assert await engine.delete(["j"]) == [False]
        await end(engine, claimed)
        assert await engine.delete(["j"]) == [True]

    async def test_a_running_job_that_was_asked_to_stop_is_not_deleted(self, engine: Engine) -> None:
        claimed = await start(engine, "j")
        await engine.cancel(["j"])
        assert await engine.delete(["j"]) == [False]
        await end(engine, claimed)

    async def test_a_job_that_is_not_there_is_gone(self, engine: Engine) -> None:
        assert await engine.delete(["unknown"]) == [True]

    async def test_delete_answers_come_in_the_order_of_the_ids(self, engine: Engine) -> None:
        await start(engine, "running")
        await put(engine, job("a"), job("b"))
        assert await engine.delete(["a", "running", "unknown", "b", "a"]) == [True, False, True, True, True]

    async def test_a_thousand_jobs_are_deleted_in_one_call(self, engine: Engine) -> None:
        ids = await put(engine, *[job() for _ in range(MAX_BATCH)])
        assert await engine.delete(ids) == [True] * MAX_BATCH
        assert await all_jobs(engine) == []

    async def test_a_deleted_job_leaves_nothing_behind(self, engine: Engine) -> None:
        claimed = await start(engine, "j", unique=Unique("k"))
        await engine.append(claimed.lease, [FeedItem(claimed.lease.token, 1, FeedKind.PROGRESS, b"half")])
        await end(engine, claimed, Outcome.retrying(60, BOOM))
        assert await engine.delete(["j"]) == [True]
        assert await engine.read("j") == []
        assert await engine.attempts("j") == []
        assert await engine.queues() == []
        await put_one(engine, "next", unique=Unique("k"))
        await put_one(engine, "j")
        read = await info(engine, "j", bodies=True)
        assert (read.attempts, read.error, read.progress, read.result) == (0, None, None, None)
        for job_id in ("next", "j"):
            assert await engine.read(job_id) == []
            assert await engine.attempts(job_id) == []

    async def test_an_outcome_of_a_deleted_job_brings_nothing_back(self, engine: Engine) -> None:
        claimed = await start(engine, "j")
        await end(engine, claimed)
        await engine.delete(["j"])
        await engine.finish([(claimed.lease, COMPLETED)])
        assert await engine.append(claimed.lease, [FeedItem(claimed.lease.token, 1, FeedKind.LOG, b"x")]) is False
        assert await pass_leases(engine) == []
        assert await engine.get(["j"]) == [None]
        assert await engine.read("j") == []

    async def test_a_lease_from_before_the_deletion_does_not_fit_a_new_job_of_the_same_id(self, engine: Engine) -> None:
        old = await start(engine, "j")
        await end(engine, old)
        await engine.delete(["j"])
        new = await start(engine, "j")
        assert await engine.finish([(old.lease, COMPLETED)]) == [False]
        assert await state(engine, "j") is State.RUNNING
        await end(engine, new)

    async def test_a_job_that_waits_for_a_deleted_one_is_cancelled(self, engine: Engine) -> None:
        await put(engine, job("parent"), job("child", after=("parent",)), job("grandchild", after=("child",)))
        assert await engine.delete(["parent"]) == [True]
        for job_id in ("child", "grandchild"):
            read = await info(engine, job_id)
            assert (read.state, read.reason) == (State.CANCELLED, Reason.DEPENDENCY)

    async def test_a_job_that_runs_in_any_case_does_not_wait_for_a_deleted_one(self, engine: Engine) -> None:
        await put(engine, job("parent"), job("child", after=("parent",), after_any=True))
        assert await engine.delete(["parent"]) == [True]
        assert (await take_one(engine)).id == "child"

    @pytest.mark.parametrize("order", [["parent", "child"], ["child", "parent"]], ids=["parent-first", "child-first"])
    async def test_jobs_that_wait_for_each_other_are_deleted_in_one_call(
        self, engine: Engine, order: list[str]
    ) -> None:
        await put(engine, job("parent"), job("child", after=("parent",)), job("grandchild", after=("child",)))
        assert await engine.delete(order) == [True, True]
        assert [read.id for read in await all_jobs(engine)] == ["grandchild"]
        assert await state(engine, "grandchild") is State.CANCELLED

    async def test_a_deleted_job_is_not_waited_for_by_a_later_job_of_its_id(self, engine: Engine) -> None:
        await put(engine, job("parent"), job("child", after=("parent",)))
        await engine.delete(["child"])
        await put_one(engine, "child", delay=60)
        await end(engine, await take_one(engine))
        assert await state(engine, "child") is State.SCHEDULED

    async def test_an_id_with_a_nul_is_not_the_part_before_it(self, engine: Engine) -> None:
        await put_one(engine, "j")
        await engine.delete(["j\0k"])
        assert (await info(engine, "j")).id == "j"
