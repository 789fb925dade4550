"""`finish`: each outcome moves the job where it says, once, and only under the current lease."""

from __future__ import annotations

from datetime import timedelta

import pytest

from oncue.engine import MAX_BATCH, Engine
from oncue.job import Failure, Lease, Outcome, Reason, State
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

__all__ = ["FinishConformance"]

OUTCOMES = [
    Outcome.completed(b"r"),
    Outcome.failed(Reason.EXHAUSTED, BOOM),
    Outcome.retrying(100, BOOM),
    Outcome.snoozed(100),
    Outcome.parked(100),
    Outcome.released(),
    Outcome.cancelled(BOOM),
]
NAMES = ["completed", "failed", "retrying", "snoozed", "parked", "released", "cancelled"]

WHY_FAILED = [
    Reason.ERROR,
    Reason.EXHAUSTED,
    Reason.TIMEOUT,
    Reason.GAVE_UP,
    Reason.INTERRUPTED,
    Reason.UNREADABLE,
    Reason.RESULT,
]

every_outcome = pytest.mark.parametrize("outcome", OUTCOMES, ids=NAMES)
every_refund = pytest.mark.parametrize("outcome", [one for one in OUTCOMES if one.refund], ids=NAMES[3:6])


class FinishConformance(Conformance):
    """Cases of `finish`."""

    async def test_an_empty_batch_of_outcomes_is_answered_with_nothing(self, engine: Engine) -> None:
        assert await engine.finish([]) == []

    @every_outcome
    async def test_a_job_moves_where_its_outcome_says(self, engine: Engine, outcome: Outcome) -> None:
        claimed = await start(engine, "j", max_attempts=3)
        before = (await info(engine, "j")).revision
        await end(engine, claimed, outcome)
        read = await info(engine, "j", bodies=True)
        assert (read.state, read.reason) == (outcome.state, outcome.reason)
        assert read.result == outcome.result
        assert read.revision > before
        assert read.worker is None
        assert read.started_at == claimed.started_at
        assert (read.finished_at is not None) == outcome.state.final
        assert read.attempts == (0 if outcome.refund else 1)
        assert read.crashes == 0

    @every_outcome
    async def test_a_resent_outcome_answers_true_and_changes_nothing(self, engine: Engine, outcome: Outcome) -> None:
        claimed = await start(engine, "j", max_attempts=3)
        await end(engine, claimed, outcome)
        before = await info(engine, "j", bodies=True), await engine.attempts("j")
        advance(engine, 10)
        assert await engine.finish([(claimed.lease, outcome)]) == [True]
        assert (await info(engine, "j", bodies=True), await engine.attempts("j")) == before

    @every_outcome
    async def test_a_first_outcome_is_not_replaced_by_another(self, engine: Engine, outcome: Outcome) -> None:
        claimed = await start(engine, "j", max_attempts=3)
        await end(engine, claimed, outcome)
        before = await info(engine, "j", bodies=True)
        for other in OUTCOMES:
            await engine.finish([(claimed.lease, other)])
        assert await info(engine, "j", bodies=True) == before

    async def test_the_result_is_there_once_the_job_completed(self, engine: Engine) -> None:
        claimed = await start(engine, "j")
        assert (await info(engine, "j", bodies=True)).result is None
        await end(engine, claimed, Outcome.completed(b"\x00\xffresult"))
        assert (await info(engine, "j", bodies=True)).result == b"\x00\xffresult"

    async def test_an_empty_result_is_a_result(self, engine: Engine) -> None:
        await ended(engine, Outcome.completed(b""), "j")
        assert (await info(engine, "j", bodies=True)).result == b""

    @pytest.mark.parametrize("reason", WHY_FAILED)
    async def test_a_failed_job_says_why(self, engine: Engine, reason: Reason) -> None:
        await ended(engine, Outcome.failed(reason, BOOM), "j")
        read = await info(engine, "j")
        assert (read.state, read.reason, read.error) == (State.FAILED, reason, "ValueError: boom")

    async def test_a_job_ends_at_the_time_of_the_store(self, engine: Engine) -> None:
        claimed = await start(engine, "j")
        advance(engine, 40)
        await end(engine, claimed)
        read = await info(engine, "j")
        assert read.finished_at is not None
        assert timedelta(seconds=40) <= read.finished_at - claimed.started_at < timedelta(seconds=70)

    async def test_a_retrying_job_is_due_after_its_delay(self, engine: Engine) -> None:
        claimed = await start(engine, "j", max_attempts=2)
        advance(engine, 20)
        await end(engine, claimed, Outcome.retrying(100, BOOM))
        read = await info(engine, "j")
        assert (read.state, read.error) == (State.RETRYING, "ValueError: boom")
        assert timedelta(seconds=120) <= read.due_at - claimed.started_at < timedelta(seconds=150)
        assert await take(engine) == []
        advance(engine, 101)
        again = await take_one(engine)
        assert (again.id, again.attempt, again.due_at) == ("j", 2, read.due_at)

    async def test_a_retrying_job_without_delay_can_be_claimed_at_once(self, engine: Engine) -> None:
        await ended(engine, Outcome.retrying(0, BOOM), "j", max_attempts=2)
        assert (await take_one(engine)).attempt == 2

    async def test_a_released_job_can_be_claimed_at_once(self, engine: Engine) -> None:
        claimed = await start(engine, "j")
        await end(engine, claimed, Outcome.released())
        again = await take_one(engine)
        assert (again.id, again.attempt, again.crashes) == ("j", 1, 0)
        assert again.lease.token > claimed.lease.token

    @pytest.mark.parametrize("outcome", [Outcome.snoozed(100), Outcome.parked(100)], ids=["snoozed", "parked"])
    async def test_a_job_that_is_put_off_is_scheduled(self, engine: Engine, outcome: Outcome) -> None:
        claimed = await start(engine, "j")
        await end(engine, claimed, outcome)
        read = await info(engine, "j")
        assert (read.state, read.reason) == (State.SCHEDULED, outcome.reason)
        assert timedelta(seconds=100) <= read.due_at - claimed.started_at < timedelta(seconds=130)
        assert await take(engine) == []
        advance(engine, 101)
        assert (await take_one(engine)).attempt == 1

    @every_refund
    async def test_an_attempt_that_is_given_back_does_not_count(self, engine: Engine, outcome: Outcome) -> None:
        await put_one(engine, "j", max_attempts=5)
        await end(engine, await take_one(engine), Outcome.retrying(0, BOOM))
        for _ in range(4):
            claimed = await take_one(engine)
            assert claimed.attempt == 2
            await end(engine, claimed, outcome)
            assert (await info(engine, "j")).attempts == 1
            advance(engine, 101)
        assert (await take_one(engine)).attempt == 2

    async def test_the_next_start_clears_the_reason_of_the_last_attempt(self, engine: Engine) -> None:
        await ended(engine, Outcome.parked(0), "j")
        claimed = await take_one(engine)
        assert (await info(engine, "j")).reason is None
        await end(engine, claimed)
        assert (await info(engine, "j")).reason is None

    async def test_a_cancelled_attempt_may_carry_its_error(self, engine: Engine) -> None:
        await ended(engine, Outcome.cancelled(BOOM), "with")
        await ended(engine, Outcome.cancelled(), "without")
        for job_id in ("with", "without"):
            read = await info(engine, job_id)
            assert (read.state, read.reason) == (State.CANCELLED, Reason.USER)

    @every_outcome
    async def test_a_job_that_was_asked_to_stop_ends_cancelled(self, engine: Engine, outcome: Outcome) -> None:
        claimed = await start(engine, "j", max_attempts=3)
        await engine.cancel(["j"])
        await end(engine, claimed, outcome)
        read = await info(engine, "j", bodies=True)
        assert (read.state, read.reason, read.result) == (State.CANCELLED, Reason.USER, None)
        advance(engine, 200)
        assert await take(engine) == []

    async def test_an_outcome_under_a_wrong_lease_is_refused(self, engine: Engine) -> None:
        lease = (await start(engine, "j")).lease
        before = await info(engine, "j")
        wrong = [
            lease._replace(token=lease.token + 1),
            lease._replace(token=lease.token - 1),
            lease._replace(token=0),
            lease._replace(nonce=bytes(len(lease.nonce))),
            lease._replace(nonce=b""),
            lease._replace(nonce=lease.nonce + b"\x00"),
        ]
        assert await engine.finish([(one, COMPLETED) for one in wrong]) == [False] * 6
        assert await info(engine, "j") == before
        assert await engine.finish([(lease, COMPLETED)]) == [True]

    async def test_an_outcome_of_an_unknown_job_is_refused(self, engine: Engine) -> None:
        assert await engine.finish([(Lease("unknown", 1, b"nonce"), COMPLETED)]) == [False]
        assert await engine.get(["unknown"]) == [None]

    @every_outcome
    async def test_an_outcome_after_the_rescue_is_refused(self, engine: Engine, outcome: Outcome) -> None:
        claimed = await start(engine, "j")
        await pass_leases(engine)
        before = await info(engine, "j", bodies=True)
        assert before.state is State.QUEUED
        assert await engine.finish([(claimed.lease, outcome)]) == [False]
        assert await info(engine, "j", bodies=True) == before

    async def test_an_outcome_is_refused_once_another_attempt_runs(self, engine: Engine) -> None:
        old = await start(engine, "j")
        await pass_leases(engine)
        new = await take_one(engine)
        assert await engine.finish([(old.lease, FAILED), (new.lease, COMPLETED)]) == [False, True]
        assert await state(engine, "j") is State.COMPLETED
        assert await engine.finish([(old.lease, FAILED)]) == [False]
        assert await state(engine, "j") is State.COMPLETED

    async def test_an_expired_lease_that_was_not_rescued_may_still_finish(self, engine: Engine) -> None:
        claimed = await start(engine, "j")
        advance(engine, 86_400)
        await end(engine, claimed)
        assert await state(engine, "j") is State.COMPLETED

    async def test_a_resent_outcome_is_known_after_the_job_became_due_again(self, engine: Engine) -> None:
        claimed = await start(engine, "j", max_attempts=3)
        outcome = Outcome.retrying(10, BOOM)
        await end(engine, claimed, outcome)
        advance(engine, 11)
        await take(engine, queues=["other"])
        assert await engine.finish([(claimed.lease, outcome)]) == [True]
        again = await take_one(engine)
        assert again.attempt == 2
        assert await engine.finish([(claimed.lease, outcome)]) == [False]
        assert await state(engine, "j") is State.RUNNING

    async def test_a_resent_outcome_does_not_end_a_job_that_runs_again(self, engine: Engine) -> None:
        claimed = await start(engine, "j")
        await end(engine, claimed)
        assert await engine.retry(["j"]) == [True]
        assert await engine.finish([(claimed.lease, COMPLETED)]) == [True]
        assert await state(engine, "j") is State.QUEUED

    async def test_outcomes_of_a_batch_stand_each_for_itself(self, engine: Engine) -> None:
        await put(engine, *[job() for _ in range(4)])
        a, b, c, d = await take(engine, 4)
        stale = b.lease._replace(nonce=b"wrong")
        answers = await engine.finish(
            [(a.lease, COMPLETED), (stale, COMPLETED), (c.lease, FAILED), (d.lease, Outcome.released())]
        )
        assert answers == [True, False, True, True]
        states = [await state(engine, one.id) for one in (a, b, c, d)]
        assert states == [State.COMPLETED, State.RUNNING, State.FAILED, State.QUEUED]

    async def test_one_outcome_twice_in_a_batch_is_stored_once(self, engine: Engine) -> None:
        claimed = await start(engine, "j")
        assert await engine.finish([(claimed.lease, FAILED), (claimed.lease, FAILED)]) == [True, True]
        assert len(await engine.attempts("j")) == 1

    async def test_a_thousand_outcomes_are_stored_in_one_call(self, engine: Engine) -> None:
        ids = await put(engine, *[job() for _ in range(MAX_BATCH)])
        claimed = await take(engine, MAX_BATCH)
        outcomes = [(one.lease, Outcome.completed(one.id.encode())) for one in claimed]
        assert await engine.finish(outcomes) == [True] * MAX_BATCH
        read = await engine.get(ids, bodies=True)
        assert [one and one.result for one in read] == [job_id.encode() for job_id in ids]

    async def test_a_long_error_is_cut(self, engine: Engine) -> None:
        await ended(engine, Outcome.failed(Reason.ERROR, Failure("Error", "x" * 100_000, "t" * 100_000)), "j")
        read = await info(engine, "j")
        assert read.error is not None
        assert read.error.startswith("Error: " + "x" * 200)
        assert len(read.error) <= 500

    async def test_an_outcome_that_is_hard_to_store_does_not_harm_its_batch(self, engine: Engine) -> None:
        await put(engine, job("a"), job("b"), job("c"))
        a, b, c = await take(engine, 3)
        hostile = Outcome.failed(Reason.ERROR, Failure("\ud800", "\udfff\x00", "\udcff"))
        assert await engine.finish([(a.lease, COMPLETED), (b.lease, hostile), (c.lease, COMPLETED)]) == [True] * 3
        assert [await state(engine, job_id) for job_id in "abc"] == [State.COMPLETED, State.FAILED, State.COMPLETED]

    async def test_whatever_an_error_says_can_be_stored(self, engine: Engine) -> None:
        hostile = Failure(
            "Ünïcode'; DROP TABLE jobs--", "nul \x00, esc \x1b[31m, 🐍, lone \udcff surrogate\n", "\x00\ud800"
        )
        await ended(engine, Outcome.failed(Reason.ERROR, hostile), "j")
        read = await info(engine, "j")
        assert read.state is State.FAILED
        assert read.error is not None
        assert "DROP TABLE" in read.error
        (attempt,) = await engine.attempts("j")
        assert attempt.failure is not None
        assert "🐍" in attempt.failure.message
