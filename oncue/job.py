"""The values a job is made of: states, what is enqueued, what is read back, how an attempt ends.

Frozen and without I/O. Engines store them, workers produce them, front ends show them; nobody changes one.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Final, NamedTuple

from oncue.errors import InvalidName

__all__ = [
    "Attempt",
    "Claimed",
    "Failure",
    "FeedItem",
    "FeedKind",
    "JobInfo",
    "Lease",
    "NewJob",
    "Outcome",
    "Reason",
    "State",
    "Unique",
    "UniqueWhile",
    "check_id",
    "check_name",
    "new_id",
]


class State(StrEnum):
    """Where a job is; it is in exactly one state (docs/states.md)."""

    SCHEDULED = "scheduled"
    """Its time has not come."""
    WAITING = "waiting"
    """Waits for other jobs to end."""
    QUEUED = "queued"
    """Ready to be claimed."""
    RUNNING = "running"
    """A worker holds its lease."""
    RETRYING = "retrying"
    """An attempt failed; the next one has a time."""
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def final(self) -> bool:
        """Whether a job stays here for good, unless a person runs it again."""
        return self in FINAL


FINAL: Final = frozenset({State.COMPLETED, State.FAILED, State.CANCELLED})
PENDING: Final = frozenset({State.SCHEDULED, State.WAITING, State.QUEUED, State.RETRYING})


class Reason(StrEnum):
    """Why a job is in its state, where the state alone does not say."""

    ERROR = "error"
    """The task raised, and its policy does not retry that error."""
    EXHAUSTED = "exhausted"
    """The task raised at its last attempt."""
    TIMEOUT = "timeout"
    """The attempt took longer than its timeout."""
    GAVE_UP = "gave_up"
    """The task raised `GiveUp`."""
    CRASHED = "crashed"
    """Workers died or fell silent while running it."""
    INTERRUPTED = "interrupted"
    """A shutdown stopped a job that must never be started twice."""
    EXPIRED = "expired"
    """It was not started in time."""
    UNREADABLE = "unreadable"
    """The stored arguments could not be read by the task."""
    RESULT = "result"
    """The task returned something that cannot be stored."""
    DEPENDENCY = "dependency"
    """A job it waited for ended badly or is gone."""
    USER = "user"
    """Somebody cancelled it."""
    NO_WORKER = "no_worker"
    """Not final: the worker that took it does not know the task; it is handed back and tried again."""
    SNOOZED = "snoozed"
    """Not final: the task asked for a later time."""


class UniqueWhile(StrEnum):
    """How long a job holds its unique key."""

    PENDING = "pending"
    """Until it is first started."""
    RUNNING = "running"
    """Until it ended."""
    TTL = "ttl"
    """For a fixed time from enqueue on, whatever becomes of the job."""


_NAME: Final = re.compile(r"[A-Za-z0-9_.:-]{1,128}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]")


def check_name(name: str, *, what: str = "queue") -> str:
    """Return a queue, schedule or worker name, or raise `InvalidName`: 1 to 128 of `A-Z a-z 0-9 _ . : -`."""
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise InvalidName(
            f"{what} name {name!r:.80} must be 1 to 128 characters of A-Z a-z 0-9 _ . : -, for example 'emails'"
        )
    return name


def check_id(value: str, *, what: str = "job id") -> str:
    """Return a job id or task name, or raise `InvalidName`: 1 to 255 bytes of UTF-8 without control characters.

    Ids are compared byte for byte: two Unicode spellings of one text are two ids.
    """
    if not isinstance(value, str):
        raise InvalidName(f"{what} must be a string, not {type(value).__name__}")
    try:
        size = len(value.encode())
    except UnicodeEncodeError as error:
        raise InvalidName(f"{what} {value!r:.80} cannot be written as UTF-8: {error.reason}") from None
    if not 1 <= size <= 255:
        raise InvalidName(f"{what} must be 1 to 255 bytes long, not {size}")
    if control := _CONTROL.search(value):
        raise InvalidName(f"{what} {value!r:.80} has the control character {control[0]!r}")
    return value


class _Chance:
    """Random bytes of the system, fetched many at a time: a system call for each id costs more than the rest of it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.forget()

    def forget(self) -> None:
        """Throw away what was fetched: a forked process must not hand out its parent's."""
        self._bytes, self._at = b"", 0

    def __call__(self, n: int) -> bytes:
        with self._lock:
            if self._at + n > len(self._bytes):
                self._bytes, self._at = os.urandom(4096), 0
            start = self._at
            self._at += n
            return self._bytes[start : self._at]


_chance: Final = _Chance()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_chance.forget)

_DIGITS: Final = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: no i l o u
_PAIRS: Final = tuple(a + b for a in _DIGITS for b in _DIGITS)


def new_id() -> str:
    """Return a fresh job id: 26 characters, unguessable, roughly ordered by time.

    A shard digit (`0`), nine digits of time (milliseconds) for locality in an index, and 16 digits (80 bits) of
    the system's randomness, in Crockford's base 32.
    """
    clock = time.time_ns() // 1_000_000 & 0x1FFFFFFFFFFF
    bits = clock << 80 | int.from_bytes(_chance(10))
    pairs = _PAIRS
    # 125 bits: 9 + 16 digits of 5 bits; taken two digits at a time, from the right.
    text = "".join([pairs[bits >> shift & 1023] for shift in range(115, -5, -10)])
    return "0" + text + _DIGITS[bits & 31]


@dataclass(frozen=True, slots=True)
class Unique:
    """A claim to be the only job with this key.

    Attributes:
        key: compared byte for byte, within the whole store.
        while_: how long the key is held (`"pending"`, `"running"`, `"ttl"`).
        on_conflict: what to do if another job holds it. `"return"` and `"skip"` give a handle to the holder with
            `created=False`, `"raise"` raises `UniqueConflict`, `"replace"` cancels the holder if it has not been
            started and takes its place.
        ttl: seconds, for `while_="ttl"`.
    """

    key: str
    while_: UniqueWhile | str = UniqueWhile.RUNNING
    on_conflict: str = "return"
    ttl: float | None = None


NO_META: Final[Mapping[str, str]] = MappingProxyType({})


class NewJob(NamedTuple):
    """A request to run a task, as an engine takes it. All durations are seconds; the engine's clock counts them."""

    id: str
    task: str
    queue: str = "default"
    payload: bytes = b""
    request: bytes | None = None
    """Identifies this enqueue among others with a caller-chosen id: a resent call is recognised by it."""
    priority: int = 0
    """Larger runs sooner, within its queue."""
    delay: float = 0
    run_at: datetime | None = None
    """Aware; wins over `delay`."""
    expires_in: float | None = None
    """Not to be started for the first time later than this after it was due."""
    timeout: float | None = None
    """Of one attempt; None means what the task says."""
    max_attempts: int = 1
    max_crashes: int = 3
    keep: float = 86_400
    """How long the job and its result stay after it ended."""
    meta: Mapping[str, str] = NO_META
    after: tuple[str, ...] = ()
    """Ids of jobs that must have ended first."""
    after_any: bool = False
    """Run though one of them failed, was cancelled or is gone."""
    unique: Unique | None = None


class Lease(NamedTuple):
    """A worker's time-limited hold on one attempt. Token and nonce together are the fence of every write.

    The token grows with every claim and is never reset; the nonce is random, because a store that was rolled back
    may hand out the same number twice.
    """

    job_id: str
    token: int
    nonce: bytes


class Claimed(NamedTuple):
    """One attempt handed to a worker. (A tuple, like the others here of which there is one an attempt: made in C.)"""

    lease: Lease
    task: str
    queue: str
    payload: bytes
    attempt: int
    """From 1; attempts given back at a shutdown are not counted."""
    crashes: int
    max_attempts: int
    max_crashes: int
    priority: int
    timeout: float | None
    keep: float
    created_at: datetime
    due_at: datetime
    started_at: datetime
    meta: Mapping[str, str]

    @property
    def id(self) -> str:
        """The job's id."""
        return self.lease.job_id


@dataclass(frozen=True, slots=True)
class Failure:
    """What is kept of an exception: always text, so that storing it cannot fail."""

    type: str
    message: str
    traceback: str = ""


class Outcome(NamedTuple):
    """How an attempt ended, and so which state its job moves to. Made only by the constructors below."""

    state: State
    reason: Reason | None = None
    result: bytes | None = None
    failure: Failure | None = None
    delay: float = 0
    refund: bool = False
    """The attempt is given back: it does not count."""

    @classmethod
    def completed(cls, result: bytes) -> Outcome:
        """The task returned; `result` is what it returned, serialized."""
        return cls(State.COMPLETED, None, result)

    @classmethod
    def failed(cls, reason: Reason, failure: Failure) -> Outcome:
        """The job is over and failed."""
        return cls(State.FAILED, reason, None, failure)

    @classmethod
    def retrying(cls, delay: float, failure: Failure, reason: Reason = Reason.ERROR) -> Outcome:
        """The attempt failed; the next one is due in `delay` seconds."""
        return cls(State.RETRYING, reason, None, failure, delay)

    @classmethod
    def snoozed(cls, delay: float) -> Outcome:
        """The task asked to run later; the attempt does not count."""
        return cls(State.SCHEDULED, Reason.SNOOZED, delay=delay, refund=True)

    @classmethod
    def released(cls) -> Outcome:
        """The worker stops: the job goes back to the front of its line, the attempt does not count."""
        return cls(State.QUEUED, refund=True)

    @classmethod
    def parked(cls, delay: float) -> Outcome:
        """This worker does not know the task: another may, later; the attempt does not count."""
        return cls(State.SCHEDULED, Reason.NO_WORKER, delay=delay, refund=True)

    @classmethod
    def cancelled(cls, failure: Failure | None = None) -> Outcome:
        """The attempt was cancelled on request."""
        return cls(State.CANCELLED, Reason.USER, None, failure)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One run of a job that is over. Kept for attempts that ended in any way but success."""

    token: int
    number: int
    worker: str
    started_at: datetime
    finished_at: datetime
    outcome: str
    """The state the job moved to, or `crashed`."""
    failure: Failure | None


@dataclass(frozen=True, slots=True)
class JobInfo:
    """A job as the store knows it at one moment."""

    id: str
    task: str
    queue: str
    state: State
    reason: Reason | None
    priority: int
    created_at: datetime
    due_at: datetime
    expires_at: datetime | None
    started_at: datetime | None
    """Start of the latest attempt."""
    finished_at: datetime | None
    attempts: int
    """Attempts started, less those given back."""
    crashes: int
    max_attempts: int
    max_crashes: int
    timeout: float | None
    worker: str | None
    """Id of the worker that runs it."""
    cancel_requested: bool
    waiting_for: int
    """How many jobs it still waits for."""
    unique_key: str | None
    error: str | None
    """`Type: message` of the latest failed attempt, cut at 500 characters."""
    progress: bytes | None
    """The latest progress, as its worker serialized it."""
    meta: Mapping[str, str]
    revision: int
    """Grows with every transition."""
    payload: bytes | None = field(default=None, repr=False)
    """Only if asked for."""
    result: bytes | None = field(default=None, repr=False)
    """Only if asked for, and only once completed."""


class FeedKind(StrEnum):
    """What an item of a job's feed is."""

    PROGRESS = "progress"
    """Replaces the progress before it: only the latest is kept."""
    LOG = "log"
    STREAM = "stream"


class FeedItem(NamedTuple):
    """One item of a job's feed: progress, a log line, or a piece of streamed output.

    `(token, ordinal)` orders the feed and names the item; a resent item is recognised by it.
    """

    token: int
    ordinal: int
    kind: FeedKind
    body: bytes
    at: datetime | None = None

    @property
    def cursor(self) -> str:
        """Give this to `read(after=…)` to go on behind this item."""
        return f"{self.token}-{self.ordinal}"
