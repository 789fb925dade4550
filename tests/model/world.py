"""The world around the store: workers and what they believe, clients, the network, and all that can go wrong.

A `World` never changes; `Machine.steps` gives every step that can be taken from one, in whatever order the explorer
likes. Each step holds at most one call of the store, because every call is atomic; all that happens between two calls
(a worker freezes, a lease runs out, somebody cancels) is a step of its own and can come in between.

What is believed is kept apart from what is stored. A frozen worker goes on believing in its attempt, a call it sent
before still arrives, a reply can be lost after the commit, and a call can arrive a second time, long after its answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from tests.model.machine import (
    ABSENT,
    CANCELLED,
    COMPLETED,
    FAILED,
    FINISHED,
    PENDING,
    RELEASED,
    REQUESTED,
    RETRYING,
    RUNNING,
    SCHEDULED,
    TIMED,
    Job,
    Rules,
    Spec,
    Store,
    put,
)

ALIVE: Final = "alive"
FROZEN: Final = "frozen"
DEAD: Final = "dead"

GRANTED: Final = "granted"
"""The store has served the claim, the reply is on its way."""
BEGUN: Final = "begun"
"""The code runs."""
ENDED: Final = "ended"
"""The code has ended. The outcome is sent until it is answered, so it may be on its way at any time."""


class Hold(NamedTuple):
    """What a worker believes of one attempt; believing does not make it true."""

    job: int
    token: int
    nonce: int
    last: bool
    """No error may be retried after this attempt."""
    phase: str = GRANTED
    outcome: str = ""


class Worker(NamedTuple):
    mode: str = ALIVE
    holds: tuple[Hold, ...] = ()
    """One claim is on its way at a time, and a job is listed as held until its outcome was answered."""


class Chore(NamedTuple):
    """What a worker will do because of what it read earlier. No rule of the model needs one; broken variants do."""

    worker: int
    rule: str
    job: int


class World(NamedTuple):
    store: Store
    workers: tuple[Worker, ...]
    wire: tuple[Hold, ...] = ()
    """Second copies of finish calls, still on their way."""
    chores: tuple[Chore, ...] = ()
    counted: bool = True
    """Tokens may be renumbered: the store cannot lose one that it gave out."""
    backup: Store | None = None
    """What the disk would hold after a power cut."""
    faults: int = 0
    """How many more things may go wrong."""
    actions: int = 0
    """How many more things people may do."""


class Setup(NamedTuple):
    """What one exploration is about. Its size is bounded by `faults` and `actions`; lease ends need no bound."""

    name: str
    specs: tuple[Spec, ...]
    workers: int = 2
    slots: int = 1
    faults: int = 1
    actions: int = 1
    kinds: frozenset[str] = frozenset({"cancel"})
    """Which actions there are: cancel, pause, again, delete, prune, shutdown, snooze."""
    dangers: frozenset[str] = frozenset({"freeze", "die", "lose", "double"})
    """Which faults there are, and `power`: the store falls back to an earlier state."""


class Step(NamedTuple):
    """One step: the transition it takes (or an empty string), how to tell it, and where it leads."""

    rule: str
    text: str
    world: World
    job: int = -1
    answer: object = None
    hold: Hold | None = None
    """The attempt in whose name the step was taken."""
    fair: bool = True
    """It happens by itself if nothing goes wrong and nobody does anything."""


class Machine(Rules):
    """The rules in a world: what can happen next."""

    def __init__(self, setup: Setup) -> None:
        super().__init__(setup.specs)
        self.setup = setup

    def start(self) -> World:
        setup = self.setup
        store = Store(tuple(Job() for _ in setup.specs))
        return World(
            store,
            (Worker(),) * setup.workers,
            counted="power" not in setup.dangers,
            faults=setup.faults,
            actions=setup.actions,
        )

    def steps(self, world: World) -> Iterator[Step]:
        """Give every step that can be taken and changes anything."""
        yield from self.client_steps(world)
        yield from self.time_steps(world)
        yield from self.rescue_steps(world)
        for w, worker in enumerate(world.workers):
            yield from self.claim_steps(world, w, worker)
            for hold in worker.holds:
                yield from self.attempt_steps(world, w, worker, hold)
        yield from self.network_steps(world)
        yield from self.fault_steps(world)
        for chore in world.chores:
            if world.workers[chore.worker].mode == ALIVE:
                chores = tuple(c for c in world.chores if c != chore)
                store = self.do(world.store, chore)
                name, state = self.specs[chore.job].name, store.jobs[chore.job].state
                text = f"W{chore.worker + 1} acts on what it read of {name}: {state}"
                yield Step(chore.rule, text, world._replace(store=store, chores=chores), chore.job)

    # People

    def client_steps(self, world: World) -> Iterator[Step]:
        store, kinds = world.store, self.setup.kinds
        for j, spec in enumerate(self.specs):
            if store.jobs[j].state == ABSENT and not store.jobs[j].past.accepted:
                after, answer = self.enqueue(store, j)
                if after is not None:
                    after = remember(after, j, accepted=True)
                    yield Step("T1", f"{spec.name} is enqueued: {after.jobs[j].state}", act(world, after, 0), j, answer)
        if not world.actions:
            return
        for j, spec in enumerate(self.specs):
            name, job = spec.name, store.jobs[j]
            if not job.past.accepted:
                continue
            if "cancel" in kinds:
                changed, answer = self.cancel(store, j)
                after = remember(changed or store, j, cancel_answered=job.past.cancel_answered or answer != FINISHED)
                if after != store:
                    rule = "T15" if answer == REQUESTED else "T14"
                    yield Step(rule, f"somebody cancels {name}: {answer}", act(world, after), j, answer, fair=False)
            if "again" in kinds and (again := self.run_again(store, j)) is not None:
                again = remember(again, j, cancel_answered=False, taken_back=0, started=False)
                yield Step("T16", f"somebody runs {name} again", act(world, again), j, fair=False)
            for kind in ("delete", "prune"):
                if kind in kinds and (gone := self.remove(store, j, by_age=kind == "prune")) is not None:
                    yield Step("T17", f"{kind} {name}", act(world, gone), j, fair=False)
        if "pause" in kinds:
            word = "resumed" if store.paused else "paused"
            after = store._replace(paused=not store.paused)
            yield Step("", f"the queue is {word}", act(world, after), fair=False)

    # Time and maintenance

    def time_steps(self, world: World) -> Iterator[Step]:
        store = world.store
        for j, spec in enumerate(self.specs):
            name, job = spec.name, store.jobs[j]
            if job.state == RUNNING and not job.lease_over:
                yield Step("", f"the lease of {name} runs out", change(world, j, job._replace(lease_over=True)))
            if not job.due and job.state in (SCHEDULED, RETRYING):
                yield Step("", f"{name} is due", change(world, j, job._replace(due=True)))
            if job.expires and not job.late and job.state in PENDING:
                yield Step("", f"{name} is too late", change(world, j, job._replace(late=True)), fair=False)
            if job.state in TIMED and (after := self.promote(store, j)) is not None:
                yield Step("T2", f"{name} is promoted", world._replace(store=after), j)
            if job.late and (after := self.expire(store, j)) is not None:
                yield Step("T6", f"{name} expires", world._replace(store=after), j)

    def rescue_steps(self, world: World) -> Iterator[Step]:
        for j, job in enumerate(world.store.jobs):
            if job.lease_over and (after := self.rescue(world.store, j)) is not None:
                after = remember(after, j, taken_back=job.past.taken_back + 1)
                text = f"{self.specs[j].name} is rescued: {after.jobs[j].state}"
                yield Step("T11", text, world._replace(store=after), j)

    # Workers

    def claim_steps(self, world: World, w: int, worker: Worker) -> Iterator[Step]:
        """A claim that a worker sent before it froze is still served."""
        on_its_way = any(hold.phase == GRANTED for hold in worker.holds)
        if worker.mode == DEAD or on_its_way or len(worker.holds) >= self.setup.slots:
            return
        store = world.store
        for j, spec in enumerate(self.specs):
            job = store.jobs[j]
            after = self.claim(store, j, w, fresh_nonce(world, j))
            if after is not None:
                taken = after.jobs[j]
                after = remember(after, j, started=True, begun=False, ran=False)
                last = taken.attempts - taken.crashes >= spec.max_attempts
                hold = Hold(j, taken.token, taken.nonce, last)
                sent = "" if worker.mode == ALIVE else " (sent before it froze)"
                text = f"W{w + 1} claims {spec.name}{sent}: token {taken.token}"
                yield Step("T5", text, believe(world, w, after, add=hold), j, hold=hold, fair=not sent)
            elif (
                worker.mode == ALIVE
                and (job.state, job.owner) == (RUNNING, w)
                and not any(hold.job == j and self.lists(hold) for hold in worker.holds)
            ):
                last = job.attempts - job.crashes >= spec.max_attempts
                hold = Hold(j, job.token, job.nonce, last)
                text = f"W{w + 1} claims, and is told again of {spec.name}"
                yield Step("", text, believe(world, w, store, add=hold), j)

    def lists(self, hold: Hold) -> bool:
        """Whether a worker's claim names this job as one that it knows it holds."""
        return True

    def attempt_steps(self, world: World, w: int, worker: Worker, hold: Hold) -> Iterator[Step]:
        """What can come next of an attempt that a worker believes in."""
        j, store = hold.job, world.store
        job, name = store.jobs[j], f"{self.specs[j].name} (token {hold.token})"
        if hold.phase == ENDED:
            yield from self.finish_steps(world, w, worker, hold)
        if worker.mode != ALIVE:
            return
        current = job.nonce == hold.nonce
        if hold.phase == GRANTED:
            after = remember(store, j, begun=True) if current else store
            begun = hold._replace(phase=BEGUN)
            yield Step("", f"W{w + 1} starts {name}", believe(world, w, after, hold, begun), j, hold=hold)
            return
        if hold.phase == BEGUN:
            for outcome in self.outcomes(world, hold):
                told = outcome in (RELEASED, SCHEDULED)
                after = remember(store, j, ran=True) if current and outcome == COMPLETED else store
                ended = hold._replace(phase=ENDED, outcome=outcome)
                next_world = act(believe(world, w, after, hold, ended), after, int(told))
                yield Step("", f"W{w + 1}: {name} ends, {outcome}", next_world, j, fair=not told)
        renewed, answer = self.heartbeat(store, j, hold.token, hold.nonce)
        if answer == "lost":
            yield Step("T13", f"W{w + 1} hears that {name} is lost", believe(world, w, store, hold), j)
        elif answer == "cancel requested" and hold.phase == BEGUN:
            ended = hold._replace(phase=ENDED, outcome=CANCELLED)
            text = f"W{w + 1} hears that {name} is to be cancelled, and stops it"
            yield Step("T13", text, believe(world, w, renewed or store, hold, ended), j, answer, hold)
        elif job.lease_over and renewed is not None:
            yield Step("T13", f"W{w + 1} renews {name}", world._replace(store=renewed), j, answer, hold)

    def outcomes(self, world: World, hold: Hold) -> Iterator[str]:
        """How code may end; the worker knows the retry policy, the store does not."""
        yield COMPLETED
        yield FAILED if hold.last else RETRYING
        if world.actions and "shutdown" in self.setup.kinds:
            yield RELEASED
        if world.actions and "snooze" in self.setup.kinds:
            yield SCHEDULED

    def finish_steps(self, world: World, w: int, worker: Worker, hold: Hold) -> Iterator[Step]:
        """The outcome arrives; the reply may not, and the call may arrive twice."""
        j, name = hold.job, f"{self.specs[hold.job].name} {hold.outcome} (token {hold.token})"
        after, answer = self.finish(world.store, j, hold.token, hold.nonce, hold.outcome)
        rule = finish_rule(world.store.jobs[j], hold) if after is not None else ""
        store = after or world.store
        told = f"W{w + 1} finishes {name}: {answer}"
        served = self.after_finish(world._replace(store=store), w)
        if worker.mode != FROZEN:
            sent = "" if worker.mode == ALIVE else " (sent before it died)"
            yield Step(rule, told + sent, believe(served, w, store, hold), j, answer, hold, fair=worker.mode == ALIVE)
        elif after is not None:
            yield Step(rule, told + " (sent before it froze)", served, j, answer, hold, fair=False)
        if worker.mode == ALIVE and world.faults:
            if "lose" in self.setup.dangers and after is not None:
                lost = served._replace(faults=world.faults - 1)
                yield Step(rule, told + ", but the reply is lost", lost, j, answer, hold, fair=False)
            if "double" in self.setup.dangers:
                doubled = believe(served, w, store, hold)
                doubled = doubled._replace(faults=world.faults - 1, wire=(*world.wire, hold))
                yield Step(rule, told + ", and a copy is on its way", doubled, j, answer, hold, fair=False)

    # What goes wrong

    def network_steps(self, world: World) -> Iterator[Step]:
        for hold in world.wire:
            store, answer = self.finish(world.store, hold.job, hold.token, hold.nonce, hold.outcome)
            wire = tuple(h for h in world.wire if h != hold)
            rule = finish_rule(world.store.jobs[hold.job], hold) if store is not None else ""
            text = f"the copy arrives: {self.specs[hold.job].name} {hold.outcome} (token {hold.token}): {answer}"
            next_world = world._replace(store=store or world.store, wire=wire)
            yield Step(rule, text, next_world, hold.job, answer, hold, fair=False)

    def fault_steps(self, world: World) -> Iterator[Step]:
        for w, worker in enumerate(world.workers):
            if worker.mode == FROZEN:
                yield Step("", f"W{w + 1} thaws", become(world, w, worker._replace(mode=ALIVE)), fair=False)
        if not world.faults:
            return
        harmed = world._replace(faults=world.faults - 1)
        dangers = self.setup.dangers
        for w, worker in enumerate(world.workers):
            if worker.mode == ALIVE and "freeze" in dangers:
                yield Step("", f"W{w + 1} freezes", become(harmed, w, worker._replace(mode=FROZEN)), fair=False)
            if worker.mode != DEAD and "die" in dangers:
                sent = tuple(hold for hold in worker.holds if hold.phase == ENDED)
                dead = become(harmed, w, Worker(DEAD, sent))
                dead = dead._replace(chores=tuple(c for c in world.chores if c.worker != w))
                yield Step("", f"W{w + 1} dies", dead, fair=False)
            for hold in worker.holds:
                if hold.phase == GRANTED and worker.mode == ALIVE and "lose" in dangers:
                    text = f"the reply to W{w + 1}'s claim is lost"
                    yield Step("", text, believe(harmed, w, world.store, hold), fair=False)
        if "power" in dangers:
            if world.backup is None:
                yield Step("", "the disk is flushed", world._replace(backup=world.store), fair=False)
            elif world.backup != world.store:
                back = harmed._replace(store=forget(world), backup=None)
                yield Step("power", "the power fails: the store is as it was at the flush", back, fair=False)

    # What broken variants do in two steps

    def after_finish(self, world: World, worker: int) -> World:
        """What a worker still has to do once the store has taken its outcome: nothing."""
        return world

    def do(self, store: Store, chore: Chore) -> Store:
        """Do what was left for later."""
        raise NotImplementedError(chore)


def finish_rule(job: Job, hold: Hold) -> str:
    """Which transition an outcome asks for."""
    if job.cancel_requested or hold.outcome == CANCELLED:
        return "T10"
    return {COMPLETED: "T7", RETRYING: "T8", SCHEDULED: "T8", FAILED: "T9", RELEASED: "T12"}[hold.outcome]


def fresh_nonce(world: World, j: int) -> int:
    """Return a nonce that nobody knows."""
    known = [world.store.jobs[j].nonce]
    known += [hold.nonce for worker in world.workers for hold in worker.holds if hold.job == j]
    known += [hold.nonce for hold in world.wire if hold.job == j]
    if world.backup is not None:
        known.append(world.backup.jobs[j].nonce)
    return max(known) + 1


def remember(store: Store, j: int, **facts: Any) -> Store:
    """Return the store with facts added to a job's past."""
    job = store.jobs[j]
    past = job.past._replace(**facts)
    return store if past == job.past else put(store, j, job._replace(past=past))


def forget(world: World) -> Store:
    """Return the store of the last flush. What code did since then cannot be undone by it."""
    assert world.backup is not None
    store = world.backup
    ended = {(h.job, h.nonce) for w in world.workers for h in w.holds if h.outcome == COMPLETED}
    for j, job in enumerate(store.jobs):
        store = remember(store, j, begun=False, ran=(j, job.nonce) in ended)
    return store


def act(world: World, store: Store, cost: int = 1) -> World:
    return world._replace(store=store, actions=world.actions - cost)


def change(world: World, j: int, job: Job) -> World:
    return world._replace(store=put(world.store, j, job))


def become(world: World, w: int, worker: Worker) -> World:
    return world._replace(workers=(*world.workers[:w], worker, *world.workers[w + 1 :]))


def believe(world: World, w: int, store: Store, drop: Hold | None = None, add: Hold | None = None) -> World:
    """Return the world with another store, and a worker that gave up one belief and took on another."""
    worker = world.workers[w]
    holds = [hold for hold in worker.holds if hold != drop]
    if add is not None:
        holds.append(add)
    holds.sort()
    return become(world._replace(store=store), w, worker._replace(holds=tuple(holds)))


def done(world: World) -> bool:
    """Whether every accepted job has ended, or waits in a paused queue."""
    for job in world.store.jobs:
        if not job.past.accepted:
            continue
        if job.state == ABSENT or job.state == RUNNING or (job.state in PENDING and not world.store.paused):
            return False
    return True
