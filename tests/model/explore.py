"""Visit every world that can be reached, breadth first, and tell the shortest way to one that must not be.

Worlds that differ only in which of two equal workers is called the first are one. When all of them hold what they must,
the steps that happen by themselves are followed backwards from the worlds in which every job has ended: whatever
cannot be reached so would wait for ever (L1).
"""

from __future__ import annotations

import time
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain, pairwise

from tests.model.invariants import POWER, of_step, of_world
from tests.model.machine import NOBODY, Store
from tests.model.world import ALIVE, Hold, Machine, Step, Worker, World, done


@dataclass(frozen=True)
class Exploration:
    """What an exploration found."""

    machine: Machine
    states: int
    steps: int
    seconds: float
    broken: str = ""
    """What does not hold; empty if all does."""
    trace: list[Step] = field(default_factory=list)
    moves: frozenset[tuple[str, str]] = frozenset()
    """From which state to which a job was seen to go."""

    def __str__(self) -> str:
        """Tell the result in one line, and the way to what is broken in some more."""
        setup = self.machine.setup
        size = f"{self.states:,} states, {self.steps:,} steps, {self.seconds:.1f} s"
        if not self.broken:
            return f"{setup.name}: {size}: no violation"
        lines = [f"{type(self.machine).__name__} ({setup.name}; found after {size})"]
        for number, step in enumerate(self.trace, 1):
            lines.append(f"  {number:2}. {step.rule:5} {step.text}")
        return "\n".join([*lines, f"  ==> {self.broken}"])


def canonical(world: World) -> World:
    """Return the same world with tokens counted from 0 and its workers in a fixed order.

    Rules only ask of tokens and nonces which are equal and which is larger. After a power cut that is no longer so
    (a token may be given out again), and they keep their numbers.
    """
    if world.counted:
        world = recounted(world)
    workers = world.workers
    if all(first < second for first, second in pairwise(workers)):
        return world
    order = sorted(range(len(workers)), key=lambda w: (workers[w], marks(world, w)))
    rank = {old: new for new, old in enumerate(order)} | {NOBODY: NOBODY}

    def renamed(store: Store) -> Store:
        return store._replace(jobs=tuple([job._replace(owner=rank[job.owner]) for job in store.jobs]))

    return world._replace(
        store=renamed(world.store),
        workers=tuple([workers[old] for old in order]),
        chores=tuple(sorted([chore._replace(worker=rank[chore.worker]) for chore in world.chores])),
        backup=renamed(world.backup) if world.backup else None,
    )


def marks(world: World, w: int) -> tuple[object, ...]:
    """Return what tells two workers apart that believe the same."""
    stores = [world.store, world.backup] if world.backup else [world.store]
    owned = [job.owner == w for store in stores for job in store.jobs]
    return owned, [chore[1:] for chore in world.chores if chore.worker == w]


def recounted(world: World) -> World:
    """Return the same world with each job's tokens in use, the oldest first, counted from 0; and nonces like them."""
    used: list[set[int]] = [{job.token} for job in world.store.jobs]
    for holds in (*[worker.holds for worker in world.workers], world.wire):
        for hold in holds:
            used[hold.job].add(hold.token)
    if all(max(tokens) < len(tokens) for tokens in used):
        return world
    rank = [{token: new for new, token in enumerate(sorted(tokens))} for tokens in used]

    def renamed(holds: tuple[Hold, ...]) -> tuple[Hold, ...]:
        return tuple([h._replace(token=rank[h.job][h.token], nonce=rank[h.job][h.token]) for h in holds])

    jobs = [job._replace(token=rank[j][job.token], nonce=rank[j][job.token]) for j, job in enumerate(world.store.jobs)]
    return world._replace(
        store=world.store._replace(jobs=tuple(jobs)),
        workers=tuple([Worker(worker.mode, renamed(worker.holds)) for worker in world.workers]),
        wire=renamed(world.wire),
    )


def everything(broken: str) -> bool:
    """Heed whatever is broken."""
    return True


def explore(machine: Machine, *, heed: Callable[[str], bool] = everything, limit: int = 2_000_000) -> Exploration:
    """Visit all worlds, or those up to the first in which something is broken that `heed` does not wave through."""
    began = time.perf_counter()
    first = canonical(machine.start())
    found: dict[World, int] = {first: 0}
    worlds = [first]
    parents = array("l", [-1])
    fair_from, fair_to = array("l"), array("l")
    taken = 0
    moves: set[tuple[str, str]] = set()

    def report(broken: str = "", trace: list[Step] | None = None) -> Exploration:
        seconds = time.perf_counter() - began
        return Exploration(machine, len(worlds), taken, seconds, broken, trace or [], frozenset(moves))

    def violation(at: int, goal: World) -> Exploration:
        """Tell it of the worlds as they were, not of those with other numbers that stand for them."""
        world, trace = retrace(machine, worlds, parents, at)
        for step in machine.steps(world):
            broken = next(filter(heed, chain(of_step(machine, world, step), of_world(machine, step.world))), "")
            if broken and canonical(step.world) == goal:
                return report(broken, [*trace, step])
        raise AssertionError("the way to a violation was lost")

    for here, world in enumerate(worlds):  # grows as it is walked: breadth first
        for step in machine.steps(world):
            taken += 1
            if step.rule and step.rule != POWER:
                jobs = zip(world.store.jobs, step.world.store.jobs, strict=True)
                moves.update([(old.state, new.state) for old, new in jobs if old.state != new.state])
            reached = canonical(step.world)
            if any(map(heed, of_step(machine, world, step))):
                return violation(here, reached)
            there = found.setdefault(reached, len(worlds))
            if there == len(worlds):
                if there >= limit:
                    raise AssertionError(f"{machine.setup.name}: more than {limit:,} states; give it tighter bounds")
                worlds.append(reached)
                parents.append(here)
                if any(map(heed, of_world(machine, reached))):
                    return violation(here, reached)
            if step.fair and there != here:
                fair_from.append(here)
                fair_to.append(there)

    ends = can_end(worlds, fair_from, fair_to)
    for here, world in enumerate(worlds):
        if not ends[here] and any(worker.mode == ALIVE for worker in world.workers):
            return report("L1: from here on, a job never ends", retrace(machine, worlds, parents, here)[1])
    return report()


def can_end(worlds: list[World], fair_from: array[int], fair_to: array[int]) -> bytearray:
    """Mark the worlds from which every job can end by steps that happen by themselves."""
    before: list[list[int]] = [[] for _ in worlds]
    for source, target in zip(fair_from, fair_to, strict=True):
        before[target].append(source)
    ends = bytearray(len(worlds))
    queue = [here for here, world in enumerate(worlds) if done(world)]
    for here in queue:
        ends[here] = 1
    while queue:
        for source in before[queue.pop()]:
            if not ends[source]:
                ends[source] = 1
                queue.append(source)
    return ends


def retrace(machine: Machine, worlds: list[World], parents: array[int], at: int) -> tuple[World, list[Step]]:
    """Return a world and the steps to it from the start, with every worker under one name all the way."""
    path = [at]
    while parents[path[-1]] >= 0:
        path.append(parents[path[-1]])
    steps: list[Step] = []
    world = machine.start()
    for here in reversed(path[:-1]):
        step = next(step for step in machine.steps(world) if canonical(step.world) == worlds[here])
        steps.append(step)
        world = step.world
    return world, steps
