"""`enqueue`: what becomes of requests, when jobs are due, and what a request that was sent before is told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from oncue.engine import MAX_BATCH, Engine
from oncue.job import NewJob, State, new_id
from oncue.testing.conformance.base import Conformance
from oncue.testing.conformance.invariants import all_jobs
from oncue.testing.conformance.steps import (
    FAILED,
    advance,
    drain,
    end,
    ended,
    info,
    job,
    put,
    put_one,
    start,
    state,
    take,
    take_one,
)

__all__ = ["EnqueueConformance"]

TICK = timedelta(milliseconds=1)
"""The precision of times in a store."""


class EnqueueConformance(Conformance):
    """Cases of `enqueue`."""

    async def test_a_new_job_is_queued_and_answered_as_created(self, engine: Engine) -> None:
        new = job()
        (answer,) = await engine.enqueue([new])
        assert (answer.id, answer.created, answer.state, answer.conflict) == (new.id, True, State.QUEUED, None)
        assert await state(engine, new.id) is State.QUEUED

    async def test_an_empty_batch_of_requests_is_answered_with_nothing(self, engine: Engine) -> None:
        assert await engine.enqueue([]) == []
        assert await all_jobs(engine) == []

    async def test_a_new_job_reads_as_it_was_asked_for(self, engine: Engine) -> None:
        meta = {"tenant": "acme", "": "empty key", "empty value": ""}
        await put(
            engine,
            NewJob(
                id="j",
                task="pkg.mod:task",
                queue="mail.high:1",
                payload=b"\x01 arguments",
                request=b"mark",
                priority=7,
                expires_in=60.5,
                timeout=2.25,
                max_attempts=4,
                max_crashes=2,
                keep=12.5,
                meta=meta,
            ),
        )
        read = await info(engine, "j", bodies=True)
        assert (read.task, read.queue, read.priority, read.payload) == (
            "pkg.mod:task",
            "mail.high:1",
            7,
            b"\x01 arguments",
        )
        assert (read.timeout, read.max_attempts, read.max_crashes) == (2.25, 4, 2)
        assert dict(read.meta) == meta
        assert read.expires_at is not None
        assert read.expires_at - read.due_at == timedelta(seconds=60.5)
        assert (read.attempts, read.crashes, read.waiting_for, read.cancel_requested) == (0, 0, 0, False)
        assert (read.reason, read.started_at, read.finished_at, read.worker) == (None, None, None, None)
        assert (read.error, read.progress, read.result, read.unique_key) == (None, None, None, None)
        claimed = await take_one(engine, queues=["mail.high:1"])
        assert (claimed.task, claimed.queue, claimed.payload) == ("pkg.mod:task", "mail.high:1", b"\x01 arguments")
        assert (claimed.priority, claimed.timeout, claimed.keep) == (7, 2.25, 12.5)
        assert (claimed.max_attempts, claimed.max_crashes, claimed.crashes) == (4, 2, 0)
        assert dict(claimed.meta) == meta
        assert (claimed.created_at, claimed.due_at) == (read.created_at, read.due_at)

    async def test_a_job_that_asks_for_nothing_special_has_the_defaults(self, engine: Engine) -> None:
        await put(engine, NewJob(id="j", task="t"))
        read = await info(engine, "j", bodies=True)
        assert (read.queue, read.payload, read.priority, dict(read.meta)) == ("default", b"", 0, {})
        assert (read.expires_at, read.timeout, read.max_attempts, read.max_crashes) == (None, None, 1, 3)
        assert (await take_one(engine)).keep == 86_400

    async def test_times_are_aware_and_a_job_without_delay_is_due_when_it_is_made(self, engine: Engine) -> None:
        read = await info(engine, await put_one(engine))
        assert read.created_at.utcoffset() == timedelta(0)
        assert read.due_at.utcoffset() == timedelta(0)
        assert read.due_at == read.created_at

    async def test_answers_come_in_the_order_of_the_requests(self, engine: Engine) -> None:
        await put(engine, job("old"))
        requests = [job(), job("old"), job(delay=60), job(after=("old",)), job(after=("never",))]
        answers = await engine.enqueue(requests)
        assert [answer.id for answer in answers] == [request.id for request in requests]
        assert [answer.created for answer in answers] == [True, False, True, True, True]
        assert [answer.state for answer in answers] == [
            State.QUEUED,
            State.QUEUED,
            State.SCHEDULED,
            State.WAITING,
            State.CANCELLED,
        ]

    async def test_a_batch_of_the_largest_size_is_accepted_whole(self, engine: Engine) -> None:
        requests = [job(payload=str(number).encode()) for number in range(MAX_BATCH)]
        await put(engine, *requests)
        read = await engine.get([request.id for request in requests], bodies=True)
        assert [one and one.payload for one in read] == [request.payload for request in requests]
        assert {one and one.state for one in read} == {State.QUEUED}

    async def test_a_taken_id_answers_with_its_holder(self, engine: Engine) -> None:
        await put(engine, job("j"))
        (answer,) = await engine.enqueue([job("j")])
        assert (answer.id, answer.created, answer.state, answer.conflict) == ("j", False, State.QUEUED, "id")

    async def test_a_taken_id_answers_with_the_present_state_of_its_holder(self, engine: Engine) -> None:
        claimed = await start(engine, "j")
        (answer,) = await engine.enqueue([job("j")])
        assert (answer.created, answer.state, answer.conflict) == (False, State.RUNNING, "id")
        await end(engine, claimed)
        (answer,) = await engine.enqueue([job("j")])
        assert (answer.created, answer.state, answer.conflict) == (False, State.COMPLETED, "id")

    async def test_another_request_for_a_taken_id_changes_nothing_of_its_holder(self, engine: Engine) -> None:
        await put(engine, job("j", payload=b"first", task="first", priority=1))
        before = await info(engine, "j", bodies=True)
        await engine.enqueue([job("j", payload=b"second", task="second", queue="other", priority=9, delay=60)])
        assert await info(engine, "j", bodies=True) == before
        assert await take(engine, queues=["other"]) == []

    async def test_a_request_without_a_mark_does_not_make_a_second_job(self, engine: Engine) -> None:
        await put(engine, NewJob(id="j", task="t", payload=b"first"))
        (answer,) = await engine.enqueue([NewJob(id="j", task="t", payload=b"second")])
        assert answer.id == "j"
        assert (await info(engine, "j", bodies=True)).payload == b"first"
        assert len(await all_jobs(engine)) == 1

    async def test_a_resent_request_answers_as_the_first_did(self, engine: Engine) -> None:
        request = job("j")
        first = await engine.enqueue([request])
        assert await engine.enqueue([request]) == first
        assert len(await all_jobs(engine)) == 1

    async def test_a_resent_request_is_recognised_wherever_the_job_is_by_now(self, engine: Engine) -> None:
        request = job("j")
        await put(engine, request)
        claimed = await take_one(engine)
        (answer,) = await engine.enqueue([request])
        assert (answer.created, answer.state, answer.conflict) == (True, State.RUNNING, None)
        await end(engine, claimed, FAILED)
        (answer,) = await engine.enqueue([request])
        assert (answer.created, answer.state, answer.conflict) == (True, State.FAILED, None)
        assert await take(engine) == []

    async def test_a_resent_request_that_lost_its_id_is_told_so_again(self, engine: Engine) -> None:
        await put(engine, job("j"))
        late = job("j")
        first = await engine.enqueue([late])
        assert [answer.created for answer in first] == [False]
        assert await engine.enqueue([late]) == first

    async def test_a_batch_in_which_one_job_is_in_the_way_accepts_the_others(self, engine: Engine) -> None:
        await put(engine, job("taken"))
        before, after = job(), job()
        answers = await engine.enqueue([before, job("taken"), after])
        assert [answer.created for answer in answers] == [True, False, True]
        assert len(await all_jobs(engine)) == 3

    async def test_one_id_asked_for_twice_in_a_batch_is_one_job(self, engine: Engine) -> None:
        answers = await engine.enqueue([job("j", payload=b"first"), job("j", payload=b"second")])
        assert [(answer.id, answer.created, answer.conflict) for answer in answers] == [
            ("j", True, None),
            ("j", False, "id"),
        ]
        assert (await info(engine, "j", bodies=True)).payload == b"first"

    async def test_a_batch_resent_with_new_jobs_added_makes_only_those(self, engine: Engine) -> None:
        old = [job() for _ in range(3)]
        await put(engine, *old)
        new = [job() for _ in range(3)]
        answers = await engine.enqueue([*old, *new])
        assert [answer.created for answer in answers] == [True] * 6
        assert len(await all_jobs(engine)) == 6

    async def test_an_id_is_free_again_once_its_job_was_deleted(self, engine: Engine) -> None:
        await ended(engine, job_id="j")
        assert await engine.delete(["j"]) == [True]
        await put(engine, job("j", payload=b"new"))
        read = await info(engine, "j", bodies=True)
        assert (read.state, read.payload, read.result, read.attempts) == (State.QUEUED, b"new", None, 0)

    async def test_a_delayed_job_is_scheduled_for_its_time(self, engine: Engine) -> None:
        (answer,) = await engine.enqueue([job("j", delay=90.5)])
        assert answer.state is State.SCHEDULED
        read = await info(engine, "j")
        assert read.state is State.SCHEDULED
        assert abs(read.due_at - read.created_at - timedelta(seconds=90.5)) <= TICK

    async def test_a_job_with_a_time_in_the_future_is_scheduled_for_it(self, engine: Engine) -> None:
        moment = datetime.now(UTC).replace(microsecond=0) + timedelta(days=2)
        await put(engine, job("j", run_at=moment))
        read = await info(engine, "j")
        assert (read.state, read.due_at) == (State.SCHEDULED, moment)

    async def test_a_time_wins_over_a_delay(self, engine: Engine) -> None:
        moment = datetime.now(UTC).replace(microsecond=0) + timedelta(days=2)
        await put(engine, job("j", run_at=moment, delay=5), job("past", run_at=moment - timedelta(days=4), delay=5))
        assert (await info(engine, "j")).due_at == moment
        assert [claimed.id for claimed in await take(engine)] == ["past"]

    async def test_a_time_is_an_instant_whatever_its_zone(self, engine: Engine) -> None:
        moment = datetime.now(UTC).replace(microsecond=0) + timedelta(days=2)
        zone = timezone(timedelta(hours=5, minutes=45))
        await put(engine, job("j", run_at=moment.astimezone(zone)))
        assert (await info(engine, "j")).due_at == moment

    @pytest.mark.parametrize(
        "moment",
        [datetime(1, 1, 2, tzinfo=UTC), datetime(1969, 12, 31, 23, tzinfo=UTC), datetime(2001, 9, 9, tzinfo=UTC)],
        ids=["year-1", "before-1970", "2001"],
    )
    async def test_a_time_in_the_past_runs_at_once(self, engine: Engine, moment: datetime) -> None:
        (answer,) = await engine.enqueue([job("j", run_at=moment)])
        assert answer.state is State.QUEUED
        read = await info(engine, "j")
        assert read.due_at <= read.created_at
        assert (await take_one(engine)).id == "j"

    @pytest.mark.parametrize("delay", [0, 0.0, -0.0, -3600.0])
    async def test_a_delay_that_is_not_positive_runs_at_once(self, engine: Engine, delay: float) -> None:
        (answer,) = await engine.enqueue([job("j", delay=delay)])
        assert answer.state is State.QUEUED
        assert (await take_one(engine)).id == "j"

    async def test_a_job_of_the_year_9999_waits_in_line_without_harm(self, engine: Engine) -> None:
        last = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
        await put(engine, job("last", run_at=last), job("later", delay=200_000_000_000), job("now"))
        assert (await info(engine, "last")).due_at == last
        assert (await info(engine, "later")).due_at.year > 6000
        assert await drain(engine) == ["now"]
        assert [read.state for read in await all_jobs(engine)].count(State.SCHEDULED) == 2

    async def test_a_job_of_the_year_9999_may_expire_and_be_kept_for_longer_than_time_lasts(
        self, engine: Engine
    ) -> None:
        last = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC)
        await put(engine, job("j", run_at=last, expires_in=86_400.0, keep=1e11))
        read = await info(engine, "j")
        assert read.due_at == last
        assert await engine.cancel(["j"]) == ["cancelled"]
        assert await engine.prune(limit=MAX_BATCH, keep_finished=MAX_BATCH) == 0

    async def test_jobs_made_with_fresh_ids_do_not_meet(self, engine: Engine) -> None:
        ids = await put(engine, *[job(new_id()) for _ in range(200)])
        assert len(set(ids)) == len(await all_jobs(engine)) == 200

    async def test_a_scheduled_job_that_is_asked_for_again_keeps_its_time(self, engine: Engine) -> None:
        request = job("j", delay=60)
        await put(engine, request)
        due = (await info(engine, "j")).due_at
        advance(engine, 30)
        await engine.enqueue([request])
        await engine.enqueue([job("j", delay=0)])
        assert (await info(engine, "j")).due_at == due
        assert await take(engine) == []
