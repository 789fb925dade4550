"""Plays clients against a store in an order that a seed decides, to the end of every job, and keeps the history."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Sequence
from datetime import timedelta
from typing import Any, Protocol

from oncue.engine import Engine, WorkerInfo
from oncue.job import JobInfo, Outcome
from oncue.testing.conformance.invariants import all_jobs
from oncue.testing.invariants import check_invariants
from tests.stateful.clients import QUEUES, SPAN, Attempt, Call, Client, Stage, producer, rescuer, somebody, worker
from tests.stateful.histories import LEASE, SideBySide


class Store(Protocol):
    """Where calls go."""

    def together(self, calls: Sequence[Call]) -> list[Any]:
        """Make these calls and return their answers."""
        ...

    def jobs(self) -> list[JobInfo]:
        """Read all jobs, and check what is true of any store at any time."""
        ...


class Checked:
    """One call at a time, each checked against the reference."""

    def __init__(self, both: SideBySide) -> None:
        self.both = both

    def together(self, calls: Sequence[Call]) -> list[Any]:
        return [self._one(call.name, call.arguments) for call in calls]

    def _one(self, name: str, arguments: tuple[Any, ...]) -> Any:
        match name:
            case "rescue":
                return self.both.rescue(dead=arguments[0])
            case "set_queue":
                return self.both.set_queue(arguments[0], paused=arguments[1])
        return getattr(self.both, name)(*arguments)

    def jobs(self) -> list[JobInfo]:
        self.both.compare()
        return self.both.look()


class Crowd:
    """Calls of several clients at once, so that they share a turn of the store."""

    def __init__(self, engine: Engine, runner: asyncio.Runner) -> None:
        self._engine = engine
        self._runner = runner

    def together(self, calls: Sequence[Call]) -> list[Any]:
        async def gather() -> list[Any]:
            return await asyncio.gather(*[self._one(call.name, call.arguments) for call in calls])

        return self._runner.run(gather())

    def _one(self, name: str, arguments: tuple[Any, ...]) -> Coroutine[Any, Any, Any]:
        engine = self._engine
        match name:
            case "advance":
                engine.advance(timedelta(seconds=arguments[0] * SPAN))
                return asyncio.sleep(0)
            case "claim":
                queues, limit, name, held = arguments
                return self._claim(queues, limit, name, held)
            case "heartbeat":
                return engine.heartbeat(WorkerInfo(arguments[0]), arguments[1], lease=LEASE)
            case "rescue":
                return engine.rescue(limit=1000, lease=LEASE, dead=arguments[0])
            case "set_queue":
                return engine.set_queue(arguments[0], paused=arguments[1])
        call: Coroutine[Any, Any, Any] = getattr(engine, name)(*arguments)
        return call

    async def _claim(self, queues: Sequence[str], limit: int, name: str, held: Sequence[str]) -> list[Any]:
        claim = await self._engine.claim(queues, limit=limit, worker_id=name, lease=LEASE, held=held)
        return list(claim.jobs)

    def jobs(self) -> list[JobInfo]:
        async def read() -> list[JobInfo]:
            await check_invariants(self._engine)
            return await all_jobs(self._engine)

        return self._runner.run(read())


class Scheduler:
    """One play: a stage, its clients, and a store."""

    def __init__(self, seed: int, store: Store, *, at_once: int) -> None:
        self.stage = Stage(seed)
        self.store = store
        self.calls = 0
        self._at_once = at_once
        self._workers = self._replaced = 0
        self._clients: list[Client] = [producer(self.stage), somebody(self.stage), rescuer(self.stage)]
        self._clients += [self._new_worker() for _ in range(3)]
        self._answers: dict[int, Any] = {}

    def _new_worker(self) -> Client:
        self._workers += 1
        return worker(self.stage, f"w{self._workers}")

    def play(self, steps: int) -> list[JobInfo]:
        """Take so many steps, then let a healthy worker bring every job to its end; return all jobs."""
        for _ in range(steps):
            self._step()
        self._bring_to_an_end()
        return self.store.jobs()

    def _step(self) -> None:
        chance = self.stage.chance
        crew = chance.sample(self._clients, min(chance.randint(1, self._at_once), len(self._clients)))
        asked: list[tuple[Client, Call]] = []
        for client in crew:
            try:
                call = client.send(self._answers.pop(id(client), None))
            except StopIteration:
                self._clients.remove(client)
                if len(self.stage.dead) > self._replaced:
                    self._replaced += 1
                    self._clients.append(self._new_worker())
                continue
            if call is not None:
                asked.append((client, call))
        answers = self._make([call for _, call in asked])
        for (client, _), answer in zip(asked, answers, strict=True):
            self._answers[id(client)] = answer

    def _make(self, calls: Sequence[Call]) -> list[Any]:
        self.stage.step += 1
        self.calls += len(calls)
        answers = self.store.together(calls)
        for call, answer in zip(calls, answers, strict=True):
            self._record(call, answer)
        return answers

    def _record(self, call: Call, answer: Any) -> None:
        """Write down what the store said, also if the reply never reaches its client."""
        note = self.stage.note
        match call.name:
            case "enqueue":
                for job, enqueued in zip(call.arguments[0], answer, strict=True):
                    note("accepted" if enqueued.created else "refused", job.id)
            case "claim":
                for claimed in answer:
                    note("granted", claimed.id, claimed.lease.token, claimed.queue)
            case "finish":
                for (lease, outcome), stored in zip(call.arguments[0], answer, strict=True):
                    note("stored" if stored else "fenced", lease.job_id, lease.token, outcome.state.value)
            case "rescue":
                for rescued in answer:
                    note("rescued", rescued.job_id)
            case "cancel":
                for job_id, what in zip(call.arguments[0], answer, strict=True):
                    note("cancel", job_id, detail=what.value)
            case "retry":
                for job_id, is_open in zip(call.arguments[0], answer, strict=True):
                    if is_open:
                        note("retried", job_id)
            case "set_queue":
                note("paused" if call.arguments[1] else "resumed", call.arguments[0])

    def _bring_to_an_end(self) -> None:
        self._make([Call("set_queue", (queue, False)) for queue in QUEUES])
        for _ in range(60):
            self._make([Call("rescue", (self.stage.dead,))])
            [jobs] = self._make([Call("claim", (QUEUES, 20, "last", []))])
            attempts = [Attempt(claimed, Outcome.completed(b"%d" % claimed.lease.token)) for claimed in jobs]
            for attempt in attempts:
                self.stage.note("begun", attempt.claimed.id, attempt.lease.token)
            if attempts:
                self._make([Call("finish", ([(attempt.lease, attempt.outcome) for attempt in attempts],))])
            self._make([Call("advance", (1,))])
            if not attempts and all(info.state.final for info in self.store.jobs()):
                return
        raise AssertionError(f"jobs do not end: {[info for info in self.store.jobs() if not info.state.final]}")
