"""A store and the reference side by side: every call goes to both, and both must answer and look alike afterwards.

How long anything lasts is a multiple of `SPAN`, and time passes in spans, so that the milliseconds which the machine
really takes never decide whether something is due. All the rest of the order is that of the calls.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Collection, Coroutine, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import product
from typing import Any, Final, TypeVar

from oncue.engine import CancelAnswer, Engine, Enqueued, Hold, JobFilter, Rescued, WorkerInfo
from oncue.job import Claimed, FeedItem, JobInfo, Lease, NewJob, Outcome, State
from oncue.testing.conformance.invariants import all_jobs
from oncue.testing.invariants import check_invariants
from tests.model.machine import FINAL
from tests.model.reference import Reference, Row

T = TypeVar("T")

SPAN: Final = 20
"""Seconds."""
LEASE: Final = timedelta(seconds=3 * SPAN)
QUEUES: Final = ("left", "right")
TASKS: Final = ("walk", "run")
IDS: Final = ("a", "b", "c", "d", "e", "f", "g", "h")
WORKERS: Final = ("w1", "w2", "w3")
_DRIFT: Final = timedelta(seconds=SPAN / 2)


class SideBySide:
    """One store, one reference, and what the workers remember of the attempts that they were ever handed."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self.reference = Reference(lease_ms=LEASE // timedelta(milliseconds=1))
        self.granted: list[Claimed] = []
        self.twice = False
        """Send each write a second time, as after a lost reply."""
        self._began = datetime.now(UTC)
        self._revisions: dict[str, tuple[int, str]] = {}
        self._runner = asyncio.Runner()
        self._run(engine.open())

    def close(self) -> None:
        self._run(self.engine.close())
        self._runner.close()

    def reopen(self) -> None:
        """Close the store, as at the end of a process, and open it again; only a file outlives that."""
        self._run(self.engine.close())
        self._run(self.engine.open())

    def _run(self, call: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(call)

    def advance(self, spans: int) -> None:
        self.engine.advance(timedelta(seconds=spans * SPAN))
        self.reference.tick(spans * SPAN * 1000)

    # Writes

    def send(self, call: Callable[[], Coroutine[Any, Any, T]]) -> T:
        """Make one call of the store, at a millisecond of its own: two in one would leave their order open."""
        self.engine.advance(timedelta(milliseconds=1))
        return self._run(call())

    def repeat(self, step: Callable[[], T]) -> T:
        """Take a step, perhaps twice; return what the first answered."""
        answer = step()
        if self.twice:
            step()
        return answer

    def enqueue(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
        def step() -> list[Enqueued]:
            answers, expected = self.send(lambda: self.engine.enqueue(jobs)), self.reference.enqueue(jobs)
            if any(job.unique is not None and job.unique.on_conflict == "replace" for job in jobs):
                # One job of a batch may have replaced another: the answer may tell of a state that has passed.
                answers = [one._replace(state=other.state) for one, other in zip(answers, expected, strict=True)]
            assert answers == expected
            return answers

        # What stood in a job's way the first time may have been replaced by a later one of the batch.
        answers = step()
        return (
            [max(pair, key=lambda one: one.created) for pair in zip(answers, step(), strict=True)]
            if self.twice
            else answers
        )

    def cancel(self, ids: Sequence[str]) -> list[CancelAnswer]:
        def step() -> list[CancelAnswer]:
            answers = self.send(lambda: self.engine.cancel(ids))
            assert answers == self.reference.cancel(ids)
            return answers

        return self.repeat(step)

    def retry(self, ids: Sequence[str]) -> list[bool]:
        def step() -> list[bool]:
            answers = self.send(lambda: self.engine.retry(ids))
            assert answers == self.reference.retry(ids)
            return answers

        return self.repeat(step)

    def delete(self, ids: Sequence[str]) -> list[bool]:
        def step() -> list[bool]:
            answers = self.send(lambda: self.engine.delete(ids))
            assert answers == self.reference.delete(ids)
            self._forget_revisions()
            return answers

        return self.repeat(step)

    def set_queue(self, queue: str, *, paused: bool) -> None:
        def step() -> None:
            self.send(lambda: self.engine.set_queue(queue, paused=paused))
            self.reference.set_queue(queue, paused=paused)

        self.repeat(step)

    def claim(self, queues: Sequence[str], limit: int, worker: str, held: Collection[str] | None) -> list[Claimed]:
        """Claim; sent twice, the second call is one of its own, which may be told again of all that the first got."""

        def step() -> list[Claimed]:
            late = {row.id for row in self.reference.late(within=10)}
            if any(late & row.waits_for for row in self.reference.jobs.values()):
                # Whether a claim that expires a job goes on with those that waited for it is open: not in one call.
                self.rescue()
            call = partial(self.engine.claim, queues, limit=limit, worker_id=worker, lease=LEASE, held=held)
            answer = self.send(call)
            known = {row.id: (row.token, row.nonce) for row in self.reference.jobs.values() if row.owner == worker}
            rows = self.reference.claim(queues, limit, worker, held)
            again = {row.id for row in rows if row.id in known}
            assert [one.id for one in answer.jobs if one.id not in again] == [r.id for r in rows if r.id not in again]
            assert {one.id: one.lease[1:] for one in answer.jobs if one.id in again} == {i: known[i] for i in again}
            assert len(answer.jobs) == len(rows)
            for claimed in answer.jobs:
                self.reference.grant(claimed)
                assert offer_of(claimed) == offer_by(self.reference.jobs[claimed.id])
                if claimed.lease not in [old.lease for old in self.granted]:
                    self.granted.append(claimed)
            self._check_next_due(answer.next_due_in)
            return list(answer.jobs)

        answers = [claimed for _ in range(1 + self.twice) for claimed in step()]
        return list({claimed.lease: claimed for claimed in answers}.values())

    def _check_next_due(self, answered: float | None) -> None:
        timed = [row.due for row in self.reference.jobs.values() if row.state in ("scheduled", "retrying")]
        if answered is None or not timed:
            assert answered is None, f"something is due in {answered} seconds, but nothing waits for a time"
            assert not timed, "a job waits for a time, but the claim did not say so"
        else:
            assert abs(answered * 1000 - (min(timed) - self.reference.now)) < SPAN * 500

    def heartbeat(self, worker: str, leases: Sequence[Lease]) -> list[Hold]:
        def step() -> list[Hold]:
            answers = self.send(lambda: self.engine.heartbeat(WorkerInfo(worker), leases, lease=LEASE))
            assert answers == self.reference.heartbeat(leases)
            return answers

        return self.repeat(step)

    def finish(self, outcomes: Sequence[tuple[Lease, Outcome]]) -> list[bool]:
        def step() -> list[bool]:
            answers = self.send(lambda: self.engine.finish(outcomes))
            assert answers == self.reference.finish(outcomes)
            return answers

        return self.repeat(step)

    def append(self, lease: Lease, items: Sequence[FeedItem]) -> bool:
        def step() -> bool:
            answer = self.send(lambda: self.engine.append(lease, items))
            assert answer == self.reference.append(lease, items)
            return answer

        return self.repeat(step)

    def rescue(self, *, limit: int = 1000, dead: Collection[str] = ()) -> list[Rescued]:
        def step() -> list[Rescued]:
            answer = self.send(lambda: self.engine.rescue(limit=limit, lease=LEASE, dead=dead))
            allowed = self.reference.rescuable(dead)
            taken = [one.job_id for one in answer]
            assert len(set(taken)) == len(taken) == min(limit, len(allowed))
            assert set(taken) <= allowed
            owners = {row.id: row.owner for row in self.reference.of(taken)}
            self.reference.rescue(taken)
            for one in answer:
                row = self.reference.jobs[one.job_id]
                assert (one.task, one.queue, one.worker) == (row.new.task, row.new.queue, owners[row.id])
                assert (one.state, one.crashes) == (row.state, row.crashes)
            return answer

        return [rescued for _ in range(1 + self.twice) for rescued in step()]

    def prune(self, *, keep_finished: int) -> int:
        def step() -> int:
            count = self.send(lambda: self.engine.prune(limit=1000, keep_finished=keep_finished))
            old, surplus = self.reference.prunable(keep_finished)
            left = {info.id for info in self._run(all_jobs(self.engine))}
            gone = self.reference.jobs.keys() - left
            assert len(gone) == count
            assert all(row.state in FINAL for row in self.reference.of(gone))
            assert not [job_id for job_id in gone if self.reference.wanted(job_id, waiting=True)]
            # One that an open job was enqueued to run after may be spared.
            spared = {job_id for job_id in left if self.reference.wanted(job_id, waiting=False)}
            assert old - spared <= gone
            assert len(old) + surplus - len(spared) <= count <= len(old) + surplus
            for one, other in product(self.reference.of(gone - old), self.reference.of(left - spared)):
                if other.state in FINAL and one.new.keep == other.new.keep:
                    assert one.ended <= other.ended, f"{one.id} was pruned, but {other.id} is older"
            self.reference.forget(gone)
            self._forget_revisions()
            return count

        return self.repeat(step)

    def _forget_revisions(self) -> None:
        self._revisions = {job_id: seen for job_id, seen in self._revisions.items() if job_id in self.reference.jobs}

    # Reads

    def compare(self) -> None:
        """Read the whole store and compare it with the reference."""
        self._run(self._compare())

    async def _compare(self) -> None:
        engine, reference = self.engine, self.reference
        ids = sorted({*IDS, *reference.jobs})
        infos, listed, queues = await asyncio.gather(
            engine.get(ids, bodies=True), all_jobs(engine, limit=3), engine.queues()
        )
        for job_id, info in zip(ids, infos, strict=True):
            row = reference.jobs.get(job_id)
            assert (info is None) == (row is None), f"{job_id}: the store has {info}, the reference {row}"
            if info is not None and row is not None:
                told, known = facts_of(info), facts_by(row)
                if row.blurred:
                    told["reason"] = known["reason"]
                differing = {name: (told[name], known[name]) for name in told if told[name] != known[name]}
                assert not differing, f"{job_id}: the store and the reference differ in {differing}"
                self._check_times(info, row)
                self._check_revision(info)
        newest_first = sorted(reference.jobs.values(), key=lambda row: -row.seq)
        assert [info.id for info in listed] == [row.id for row in newest_first]
        counts = {queue.name: {state: n for state, n in queue.counts.items() if n} for queue in queues}
        expected: dict[str, Counter[str]] = {name: Counter() for name in reference.paused}
        for row in newest_first:
            expected.setdefault(row.new.queue, Counter())[row.state] += 1
        assert counts == expected
        assert {queue.name for queue in queues if queue.paused} == reference.paused
        await self._compare_histories()
        await check_invariants(engine)

    async def _compare_histories(self) -> None:
        rows = list(self.reference.jobs.values())
        attempts = await asyncio.gather(*[self.engine.attempts(row.id) for row in rows])
        feeds = await asyncio.gather(*[self.engine.read(row.id) for row in rows])
        for row, past, feed in zip(rows, attempts, feeds, strict=True):
            listed = [(one.token, one.number, one.worker, one.outcome) for one in past]
            assert listed == row.history, f"{row.id}: the store lists {listed}, the reference {row.history}"
            told = [(item.token, item.ordinal, item.kind, item.body) for item in feed]
            assert told == [item[:4] for _, item in sorted(row.feed.items())]

    def look(self) -> list[JobInfo]:
        """Read all jobs."""
        return self._run(all_jobs(self.engine))

    def compare_filters(self, where: JobFilter) -> None:
        """Read one filtered list and compare it."""
        listed = self._run(all_jobs(self.engine, where, limit=2))
        rows = [row for row in self.reference.jobs.values() if fits(row, where)]
        assert [info.id for info in listed] == [row.id for row in sorted(rows, key=lambda row: -row.seq)]

    def compare_events(self) -> None:
        """Compare how often things happened with what the store counted."""
        counted: Counter[str] = Counter()
        for row in self._run(self.engine.metrics(since=timedelta(days=1))):
            counted.update(row.counts)
        for event in ("enqueued", "completed", "failed", "retried", "crashed"):
            assert counted[event] == self.reference.events[event], event

    def _check_times(self, info: JobInfo, row: Row) -> None:
        for told, ms in ((info.created_at, row.created), (info.due_at, row.due), (info.expires_at, row.expires)):
            assert (told is None) == (ms is None)
            if told is not None and ms is not None:
                assert abs(told - self._began - timedelta(milliseconds=ms)) < _DRIFT

    def _check_revision(self, info: JobInfo) -> None:
        """A revision never falls, and grows when the state changes."""
        before, state = self._revisions.get(info.id, (0, ""))
        assert info.revision > before or (info.revision == before and info.state == state)
        self._revisions[info.id] = (info.revision, info.state)


def facts_of(info: JobInfo) -> dict[str, object]:
    """What a store says of a job that does not depend on the moment."""
    return {
        "task": info.task,
        "queue": info.queue,
        "state": info.state.value,
        "reason": info.reason,
        "priority": info.priority,
        "attempts": info.attempts,
        "crashes": info.crashes,
        "limits": (info.max_attempts, info.max_crashes, info.timeout),
        "worker": info.worker,
        "cancel requested": info.cancel_requested and info.state is State.RUNNING,
        "waiting for": info.waiting_for,
        "unique key": info.unique_key,
        "meta": dict(info.meta),
        "payload": info.payload,
        "result": info.result,
        "has ended": info.finished_at is not None,
    }


def facts_by(row: Row) -> dict[str, object]:
    """What the reference says of the same."""
    new = row.new
    return {
        "task": new.task,
        "queue": new.queue,
        "state": row.state,
        "reason": row.reason,
        "priority": new.priority,
        "attempts": row.attempts,
        "crashes": row.crashes,
        "limits": (new.max_attempts, new.max_crashes, new.timeout),
        "worker": row.owner,
        "cancel requested": row.cancel_requested and row.state == "running",
        "waiting for": len(row.waits_for),
        "unique key": None if new.unique is None else new.unique.key,
        "meta": dict(new.meta),
        "payload": new.payload,
        "result": row.result,
        "has ended": row.state in FINAL,
    }


def offer_of(claimed: Claimed) -> tuple[object, ...]:
    """What a claim hands to a worker, beside the lease."""
    limits = (claimed.max_attempts, claimed.max_crashes, claimed.timeout, claimed.keep)
    return (claimed.task, claimed.queue, claimed.payload, claimed.attempt, claimed.crashes, claimed.priority, *limits)


def offer_by(row: Row) -> tuple[object, ...]:
    """What the reference would hand out."""
    new = row.new
    limits = (new.max_attempts, new.max_crashes, new.timeout, new.keep)
    return (new.task, new.queue, new.payload, row.attempts, row.crashes, new.priority, *limits)


def fits(row: Row, where: JobFilter) -> bool:
    """Whether a filter lets a job through."""
    in_state = not where.states or row.state in {state.value for state in where.states}
    return in_state and where.queue in (None, row.new.queue) and where.task in (None, row.new.task)
