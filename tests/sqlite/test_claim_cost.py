"""A claim costs the same whether a thousand jobs wait or a million, and so does a page of a list."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from oncue.engine import JobFilter
from oncue.engines.sqlite import SQLiteEngine
from oncue.job import State
from oncue.testing.conformance.steps import COMPLETED, LEASE, job
from oncue.testing.invariants import check_invariants
from tests.measured import Report
from tests.sqlite.crowds import crowd

pytestmark = pytest.mark.anyio

FEW = 1_000
ROUNDS = 60

Operation = Callable[[SQLiteEngine], Awaitable[object]]


@dataclass(frozen=True)
class Stores:
    """Files of stores with few jobs and with many: in line, and scheduled for later."""

    many: int
    waiting: dict[int, Path]
    scheduled: dict[int, Path]


@pytest.fixture(
    scope="module",
    params=[pytest.param(100_000, id="100k"), pytest.param(1_000_000, id="1m", marks=pytest.mark.soak)],
)
def stores(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Stores:
    """Make the four stores."""
    many, folder = request.param, tmp_path_factory.mktemp("crowds")
    stores = Stores(
        many,
        {jobs: folder / f"waiting-{jobs}.db" for jobs in (FEW, many)},
        {jobs: folder / f"scheduled-{jobs}.db" for jobs in (FEW, many)},
    )
    for jobs in (FEW, many):
        asyncio.run(crowd(stores.waiting[jobs], jobs, job()))
        asyncio.run(crowd(stores.scheduled[jobs], jobs, job(delay=9999, expires_in=60)))
    return stores


async def costs(paths: dict[int, Path], operation: Operation, *, rounds: int = ROUNDS) -> tuple[float, float]:
    """Return the median cost of an operation in the store with few jobs and in that with many, in milliseconds.

    It is the processor's time, of all threads: what other programs do to the clock on the wall does not count.
    """
    few, many = paths.values()
    # Not durable: the disk's time would hide the difference.
    async with (
        SQLiteEngine(f"sqlite:///{few}?synchronous=normal") as small,
        SQLiteEngine(f"sqlite:///{many}?synchronous=normal") as large,
    ):
        taken: dict[SQLiteEngine, list[float]] = {small: [], large: []}
        for round_ in range(rounds + 3):
            for engine, times in taken.items():
                began = time.process_time()
                await operation(engine)
                if round_ >= 3:  # the first read the file
                    times.append((time.process_time() - began) * 1e3)
        await check_invariants(small)
        return statistics.median(taken[small]), statistics.median(taken[large])


async def claim_five(engine: SQLiteEngine) -> None:
    claim = await engine.claim(["default"], limit=5, worker_id="w", lease=LEASE)
    assert len(claim.jobs) == 5
    assert all(await engine.finish([(one.lease, COMPLETED) for one in claim.jobs]))


async def enqueue_and_claim_beside(engine: SQLiteEngine) -> None:
    await engine.enqueue([job(queue="other")])
    claim = await engine.claim(["other", "default"], limit=5, worker_id="w", lease=LEASE)
    (one,) = claim.jobs
    assert claim.next_due_in is not None
    assert await engine.finish([(one.lease, COMPLETED)]) == [True]


async def test_a_claim_costs_the_same_however_many_jobs_wait(stores: Stores, report: Report) -> None:
    few, many = await costs(stores.waiting, claim_five)
    report(f"claim and finish 5 of {stores.many:,} in line", many, "ms")
    report(f"claim and finish 5 of {stores.many:,} : of {FEW:,}", many / few, "x")
    assert many < 2 * few


async def test_a_claim_costs_the_same_however_many_jobs_are_scheduled(stores: Stores, report: Report) -> None:
    few, many = await costs(stores.scheduled, enqueue_and_claim_beside)
    report(f"enqueue, claim and finish 1 beside {stores.many:,} scheduled", many, "ms")
    report(f"enqueue, claim and finish 1 beside {stores.many:,} : beside {FEW:,}", many / few, "x")
    assert many < 2 * few


async def test_a_turn_of_rescue_costs_the_same_however_many_jobs_may_expire(stores: Stores, report: Report) -> None:
    few, many = await costs(stores.scheduled, lambda engine: engine.rescue(limit=100, lease=LEASE), rounds=20)
    report(f"rescue with {stores.many:,} that may expire : with {FEW:,}", many / few, "x")
    assert many < 2 * few


async def test_a_turn_of_prune_costs_the_same_however_many_jobs_there_are(stores: Stores, report: Report) -> None:
    few, many = await costs(stores.waiting, lambda engine: engine.prune(limit=100, keep_finished=10**6), rounds=20)
    report(f"prune among {stores.many:,} : among {FEW:,}", many / few, "x")
    assert many < 2 * few


@pytest.mark.parametrize(
    "where",
    [
        JobFilter(),
        JobFilter(states=frozenset([State.QUEUED])),
        JobFilter(states=frozenset([State.QUEUED, State.RUNNING]), queue="default"),
        JobFilter(task="task"),
        JobFilter(queue="default"),
        JobFilter(states=frozenset([State.QUEUED]), task="task", queue="default"),
        JobFilter(states=frozenset([State.FAILED])),
        JobFilter(task="rare"),
        JobFilter(queue="rare"),
        JobFilter(states=frozenset([State.QUEUED]), task="rare"),
        JobFilter(states=frozenset([State.QUEUED]), queue="rare"),
        JobFilter(task="task", queue="rare"),
    ],
    ids=lambda where: "+".join([*sorted(where.states), where.task or "", where.queue or ""]),
)
async def test_a_page_of_a_list_costs_the_same_however_many_jobs_there_are(
    stores: Stores, report: Report, where: JobFilter
) -> None:
    few, many = await costs(stores.waiting, lambda engine: engine.list_jobs(where, limit=50), rounds=10)
    words = [*sorted(where.states), where.task and f"task {where.task}", where.queue and f"queue {where.queue}"]
    report(f"a page of {stores.many:,} jobs: {' '.join(filter(None, words)) or 'all'}", many, "ms")
    assert many < 2 * few + 1


async def test_a_store_with_very_many_jobs_is_as_the_engine_makes_it(stores: Stores) -> None:
    # The copies are made beside the engine: what was measured must be a store like any other.
    async with SQLiteEngine(f"sqlite:///{stores.scheduled[FEW]}") as engine:
        await check_invariants(engine)
        assert {queue.name: sum(queue.counts.values()) for queue in await engine.queues()}["default"] == FEW
