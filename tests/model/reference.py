"""The contract of `oncue.engine` in plain Python, one call after the other: what a store must answer and then hold.

The guards are those of the model (`Rules`); here they get what the model leaves out: numbers for time, order in line,
several queues, batches, keys held for a time, retention. Nothing is stored twice: who holds a unique key, how many jobs
a queue has, and which progress is the latest are worked out from the jobs when asked, so they cannot drift.

Where the contract leaves a choice (a token's value, which of several jobs a small limit takes), the reference is told
what the store chose and says whether it was allowed to.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

from oncue.engine import CancelAnswer, Enqueued, Hold
from oncue.job import Claimed, FeedItem, FeedKind, Lease, NewJob, Outcome, Reason, State
from tests.model.machine import FINAL, PENDING, RELEASED, TIMED, Rules

RULES: Final = Rules()


@dataclass
class Row:
    """A job as the reference knows it. Times are milliseconds on its own clock."""

    new: NewJob
    seq: int
    created: int
    due: int
    expires: int | None
    """It may be started for the first time until then only."""
    state: str = "queued"
    reason: Reason | None = None
    token: int = 0
    nonce: object = b""
    owner: str | None = None
    lease_until: int = 0
    attempts: int = 0
    crashes: int = 0
    cancel_requested: bool = False
    wrote: bool = False
    started: bool = False
    """It was claimed since it was enqueued or run again."""
    waits_for: set[str] = field(default_factory=set)
    parents: set[str] = field(default_factory=set)
    """Those jobs it was enqueued to run after that are still there."""
    ended: int = 0
    keep_until: int = 0
    blurred: bool = False
    """It was cancelled together with one that it waited for: either may be the reason."""
    result: bytes | None = None
    history: list[tuple[int, int, str, str]] = field(default_factory=list)
    """Attempts that ended in any way but success: token, number, worker, outcome."""
    feed: dict[tuple[int, int], FeedItem] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return self.new.id

    @property
    def place(self) -> tuple[int, int, int]:
        """Its place in line: larger priority first, then by due time, then by age."""
        return -self.new.priority, self.due, self.seq


class Reference:
    """A store without a disk. Every method takes one tick of time, as no two calls of a client share a moment."""

    def __init__(self, *, lease_ms: int) -> None:
        self.lease_ms = lease_ms
        self.now = 0
        self.jobs: dict[str, Row] = {}
        self.held_until: dict[str, tuple[str, int, int]] = {}
        """Unique keys held for a time: by whom, as the how-maniest job, until when."""
        self.paused: set[str] = set()
        self.events: Counter[str] = Counter()
        self._seq = 0
        self._last_rescue: int | None = None
        self._no_rescue_before = 0

    def tick(self, ms: int = 1) -> None:
        """Let time pass."""
        self.now += ms

    def of(self, ids: Iterable[str]) -> list[Row]:
        return [self.jobs[job_id] for job_id in ids if job_id in self.jobs]

    def holder(self, key: str) -> tuple[str, str] | None:
        """Return id and state of the job that holds a unique key."""
        if key in self.held_until and self.held_until[key][2] > self.now:
            job_id, seq, _ = self.held_until[key]
            row = self.jobs.get(job_id)
            return job_id, row.state if row is not None and row.seq == seq else "completed"
        holders = [row for row in self.jobs.values() if self._holds(row, key)]
        assert len(holders) <= 1, f"{[row.id for row in holders]} all hold {key}"
        return (holders[0].id, holders[0].state) if holders else None

    def _holds(self, row: Row, key: str) -> bool:
        unique = row.new.unique
        return unique is not None and unique.key == key and RULES.holds_key(row, unique.while_, started=row.started)

    # Clients

    def enqueue(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
        self.tick()
        return [self._accept(job) for job in jobs]

    def _accept(self, new: NewJob) -> Enqueued:
        known = self.jobs.get(new.id)
        if known is not None:
            same = known.new.request == new.request
            return Enqueued(new.id, same, State(known.state), None if same else "id")
        if new.unique is not None and not self._doomed(new) and (holder := self.holder(new.unique.key)) is not None:
            if new.unique.on_conflict != "replace" or holder[1] not in PENDING or self.jobs[holder[0]].token:
                return Enqueued(holder[0], False, State(holder[1]), "unique")
            self._end(self.jobs[holder[0]], "cancelled", Reason.USER)
            self.held_until.pop(new.unique.key, None)
        doomed = self._doomed(new)  # looked at again: it may have replaced its own parent
        self._seq += 1
        due = self.now + int(new.delay * 1000)
        expires = None if new.expires_in is None else due + int(new.expires_in * 1000)
        row = Row(new, self._seq, self.now, due, expires)
        self.events["enqueued"] += 1
        parents = self.of(sorted(set(new.after)))
        row.parents = {parent.id for parent in parents}
        row.waits_for = {parent.id for parent in parents if parent.state not in FINAL}
        self.jobs[new.id] = row
        if doomed:
            self._settle(row, "cancelled", Reason.DEPENDENCY)
            return Enqueued(new.id, True, State.CANCELLED)
        if row.waits_for:
            row.state = "waiting"
        else:
            self._line_up(row)
        if new.unique is not None:
            self.held_until.pop(new.unique.key, None)
            if new.unique.ttl is not None:
                self.held_until[new.unique.key] = (new.id, row.seq, self.now + int(new.unique.ttl * 1000))
        return Enqueued(new.id, True, State(row.state))

    def _doomed(self, new: NewJob) -> bool:
        """Whether a new job can never run: a job that it is to run after ended badly or is gone."""
        parents = [self.jobs.get(job_id) for job_id in new.after]
        return not new.after_any and any(row is None or row.state in ("failed", "cancelled") for row in parents)

    def cancel(self, ids: Sequence[str]) -> list[CancelAnswer]:
        self.tick()
        return [self._cancel(job_id) for job_id in ids]

    def _cancel(self, job_id: str) -> CancelAnswer:
        row = self.jobs.get(job_id)
        if row is None:
            return CancelAnswer.NOT_FOUND
        if row.state == "running":
            row.cancel_requested = True
            return CancelAnswer.REQUESTED
        if row.state in PENDING:
            self._end(row, "cancelled", Reason.USER)
        elif row.reason is Reason.DEPENDENCY and row.ended == self.now:
            row.blurred = True
        return CancelAnswer.CANCELLED if row.state == "cancelled" else CancelAnswer.FINISHED

    def retry(self, ids: Sequence[str]) -> list[bool]:
        self.tick()
        return [self._retry(job_id) for job_id in ids]

    def _retry(self, job_id: str) -> bool:
        row = self.jobs.get(job_id)
        if row is None or row.state not in FINAL:
            return row is not None
        unique = row.new.unique
        if unique is not None and (holder := self.holder(unique.key)) is not None and holder[0] != job_id:
            return False
        row.state, row.reason, row.due, row.expires = "queued", None, self.now, None
        row.attempts = row.crashes = 0
        row.cancel_requested = row.started = False
        row.result = None
        return True

    def delete(self, ids: Sequence[str]) -> list[bool]:
        self.tick()
        running = {row.id for row in self.of(ids) if row.state == "running"}
        for row in self.of(ids):
            if row.state in PENDING:
                self._end(row, "cancelled", Reason.USER)
        self.forget(job_id for job_id in ids if job_id not in running)
        return [job_id not in running for job_id in ids]

    def set_queue(self, queue: str, *, paused: bool) -> None:
        self.tick()
        (self.paused.add if paused else self.paused.discard)(queue)

    # Workers

    def claim(self, queues: Sequence[str], limit: int, worker: str, held: Collection[str] | None) -> list[Row]:
        """Return the jobs that this claim must answer: those told again, in any order, then those handed out."""
        self.tick()
        for row in self.jobs.values():
            if row.state in TIMED and row.due <= self.now:
                row.state, row.reason = "queued", None
        again = [row for row in self.jobs.values() if row.owner == worker and held is not None and row.id not in held]
        for row in again:
            row.lease_until = self.now + self.lease_ms
        claimable = [r for r in self.jobs.values() if RULES.claimable(r, paused=r.new.queue in self.paused)]
        started: list[Row] = []
        for row in sorted(claimable, key=lambda row: row.place):
            if len(started) == limit:
                break
            if row.new.queue not in queues:
                continue
            if row.expires is not None and row.expires <= self.now and not row.token:
                self._end(row, "failed", Reason.EXPIRED)
                continue
            row.state, row.reason, row.owner, row.started = "running", None, worker, True
            row.lease_until = self.now + self.lease_ms
            row.attempts += 1
            row.wrote = False
            started.append(row)
        return [*again, *started]

    def grant(self, claimed: Claimed) -> None:
        """Note the token and nonce that the store chose for an attempt."""
        row = self.jobs[claimed.id]
        if (row.token, row.nonce) != claimed.lease[1:]:
            assert claimed.lease.token > row.token, f"token {row.token} was followed by {claimed.lease.token}"
            assert claimed.lease.nonce != row.nonce
        row.token, row.nonce = claimed.lease[1:]

    def heartbeat(self, leases: Sequence[Lease]) -> list[Hold]:
        self.tick()
        return [self._beat(lease) for lease in leases]

    def _beat(self, lease: Lease) -> Hold:
        row = self.jobs.get(lease.job_id)
        if row is None or not RULES.current(row, lease.token, lease.nonce):
            return Hold.LOST
        row.lease_until = self.now + self.lease_ms
        return Hold.CANCEL_REQUESTED if row.cancel_requested else Hold.HELD

    def append(self, lease: Lease, items: Sequence[FeedItem]) -> bool:
        self.tick()
        row = self.jobs.get(lease.job_id)
        if row is None or not RULES.current(row, lease.token, lease.nonce):
            return False
        for item in items:
            latest = max((key for key, known in row.feed.items() if known.kind is FeedKind.PROGRESS), default=(-1, -1))
            if item.kind is FeedKind.PROGRESS and latest <= (item.token, item.ordinal):
                row.feed.pop(latest, None)
            elif item.kind is FeedKind.PROGRESS:
                continue
            row.feed.setdefault((item.token, item.ordinal), item)
        return True

    def finish(self, outcomes: Sequence[tuple[Lease, Outcome]]) -> list[bool]:
        self.tick()
        return [self._finish(lease, outcome) for lease, outcome in outcomes]

    def _finish(self, lease: Lease, outcome: Outcome) -> bool:
        row = self.jobs.get(lease.job_id)
        if row is None:
            return False
        if not RULES.current(row, lease.token, lease.nonce):
            return RULES.repeated(row, lease.token, lease.nonce)
        state = RULES.state_after(row, RELEASED if outcome.state is State.QUEUED else outcome.state.value)
        row.wrote = True
        unread = outcome.reason is Reason.NO_WORKER and not row.cancel_requested
        if state != "completed" and not unread:
            row.history.append((row.token, row.attempts, row.owner or "", state))
        if state in FINAL:
            row.result = outcome.result if state == "completed" else None
            self._end(row, state, Reason.USER if row.cancel_requested else outcome.reason)
            return True
        row.state, row.reason, row.owner = state, outcome.reason, None
        row.attempts -= outcome.refund
        self.events["retried"] += state == "retrying"
        if state != "queued":
            row.due = self.now + int(outcome.delay * 1000)
        return True

    # Maintenance

    def rescuable(self, dead: Collection[str]) -> set[str]:
        """Say whose jobs may be taken back by a rescue that comes now."""
        self.tick()
        last, self._last_rescue = self._last_rescue, self.now
        if last is None or self.now - last > self.lease_ms:
            self._no_rescue_before = self.now + self.lease_ms
        grace = self.now < self._no_rescue_before
        running = [row for row in self.jobs.values() if row.state == "running"]
        return {row.id for row in running if row.owner in dead or (row.lease_until < self.now and not grace)}

    def late(self, *, within: int = 0) -> list[Row]:
        """Return the jobs that were not started in time, or will not have been in so many milliseconds."""
        startable = [row for row in self.jobs.values() if row.state in ("queued", "scheduled") and not row.token]
        return [row for row in startable if row.expires is not None and row.expires <= self.now + within]

    def rescue(self, taken: Iterable[str]) -> None:
        """Expire what was not started in time, and take these jobs back."""
        for row in self.late():
            self._end(row, "failed", Reason.EXPIRED)
        for row in self.of(taken):
            state = RULES.state_after_crash(row, row.new.max_crashes)
            row.history.append((row.token, row.attempts, row.owner or "", "crashed"))
            row.crashes += 1
            self.events["crashed"] += 1
            if state in FINAL:
                self._end(row, state, Reason.USER if state == "cancelled" else Reason.CRASHED)
            else:
                row.state, row.reason, row.owner = state, Reason.CRASHED, None

    def prunable(self, keep_finished: int) -> tuple[set[str], int]:
        """Say which ended jobs are too old, and how many more are too many."""
        self.tick()
        ended = [row for row in self.jobs.values() if row.state in FINAL]
        old = {row.id for row in ended if row.keep_until <= self.now}
        return old, max(len(ended) - len(old) - keep_finished, 0)

    def wanted(self, job_id: str, *, waiting: bool) -> bool:
        """Whether a job that has not ended, or even waits, was enqueued to run after this one."""
        rows = [row for row in self.jobs.values() if job_id in row.parents]
        return any(row.state == "waiting" if waiting else row.state not in FINAL for row in rows)

    def forget(self, ids: Iterable[str]) -> None:
        for job_id in ids:
            self.jobs.pop(job_id, None)
            for row in self.jobs.values():
                row.parents.discard(job_id)

    # What hangs on a move

    def _line_up(self, row: Row) -> None:
        row.state = "scheduled" if row.due > self.now else "queued"

    def _settle(self, row: Row, state: str, reason: Reason | None) -> None:
        row.state, row.reason, row.owner, row.waits_for = state, reason, None, set()
        row.ended, row.blurred = self.now, False
        row.keep_until = self.now + int(row.new.keep * 1000)

    def _end(self, row: Row, state: str, reason: Reason | None) -> None:
        self._settle(row, state, reason)
        self.events[state] += 1
        for child in [child for child in self.jobs.values() if row.id in child.waits_for]:
            if child.state != "waiting":  # ended meanwhile, through another parent
                continue
            child.waits_for.discard(row.id)
            if state != "completed" and not child.new.after_any:
                self._end(child, "cancelled", Reason.DEPENDENCY)
            elif not child.waits_for:
                self._line_up(child)
