"""Workers, people and rescuers as generators: each gives its next call of the store and is sent the answer.

A client does nothing between two of its calls that others could see, so a scheduler that picks whose call comes next
can play any order of them: a worker that is not picked for long is frozen, one that is dropped has died.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from random import Random
from typing import Any, Final, NamedTuple

from oncue.engine import Hold
from oncue.job import Claimed, Failure, Lease, NewJob, Outcome, Reason, Unique

BOOM: Final = Failure("ValueError", "boom")
QUEUES: Final = ("left", "right")
SPAN: Final = 20
"""Seconds; whatever lasts, lasts for a multiple of it."""
SLOTS: Final = 2
JOBS: Final = 10


class Call(NamedTuple):
    """One call of the store; the names are those of `Engine`, and `advance` of its clock."""

    name: str
    arguments: tuple[Any, ...]


Client = Generator[Call | None, Any, None]
"""Gives None if it lets a turn pass."""


@dataclass(eq=False)
class Attempt:
    """What a worker believes of an attempt that it was handed."""

    claimed: Claimed
    outcome: Outcome | None = None

    @property
    def lease(self) -> Lease:
        return self.claimed.lease


class Event(NamedTuple):
    """Something that happened, and in which step; what happened in one step has no order."""

    step: int
    kind: str
    job: str
    token: int = 0
    detail: str = ""


class Stage:
    """What the clients share: chance, who is dead, and the history that only the judge reads."""

    def __init__(self, seed: int) -> None:
        self.chance = Random(seed)
        self.step = 0
        self.events: list[Event] = []
        self.jobs: dict[str, NewJob] = {}
        self.dead: list[str] = []

    def note(self, kind: str, job: str, token: int = 0, detail: str = "") -> None:
        self.events.append(Event(self.step, kind, job, token, detail))


def worker(stage: Stage, name: str) -> Client:
    """Claim, run and finish jobs; freeze, lose replies, and die."""
    chance = stage.chance
    held: list[Attempt] = []
    while True:
        doing = chance.choices(
            ["claim", "run", "finish", "heartbeat", "freeze", "die"], weights=[30, 25, 30, 12, 2, 1]
        )[0]
        reply_is_lost = chance.random() < 0.1
        if doing == "claim" and len(held) < SLOTS:
            ids = [attempt.claimed.id for attempt in held]
            jobs = yield Call("claim", (QUEUES, SLOTS - len(held), name, ids))
            if not reply_is_lost:
                known = [attempt.lease for attempt in held]
                held += [Attempt(claimed) for claimed in jobs if claimed.lease not in known]
        elif doing == "run":
            for attempt in held:
                if attempt.outcome is None:
                    stage.note("begun", attempt.claimed.id, attempt.lease.token)
                    attempt.outcome = some_outcome(chance, attempt.claimed)
                    break
        elif doing == "finish" and (ended := [attempt for attempt in held if attempt.outcome is not None]):
            answers = yield Call("finish", ([(attempt.lease, attempt.outcome) for attempt in ended],))
            # A job is held until its outcome was answered: a claim before that would be told of it again.
            if not reply_is_lost and len(answers) == len(ended):
                held = [attempt for attempt in held if attempt not in ended]
        elif doing == "heartbeat" and held:
            answers = yield Call("heartbeat", (name, [attempt.lease for attempt in held]))
            if not reply_is_lost:
                for attempt, answer in zip(list(held), answers, strict=True):
                    if answer is Hold.LOST:
                        held.remove(attempt)
                    elif answer is Hold.CANCEL_REQUESTED and attempt.outcome is None:
                        attempt.outcome = Outcome.cancelled()
        elif doing == "freeze":
            for _ in range(chance.randint(3, 15)):
                yield None
        elif doing == "die":
            stage.dead.append(name)
            return
        else:
            yield None


def some_outcome(chance: Random, claimed: Claimed) -> Outcome:
    """How the code of an attempt ends; an error is tried again while the budget lasts, which crashes do not touch."""
    how = chance.choices(["return", "raise", "snooze", "stop", "park"], weights=[50, 30, 6, 8, 6])[0]
    delay = chance.choice([0, 0, SPAN, 2 * SPAN])
    match how:
        case "raise" if claimed.attempt - claimed.crashes < claimed.max_attempts:
            return Outcome.retrying(delay, BOOM)
        case "raise":
            return Outcome.failed(Reason.EXHAUSTED, BOOM)
        case "snooze":
            return Outcome.snoozed(delay)
        case "stop":
            return Outcome.released()
        case "park":
            return Outcome.parked(delay)
    return Outcome.completed(b"%d" % claimed.lease.token)


def producer(stage: Stage) -> Client:
    """Enqueue jobs, some of them in one batch, some a second time as after a lost reply."""
    chance = stage.chance
    while len(stage.jobs) < JOBS:
        batch = [some_job(stage) for _ in range(chance.choice([1, 1, 2, 3]))]
        for _ in range(chance.choice([1, 1, 1, 2])):
            yield Call("enqueue", (batch,))


def some_job(stage: Stage) -> NewJob:
    """Make up a job that may wait for earlier ones, or want a unique key."""
    chance = stage.chance
    earlier = list(stage.jobs)
    after = tuple(chance.sample(earlier, min(len(earlier), chance.choice([0, 0, 1, 2]))))
    after_any = chance.random() < 0.3
    unique = None
    if chance.random() < 0.25:
        on_conflict = chance.choice(["return", "replace"])
        unique = Unique("key", chance.choice(["pending", "running"]), on_conflict)
    job = NewJob(
        f"j{len(stage.jobs)}",
        "task",
        queue=chance.choice(QUEUES),
        request=b"1",
        priority=chance.choice([0, 0, 1]),
        delay=chance.choice([0, 0, 0, SPAN, 3 * SPAN]),
        max_attempts=chance.choice([1, 2, 3]),
        max_crashes=chance.choice([1, 2, 3]),
        after=after,
        after_any=after_any,
        unique=unique,
    )
    stage.jobs[job.id] = job
    return job


def somebody(stage: Stage) -> Client:
    """Cancel jobs, run them again, pause and resume queues, as people do who look at a dashboard."""
    chance = stage.chance
    while True:
        ids = list(stage.jobs) or ["j0"]
        doing = chance.choices(["cancel", "retry", "pause", "resume"], weights=[5, 2, 1, 3])[0]
        if doing in ("cancel", "retry"):
            yield Call(doing, (chance.sample(ids, chance.choice([1, 1, min(3, len(ids))])),))
        else:
            yield Call("set_queue", (chance.choice(QUEUES), doing == "pause"))


def rescuer(stage: Stage) -> Client:
    """Let time pass and take back what silent workers had; sometimes it has been told who is dead."""
    chance = stage.chance
    while True:
        yield Call("advance", (chance.choice([1, 1, 2]),))
        if chance.random() < 0.85:
            dead = [name for name in stage.dead if chance.random() < 0.3]
            yield Call("rescue", (dead,))
