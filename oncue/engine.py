"""The contract between Oncue and a store.

An engine stores jobs and moves them between states. It knows nothing of Python functions, serializers or retry
policy: payloads and results are bytes, and the worker says which state a finished attempt moves to. Policy lives above
this boundary, atomicity below it.

Every method that writes promises, for each job it names (a batch is no transaction: each job stands for itself):

- **Atomic.** The move, its counters, its unique key, its dependents and its history happen wholly or not at all.
- **Repeatable.** The same call sent twice answers the same and changes nothing the second time. `claim` alone differs:
  it also answers with attempts that this worker holds but did not list, so a lost reply costs one turn.
- **Fenced.** A write about a running attempt carries its `Lease` and is refused, and counted, once the lease has moved
  on. Token and nonce stay on the job until the next claim, so that a resent `finish` answers as the first did.
- **Timed by the store.** No time of the caller is compared with a time of the store; durations are relative.
- **Bounded.** No call works on more than `MAX_BATCH` items, none lasts longer than the engine's deadline: past it,
  `EngineUnavailable`, and the call may be repeated.

Hints (`subscribe`) may be lost, late or doubled. Nothing is correct because of them; they only make things quick.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple, Protocol, Self, runtime_checkable

from oncue.job import Attempt, Claimed, FeedItem, JobInfo, Lease, NewJob, Outcome, State

__all__ = [
    "MAX_BATCH",
    "TOPIC_ALL",
    "CancelAnswer",
    "Claim",
    "Engine",
    "Enqueued",
    "Hold",
    "JobFilter",
    "MetricsRow",
    "QueueInfo",
    "Rescued",
    "Subscription",
    "WorkerInfo",
    "topic_cancel",
    "topic_job",
    "topic_queue",
]

MAX_BATCH: Final = 1000
"""The most items one call may name or work on; callers cut larger work into calls of this size."""


class Enqueued(NamedTuple):
    """What became of one request to enqueue.

    Attributes:
        id: the job that stands: the new one, or the one that was in the way.
        created: whether this request made it. A resent request answers as the first did.
        conflict: `"id"` or `"unique"` if another job was in the way, else None.
        state: where the job is now.
    """

    id: str
    created: bool
    state: State
    conflict: str | None = None


@dataclass(frozen=True, slots=True)
class Claim:
    """What a worker gets from one call of `claim`.

    Attributes:
        jobs: attempts that are now this worker's, in the order to start them.
        next_due_in: seconds until the next scheduled or retrying job is due, None if there is none.
    """

    jobs: Sequence[Claimed]
    next_due_in: float | None


class Hold(StrEnum):
    """What a heartbeat says of one lease."""

    HELD = "held"
    LOST = "lost"
    """The attempt is no longer the current one: stop it, its outcome will be refused."""
    CANCEL_REQUESTED = "cancel_requested"
    """Still held; somebody asked to cancel the job."""


class CancelAnswer(StrEnum):
    """What became of one request to cancel. Each is final: it never turns into another by itself."""

    CANCELLED = "cancelled"
    """The job is cancelled; it will not be started again."""
    REQUESTED = "requested"
    """It is running: the request is on record, its worker will stop it, and it ends `cancelled` unless its attempt
    had already been finished when the request was recorded."""
    FINISHED = "finished"
    """It had completed or failed before."""
    NOT_FOUND = "not_found"


@dataclass(frozen=True, slots=True)
class Rescued:
    """A job taken back from a worker that fell silent."""

    job_id: str
    task: str
    queue: str
    worker: str
    state: State
    crashes: int


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """What a worker says of itself with each heartbeat, and what `workers()` answers.

    Attributes:
        id: random per start of a process; never used again.
        tasks: names of the tasks that it can run.
        seen_at: the store's time of its latest heartbeat; set by the engine.
        alive: whether its latest heartbeat is younger than the lease it asked for; set by the engine.
        stopped: said once, at the end: forget this worker.
    """

    id: str
    host: str = ""
    pid: int = 0
    version: str = ""
    queues: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    concurrency: int = 0
    running: int = 0
    started_at: datetime | None = None
    seen_at: datetime | None = None
    alive: bool = True
    stopped: bool = False


@dataclass(frozen=True, slots=True)
class QueueInfo:
    """One queue: how many jobs are in each state, and how long its head has been waiting.

    Attributes:
        counts: jobs by state; a state without jobs may be absent.
        oldest_age: seconds since the first claimable job was due; None if there is none.
    """

    name: str
    paused: bool
    counts: dict[State, int]
    oldest_age: float | None


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs `list_jobs` gives. Every field narrows; an empty filter gives all."""

    states: frozenset[State] = frozenset()
    queue: str | None = None
    task: str | None = None


@dataclass(frozen=True, slots=True)
class MetricsRow:
    """What happened in one minute to the jobs of one task in one queue.

    Attributes:
        minute: its start.
        counts: `enqueued`, `completed`, `failed`, `cancelled`, `retried`, `crashed`, `fenced`; absent means 0.
        wait: histogram of milliseconds from due to started: lower bound of the bucket to count. Bounds are spaced by
            at most an eighth of their size, so a percentile read from them is at most 12.5 % too low.
        run: the same, of the milliseconds from started to ended, of every attempt.
    """

    minute: datetime
    queue: str
    task: str
    counts: dict[str, int] = field(default_factory=dict)
    wait: dict[int, int] = field(default_factory=dict)
    run: dict[int, int] = field(default_factory=dict)


def topic_queue(queue: str) -> str:
    """The topic hinted when a queue may have claimable work, or was paused or resumed."""
    return f"queue:{queue}"


def topic_job(job_id: str) -> str:
    """The topic hinted when a job moved or its feed grew."""
    return f"job:{job_id}"


def topic_cancel(worker_id: str) -> str:
    """The topic hinted when a job that this worker runs was asked to stop."""
    return f"cancel:{worker_id}"


TOPIC_ALL: Final = "*"
"""The topic hinted whenever anything changed."""


class Subscription(Protocol):
    """Hints for some topics, bound to the event loop that subscribed."""

    async def wait(self, timeout: float | None = None) -> bool:
        """Wait until something was hinted since the last `wait`; False if `timeout` seconds passed without."""
        ...

    def close(self) -> None:
        """End the subscription; a `wait` under way returns False."""
        ...


@runtime_checkable
class Engine(Protocol):
    """A store of jobs. See the module's docstring for what every writing method promises."""

    @property
    def url(self) -> str:
        """Where the store is, without a password; fit for a log line."""
        ...

    async def open(self) -> None:
        """Connect, create or migrate the store. Opening twice is free.

        Raises `EngineUnusable` or `EngineUnavailable`.
        """
        ...

    async def close(self) -> None:
        """Finish what was asked, then disconnect. Closing twice is free; a closed engine can be opened again."""
        ...

    def sibling(self) -> Engine:
        """Return another connection to the same store, not opened yet, for another thread; it shares the clock."""
        ...

    def advance(self, by: timedelta) -> None:
        """Move the clock of this engine and its siblings forward. For tests: durations pass without waiting."""
        ...

    async def enqueue(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
        """Accept jobs; one answer for each, in order. An accepted job survives as the engine's durability says.

        An id that is taken answers with its holder and `created=False`, unless its `request` is equal: then it is the
        same call again. A unique key that is held answers with its holder, or replaces it if it was never started and
        `on_conflict="replace"`; a key held for a time is held also when its job is gone. A job with dependencies is
        `waiting` until they ended; if one ended badly or is gone it is `cancelled` at once, unless `after_any`.

        Raises `QueueFull` if the store has no room for more; then none of `jobs` was accepted.
        """
        ...

    async def claim(
        self,
        queues: Sequence[str],
        *,
        limit: int,
        worker_id: str,
        lease: timedelta,
        held: Collection[str] | None = None,
    ) -> Claim:
        """Promote what is due, then hand out up to `limit` jobs of `queues`, larger priority first, then by due time.

        Args:
            queues: names; paused ones are passed over.
            worker_id: who will hold the leases.
            lease: how long, unless renewed by `heartbeat`.
            held: ids of the jobs that the worker knows it holds. Those that it holds in the store but not here are
                answered again, under their lease: their claim's reply was lost. None skips this look.
        """
        ...

    async def heartbeat(self, worker: WorkerInfo, leases: Sequence[Lease], *, lease: timedelta) -> list[Hold]:
        """Record that a worker lives and renew its leases, also expired ones not rescued yet; one answer each."""
        ...

    async def finish(self, outcomes: Sequence[tuple[Lease, Outcome]]) -> list[bool]:
        """Move running jobs to the state that their outcome says; False where the lease had moved on.

        A job with a cancel request ends `cancelled`, whatever the outcome. A job that ends settles its dependents and
        gives its unique key back. True for an outcome that was stored before.
        """
        ...

    async def rescue(self, *, limit: int, lease: timedelta, dead: Collection[str] = ()) -> list[Rescued]:
        """Take back jobs whose lease has expired, or whose worker is named `dead`; the crash is counted.

        They go to the front of their line, or to `failed` (`crashed`) after `max_crashes`, or to `cancelled` if that
        was requested. Also fails jobs that were not started in time (`expired`).

        If nobody called this for a whole `lease`, the store was away, and its workers could not renew either: nothing
        is rescued for one more `lease` (but for `dead` workers).
        """
        ...

    async def prune(self, *, limit: int, keep_finished: int) -> int:
        """Delete ended jobs whose `keep` has passed, then the oldest beyond `keep_finished`, and old metrics.

        A job that another one waits for is never deleted. Returns how many were; `limit` means there may be more.
        """
        ...

    async def cancel(self, ids: Sequence[str]) -> list[CancelAnswer]:
        """Cancel jobs that have not ended: at once if they are not running, else by a request on record."""
        ...

    async def retry(self, ids: Sequence[str]) -> list[bool]:
        """Put ended jobs back in line with a new budget of attempts; True if the job is now open.

        A job that is open already stays as it is. False if it is gone, or another job holds its unique key.
        """
        ...

    async def delete(self, ids: Sequence[str]) -> list[bool]:
        """Remove jobs and all that belongs to them; True if the job is gone now, False if it is running."""
        ...

    async def set_queue(self, queue: str, *, paused: bool) -> None:
        """Pause or resume a queue: no job of it is claimed after the pause was answered."""
        ...

    async def get(self, ids: Sequence[str], *, bodies: bool = False) -> list[JobInfo | None]:
        """Read jobs, in order; None for those that are not there. `bodies` brings payload and result."""
        ...

    async def attempts(self, job_id: str) -> list[Attempt]:
        """Read the latest 100 attempts of a job that ended in any way but success, oldest first.

        One that was handed back unread, by a worker that does not know the task, is none.
        """
        ...

    async def list_jobs(
        self, where: JobFilter, *, limit: int, after: str | None = None
    ) -> tuple[list[JobInfo], str | None]:
        """Read one page, newest first, and the cursor for the next (None at the end); `ConfigError` for a bad cursor.

        A job that comes in or moves meanwhile is not shown twice and does not make another be left out.
        """
        ...

    async def queues(self) -> list[QueueInfo]:
        """Read every queue that has jobs, or is paused, by name."""
        ...

    async def workers(self) -> list[WorkerInfo]:
        """Read the workers whose heartbeats are younger than an hour, oldest first."""
        ...

    async def metrics(self, *, since: timedelta) -> list[MetricsRow]:
        """Read what happened in the last `since`, minute by minute; up to a day is kept."""
        ...

    async def append(self, lease: Lease, items: Sequence[FeedItem]) -> bool:
        """Add to the feed of a running job; False if the lease has moved on. A resent item is not added twice."""
        ...

    async def read(self, job_id: str, *, after: str | None = None, limit: int = 500) -> list[FeedItem]:
        """Read a job's feed in order, behind the item with cursor `after`.

        Of one attempt the latest 10,000 items are kept, and the attempts are those of `attempts`. Raises `ConfigError`
        for what is no cursor.
        """
        ...

    def subscribe(self, *topics: str) -> Subscription:
        """Be hinted of changes; call from the event loop that will wait."""
        ...

    async def __aenter__(self) -> Self: ...

    async def __aexit__(self, *exc: object) -> None: ...
