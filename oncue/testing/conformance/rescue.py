"""`rescue`: jobs of silent workers are taken back, counted and capped, but never because the store was away."""

from __future__ import annotations

import pytest

from oncue.engine import MAX_BATCH, Engine, Hold
from oncue.job import Claimed, Outcome, Reason, State
from oncue.testing.conformance.base import Conformance
from oncue.testing.conformance.steps import (
    BOOM,
    COMPLETED,
    LEASE,
    advance,
    beat,
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

__all__ = ["RescueConformance"]


async def crash(engine: Engine, times: int) -> None:
    """Start the only job that can be claimed and let its worker fall silent, `times` times."""
    for _ in range(times):
        await take_one(engine)
        await pass_leases(engine)


class RescueConformance(Conformance):
    """Cases of `rescue`."""

    async def test_an_empty_store_has_nothing_to_rescue(self, engine: Engine) -> None:
        assert await pass_leases(engine) == []

    async def test_a_job_whose_lease_expired_is_handed_out_again(self, engine: Engine) -> None:
        first = await start(engine, "j", worker="w1", task="t")
        (rescued,) = await pass_leases(engine)
        assert (rescued.job_id, rescued.task, rescued.queue) == ("j", "t", "default")
        assert (rescued.worker, rescued.state, rescued.crashes) == ("w1", State.QUEUED, 1)
        read = await info(engine, "j")
        assert (read.state, read.worker, read.crashes) == (State.QUEUED, None, 1)
        second = await take_one(engine)
        assert (second.id, second.crashes) == ("j", 1)
        assert second.lease.token > first.lease.token
        await end(engine, second)

    async def test_a_lease_that_has_not_expired_is_left_alone(self, engine: Engine) -> None:
        await settle(engine)
        await start(engine, "j")
        engine.advance(LEASE * 0.7)
        assert await rescue(engine) == []
        assert await state(engine, "j") is State.RUNNING
        engine.advance(LEASE * 0.4)
        assert [rescued.job_id for rescued in await rescue(engine)] == ["j"]

    async def test_a_short_lease_is_rescued_when_it_expired_however_long_others_are(self, engine: Engine) -> None:
        await settle(engine)
        await put(engine, job("short"), job("long"))
        await take_one(engine, lease=LEASE / 6)
        await take_one(engine, lease=LEASE * 100)
        engine.advance(LEASE / 2)
        assert [rescued.job_id for rescued in await rescue(engine)] == ["short"]
        assert await pass_leases(engine) == []

    async def test_a_crash_is_kept_as_an_attempt(self, engine: Engine) -> None:
        claimed = await start(engine, "j", worker="w1")
        await pass_leases(engine)
        (attempt,) = await engine.attempts("j")
        assert (attempt.outcome, attempt.worker, attempt.token) == ("crashed", "w1", claimed.lease.token)
        assert attempt.started_at == claimed.started_at < attempt.finished_at

    async def test_a_crash_costs_a_job_with_one_attempt_nothing_else(self, engine: Engine) -> None:
        await put_one(engine, "j", max_attempts=1, max_crashes=3)
        await crash(engine, 2)
        await end(engine, await take_one(engine))
        assert await state(engine, "j") is State.COMPLETED

    @pytest.mark.parametrize("most", [1, 2, 3, 5])
    async def test_a_job_that_crashed_too_often_fails(self, engine: Engine, most: int) -> None:
        await put_one(engine, "j", max_crashes=most, max_attempts=100)
        await crash(engine, most - 1)
        assert await state(engine, "j") is State.QUEUED
        await take_one(engine)
        (rescued,) = await pass_leases(engine)
        assert (rescued.state, rescued.crashes) == (State.FAILED, most)
        read = await info(engine, "j")
        assert (read.state, read.reason, read.crashes) == (State.FAILED, Reason.CRASHED, most)
        assert await take(engine) == []

    async def test_crashes_are_not_forgotten_by_attempts_that_ended_otherwise(self, engine: Engine) -> None:
        await put_one(engine, "j", max_crashes=2, max_attempts=10)
        await crash(engine, 1)
        await end(engine, await take_one(engine), Outcome.retrying(0, BOOM))
        await end(engine, await take_one(engine), Outcome.released())
        claimed = await take_one(engine)
        assert claimed.crashes == 1
        await pass_leases(engine)
        assert (await info(engine, "j")).reason is Reason.CRASHED

    async def test_a_job_that_was_asked_to_stop_is_cancelled_by_its_rescue(self, engine: Engine) -> None:
        await start(engine, "j")
        await engine.cancel(["j"])
        (rescued,) = await pass_leases(engine)
        assert (rescued.job_id, rescued.state) == ("j", State.CANCELLED)
        read = await info(engine, "j")
        assert (read.state, read.reason) == (State.CANCELLED, Reason.USER)
        assert await take(engine) == []

    async def test_no_more_jobs_than_asked_for_are_rescued(self, engine: Engine) -> None:
        await settle(engine)
        await put(engine, *[job() for _ in range(7)])
        await take(engine, 7, lease=LEASE / 10)
        engine.advance(LEASE / 2)
        numbers = [len(await rescue(engine, limit=3)) for _ in range(4)]
        assert numbers == [3, 3, 1, 0]

    async def test_a_thousand_jobs_are_rescued_in_one_call(self, engine: Engine) -> None:
        await settle(engine)
        await put(engine, *[job() for _ in range(MAX_BATCH)])
        await take(engine, MAX_BATCH, lease=LEASE / 10)
        engine.advance(LEASE / 2)
        assert len(await rescue(engine)) == MAX_BATCH

    async def test_jobs_of_a_worker_that_is_known_to_be_dead_are_rescued_at_once(self, engine: Engine) -> None:
        await settle(engine)
        await put(engine, job("a"), job("b"), job("c"))
        await take(engine, 2, worker="dead")
        await take(engine, 1, worker="alive")
        rescued = await rescue(engine, dead=["dead", "unknown"])
        assert sorted((one.job_id, one.worker, one.state, one.crashes) for one in rescued) == [
            ("a", "dead", State.QUEUED, 1),
            ("b", "dead", State.QUEUED, 1),
        ]
        assert await state(engine, "c") is State.RUNNING

    async def test_jobs_of_a_dead_worker_are_rescued_also_during_the_grace(self, engine: Engine) -> None:
        await start(engine, "j", worker="dead")
        engine.advance(LEASE * 3)
        assert await rescue(engine) == []
        assert [one.job_id for one in await rescue(engine, dead=["dead"])] == ["j"]

    async def test_jobs_that_a_dead_worker_ended_before_are_not_touched(self, engine: Engine) -> None:
        await ended(engine, job_id="done", worker="dead")
        await ended(engine, Outcome.retrying(60, BOOM), "again", worker="dead")
        assert await rescue(engine, dead=["dead"]) == []
        assert await state(engine, "done") is State.COMPLETED
        assert await state(engine, "again") is State.RETRYING

    async def test_nothing_is_rescued_for_one_lease_after_the_store_was_away(self, engine: Engine) -> None:
        await settle(engine)
        await start(engine, "j")
        engine.advance(LEASE * 3)
        assert await rescue(engine) == []
        engine.advance(LEASE * 0.6)
        assert await rescue(engine) == []
        engine.advance(LEASE * 0.6)
        assert [rescued.job_id for rescued in await rescue(engine)] == ["j"]

    async def test_workers_that_renew_after_the_store_was_away_lose_nothing(self, engine: Engine) -> None:
        await settle(engine)
        claimed = await start(engine, "j")
        advance(engine, 600)
        assert await rescue(engine) == []
        assert await beat(engine, claimed.lease) == [Hold.HELD]
        for _ in range(6):
            engine.advance(LEASE / 3)
            assert await beat(engine, claimed.lease) == [Hold.HELD]
            assert await rescue(engine) == []
        await end(engine, claimed)
        assert (await info(engine, "j")).crashes == 0

    async def test_a_rescue_right_after_the_outcome_takes_nothing(self, engine: Engine) -> None:
        await settle(engine)
        claimed = await start(engine, "j")
        engine.advance(LEASE * 0.9)
        await rescue(engine)
        engine.advance(LEASE * 0.9)
        await end(engine, claimed)
        assert await rescue(engine) == []
        assert await state(engine, "j") is State.COMPLETED

    async def test_a_job_that_was_not_started_in_time_is_not_handed_out(self, engine: Engine) -> None:
        await put_one(engine, "j", expires_in=10)
        advance(engine, 11)
        assert await take(engine) == []
        await pass_leases(engine)
        read = await info(engine, "j")
        assert (read.state, read.reason, read.attempts) == (State.FAILED, Reason.EXPIRED, 0)

    async def test_a_job_that_was_not_started_in_time_fails_though_nobody_claims(self, engine: Engine) -> None:
        await put(engine, job("j", expires_in=10, queue="nobody"), job("other", queue="nobody"))
        await rescue(engine)
        advance(engine, 11)
        await pass_leases(engine)
        assert (await info(engine, "j")).reason is Reason.EXPIRED
        assert await state(engine, "other") is State.QUEUED

    async def test_a_job_that_was_not_started_in_time_fails_also_in_a_paused_queue(self, engine: Engine) -> None:
        await engine.set_queue("default", paused=True)
        await put_one(engine, "j", expires_in=10)
        advance(engine, 11)
        await pass_leases(engine)
        assert (await info(engine, "j")).reason is Reason.EXPIRED

    async def test_the_time_to_start_runs_from_the_due_time(self, engine: Engine) -> None:
        await put(engine, job("in-time", delay=100, expires_in=10), job("late", delay=50, expires_in=10))
        advance(engine, 101)
        assert [claimed.id for claimed in await take(engine, 10)] == ["in-time"]
        await pass_leases(engine)
        assert (await info(engine, "late")).reason is Reason.EXPIRED

    async def test_a_job_that_was_started_in_time_may_take_longer(self, engine: Engine) -> None:
        await settle(engine)
        claimed = await start(engine, "j", expires_in=10)
        advance(engine, 30)
        await rescue(engine)
        await end(engine, claimed)
        assert await state(engine, "j") is State.COMPLETED

    async def test_a_job_that_expired_frees_its_line(self, engine: Engine) -> None:
        await put(engine, *[job(expires_in=5) for _ in range(50)])
        await put_one(engine, "j")
        advance(engine, 6)
        claimed: list[Claimed] = []
        for _ in range(60):
            claimed += await take(engine)
        assert [one.id for one in claimed] == ["j"]

    async def test_finished_jobs_are_never_rescued(self, engine: Engine) -> None:
        await ended(engine, COMPLETED, "done", keep=10**9)
        for _ in range(3):
            assert await pass_leases(engine) == []
        assert await state(engine, "done") is State.COMPLETED
