"""What the processes do that the tests kill: each uses one engine on a shared file and notes what it was answered."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any, Final

from oncue.engine import WorkerInfo
from oncue.engines.sqlite import SQLiteEngine
from oncue.errors import EngineUnavailable
from oncue.job import Claimed, Failure, FeedItem, FeedKind, NewJob, Outcome, Reason, Unique, new_id

__all__ = [
    "SCENE",
    "die_at_statement",
    "enqueue_bodies_for_ever",
    "enqueue_for_ever",
    "scene_engine",
    "work_for_ever",
]

LEASE: Final = timedelta(seconds=60)
BOOM: Final = Failure("ValueError", "boom", "Traceback")


class Notes:
    """A file beside the store, in which a line stands as soon as `write` has returned."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def write(self, *fields: Any) -> None:
        os.write(self._file, (json.dumps(fields) + "\n").encode())


def enqueue_for_ever(path: str, notes_path: str, seed: int) -> None:
    """Enqueue from 8 coroutines, one to five jobs a call, and note the ids of each call that was answered."""
    notes, chance = Notes(notes_path), random.Random(seed)

    async def enqueue(engine: SQLiteEngine) -> None:
        while True:
            jobs = [
                NewJob(new_id(), "task", payload=os.urandom(chance.randrange(300)), request=os.urandom(8))
                for _ in range(chance.randint(1, 5))
            ]
            answers = await engine.enqueue(jobs)
            assert all(answer.created for answer in answers)
            notes.write("enqueued", *[job.id for job in jobs])

    async def main() -> None:
        async with SQLiteEngine(f"sqlite:///{path}") as engine, asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(enqueue(engine))

    asyncio.run(main())


def enqueue_bodies_for_ever(path: str, notes_path: str, seed: int) -> None:
    """Enqueue jobs with payloads of 20 kB, as fast as they are taken; note each call that was answered."""
    notes = Notes(notes_path)

    async def enqueue(engine: SQLiteEngine) -> None:
        while True:
            try:
                await engine.enqueue([NewJob(new_id(), "task", payload=os.urandom(20_000)) for _ in range(4)])
            except EngineUnavailable:  # a log of a gigabyte is being copied back
                notes.write("refused", seed)
            else:
                notes.write("enqueued", seed)

    async def main() -> None:
        async with SQLiteEngine(f"sqlite:///{path}?synchronous=normal") as engine, asyncio.TaskGroup() as group:
            for _ in range(4):
                group.create_task(enqueue(engine))

    asyncio.run(main())


def work_for_ever(path: str, notes_path: str, seed: int) -> None:
    """Do what clients and workers do, in random order, from 6 coroutines; note what was answered."""
    actor = _Actor(Notes(notes_path), random.Random(seed))

    async def main() -> None:
        async with SQLiteEngine(f"sqlite:///{path}") as engine, asyncio.TaskGroup() as group:
            for _ in range(6):
                group.create_task(actor.act(engine))

    asyncio.run(main())


class _Actor:
    """One process: a client, a worker, and a person who cancels, retries and deletes."""

    def __init__(self, notes: Notes, chance: random.Random) -> None:
        self._notes = notes
        self._chance = chance
        self._worker = WorkerInfo(f"worker-{os.getpid()}-{chance.random()}")
        self._held: dict[str, Claimed] = {}
        self._ending: set[str] = set()
        self._ids: list[str] = []
        notes.write("worker", self._worker.id)

    async def act(self, engine: SQLiteEngine) -> None:
        acts: list[tuple[int, Callable[[SQLiteEngine], Awaitable[None]]]] = [
            (6, self._enqueue),
            (6, self._claim),
            (8, self._finish),
            (2, self._beat),
            (2, self._append),
            (2, self._cancel),
            (1, self._retry),
            (1, self._delete),
            (1, self._rescue),
            (1, self._prune),
        ]
        while True:
            (act,) = self._chance.choices([act for _, act in acts], [weight for weight, _ in acts])
            await act(engine)

    def _some_ids(self) -> list[str]:
        return self._chance.sample(self._ids, min(len(self._ids), 3))

    async def _enqueue(self, engine: SQLiteEngine) -> None:
        chance = self._chance
        jobs = []
        for _ in range(chance.randint(1, 6)):
            unique = None
            if chance.random() < 0.3:
                while_ = chance.choice(["pending", "running", "ttl"])
                conflict = chance.choice(["return", "replace"])
                unique = Unique(f"{while_} {chance.randrange(5)}", while_, conflict, ttl=0.05)
            keep = chance.choice([0, 3600])
            jobs.append(
                NewJob(
                    f"{'kept' if keep else 'brief'}-{new_id()}",
                    chance.choice(["task", "other"]),
                    chance.choice(["default", "second"]),
                    request=os.urandom(8),
                    priority=chance.randrange(3),
                    delay=chance.choice([0, 0, 0, 0.05]),
                    keep=keep,
                    max_crashes=chance.randint(1, 3),
                    after=tuple(self._some_ids()) if chance.random() < 0.3 else (),
                    after_any=chance.random() < 0.5,
                    unique=unique,
                )
            )
        answers = await engine.enqueue(jobs)
        created = [job.id for job, answer in zip(jobs, answers, strict=True) if answer.created]
        self._ids = (self._ids + created)[-40:]
        self._notes.write("enqueued", *created)

    async def _claim(self, engine: SQLiteEngine) -> None:
        claim = await engine.claim(
            ["default", "second"],
            limit=self._chance.randint(1, 8),
            worker_id=self._worker.id,
            lease=LEASE,
            held=None if self._chance.random() < 0.5 else list(self._held),
        )
        for claimed in claim.jobs:
            if claimed.id not in self._held or self._held[claimed.id].lease.token < claimed.lease.token:
                self._held[claimed.id] = claimed

    async def _finish(self, engine: SQLiteEngine) -> None:
        chance = self._chance
        free = [job_id for job_id in self._held if job_id not in self._ending]
        ending = [self._held[job_id] for job_id in chance.sample(free, min(len(free), 4))]
        self._ending |= {claimed.id for claimed in ending}
        outcomes = [
            (
                claimed.lease,
                chance.choice(
                    [
                        Outcome.completed(claimed.id.encode()),
                        Outcome.completed(b""),
                        Outcome.failed(Reason.ERROR, BOOM),
                        Outcome.retrying(0.01, BOOM),
                        Outcome.snoozed(0.01),
                        Outcome.released(),
                    ]
                ),
            )
            for claimed in ending
        ]
        answers = await engine.finish(outcomes)
        for (lease, outcome), stored in zip(outcomes, answers, strict=True):
            del self._held[lease.job_id]  # until here it is held: a claim beside this must not bring it again
            self._ending.discard(lease.job_id)
            if stored:
                self._notes.write("finished", lease.job_id, lease.token, outcome.state.value)

    async def _beat(self, engine: SQLiteEngine) -> None:
        await engine.heartbeat(self._worker, [claimed.lease for claimed in self._held.values()], lease=LEASE)

    async def _append(self, engine: SQLiteEngine) -> None:
        for claimed in list(self._held.values())[:1]:
            kind = self._chance.choice(list(FeedKind))
            item = FeedItem(claimed.lease.token, self._chance.randrange(1, 10_000), kind, b"item")
            await engine.append(claimed.lease, [item])

    async def _cancel(self, engine: SQLiteEngine) -> None:
        await engine.cancel(self._some_ids())

    async def _retry(self, engine: SQLiteEngine) -> None:
        ids = self._some_ids()
        self._notes.write("retrying", *ids)
        await engine.retry(ids)

    async def _delete(self, engine: SQLiteEngine) -> None:
        ids = self._some_ids()
        self._notes.write("deleting", *ids)
        await engine.delete(ids)

    async def _rescue(self, engine: SQLiteEngine) -> None:
        await engine.rescue(limit=50, lease=LEASE)

    async def _prune(self, engine: SQLiteEngine) -> None:
        await engine.prune(limit=20, keep_finished=10**6)


# --- one scene, played up to a statement

Step = Callable[[SQLiteEngine, dict[str, Claimed]], Awaitable[object]]


def _new(job_id: str, **options: Any) -> NewJob:
    return NewJob(job_id, "task", request=job_id.encode(), **options)


async def _enqueue(engine: SQLiteEngine, held: dict[str, Claimed]) -> object:
    return await engine.enqueue(
        [
            *[_new(f"job {number}", priority=9 - number) for number in range(9)],
            _new("later", delay=9999),
            _new("pending key", unique=Unique("p", "pending"), priority=-1),
            _new("running key", unique=Unique("r"), delay=9999),
            _new("replaced", unique=Unique("x"), delay=9999),
            _new("soon gone", keep=0, delay=9999),
        ]
    )


async def _enqueue_dependents(engine: SQLiteEngine, held: dict[str, Claimed]) -> object:
    return await engine.enqueue(
        [
            _new("replaces", unique=Unique("x", on_conflict="replace"), delay=9999),
            _new("child of 0", after=("job 0",)),
            _new("child of 1", after=("job 1",)),
            _new("child of 0 and 1", after=("job 0", "job 1"), after_any=True),
            _new("grandchild", after=("child of 1",), unique=Unique("g")),
        ]
    )


async def _claim(engine: SQLiteEngine, held: dict[str, Claimed]) -> object:
    claim = await engine.claim(["default"], limit=8, worker_id="w", lease=LEASE)
    held |= {claimed.id: claimed for claimed in claim.jobs}
    return None


async def _claim_the_rest(engine: SQLiteEngine, held: dict[str, Claimed]) -> object:
    claim = await engine.claim(["default"], limit=8, worker_id="dead", lease=LEASE)
    assert {claimed.id for claimed in claim.jobs} == {"job 8", "pending key"}
    return None


async def _append(engine: SQLiteEngine, held: dict[str, Claimed]) -> object:
    lease = held["job 0"].lease
    items = [FeedItem(lease.token, 1, FeedKind.LOG, b"line"), FeedItem(lease.token, 2, FeedKind.PROGRESS, b"half")]
    return await engine.append(lease, items)


async def _beat(engine: SQLiteEngine, held: dict[str, Claimed]) -> object:
    return await engine.heartbeat(WorkerInfo("w"), [claimed.lease for claimed in held.values()], lease=LEASE)


async def _finish(engine: SQLiteEngine, held: dict[str, Claimed]) -> object:
    outcomes = [
        Outcome.completed(b"result"),
        Outcome.failed(Reason.ERROR, BOOM),
        Outcome.retrying(9999, BOOM),
        Outcome.snoozed(9999),
        Outcome.released(),
        Outcome.cancelled(),
    ]
    return await engine.finish([(held[f"job {number}"].lease, outcome) for number, outcome in enumerate(outcomes)])


async def _cancel(engine: SQLiteEngine, held: dict[str, Claimed]) -> object:
    return await engine.cancel(["job 6", "later", "job 0", "soon gone"])


async def _rescue(engine: SQLiteEngine, held: dict[str, Claimed]) -> object:
    return await engine.rescue(limit=10, lease=LEASE, dead=["dead"])


async def _finish_cancelled(engine: SQLiteEngine, held: dict[str, Claimed]) -> object:
    return await engine.finish([(held["job 6"].lease, Outcome.completed(b"late"))])


async def _retry(engine: SQLiteEngine, held: dict[str, Claimed]) -> object:
    return await engine.retry(["job 1", "job 0", "grandchild"])


async def _delete(engine: SQLiteEngine, held: dict[str, Claimed]) -> object:
    return await engine.delete(["job 5", "running key", "job 7"])


async def _prune(engine: SQLiteEngine, held: dict[str, Claimed]) -> object:
    return await engine.prune(limit=10, keep_finished=10**6)


async def _pause(engine: SQLiteEngine, held: dict[str, Claimed]) -> object:
    await engine.set_queue("default", paused=True)
    return None


SCENE: Final[tuple[Step, ...]] = (
    _enqueue,
    _enqueue_dependents,
    _claim,
    _claim_the_rest,
    _append,
    _beat,
    _finish,
    _cancel,
    _rescue,
    _finish_cancelled,
    _retry,
    _delete,
    _prune,
    _pause,
)


def scene_engine(path: str) -> SQLiteEngine:
    """Return the engine that the scene is played on: a kill loses nothing that the disk would keep."""
    return SQLiteEngine(f"sqlite:///{path}?synchronous=normal")


def die_at_statement(path: str, notes_path: str, number: int) -> None:
    """Play the scene, note each step that was answered, and die before the statement with this number begins."""
    notes = Notes(notes_path)

    async def main() -> None:
        async with scene_engine(path) as engine:
            writer = engine._lanes.writer
            assert writer is not None
            left = number

            def count(statement: str) -> None:
                nonlocal left
                left -= 1
                if left < 0:
                    os.kill(os.getpid(), signal.SIGKILL)

            writer._conn.set_trace_callback(count)
            held: dict[str, Claimed] = {}
            for index, step in enumerate(SCENE):
                await step(engine, held)
                notes.write("done", index, number - left)

    asyncio.run(main())
