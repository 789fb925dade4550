"""Worker processes to harm, and a judge of what became of the jobs.

The tests start real processes on one SQLite file. Each job notes `start` and `end` in a file outside the queue
(`worker_app.Effects`); what a client asked and was told is in a `History`. The judge compares both with the store.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from inspect import isawaitable
from pathlib import Path
from typing import Any, NamedTuple, Self

from oncue import Job, JobInfo, Oncue, Request, State
from tests.multiprocess.worker_app import build

__all__ = ["Effect", "Fleet", "History", "Verdict", "WorkerProcess", "counted", "eventually", "judge"]

ROOT = Path(__file__).parent.parent.parent
FATAL = re.compile(
    r"database is locked|never retrieved|internal error|destroyed but it is pending|Traceback \(most recent"
)
"""What no log of a worker may say."""


class Effect(NamedTuple):
    """A line that a job left outside the queue."""

    what: str
    job: str
    attempt: int
    token: int
    pid: int
    at: float


async def eventually(
    condition: Callable[[], Any | Awaitable[Any]], what: str, *, within: float = 20.0, every: float = 0.02
) -> Any:
    """Wait until a condition holds and return what it answered; past the deadline fail, saying what did not come."""
    deadline = time.monotonic() + within
    while True:
        answer = condition()
        if isawaitable(answer):
            answer = await answer
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"within {within:g} s it did not come about that {what}")
        await asyncio.sleep(every)


class WorkerProcess:
    """One worker process.

    Attributes:
        harmed_at: monotonic times at which it was killed or frozen.
    """

    def __init__(self, plan: dict[str, Any], store: Path, log: Path, *, cli: bool) -> None:
        self._store = store
        self._log = log
        self.harmed_at: list[float] = []
        self.started_at = time.monotonic()
        module = "tests.multiprocess.worker_app"
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", *(["oncue", "worker", f"{module}:jobs"] if cli else [module])],
                cwd=ROOT,
                env={**os.environ, "ONCUE_TEST_PLAN": json.dumps(plan)},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def log(self) -> str:
        """All that it has said."""
        return self._log.read_text(errors="replace")

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    @property
    def is_serving(self) -> bool:
        """Whether it takes jobs."""
        return self.alive and " serves " in self.log

    async def serving(self) -> None:
        """Wait until it takes jobs."""
        await eventually(lambda: self.is_serving or not self.alive, f"worker {self.pid} serves")
        assert self.alive, self.log

    def kill(self) -> None:
        """End it between two instructions."""
        self.harmed_at.append(time.monotonic())
        self.process.kill()
        self.process.wait()

    async def freeze(self, *, with_lock: bool = False) -> None:
        """Stop all its threads, in a moment when it does not hold the store's lock; or when it does."""
        for _ in range(1000):
            os.kill(self.pid, signal.SIGSTOP)
            if await asyncio.to_thread(_lock_is_free, self._store) is not with_lock:
                self.harmed_at.append(time.monotonic())
                return
            self.thaw()
            await asyncio.sleep(random.uniform(0.0, 0.01))
        raise AssertionError(f"worker {self.pid} {'never' if with_lock else 'always'} holds the store's lock")

    def thaw(self) -> None:
        """Let its threads go on, as if no time had passed."""
        os.kill(self.pid, signal.SIGCONT)

    def ask_to_stop(self, number: int = signal.SIGTERM) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    async def ended(self, within: float) -> int:
        """Wait until it has ended; return its exit code."""
        try:
            await eventually(lambda: not self.alive, f"worker {self.pid} ends", within=within)
        except AssertionError as error:
            raise AssertionError(f"{error}; it said:\n{self.log[-2000:]}") from None
        return int(self.process.returncode)


def _lock_is_free(store: Path) -> bool:
    conn = sqlite3.connect(store, timeout=0.2, isolation_level=None)
    try:
        conn.execute("BEGIN IMMEDIATE")
        conn.execute("ROLLBACK")
    except sqlite3.OperationalError:
        return False
    finally:
        conn.close()
    return True


class Fleet:
    """The worker processes of one store, none of which outlives the test.

    Args:
        folder: where the store, the effects and the logs are.
        cli: whether the workers are `oncue worker`, with all that belongs to it, or on asyncio's own event loop.
        settings: what every worker is told, unless `start` says otherwise; see `oncue.WorkerSettings`.
    """

    def __init__(self, folder: Path, *, cli: bool = False, **settings: Any) -> None:
        self.url = f"sqlite:///{folder / 'jobs.db'}?timeout=30"
        self.effects_path = folder / "effects"
        self.jobs = build(self.url, self.effects_path)
        self.workers: list[WorkerProcess] = []
        self._folder = folder
        self._settings = settings
        self._cli = cli

    async def __aenter__(self) -> Self:
        await self.jobs.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        for worker in self.workers:
            if worker.alive:
                worker.process.kill()
            worker.process.wait()
        await self.jobs.close()

    def start(
        self, count: int = 1, *, release: str = "", exit_when_stuck: bool = False, **settings: Any
    ) -> list[WorkerProcess]:
        """Start workers."""
        plan = {
            "url": self.url,
            "effects": str(self.effects_path),
            "settings": {**self._settings, **settings},
            "release": release,
            "exit_when_stuck": exit_when_stuck,
        }
        started = []
        for _ in range(count):
            log = self._folder / f"worker-{len(self.workers)}.log"
            started.append(WorkerProcess(plan, self._folder / "jobs.db", log, cli=self._cli))
            self.workers.append(started[-1])
        return started

    async def serving(self, count: int = 1, **options: Any) -> list[WorkerProcess]:
        """Start workers and wait until they take jobs."""
        started = self.start(count, **options)
        for worker in started:
            await worker.serving()
        return started

    @property
    def alive(self) -> list[WorkerProcess]:
        return [worker for worker in self.workers if worker.alive]

    def effects(self, what: str | None = None, *, job: str | None = None) -> list[Effect]:
        """Read what jobs did, in order."""
        found = []
        for line in self.effects_path.read_text().splitlines():
            name, job_id, attempt, token, pid, at = line.split(" ")
            effect = Effect(name, job_id, int(attempt), int(token), int(pid), float(at))
            if what in (None, effect.what) and job in (None, effect.job):
                found.append(effect)
        return found

    async def noted(self, what: str, job: str, *, times: int = 1, within: float = 20.0) -> list[Effect]:
        """Wait until a job has done something; return its notes of that."""
        await eventually(
            lambda: len(self.effects(what, job=job)) >= times, f"job {job} notes {what!r} {times}×", within=within
        )
        return self.effects(what, job=job)

    def faults_in_logs(self) -> list[str]:
        """Return the lines of the workers' logs that none may have."""
        return self.lines(FATAL.pattern)

    def lines(self, pattern: str) -> list[str]:
        """Return the lines of the workers' logs that match."""
        return [line for worker in self.workers for line in worker.log.splitlines() if re.search(pattern, line)]


@dataclass
class History:
    """What a client asked, and what it was told.

    Attributes:
        calls: name of the call, its reply or exception, when it began and ended.
        accepted: ids whose enqueue was answered.
    """

    calls: list[tuple[str, object, float, float]] = field(default_factory=list)
    accepted: list[str] = field(default_factory=list)

    async def enqueue(self, jobs: Oncue, requests: Sequence[Request[Any]]) -> list[Job[Any]]:
        """Enqueue, and note what the answer was."""
        began = time.monotonic()
        try:
            handles = await jobs.enqueue_many(requests)
        except Exception as error:
            self.calls.append(("enqueue_many", error, began, time.monotonic()))
            raise
        self.calls.append(("enqueue_many", len(handles), began, time.monotonic()))
        self.accepted += [handle.id for handle in handles]
        return handles


@dataclass(frozen=True)
class Verdict:
    """What became of the accepted jobs. All but the last four are faults.

    Attributes:
        lost: accepted, and not in a final state.
        ghost: had effects, and were never accepted.
        dup_unexcused: attempts that ran beside or after another one though no process was harmed.
        two_finals: final states entered beyond one a job.
        wrong_terminal: ended their work, and are not `completed`.
        overlapping: attempts of a job that began before an earlier one had ended, in an unharmed process.
        crashed: ended `failed` because every attempt was killed.
        dup_excused: attempts that were run again because their process was killed or frozen.
        fenced: writes of attempts that were no longer current, refused.
        runs: attempts that began.
    """

    lost: int
    ghost: int
    dup_unexcused: int
    two_finals: int
    wrong_terminal: int
    crashed: int
    dup_excused: int
    fenced: int
    runs: int

    @property
    def faults(self) -> dict[str, int]:
        """What should not be, and is."""
        names = ("lost", "ghost", "dup_unexcused", "two_finals", "wrong_terminal")
        return {name: getattr(self, name) for name in names if getattr(self, name)}

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.__dict__.items())


async def counted(jobs: Oncue, kind: str) -> int:
    """How often something happened to jobs, by the store's own metrics."""
    return sum(row.counts.get(kind, 0) for row in await jobs.engine.metrics(since=timedelta(hours=1)))


async def read_infos(jobs: Oncue, ids: Sequence[str]) -> dict[str, JobInfo]:
    """Read many jobs."""
    return {info.id: info for info in await jobs.client.infos(ids) if info is not None}


async def all_final(jobs: Oncue, *, within: float) -> None:
    """Wait until every job in the store has ended, by the queues' counters."""

    async def none_open() -> bool:
        return not any(
            count
            for queue in await jobs.engine.queues()
            for state, count in queue.counts.items()
            if not State(state).final
        )

    await eventually(none_open, "every job has ended", within=within, every=0.1)


async def judge(fleet: Fleet, accepted: Iterable[str]) -> Verdict:
    """Compare what the jobs did with what the store says of them."""
    known = set(accepted)
    infos = await read_infos(fleet.jobs, sorted(known))
    final = {job_id for job_id, info in infos.items() if info.state.final}
    starts, ends = fleet.effects("start"), fleet.effects("end")
    harmed = {worker.pid for worker in fleet.workers if worker.harmed_at}
    excused = unexcused = 0
    for superseded in _superseded(starts):
        if superseded.pid in harmed:
            excused += 1
        else:
            unexcused += 1
    finals = 0
    for kind in ("completed", "failed", "cancelled"):
        finals += await counted(fleet.jobs, kind)
    ended = {effect.job for effect in ends}
    crashed = {job_id for job_id, info in infos.items() if info.reason == "crashed" and info.state is State.FAILED}
    return Verdict(
        lost=len(known - final),
        ghost=len({effect.job for effect in starts} - known),
        dup_unexcused=unexcused,
        two_finals=max(finals - len(final), 0),
        wrong_terminal=sum(infos[job].state is not State.COMPLETED for job in ended & final - crashed),
        crashed=len(crashed),
        dup_excused=excused,
        fenced=await counted(fleet.jobs, "fenced"),
        runs=len(starts),
    )


def _superseded(starts: Iterable[Effect]) -> Iterator[Effect]:
    """Yield the starts that were followed by another one of the same job."""
    latest: dict[str, Effect] = {}
    for start in starts:
        if start.job in latest:
            yield latest[start.job]
        latest[start.job] = start


def most_starts(starts: Iterable[Effect]) -> int:
    """How often the job that was started most often was."""
    return max(Counter(start.job for start in starts).values(), default=0)
