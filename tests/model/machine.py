"""The store as a value, and the rules by which a job moves: transitions T1 to T17, each one atomic step.

A `Store` never changes; a rule takes one and returns the next with its answer, or None as the next if its guard does
not hold. What workers, clients and the network do to each other around the store is in `world`, what must hold in
`invariants`. A broken variant overrides one method of `Rules` (`variants`), and the sequential reference of the
stateful tests shares its guards (`reference`).

Time is not a number here. A lease "may have expired", a delayed job "may be due": any of it can happen at any moment,
which covers every clock.

      T1   absent → queued, scheduled, waiting, cancelled     enqueue
      T2   scheduled, retrying → queued                       its time came
      T3   waiting → queued, scheduled                        the last parent ended
      T4   waiting → cancelled                                a parent ended badly
      T5   queued → running                                   claim
      T6   queued, scheduled → failed                         not started in time
      T7   running → completed                                finish
      T8   running → retrying, scheduled                      finish: try again, snooze
      T9   running → failed                                   finish
      T10  running → cancelled                                finish, and a cancel was requested
      T11  running → queued, failed, cancelled                rescue
      T12  running → queued                                   finish: released at a shutdown
      T13  running → running                                  heartbeat
      T14  scheduled, waiting, queued, retrying → cancelled   cancel
      T15  running → running                                  cancel: the request is put on record
      T16  completed, failed, cancelled → queued              run again
      T17  anything but running → gone                        prune (ended jobs only), delete
"""

from __future__ import annotations

from typing import Final, NamedTuple, Protocol

ABSENT: Final = "absent"
SCHEDULED: Final = "scheduled"
WAITING: Final = "waiting"
QUEUED: Final = "queued"
RUNNING: Final = "running"
RETRYING: Final = "retrying"
COMPLETED: Final = "completed"
FAILED: Final = "failed"
CANCELLED: Final = "cancelled"
GONE: Final = "gone"

FINAL: Final = (COMPLETED, FAILED, CANCELLED)
TIMED: Final = (SCHEDULED, RETRYING)
STARTABLE: Final = (QUEUED, SCHEDULED, RETRYING)
PENDING: Final = (QUEUED, SCHEDULED, RETRYING, WAITING)

RELEASED: Final = "released"
"""The outcome of an attempt that a shutdown stopped. The other outcomes have the names of the states they lead to."""

REQUESTED: Final = "requested"
FINISHED: Final = "finished"
"""Answers to a cancel, beside `cancelled`."""

NOBODY: Final = -1


class Spec(NamedTuple):
    """What was asked for: the part of a job that never changes."""

    name: str
    after: tuple[int, ...] = ()
    after_any: bool = False
    unique: str = ""
    """`running` or `pending`: how long it holds the one unique key that there is. Empty: it wants none."""
    replace: bool = False
    """It takes the key from a holder that was not started."""
    delayed: bool = False
    expires: bool = False
    max_attempts: int = 1
    max_crashes: int = 2


class Past(NamedTuple):
    """What happened to a job, for the invariants. No rule may look at it."""

    accepted: bool = False
    cancel_answered: bool = False
    """A cancel was answered with "it is" or "it will be"."""
    taken_back: int = 0
    """How often an attempt was taken from its worker."""
    started: bool = False
    """It was claimed since it was enqueued or run again."""
    begun: bool = False
    """The code of the current attempt was started."""
    ran: bool = False
    """The code of the current attempt came to its end."""


class Job(NamedTuple):
    """A job's record in the store."""

    state: str = ABSENT
    token: int = 0
    nonce: int = 0
    owner: int = NOBODY
    lease_over: bool = False
    """`lease_until` has passed. A heartbeat may still come before the rescue."""
    due: bool = True
    expires: bool = False
    """It may be started for the first time until `expires_at` only."""
    late: bool = False
    """`expires_at` has passed."""
    started: bool = False
    """It was started once, be it before it was run again."""
    attempts: int = 0
    crashes: int = 0
    cancel_requested: bool = False
    wrote: bool = False
    """The current token's outcome was stored: a resent one is recognised by it."""
    waits_for: tuple[int, ...] = ()
    past: Past = Past()


class Store(NamedTuple):
    """All that is on disk."""

    jobs: tuple[Job, ...]
    key: int = NOBODY
    """The job that holds the unique key."""
    paused: bool = False


class Record(Protocol):
    """What the guards look at: a `Job` here, a row of the reference in the stateful tests."""

    @property
    def state(self) -> str: ...
    @property
    def token(self) -> int: ...
    @property
    def nonce(self) -> object: ...
    @property
    def crashes(self) -> int: ...
    @property
    def cancel_requested(self) -> bool: ...
    @property
    def wrote(self) -> bool: ...


class Rules:
    """The rules of the store. The first half are guards, the second half the transitions that they guard."""

    def __init__(self, specs: tuple[Spec, ...] = ()) -> None:
        self.specs = specs
        self.children = tuple(
            tuple(child for child, spec in enumerate(specs) if parent in spec.after) for parent in range(len(specs))
        )

    # Guards

    def current(self, job: Record, token: int, nonce: object) -> bool:
        """The fence: whether a write by this token and nonce is one of the attempt that runs now."""
        return job.state == RUNNING and (job.token, job.nonce) == (token, nonce)

    def repeated(self, job: Record, token: int, nonce: object) -> bool:
        """Whether the outcome of this token and nonce was stored already."""
        return job.wrote and (job.token, job.nonce) == (token, nonce)

    def claimable(self, job: Record, *, paused: bool) -> bool:
        """Whether a claim may take the job."""
        return job.state == QUEUED and not paused

    def state_after(self, job: Record, outcome: str) -> str:
        """Where an outcome moves a running job."""
        if job.cancel_requested:
            return CANCELLED
        return QUEUED if outcome == RELEASED else outcome

    def state_after_crash(self, job: Record, max_crashes: int) -> str:
        """Where a job goes whose worker fell silent; this crash is not counted in `job.crashes` yet."""
        if job.cancel_requested:
            return CANCELLED
        return FAILED if job.crashes + 1 >= max_crashes else QUEUED

    def replaceable(self, job: Job) -> bool:
        """Whether a new job may take the unique key from this one."""
        return job.state in PENDING and not job.started

    def holds_key(self, job: Record, unique: str, *, started: bool) -> bool:
        """Whether a job in this state holds its unique key; `started`: it was, since it was enqueued or run again."""
        if unique == "pending":
            return job.state in PENDING and not started
        return unique == "running" and (job.state in PENDING or job.state == RUNNING)

    # Transitions of the client

    def enqueue(self, store: Store, j: int) -> tuple[Store | None, str]:
        """T1, T14 for a replaced holder. Sent again it answers as before."""
        spec, job = self.specs[j], store.jobs[j]
        if job.state != ABSENT:
            return None, "created"
        if spec.unique and store.key != NOBODY and not self.doomed(store, j):
            if not (spec.replace and self.replaceable(store.jobs[store.key])):
                return None, "conflict"
            store = self.end(store, store.key, CANCELLED)
        if self.doomed(store, j):  # looked at again: it may have replaced its own parent
            return put(store, j, job._replace(state=CANCELLED)), "created"
        open_parents = tuple(p for p in spec.after if store.jobs[p].state in (*PENDING, RUNNING))
        job = job._replace(due=not spec.delayed, expires=spec.expires)
        if open_parents:
            job = job._replace(state=WAITING, waits_for=open_parents)
        else:
            job = job._replace(state=QUEUED if job.due else SCHEDULED)
        store = put(store, j, job)
        return store._replace(key=j) if spec.unique else store, "created"

    def doomed(self, store: Store, j: int) -> bool:
        """Whether a new job can never run: a job that it is to run after ended badly or is gone."""
        states = [store.jobs[p].state for p in self.specs[j].after]
        return not self.specs[j].after_any and any(s in (FAILED, CANCELLED, ABSENT, GONE) for s in states)

    def cancel(self, store: Store, j: int) -> tuple[Store | None, str]:
        """T14, T15."""
        job = store.jobs[j]
        if job.state in PENDING:
            return self.end(store, j, CANCELLED), CANCELLED
        if job.state == RUNNING:
            return put(store, j, job._replace(cancel_requested=True)), REQUESTED
        return None, CANCELLED if job.state == CANCELLED else FINISHED

    def run_again(self, store: Store, j: int) -> Store | None:
        """T16."""
        job, spec = store.jobs[j], self.specs[j]
        if job.state not in FINAL or (spec.unique and store.key not in (NOBODY, j)):
            return None
        job = job._replace(state=QUEUED, due=True, attempts=0, crashes=0, cancel_requested=False)
        job = job._replace(expires=False, late=False)
        store = put(store, j, job)
        return store._replace(key=j) if spec.unique else store

    def remove(self, store: Store, j: int, *, by_age: bool) -> Store | None:
        """T17: `by_age` is retention, else a person deletes the job."""
        state = store.jobs[j].state
        if state in (ABSENT, GONE, RUNNING) or (by_age and state not in FINAL):
            return None
        return put(self.end(store, j, GONE), j, Job(state=GONE))

    # Transitions of time

    def promote(self, store: Store, j: int) -> Store | None:
        """T2."""
        job = store.jobs[j]
        return put(store, j, job._replace(state=QUEUED)) if job.state in TIMED and job.due else None

    def expire(self, store: Store, j: int) -> Store | None:
        """T6."""
        job = store.jobs[j]
        return self.end(store, j, FAILED) if job.state in (QUEUED, SCHEDULED) and job.late else None

    # Transitions of the worker

    def claim(self, store: Store, j: int, worker: int, nonce: int) -> Store | None:
        """T5."""
        job = store.jobs[j]
        if not self.claimable(job, paused=store.paused) or job.late:
            return None
        store = put(
            store,
            j,
            job._replace(
                state=RUNNING,
                token=job.token + 1,
                nonce=nonce,
                owner=worker,
                lease_over=False,
                attempts=job.attempts + 1,
                started=True,
                expires=False,
                wrote=False,
            ),
        )
        if self.specs[j].unique == "pending" and store.key == j:
            return store._replace(key=NOBODY)
        return store

    def heartbeat(self, store: Store, j: int, token: int, nonce: int) -> tuple[Store | None, str]:
        """T13: extends even a lease that is over, if nobody has taken the job back."""
        job = store.jobs[j]
        if not self.current(job, token, nonce):
            return None, "lost"
        return put(store, j, job._replace(lease_over=False)), "cancel requested" if job.cancel_requested else "held"

    def finish(self, store: Store, j: int, token: int, nonce: int, outcome: str) -> tuple[Store | None, bool]:
        """T7 to T10, T12."""
        job = store.jobs[j]
        if not self.current(job, token, nonce):
            return None, self.repeated(job, token, nonce)
        state = self.state_after(job, outcome)
        store = put(store, j, job._replace(wrote=True))
        if state in FINAL:
            return self.end(store, j, state), True
        job = store.jobs[j]._replace(state=state, owner=NOBODY, lease_over=False, due=state == QUEUED)
        if outcome in (RELEASED, SCHEDULED):
            job = job._replace(attempts=job.attempts - 1)
        return put(store, j, job), True

    # Transitions of maintenance

    def rescue(self, store: Store, j: int) -> Store | None:
        """T11: reads the lease again in the step that acts on it."""
        job = store.jobs[j]
        return self.take_back(store, j) if job.state == RUNNING and job.lease_over else None

    def take_back(self, store: Store, j: int) -> Store:
        """What a rescue does once it has decided."""
        job = store.jobs[j]
        state = self.state_after_crash(job, self.specs[j].max_crashes)
        job = self.count_crash(job)
        if state in FINAL:
            return self.end(put(store, j, job), j, state)
        return put(store, j, job._replace(state=state, owner=NOBODY, lease_over=False))

    def count_crash(self, job: Job) -> Job:
        """Every attempt that was taken back is counted."""
        return job._replace(crashes=job.crashes + 1)

    # What hangs on an end

    def end(self, store: Store, j: int, state: str) -> Store:
        """Move a job to a final state, give its key back and settle its dependents: all in the caller's step."""
        job = store.jobs[j]._replace(state=state, owner=NOBODY, lease_over=False, waits_for=())
        store = self.give_key_back(put(store, j, job), j)
        for child in self.children[j]:
            store = self.settle(store, j, child)
        return store

    def give_key_back(self, store: Store, j: int) -> Store:
        """Free the unique key if this job holds it."""
        return store._replace(key=NOBODY) if store.key == j else store

    def settle(self, store: Store, parent: int, c: int) -> Store:
        """T3, T4: tell a child that a parent ended. It counts once, also if the parent is run again and ends again."""
        child = store.jobs[c]
        if child.state != WAITING or parent not in child.waits_for:
            return store
        if store.jobs[parent].state != COMPLETED and not self.specs[c].after_any:
            return self.end(store, c, CANCELLED)
        waits_for = tuple(p for p in child.waits_for if p != parent)
        return self.release_child(put(store, c, child._replace(waits_for=waits_for)), c)

    def release_child(self, store: Store, c: int) -> Store:
        """T3: the child is ready once no parent is open."""
        child = store.jobs[c]
        if child.waits_for:
            return store
        return put(store, c, child._replace(state=QUEUED if child.due else SCHEDULED))


def put(store: Store, j: int, job: Job) -> Store:
    """Return the store with one record replaced."""
    return store._replace(jobs=(*store.jobs[:j], job, *store.jobs[j + 1 :]))
