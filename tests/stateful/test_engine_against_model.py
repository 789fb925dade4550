"""Whatever is asked of a store, in whatever order, it answers and looks as the reference does."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from pathlib import Path
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from oncue.engine import JobFilter
from oncue.engines.sqlite import SQLiteEngine
from oncue.job import Failure, FeedItem, FeedKind, Lease, NewJob, Outcome, Reason, State, Unique
from tests.stateful.histories import IDS, QUEUES, SPAN, TASKS, WORKERS, SideBySide

BOOM = Failure("ValueError", "boom")


def mostly(value: Any, *others: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """One plain value more often than not."""
    return st.one_of(st.just(value), st.just(value), *others)


some_ids = st.lists(st.sampled_from(IDS), min_size=1, max_size=3)
some_index = st.integers(0, 7)
spans = st.integers(1, 4).map(lambda n: n * SPAN)
uniques = st.builds(
    lambda key, while_, on_conflict, ttl: Unique(key, while_, on_conflict, ttl if while_ == "ttl" else None),
    st.sampled_from(["k", "l"]),
    st.sampled_from(["pending", "running", "ttl"]),
    st.sampled_from(["return", "replace"]),
    spans,
)
new_jobs = st.builds(
    NewJob,
    id=st.sampled_from(IDS),
    task=st.sampled_from(TASKS),
    queue=st.sampled_from(QUEUES),
    payload=st.binary(max_size=3),
    request=mostly(b"1", st.just(b"2")),
    priority=st.integers(0, 1),
    delay=mostly(0, spans),
    expires_in=mostly(None, spans),
    timeout=mostly(None, st.just(5.0)),
    max_attempts=st.integers(1, 3),
    max_crashes=st.integers(1, 3),
    keep=mostly(86_400.0, spans.map(float)),
    meta=mostly({}, st.just({"k": "v"})),
    after=mostly((), st.lists(st.sampled_from(IDS), min_size=1, max_size=3).map(tuple)),
    after_any=st.booleans(),
    run_at=st.none(),
    unique=mostly(None, uniques),
)
outcomes = st.one_of(
    st.binary(max_size=3).map(Outcome.completed),
    st.just(Outcome.failed(Reason.ERROR, BOOM)),
    st.just(Outcome.retrying(0, BOOM)),
    spans.map(lambda delay: Outcome.retrying(delay, BOOM)),
    spans.map(Outcome.snoozed),
    spans.map(Outcome.parked),
    st.just(Outcome.released()),
    st.just(Outcome.cancelled()),
)
filters = itertools.cycle(
    [
        JobFilter(frozenset(states), queue, task)
        for states in [(), (State.QUEUED,), (State.RUNNING, State.RETRYING), (State.FAILED, State.CANCELLED)]
        for queue in (None, *QUEUES)
        for task in (None, *TASKS)
    ]
)


class Stores(RuleBasedStateMachine):
    """Every call of the contract as a rule. A subclass says which store."""

    url: ClassVar[str] = "sqlite://:memory:"

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="oncue-"))
        self.both = SideBySide(SQLiteEngine(self.url.format(directory=self.directory)))

    def teardown(self) -> None:
        self.both.close()
        shutil.rmtree(self.directory)

    def lease(self, index: int) -> Lease:
        """Return one of the latest leases that were given out; most of them have moved on."""
        granted = self.both.granted
        return granted[-1 - index % len(granted)].lease

    @initialize(jobs=st.lists(new_jobs, min_size=3, max_size=6), twice=st.booleans())
    def begin(self, jobs: list[NewJob], twice: bool) -> None:
        self.both.twice = twice
        self.enqueue(jobs)

    @rule(jobs=st.lists(new_jobs, min_size=1, max_size=4))
    def enqueue(self, jobs: list[NewJob]) -> None:
        self.both.enqueue(jobs)

    @rule(
        job=new_jobs,
        key=st.sampled_from(["k", "l"]),
        while_=st.sampled_from(["pending", "running"]),
        wait=st.booleans(),
    )
    def replace_a_holder(self, job: NewJob, key: str, while_: str, wait: bool) -> None:
        """Take a unique key from its holder, perhaps to run after that very job."""
        holder = self.both.reference.holder(key)
        after = (holder[0],) if wait and holder is not None else job.after
        self.both.enqueue([job._replace(unique=Unique(key, while_, "replace"), after=after)])

    @rule(
        queues=mostly(QUEUES, st.sampled_from([(name,) for name in QUEUES])),
        limit=st.integers(0, 4),
        worker=st.sampled_from(WORKERS),
        knows=mostly("all", st.sampled_from(["nothing", "any"])),
    )
    def claim(self, queues: tuple[str, ...], limit: int, worker: str, knows: str) -> None:
        mine = [row.id for row in self.both.reference.jobs.values() if row.owner == worker]
        held = {"all": mine, "nothing": [], "any": None}[knows]
        self.both.claim(queues, limit, worker, held)

    @rule(worker=st.sampled_from(WORKERS))
    def claim_whatever_there_is(self, worker: str) -> None:
        self.claim(QUEUES, 4, worker, "all")

    @precondition(lambda self: self.both.granted)
    @rule(ends=st.lists(st.tuples(some_index, outcomes), min_size=1, max_size=4))
    def finish(self, ends: list[tuple[int, Outcome]]) -> None:
        self.both.finish([(self.lease(index), outcome) for index, outcome in ends])

    @precondition(lambda self: self.both.granted)
    @rule(
        index=some_index, outcome=outcomes, forged=st.sampled_from([{"nonce": b""}, {"nonce": b"?" * 16}, {"token": 1}])
    )
    def finish_by_a_forged_lease(self, index: int, outcome: Outcome, forged: dict[str, Any]) -> None:
        self.both.finish([(self.lease(index)._replace(**forged), outcome)])

    @precondition(lambda self: self.both.granted)
    @rule(worker=st.sampled_from(WORKERS), indexes=st.lists(some_index, max_size=4))
    def heartbeat(self, worker: str, indexes: list[int]) -> None:
        self.both.heartbeat(worker, [self.lease(index) for index in indexes])

    @precondition(lambda self: self.both.granted)
    @rule(index=some_index, kinds=st.lists(st.sampled_from(list(FeedKind)), max_size=3), again=st.booleans())
    def append(self, index: int, kinds: list[FeedKind], again: bool) -> None:
        lease = self.lease(index)
        row = self.both.reference.jobs.get(lease.job_id)
        sent = {key: item for key, item in (row.feed if row else {}).items() if key[0] == lease.token}
        if again and sent:
            items = [item for _, item in sorted(sent.items())]
        else:
            first = 1 + max((ordinal for _, ordinal in sent), default=0)
            items = [FeedItem(lease.token, first + n, kind, b"%d" % n) for n, kind in enumerate(kinds)]
        self.both.append(lease, items)

    @rule(what=st.sampled_from(["cancel", "retry", "delete"]), ids=some_ids)
    def manage(self, what: str, ids: list[str]) -> None:
        getattr(self.both, what)(ids)

    @rule(queue=st.sampled_from(QUEUES), paused=mostly(False, st.just(True)))
    def pause_or_resume(self, queue: str, paused: bool) -> None:
        self.both.set_queue(queue, paused=paused)

    @rule(steps=st.integers(1, 6))
    def time_passes(self, steps: int) -> None:
        self.both.advance(steps)

    @rule(rounds=st.integers(1, 5))
    def rescuers_are_at_work(self, rounds: int) -> None:
        for _ in range(rounds):
            self.both.rescue()
            self.both.advance(2)
        self.both.rescue()

    @rule(dead=st.lists(st.sampled_from(WORKERS), max_size=2), limit=st.integers(1, 2))
    def rescue_a_few(self, dead: list[str], limit: int) -> None:
        self.both.rescue(limit=1000 if self.both.reference.late(within=10) else limit, dead=dead)

    @rule(keep_finished=st.integers(0, 5))
    def prune(self, keep_finished: int) -> None:
        self.both.prune(keep_finished=keep_finished)

    @invariant()
    def both_look_alike(self) -> None:
        self.both.compare()
        self.both.compare_filters(next(filters))
        self.both.compare_events()


class StoresOnDisk(Stores):
    """The same on a file, read through a connection of its own, and closed at times."""

    url = "sqlite:///{directory}/jobs.db"

    @rule()
    def close_and_open(self) -> None:
        self.both.reopen()


def check(machine: type[Stores], *phases: Phase, **options: Any) -> None:
    """Run histories until one fails. Cutting it down to what it needs takes minutes, so only the long test does."""
    fixed = settings(deadline=None, database=None, suppress_health_check=list(HealthCheck), report_multiple_bugs=False)
    fixed = settings(fixed, phases=[Phase.generate, *phases], stateful_step_count=40)
    run_state_machine_as_test(machine, settings=settings(fixed, **options))


def test_a_store_in_memory_behaves_as_the_model_says() -> None:
    check(Stores, max_examples=120, derandomize=True)


def test_a_store_on_disk_behaves_as_the_model_says() -> None:
    check(StoresOnDisk, max_examples=30, derandomize=True)


@pytest.mark.soak
@pytest.mark.parametrize("machine", [Stores, StoresOnDisk])
def test_a_store_behaves_as_the_model_says_for_a_long_time(machine: type[Stores]) -> None:
    check(machine, Phase.shrink, max_examples=2_000)
