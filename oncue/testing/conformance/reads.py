"""`get` and `attempts`: what is read is what was written, in the order that was asked for."""

from __future__ import annotations

from oncue.engine import MAX_BATCH, Engine
from oncue.job import Failure, Outcome, State
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
    take_one,
)

__all__ = ["ReadsConformance"]


class ReadsConformance(Conformance):
    """Cases of `get` and `attempts`."""

    async def test_no_ids_read_as_no_jobs(self, engine: Engine) -> None:
        assert await engine.get([]) == []
        assert await engine.get([], bodies=True) == []

    async def test_jobs_are_read_in_the_order_of_the_ids(self, engine: Engine) -> None:
        await put(engine, job("a"), job("b"), job("c"))
        read = await engine.get(["c", "unknown", "a", "b", "a"])
        assert [one and one.id for one in read] == ["c", None, "a", "b", "a"]

    async def test_a_thousand_jobs_are_read_in_one_call(self, engine: Engine) -> None:
        ids = await put(engine, *[job() for _ in range(MAX_BATCH)])
        assert [one and one.id for one in await engine.get(ids[::-1])] == ids[::-1]

    async def test_bodies_are_read_only_if_asked_for(self, engine: Engine) -> None:
        await ended(engine, Outcome.completed(b"result"), "j", payload=b"payload")
        read = await info(engine, "j")
        assert (read.payload, read.result) == (None, None)
        read = await info(engine, "j", bodies=True)
        assert (read.payload, read.result) == (b"payload", b"result")

    async def test_the_revision_grows_with_every_transition(self, engine: Engine) -> None:
        revisions = []
        await put_one(engine, "j", max_attempts=9, max_crashes=9)
        revisions.append((await info(engine, "j")).revision)
        for outcome in (Outcome.retrying(0, BOOM), Outcome.released(), FAILED):
            claimed = await take_one(engine)
            revisions.append((await info(engine, "j")).revision)
            await end(engine, claimed, outcome)
            revisions.append((await info(engine, "j")).revision)
        await engine.retry(["j"])
        revisions.append((await info(engine, "j")).revision)
        await take_one(engine)
        revisions.append((await info(engine, "j")).revision)
        await pass_leases(engine)
        revisions.append((await info(engine, "j")).revision)
        await engine.cancel(["j"])
        revisions.append((await info(engine, "j")).revision)
        assert revisions == sorted(set(revisions))

    async def test_a_read_changes_nothing(self, engine: Engine) -> None:
        await put(engine, job("due", delay=10), job("queued"))
        advance(engine, 20)
        first = await engine.get(["due", "queued"])
        await engine.queues()
        assert await engine.get(["due", "queued"]) == first

    async def test_a_job_without_history_has_no_attempts(self, engine: Engine) -> None:
        await ended(engine, COMPLETED, "done")
        await put_one(engine, "queued")
        for job_id in ("done", "queued", "unknown"):
            assert await engine.attempts(job_id) == []

    async def test_every_attempt_that_did_not_succeed_is_kept_oldest_first(self, engine: Engine) -> None:
        await put_one(engine, "j", max_attempts=9)
        tokens: list[int] = []
        for outcome in (
            Outcome.retrying(0, Failure("A", "first", "trace")),
            Outcome.released(),
            Outcome.retrying(0, Failure("B", "second")),
            COMPLETED,
        ):
            claimed = await take_one(engine, worker=f"w{len(tokens)}")
            tokens.append(claimed.lease.token)
            advance(engine, 1)
            await end(engine, claimed, outcome)
        attempts = await engine.attempts("j")
        assert [attempt.token for attempt in attempts] == tokens[:3]
        assert [attempt.worker for attempt in attempts] == ["w0", "w1", "w2"]
        assert [attempt.outcome for attempt in attempts] == [State.RETRYING, State.QUEUED, State.RETRYING]
        assert [attempt.number for attempt in attempts] == [1, 2, 2]
        assert [attempt.failure for attempt in attempts] == [
            Failure("A", "first", "trace"),
            None,
            Failure("B", "second"),
        ]
        assert all(attempt.started_at < attempt.finished_at for attempt in attempts)

    async def test_the_last_attempt_of_a_failed_job_is_kept(self, engine: Engine) -> None:
        claimed = await start(engine, "j", worker="w1")
        await end(engine, claimed, FAILED)
        (attempt,) = await engine.attempts("j")
        assert (attempt.token, attempt.number, attempt.worker) == (claimed.lease.token, 1, "w1")
        assert (attempt.outcome, attempt.failure, attempt.started_at) == (State.FAILED, BOOM, claimed.started_at)

    async def test_an_attempt_that_was_given_back_is_kept(self, engine: Engine) -> None:
        await ended(engine, Outcome.snoozed(60), "snoozed")
        await ended(engine, Outcome.released(), "released")
        assert [attempt.outcome for attempt in await engine.attempts("released")] == [State.QUEUED]
        assert [attempt.outcome for attempt in await engine.attempts("snoozed")] == [State.SCHEDULED]

    async def test_a_completed_attempt_that_was_asked_to_stop_is_kept_as_cancelled(self, engine: Engine) -> None:
        claimed = await start(engine, "j")
        await engine.cancel(["j"])
        await end(engine, claimed, COMPLETED)
        assert [attempt.outcome for attempt in await engine.attempts("j")] == [State.CANCELLED]

    async def test_the_latest_hundred_attempts_are_kept(self, engine: Engine) -> None:
        await put_one(engine, "j", max_attempts=10**6)
        tokens = []
        for number in range(107):
            claimed = await take_one(engine)
            tokens.append(claimed.lease.token)
            await end(engine, claimed, Outcome.retrying(0, Failure("Error", str(number))))
        attempts = await engine.attempts("j")
        assert [attempt.token for attempt in attempts] == tokens[7:]
        assert [attempt.failure and attempt.failure.message for attempt in attempts] == [str(n) for n in range(7, 107)]

    async def test_the_attempts_of_a_retried_job_go_on_behind_the_old_ones(self, engine: Engine) -> None:
        first = await start(engine, "j")
        await end(engine, first, FAILED)
        await engine.retry(["j"])
        second = await take_one(engine)
        await end(engine, second, FAILED)
        assert [attempt.token for attempt in await engine.attempts("j")] == [first.lease.token, second.lease.token]

    async def test_the_error_of_the_latest_failed_attempt_is_read_with_the_job(self, engine: Engine) -> None:
        await put_one(engine, "j", max_attempts=9)
        await end(engine, await take_one(engine), Outcome.retrying(0, Failure("A", "first")))
        assert (await info(engine, "j")).error == "A: first"
        claimed = await take_one(engine)
        assert (await info(engine, "j")).error == "A: first"
        await end(engine, claimed, Outcome.retrying(0, Failure("B", "second")))
        assert (await info(engine, "j")).error == "B: second"
