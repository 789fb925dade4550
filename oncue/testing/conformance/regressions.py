"""Failures that users of other queues met, as far as they are an engine's business; the ids name where they were met.

Several other cases hold by the shape of the contract and have no test here: S1 (a sweep between two steps of a claim:
there is one step), S8 (a reaper of one queue touches another: leases know no queue), X15 (rescue by elapsed time: only
a lease says when), D5 and T12 (claimed but never started: the lease of a claim expires like any other).
"""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

from oncue.engine import MAX_BATCH, CancelAnswer, Engine, Hold
from oncue.job import Failure, FeedItem, FeedKind, Outcome, Reason, State, Unique
from oncue.testing.conformance.base import Conformance
from oncue.testing.conformance.invariants import all_jobs
from oncue.testing.conformance.steps import (
    BOOM,
    COMPLETED,
    FAILED,
    LEASE,
    advance,
    beat,
    drain,
    end,
    ended,
    info,
    job,
    pass_leases,
    put,
    put_one,
    rescue,
    settle,
    start,
    state,
    take,
    take_one,
)

__all__ = ["RegressionsConformance"]


class RegressionsConformance(Conformance):
    """Cases that other queues got wrong."""

    async def test_recovery_takes_one_lease_whatever_the_timeouts_of_the_tasks(self, engine: Engine) -> None:
        """A1"""
        await settle(engine)
        await put(engine, job("fast", timeout=3), job("slow", timeout=3 * 3600))
        await take(engine, 2)
        engine.advance(LEASE / 2)
        await rescue(engine)
        engine.advance(LEASE * 0.6)
        assert sorted(one.job_id for one in await rescue(engine)) == ["fast", "slow"]

    async def test_a_job_that_one_worker_put_off_is_not_started_by_another_that_saw_it_before(
        self, engine: Engine
    ) -> None:
        """A2"""
        first, second = asyncio.create_task(take(engine)), asyncio.create_task(take(engine))
        assert [len(batch) for batch in await asyncio.gather(first, second)] == [0, 0]
        await ended(engine, Outcome.retrying(60, BOOM), "x", max_attempts=2)
        assert await take(engine) == []
        advance(engine, 61)
        assert (await take_one(engine)).id == "x"

    async def test_three_schedulers_that_name_one_job_make_one_job(self, engine: Engine) -> None:
        """A3, I9"""
        async with engine.sibling() as second, engine.sibling() as third:
            answers = await asyncio.gather(
                *[one.enqueue([job("cron:clean:1700000000")]) for one in (engine, second, third)]
            )
        assert [answer.created for (answer,) in answers].count(True) == 1
        assert await drain(engine) == ["cron:clean:1700000000"]

    async def test_a_cancel_of_what_is_not_there_does_not_stop_a_later_job_of_that_id(self, engine: Engine) -> None:
        """A4"""
        assert await engine.cancel(["x"]) == [CancelAnswer.NOT_FOUND]
        await ended(engine, COMPLETED, "x")
        assert await engine.cancel(["x"]) == [CancelAnswer.FINISHED]
        await engine.delete(["x"])
        await put_one(engine, "x")
        await end(engine, await take_one(engine))
        assert await state(engine, "x") is State.COMPLETED

    async def test_a_cancel_is_on_record_though_all_slots_are_busy(self, engine: Engine) -> None:
        """A5"""
        claimed = await start(engine, "j", worker="w1")
        assert await engine.cancel(["j"]) == [CancelAnswer.REQUESTED]
        assert await beat(engine, claimed.lease, worker="w1") == [Hold.CANCEL_REQUESTED]

    async def test_a_due_time_in_the_past_stops_nothing(self, engine: Engine) -> None:
        """A7"""
        await put(
            engine, job("far", run_at=datetime(1970, 1, 1, tzinfo=UTC)), job("negative", delay=-(10**6)), job("now")
        )
        assert sorted(await drain(engine)) == ["far", "negative", "now"]

    async def test_a_job_that_is_retried_for_days_keeps_its_count(self, engine: Engine) -> None:
        """A8"""
        await put_one(engine, "j", max_attempts=10**6)
        for number in range(1, 31):
            claimed = await take_one(engine)
            assert claimed.attempt == number
            await end(engine, claimed, Outcome.retrying(3600, BOOM))
            advance(engine, 3601)
            await engine.prune(limit=MAX_BATCH, keep_finished=0)
        assert (await info(engine, "j")).attempts == 30

    async def test_a_backlog_older_than_days_still_runs(self, engine: Engine) -> None:
        """A8"""
        await put(engine, job("queued", keep=1), job("deferred", delay=3 * 86_400, keep=1))
        advance(engine, 5 * 86_400)
        assert await engine.prune(limit=MAX_BATCH, keep_finished=0) == 0
        await pass_leases(engine)
        assert await drain(engine) == ["queued", "deferred"]

    async def test_a_job_is_found_in_every_moment_of_its_life(self, engine: Engine) -> None:
        """A9"""
        seen: list[State] = []
        done = False

        async def poll() -> None:
            while not done:
                seen.append(await state(engine, "j"))

        await put_one(engine, "j")
        polling = asyncio.create_task(poll())
        await state(engine, "j")
        claimed = await take_one(engine)
        await state(engine, "j")
        await end(engine, claimed)
        await state(engine, "j")
        done = True
        await polling
        order = [State.QUEUED, State.RUNNING, State.COMPLETED]
        assert [order.index(one) for one in seen] == sorted(order.index(one) for one in seen)

    async def test_an_answered_outcome_is_always_followed_by_its_result(self, engine: Engine) -> None:
        """A10"""
        await put(engine, *[job() for _ in range(50)])
        for claimed in await take(engine, 50):
            await end(engine, claimed, Outcome.completed(claimed.id.encode()))
            assert (await info(engine, claimed.id, bodies=True)).result == claimed.id.encode()

    async def test_listing_jobs_while_they_end_and_are_pruned_leaves_them_out(self, engine: Engine) -> None:
        """A11"""
        await put(engine, *[job(keep=0) for _ in range(60)])
        done = False

        async def work() -> None:
            nonlocal done
            while claimed := await take(engine, 5):
                await engine.finish([(one.lease, COMPLETED) for one in claimed])
                advance(engine, 1)
                await engine.prune(limit=MAX_BATCH, keep_finished=0)
            done = True

        async def look() -> None:
            while not done:
                for read in await all_jobs(engine, limit=7):
                    assert read.id

        await asyncio.gather(work(), look())
        assert await all_jobs(engine) == []

    async def test_the_result_of_an_old_job_is_never_that_of_a_new_one(self, engine: Engine) -> None:
        """A12"""
        await ended(engine, Outcome.completed(b"old"), "x", keep=0)
        (answer,) = await engine.enqueue([job("x")])
        assert (answer.created, answer.state) == (False, State.COMPLETED)
        advance(engine, 1)
        await engine.prune(limit=MAX_BATCH, keep_finished=0)
        claimed = await start(engine, "x")
        assert (await info(engine, "x", bodies=True)).result is None
        await end(engine, claimed, FAILED)
        assert (await info(engine, "x", bodies=True)).result is None

    async def test_a_failure_is_on_record_whatever_it_was(self, engine: Engine) -> None:
        """A14"""
        failure = Failure("pkg.Unpicklable", "cannot be read back: <object at 0x7f>", "Traceback…")
        await ended(engine, Outcome.failed(Reason.EXHAUSTED, failure), "x")
        (attempt,) = await engine.attempts("x")
        assert attempt.failure == failure
        assert (await info(engine, "x")).error == "pkg.Unpicklable: cannot be read back: <object at 0x7f>"

    async def test_a_failed_job_is_kept_as_long_as_it_asked(self, engine: Engine) -> None:
        """A16, A23"""
        await put(
            engine, job("forget", keep=0, max_crashes=1), job("late", keep=0, expires_in=1), job("keep", keep=1e9)
        )
        advance(engine, 2)
        claimed = {one.id: one for one in await take(engine, 10)}
        assert sorted(claimed) == ["forget", "keep"]
        await end(engine, claimed["keep"], FAILED)
        await pass_leases(engine)
        assert {read.state for read in await all_jobs(engine)} == {State.FAILED}
        advance(engine, 1)
        assert await engine.prune(limit=MAX_BATCH, keep_finished=MAX_BATCH) == 2
        assert [read.id for read in await all_jobs(engine)] == ["keep"]

    async def test_one_id_in_two_queues_is_one_job(self, engine: Engine) -> None:
        """A17"""
        await put_one(engine, "x", queue="a")
        (answer,) = await engine.enqueue([job("x", queue="b")])
        assert (answer.id, answer.created) == ("x", False)
        await end(engine, await take_one(engine, queues=["a"]))
        assert await take(engine, queues=["b"]) == []

    async def test_a_runnable_job_behind_many_that_cannot_run_is_found(self, engine: Engine) -> None:
        """A19"""
        running = await start(engine, "running", queue="default")
        await put(
            engine,
            *[job(queue="paused", priority=9) for _ in range(300)],
            *[job(after=("running",), priority=9) for _ in range(300)],
            *[job(delay=10**6, priority=9) for _ in range(300)],
        )
        await engine.set_queue("paused", paused=True)
        await put_one(engine, "x")
        assert [one.id for one in await take(engine, queues=["paused", "default"])] == ["x"]
        await end(engine, running)

    async def test_a_rescue_between_a_claim_and_its_reply_takes_nothing(self, engine: Engine) -> None:
        """S1"""
        await settle(engine)
        claimed, rescued = await asyncio.gather(start(engine, "j"), rescue(engine))
        assert rescued == []
        await end(engine, claimed)
        assert await rescue(engine) == []
        assert (await info(engine, "j")).crashes == 0

    async def test_a_job_whose_worker_died_is_run_again_and_not_failed(self, engine: Engine) -> None:
        """S2"""
        await start(engine, "j", max_attempts=1)
        await pass_leases(engine)
        await end(engine, await take_one(engine))
        assert await state(engine, "j") is State.COMPLETED

    async def test_a_key_whose_job_was_stopped_is_free_for_a_new_one(self, engine: Engine) -> None:
        """S3"""
        claimed = await start(engine, unique=Unique("k"))
        await engine.cancel([claimed.id])
        await end(engine, claimed, Outcome.cancelled())
        await put_one(engine, "new", unique=Unique("k"))
        await end(engine, await take_one(engine))
        assert await state(engine, "new") is State.COMPLETED

    async def test_jobs_without_key_are_all_run(self, engine: Engine) -> None:
        """S4"""
        await put(engine, job("a", unique=None), job("b", unique=None))
        assert await drain(engine) == ["a", "b"]

    async def test_two_attempts_of_one_job_at_one_worker_are_kept_apart(self, engine: Engine) -> None:
        """S5, Q8, D1"""
        old = await start(engine, "j", worker="w1")
        await pass_leases(engine)
        (new,) = await take(engine, worker="w1", held=["j"])
        assert await beat(engine, old.lease, new.lease, worker="w1") == [Hold.LOST, Hold.HELD]
        assert await engine.append(old.lease, [FeedItem(old.lease.token, 1, FeedKind.LOG, b"old")]) is False
        assert await engine.finish([(old.lease, FAILED)]) == [False]
        assert (await info(engine, "j")).worker == "w1"
        await end(engine, new)
        assert await state(engine, "j") is State.COMPLETED

    async def test_a_job_whose_worker_died_while_stopping_it_ends(self, engine: Engine) -> None:
        """S7"""
        await start(engine, "j", worker="dead")
        await engine.cancel(["j"])
        await rescue(engine, dead=["dead"])
        assert await state(engine, "j") is State.CANCELLED

    async def test_a_job_that_a_shutdown_stopped_has_not_failed(self, engine: Engine) -> None:
        """S12, T4"""
        await put(engine, *[job() for _ in range(5)])
        claimed = await take(engine, 5)
        assert await engine.finish([(one.lease, Outcome.released()) for one in claimed]) == [True] * 5
        assert {(read.state, read.attempts, read.error) for read in await all_jobs(engine)} == {(State.QUEUED, 0, None)}

    async def test_lateness_counts_from_the_due_time(self, engine: Engine) -> None:
        """Q1"""
        await put_one(engine, "j", delay=60)
        advance(engine, 3 * 3600)
        await take(engine, queues=["other"])
        advance(engine, 60)
        claimed = await take_one(engine)
        assert claimed.started_at - claimed.due_at >= timedelta(hours=3)

    async def test_a_frozen_worker_that_wakes_up_cannot_take_its_job_back(self, engine: Engine) -> None:
        """Q8"""
        frozen = await start(engine, "j", worker="w1")
        await pass_leases(engine)
        claimed = await take_one(engine, worker="w2")
        assert await beat(engine, frozen.lease, worker="w1") == [Hold.LOST]
        assert await engine.finish([(frozen.lease, COMPLETED)]) == [False]
        assert (await info(engine, "j")).worker == "w2"
        assert await beat(engine, claimed.lease, worker="w2") == [Hold.HELD]
        await end(engine, claimed)

    async def test_a_job_longer_than_many_leases_runs_once(self, engine: Engine) -> None:
        """T1, X15"""
        await settle(engine)
        claimed = await start(engine, "j", worker="w1")
        for _ in range(30):
            engine.advance(LEASE / 3)
            assert await beat(engine, claimed.lease, worker="w1") == [Hold.HELD]
            assert await rescue(engine) == []
            assert await take(engine, worker="w2") == []
        await end(engine, claimed)
        read = await info(engine, "j")
        assert (read.state, read.attempts, read.crashes) == (State.COMPLETED, 1, 0)

    async def test_a_store_is_empty_again_after_its_jobs_are(self, engine: Engine) -> None:
        """T6, I18"""
        for _ in range(3):
            await put(engine, *[job(keep=0, unique=Unique(f"k{number}")) for number in range(200)])
            claimed = await take(engine, 200)
            for one in claimed[:20]:
                await engine.append(one.lease, [FeedItem(one.lease.token, 1, FeedKind.LOG, b"x" * 100)])
            await engine.finish([(one.lease, FAILED) for one in claimed])
            advance(engine, 1)
            assert await engine.prune(limit=MAX_BATCH, keep_finished=0) == 200
            assert await all_jobs(engine) == []
            assert await engine.queues() == []
            assert [await engine.attempts(one.id) for one in claimed[:3]] == [[], [], []]

    async def test_a_retry_and_a_redelivery_never_overlap(self, engine: Engine) -> None:
        """D1"""
        await settle(engine)
        await put_one(engine, "j", max_attempts=10**6, max_crashes=10**6)
        for rescue_first in [False, True] * 5:
            claimed = await take_one(engine)
            engine.advance(LEASE * 0.6)
            await rescue(engine)
            engine.advance(LEASE * 0.6)
            finishing = engine.finish([(claimed.lease, Outcome.retrying(0, BOOM))])
            if rescue_first:
                rescued, (stored,) = await asyncio.gather(rescue(engine), finishing)
            else:
                (stored,), rescued = await asyncio.gather(finishing, rescue(engine))
            assert len(rescued) + stored == 1
            assert await state(engine, "j") is (State.QUEUED if rescued else State.RETRYING)

    async def test_a_job_replaced_while_it_becomes_due_runs_once_at_its_new_time(self, engine: Engine) -> None:
        """D2"""
        unique = Unique("k", on_conflict="replace")
        await put_one(engine, "old", unique=unique, delay=10)
        advance(engine, 11)
        await put_one(engine, "new", unique=unique, delay=100)
        assert await take(engine, 10) == []
        advance(engine, 101)
        assert await drain(engine) == ["new"]

    async def test_a_key_is_held_by_queued_and_running_jobs_alike(self, engine: Engine) -> None:
        """D3"""
        await put_one(engine, "j", unique=Unique("k"))
        for _ in range(2):
            (answer,) = await engine.enqueue([job(unique=Unique("k"))])
            assert (answer.id, answer.created) == ("j", False)
            await take(engine)

    async def test_a_claimed_batch_that_is_never_started_comes_back(self, engine: Engine) -> None:
        """D5, T12"""
        ids = await put(engine, *[job() for _ in range(10)])
        assert len(await take(engine, 10)) == 10
        assert len(await pass_leases(engine)) == 10
        assert await drain(engine) == ids

    async def test_maintenance_leaves_finished_jobs_finished(self, engine: Engine) -> None:
        """X3"""
        await settle(engine)
        claimed = await start(engine, "j")
        engine.advance(LEASE * 0.9)
        await end(engine, claimed)
        assert await pass_leases(engine) == []
        assert await engine.prune(limit=MAX_BATCH, keep_finished=MAX_BATCH) == 0
        assert await state(engine, "j") is State.COMPLETED

    async def test_a_job_that_was_removed_is_not_rescued_as_a_ghost(self, engine: Engine) -> None:
        """X5"""
        claimed = await start(engine, "j")
        await end(engine, claimed, Outcome.released())
        assert await engine.delete(["j"]) == [True]
        assert await pass_leases(engine) == []
        assert await take(engine, 10) == []
        assert await engine.get(["j"]) == [None]

    async def test_a_job_asked_to_stop_that_raises_something_retryable_is_cancelled(self, engine: Engine) -> None:
        """X6"""
        claimed = await start(engine, "j", max_attempts=9)
        await engine.cancel(["j"])
        await end(engine, claimed, Outcome.retrying(0, BOOM))
        assert await state(engine, "j") is State.CANCELLED
        assert await take(engine) == []

    async def test_the_jobs_of_a_worker_that_came_back_under_another_id_are_recovered(self, engine: Engine) -> None:
        """X7"""
        await start(engine, "j", worker="host-1:first")
        await beat(engine, worker="host-1:second")
        await pass_leases(engine)
        assert (await take_one(engine, worker="host-1:second")).id == "j"

    async def test_a_job_that_kills_every_worker_is_started_as_often_as_allowed(self, engine: Engine) -> None:
        """X8"""
        await put_one(engine, "j", max_attempts=1, max_crashes=3)
        starts = 0
        while await take(engine):
            starts += 1
            assert starts < 10
            await pass_leases(engine)
        read = await info(engine, "j")
        assert (starts, read.state, read.reason, read.crashes) == (3, State.FAILED, Reason.CRASHED, 3)

    async def test_the_count_of_crashes_never_goes_down(self, engine: Engine) -> None:
        """X8"""
        await put_one(engine, "j", max_attempts=99, max_crashes=99)
        counts = []
        for outcome in (None, Outcome.released(), None, Outcome.retrying(0, BOOM), Outcome.snoozed(0), None):
            claimed = await take_one(engine)
            if outcome is None:
                await pass_leases(engine)
            else:
                await end(engine, claimed, outcome)
            counts.append((await info(engine, "j")).crashes)
        assert counts == [1, 1, 2, 2, 2, 3]

    async def test_a_job_deferred_much_longer_than_a_lease_runs_once(self, engine: Engine) -> None:
        """X12"""
        await put_one(engine, "j", delay=6 * 3600)
        for _ in range(12):
            assert await take(engine) == []
            assert await pass_leases(engine) == []
            advance(engine, 1600)
        advance(engine, 300)
        batches = await asyncio.gather(*[take(engine) for _ in range(5)])
        assert [one.id for batch in batches for one in batch] == ["j"]
