"""The model with one rule broken, each the way that a real queue has it. Every one must be caught."""

from __future__ import annotations

from collections.abc import Iterator

from tests.model.machine import (
    ABSENT,
    FAILED,
    NOBODY,
    QUEUED,
    REQUESTED,
    RETRYING,
    RUNNING,
    WAITING,
    Job,
    Record,
    Store,
    put,
)
from tests.model.world import ALIVE, ENDED, Chore, Hold, Machine, Step, World


class NoFence(Machine):
    """Whoever finishes a job finishes it."""

    def current(self, job: Record, token: int, nonce: object) -> bool:
        return True


class FenceOnState(Machine):
    """A job that runs may be finished, no matter by which attempt."""

    def current(self, job: Record, token: int, nonce: object) -> bool:
        return job.state == RUNNING


class FenceOnTokenAlone(Machine):
    """A store that lost its last writes gives a token out twice; without the nonce both attempts have it."""

    def current(self, job: Record, token: int, nonce: object) -> bool:
        return job.state == RUNNING and job.token == token


class RescueFromSnapshot(Machine):
    """The lease is read in one step, and the job taken back in another that does not look again."""

    def rescue_steps(self, world: World) -> Iterator[Step]:
        for w, worker in enumerate(world.workers):
            for j, job in enumerate(world.store.jobs):
                chore = Chore(w, "T11", j)
                if worker.mode == ALIVE and job.state == RUNNING and job.lease_over and chore not in world.chores:
                    chores = tuple(sorted((*world.chores, chore)))
                    yield Step("", f"W{w + 1} reads: the lease of {self.specs[j].name} is over", plan(world, chores))

    def do(self, store: Store, chore: Chore) -> Store:
        return self.take_back(store, chore.job)


class CancelByHint(Machine):
    """A running job's worker is told to stop it, and nothing is put on record: hints can be lost."""

    def cancel(self, store: Store, j: int) -> tuple[Store | None, str]:
        if store.jobs[j].state == RUNNING:
            return None, REQUESTED
        return super().cancel(store, j)


class CrashForgotten(Machine):
    """A job that is handed out again after a crash is as good as new."""

    def count_crash(self, job: Job) -> Job:
        return job


class FanInInTwoSteps(Machine):
    """The end of a parent counts down in one step; the worker then looks whether that was the last, in another."""

    def release_child(self, store: Store, c: int) -> Store:
        return store

    def after_finish(self, world: World, worker: int) -> World:
        children = enumerate(world.store.jobs)
        found = [Chore(worker, "T3", c) for c, child in children if child.state == WAITING and not child.waits_for]
        return plan(world, tuple(sorted({*world.chores, *found}))) if found else world

    def do(self, store: Store, chore: Chore) -> Store:
        return put(store, chore.job, store.jobs[chore.job]._replace(state=QUEUED))


class ClaimDeletes(Machine):
    """A claim takes the job out of the store; only the outcome brings it back."""

    def claim(self, store: Store, j: int, worker: int, nonce: int) -> Store | None:
        after = super().claim(store, j, worker, nonce)
        return after and put(after, j, after.jobs[j]._replace(state=ABSENT, owner=NOBODY))

    def current(self, job: Record, token: int, nonce: object) -> bool:
        return job.state == ABSENT and (job.token, job.nonce) == (token, nonce)


class CancelForgottenAtRescue(Machine):
    """A rescue gives back what was to be cancelled."""

    def state_after_crash(self, job: Record, max_crashes: int) -> str:
        return FAILED if job.crashes + 1 >= max_crashes else QUEUED


class RetryWinsOverCancel(Machine):
    """A job that is to be cancelled and fails is tried again all the same."""

    def state_after(self, job: Record, outcome: str) -> str:
        return RETRYING if outcome == RETRYING else super().state_after(job, outcome)


class PauseIgnored(Machine):
    """A claim does not look at the pause."""

    def claimable(self, job: Record, *, paused: bool) -> bool:
        return job.state == QUEUED


class OutcomeForgotten(Machine):
    """A resent outcome is refused, though it was stored."""

    def repeated(self, job: Record, token: int, nonce: object) -> bool:
        return False


class TokenLeftStanding(Machine):
    """A rescue leaves the token as it is, so an outcome that came too late looks like one sent twice."""

    def repeated(self, job: Record, token: int, nonce: object) -> bool:
        return job.state != RUNNING and (job.token, job.nonce) == (token, nonce)


class KeyKept(Machine):
    """The unique key is given back later, by something else."""

    def give_key_back(self, store: Store, j: int) -> Store:
        return store


class KeyTakenTwice(Machine):
    """A job that is run again takes its unique key, whoever has it."""

    def run_again(self, store: Store, j: int) -> Store | None:
        after = super().run_again(store._replace(key=NOBODY), j)
        return after and after._replace(key=j)


class EndCountedTwice(Machine):
    """Dependencies are a mere number, so a parent that is run again counts down a second time."""

    def settle(self, store: Store, parent: int, c: int) -> Store:
        child = store.jobs[c]
        if not child.waits_for or parent in child.waits_for:
            return super().settle(store, parent, c)
        return self.release_child(put(store, c, child._replace(waits_for=child.waits_for[1:])), c)


class ForgottenBeforeTheAnswer(Machine):
    """A worker stops listing a job when it sends the outcome, not when that is answered; so it is handed out anew."""

    def lists(self, hold: Hold) -> bool:
        return hold.phase != ENDED


def plan(world: World, chores: tuple[Chore, ...]) -> World:
    return world._replace(chores=chores)
