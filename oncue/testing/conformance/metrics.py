"""`metrics`: what happened is counted once, by minute, queue and task, with the times that it took."""

from __future__ import annotations

from collections import Counter
from datetime import timedelta

import pytest

from oncue.engine import Engine
from oncue.job import Claimed, Outcome
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
    take,
    take_one,
)

__all__ = ["MetricsConformance"]

HOUR = timedelta(hours=1)
DAY = timedelta(days=1)


async def totals(engine: Engine, *, since: timedelta = DAY) -> dict[str, int]:
    """Sum the counts of all rows; leave out what did not happen."""
    counts: Counter[str] = Counter()
    for row in await engine.metrics(since=since):
        counts.update(row.counts)
    return {name: count for name, count in counts.items() if count}


async def histogram(engine: Engine, which: str) -> dict[int, int]:
    """Sum the histograms `wait` or `run` of all rows."""
    buckets: Counter[int] = Counter()
    for row in await engine.metrics(since=DAY):
        buckets.update(row.wait if which == "wait" else row.run)
    return {bound: count for bound, count in buckets.items() if count}


def milliseconds(duration: timedelta) -> float:
    """Return a duration as the histograms count it."""
    return duration / timedelta(milliseconds=1)


class MetricsConformance(Conformance):
    """Cases of `metrics`."""

    async def test_nothing_happened_in_an_empty_store(self, engine: Engine) -> None:
        assert await totals(engine) == {}

    async def test_each_kind_of_event_is_counted_once(self, engine: Engine) -> None:
        await ended(engine, COMPLETED)
        await ended(engine, COMPLETED)
        await ended(engine, FAILED)
        await ended(engine, Outcome.cancelled())
        await ended(engine, Outcome.retrying(10**6, BOOM))
        await start(engine)
        await pass_leases(engine)
        await put(engine, job(delay=10**6))
        assert await totals(engine) == {
            "enqueued": 7,
            "completed": 2,
            "failed": 1,
            "cancelled": 1,
            "retried": 1,
            "crashed": 1,
        }

    async def test_a_request_that_made_no_job_is_not_counted(self, engine: Engine) -> None:
        await put_one(engine, "j")
        await engine.enqueue([job("j"), job("j"), job("new")])
        assert await totals(engine) == {"enqueued": 2}

    async def test_a_job_cancelled_before_it_started_is_counted(self, engine: Engine) -> None:
        await put(engine, job("j"), job("child", after=("j",)))
        await engine.cancel(["j"])
        assert await totals(engine) == {"enqueued": 2, "cancelled": 2}

    async def test_a_job_that_was_asked_to_stop_is_counted_as_cancelled(self, engine: Engine) -> None:
        claimed = await start(engine, "j")
        await engine.cancel(["j"])
        assert "cancelled" not in await totals(engine)
        await end(engine, claimed, COMPLETED)
        assert await totals(engine) == {"enqueued": 1, "cancelled": 1}

    async def test_a_job_that_crashed_too_often_is_counted_as_crashed_and_failed(self, engine: Engine) -> None:
        await put_one(engine, "j", max_crashes=2)
        for _ in range(2):
            await take_one(engine)
            await pass_leases(engine)
        assert await totals(engine) == {"enqueued": 1, "crashed": 2, "failed": 1}

    async def test_a_job_that_expired_is_counted_as_failed(self, engine: Engine) -> None:
        await put_one(engine, "j", expires_in=5)
        advance(engine, 6)
        await pass_leases(engine)
        assert await totals(engine) == {"enqueued": 1, "failed": 1}

    async def test_attempts_that_are_given_back_are_no_retries(self, engine: Engine) -> None:
        await put_one(engine, "j")
        for outcome in (Outcome.released(), Outcome.snoozed(0), Outcome.parked(0)):
            await end(engine, await take_one(engine), outcome)
        assert await totals(engine) == {"enqueued": 1}

    async def test_a_refused_outcome_is_counted_as_fenced(self, engine: Engine) -> None:
        old = await start(engine, "j", queue="q", task="t")
        await pass_leases(engine)
        new = await take_one(engine, queues=["q"])
        assert "fenced" not in await totals(engine)
        assert await engine.finish([(old.lease, COMPLETED)]) == [False]
        assert (await totals(engine))["fenced"] >= 1
        assert {(row.queue, row.task) for row in await engine.metrics(since=DAY) if row.counts.get("fenced")} == {
            ("q", "t")
        }
        await end(engine, new)

    async def test_an_outcome_that_was_stored_is_not_counted_as_fenced(self, engine: Engine) -> None:
        claimed = await start(engine)
        await end(engine, claimed)
        await end(engine, claimed)
        assert await totals(engine) == {"enqueued": 1, "completed": 1}

    async def test_tasks_and_queues_are_counted_apart(self, engine: Engine) -> None:
        for queue, task in (("a", "x"), ("a", "y"), ("b", "x"), ("a", "x")):
            await ended(engine, queue=queue, task=task)
        done: Counter[tuple[str, str]] = Counter()
        for row in await engine.metrics(since=HOUR):
            done[row.queue, row.task] += row.counts.get("completed", 0)
        assert done == {("a", "x"): 2, ("a", "y"): 1, ("b", "x"): 1}

    async def test_each_minute_is_counted_apart(self, engine: Engine) -> None:
        await ended(engine, job_id="first")
        advance(engine, 600)
        await ended(engine, job_id="second")
        rows = [row for row in await engine.metrics(since=HOUR) if row.counts.get("completed")]
        assert [row.counts["completed"] for row in rows] == [1, 1]
        for row, job_id in zip(rows, ("first", "second"), strict=True):
            finished = (await info(engine, job_id)).finished_at
            assert finished is not None
            assert row.minute == finished.replace(second=0, microsecond=0)

    async def test_each_minute_of_a_task_is_one_row(self, engine: Engine) -> None:
        for _ in range(3):
            await ended(engine)
        keys = [(row.minute, row.queue, row.task) for row in await engine.metrics(since=HOUR)]
        assert len(keys) == len(set(keys))
        assert keys == sorted(keys)

    async def test_only_what_happened_since_then_is_read(self, engine: Engine) -> None:
        await ended(engine)
        advance(engine, 7200)
        await put_one(engine)
        assert await totals(engine, since=HOUR) == {"enqueued": 1}
        assert await totals(engine, since=3 * HOUR) == {"enqueued": 2, "completed": 1}

    async def test_what_happened_is_kept_for_a_day(self, engine: Engine) -> None:
        await ended(engine)
        advance(engine, 23 * 3600)
        await engine.prune(limit=100, keep_finished=100)
        assert await totals(engine) == {"enqueued": 1, "completed": 1}

    async def test_what_happened_before_is_pruned_after_a_day(self, engine: Engine) -> None:
        await ended(engine)
        advance(engine, 26 * 3600)
        await engine.prune(limit=100, keep_finished=100)
        assert await totals(engine, since=7 * DAY) == {}

    async def test_what_happened_to_a_deleted_job_did_happen(self, engine: Engine) -> None:
        await ended(engine, job_id="j")
        await engine.delete(["j"])
        assert await totals(engine) == {"enqueued": 1, "completed": 1}

    @pytest.mark.parametrize("seconds", [0.5, 8, 3000, 40_000])
    async def test_the_time_from_due_to_start_is_measured(self, engine: Engine, seconds: float) -> None:
        await put_one(engine)
        advance(engine, seconds)
        claimed = await take_one(engine)
        await end(engine, claimed)
        assert_bucket(await histogram(engine, "wait"), claimed.started_at - claimed.due_at)

    async def test_the_time_to_start_runs_from_the_due_time_of_the_attempt(self, engine: Engine) -> None:
        await put_one(engine, delay=5000, max_attempts=2)
        advance(engine, 5001)
        first = await take_one(engine)
        await end(engine, first, Outcome.retrying(5000, BOOM))
        advance(engine, 5001)
        second = await take_one(engine)
        await end(engine, second)
        waits = await histogram(engine, "wait")
        assert sum(waits.values()) == 2
        assert max(waits) < 1000 * 1000

    @pytest.mark.parametrize("seconds", [0.5, 8, 3000, 40_000])
    async def test_the_time_from_start_to_end_is_measured(self, engine: Engine, seconds: float) -> None:
        claimed = await start(engine, "j")
        advance(engine, seconds)
        await end(engine, claimed)
        finished = (await info(engine, "j")).finished_at
        assert finished is not None
        assert_bucket(await histogram(engine, "run"), finished - claimed.started_at)

    async def test_times_of_every_attempt_are_measured(self, engine: Engine) -> None:
        await put(engine, *[job(max_attempts=9) for _ in range(5)])
        for outcome in (Outcome.retrying(0, BOOM), Outcome.released(), FAILED):
            await finish_all(engine, await take(engine, 10), outcome)
        assert sum((await histogram(engine, "wait")).values()) == 15
        assert sum((await histogram(engine, "run")).values()) == 15

    async def test_the_bounds_of_the_histograms_are_close_enough(self, engine: Engine) -> None:
        await put(engine, *[job() for _ in range(60)])
        lengths: list[tuple[float, float]] = []
        for claimed in await take(engine, 60):
            advance(engine, 11)
            await end(engine, claimed)
            finished = (await info(engine, claimed.id)).finished_at
            assert finished is not None
            exact = milliseconds(finished - claimed.started_at)
            lengths.append((exact / 1.125 - 1, exact))
        bounds = sorted(bound for bound, count in (await histogram(engine, "run")).items() for _ in range(count))
        assert len(bounds) == 60
        for bound, (least, most) in zip(bounds, lengths, strict=True):
            assert least <= bound <= most


async def finish_all(engine: Engine, claimed: list[Claimed], outcome: Outcome) -> None:
    """Finish attempts that are the current ones."""
    assert await engine.finish([(one.lease, outcome) for one in claimed]) == [True] * len(claimed)


def assert_bucket(buckets: dict[int, int], duration: timedelta) -> None:
    """Check that a histogram holds one duration, in a bucket whose lower bound is close enough to it."""
    exact = milliseconds(duration)
    ((bound, count),) = buckets.items()
    assert count == 1
    assert exact / 1.125 - 1 <= bound <= exact
