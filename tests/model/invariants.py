"""What must hold: of every reachable world, and of every step between two. The names are those of docs/reliability.

They are written against the promises, not against the rules: the table of legal moves is a second opinion on what the
rules of `machine` do, and the past that a job drags along says what the store itself may have forgotten.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tests.model.machine import (
    ABSENT,
    CANCELLED,
    COMPLETED,
    FAILED,
    FINAL,
    GONE,
    NOBODY,
    PENDING,
    QUEUED,
    RETRYING,
    RUNNING,
    SCHEDULED,
    STARTABLE,
    WAITING,
    Job,
)
from tests.model.world import Machine, Step, World

MOVES: Final = {
    "T1": {(ABSENT, QUEUED), (ABSENT, SCHEDULED), (ABSENT, WAITING), (ABSENT, CANCELLED)},
    "T2": {(SCHEDULED, QUEUED), (RETRYING, QUEUED)},
    "T3": {(WAITING, QUEUED), (WAITING, SCHEDULED)},
    "T4": {(WAITING, CANCELLED)},
    "T5": {(QUEUED, RUNNING)},
    "T6": {(QUEUED, FAILED), (SCHEDULED, FAILED)},
    "T7": {(RUNNING, COMPLETED)},
    "T8": {(RUNNING, RETRYING), (RUNNING, SCHEDULED)},
    "T9": {(RUNNING, FAILED)},
    "T10": {(RUNNING, CANCELLED)},
    "T11": {(RUNNING, QUEUED), (RUNNING, FAILED), (RUNNING, CANCELLED)},
    "T12": {(RUNNING, QUEUED)},
    "T14": {(state, CANCELLED) for state in PENDING},
    "T16": {(state, QUEUED) for state in FINAL},
    "T17": {(state, GONE) for state in (*PENDING, *FINAL)},
}
ALONG: Final = MOVES["T3"] | MOVES["T4"]
"""Moves of other jobs that a step may bring along: its dependents."""

POWER: Final = "power"
"""The one step that may undo what was: durability says how much."""


def of_world(machine: Machine, world: World) -> Iterator[str]:
    """Give what is wrong with a world."""
    for j, (spec, job) in enumerate(zip(machine.specs, world.store.jobs, strict=True)):
        name, past = spec.name, job.past
        if past.accepted and job.state == ABSENT:
            yield f"I1: {name} was accepted, and is nowhere"
        if (job.state == RUNNING) != (job.owner != NOBODY):
            yield f"I3: {name} is {job.state}, owner {job.owner}"
        if len(believers := {nonce for token, nonce in beliefs(world, j) if machine.current(job, token, nonce)}) > 1:
            yield f"I3: {len(believers)} attempts of {name} would be let through the fence"
        if past.taken_back > spec.max_crashes:
            yield f"I4: {name} was taken back {past.taken_back} times, {spec.max_crashes} are allowed"
        if job.crashes != past.taken_back and job.state != GONE:
            yield f"I4: {name} counts {job.crashes} crashes after {past.taken_back}"
        if job.attempts - job.crashes > spec.max_attempts:
            yield f"I4: {name} had {job.attempts} attempts, {job.crashes} of them crashed: {spec.max_attempts} allowed"
        if job.state == COMPLETED and not past.ran:
            yield f"I5: {name} is completed, but the code of its current attempt did not run to its end"
        if past.cancel_answered and job.state not in (RUNNING, CANCELLED, GONE):
            yield f"I6: {name} is {job.state} though its cancel was answered"
        if (job.state == WAITING) != bool(job.waits_for):
            yield f"I8: {name} is {job.state} and waits for {len(job.waits_for)} jobs"
        if any(world.store.jobs[p].state not in (*PENDING, RUNNING) for p in job.waits_for):
            yield f"I8: {name} waits for a job that has ended"
    yield from of_key(machine, world)


def of_key(machine: Machine, world: World) -> Iterator[str]:
    """I7: the key is held if and only if a job is in the states in which it holds it; so never by two."""
    entitled = [
        j
        for j, (spec, job) in enumerate(zip(machine.specs, world.store.jobs, strict=True))
        if spec.unique and machine.holds_key(job, spec.unique, started=job.past.started)
    ]
    holder = [world.store.key] if world.store.key != NOBODY else []
    if entitled != holder:
        names = [[machine.specs[j].name for j in jobs] for jobs in (holder, entitled)]
        yield f"I7: the key is held by {names[0] or 'nobody'}, and belongs to {names[1] or 'nobody'}"


def of_step(machine: Machine, before: World, step: Step) -> Iterator[str]:
    """Give what is wrong with a step."""
    if step.rule == POWER:
        return
    after = step.world.store
    for j, (old, new) in enumerate(zip(before.store.jobs, after.jobs, strict=True)):
        if old is not new:
            yield from of_move(machine, before, step, j, old, new)
    if step.hold is not None:
        yield from of_attempt(machine, before.store.jobs[step.job], step)
    if step.rule in ("T1", "T14", "T15"):
        call = machine.enqueue if step.rule == "T1" else machine.cancel
        again, answer = call(after, step.job)
        if answer != step.answer or again not in (None, after):
            yield f"I11: sent twice, {step.rule} answers {step.answer}, then {answer}"


def of_move(machine: Machine, before: World, step: Step, j: int, old: Job, new: Job) -> Iterator[str]:
    """The move is one of the table, and numbers only go where they may."""
    name, rule = machine.specs[j].name, step.rule
    if old.state != new.state:
        move = (old.state, new.state)
        replaced = rule == "T1" and move in MOVES["T14"]
        legal = move in MOVES.get(rule, ()) if j == step.job else move in ALONG or replaced
        if not legal:
            yield f"I1: {name} went from {old.state} to {new.state} by {rule or 'no rule'}"
        if old.state == WAITING and new.state in STARTABLE:
            still_open = [p for p in old.waits_for if step.world.store.jobs[p].state in (*PENDING, RUNNING)]
            if still_open:
                yield f"I8: {name} was let go while {len(still_open)} of its parents were open"
    if new.state == GONE:
        return
    if new.token < old.token or (rule == "T5" and new.token == old.token):
        yield f"I4: the token of {name} went from {old.token} to {new.token}"
    if new.attempts < old.attempts and rule not in ("T8", "T10", "T12", "T16"):
        yield f"I4: attempts of {name} fell by {rule}"
    if new.crashes < old.crashes and rule != "T16":
        yield f"I4: crashes of {name} fell by {rule}"
    if rule == "T11" and j == step.job and not old.lease_over:
        yield f"T11: {name} was taken from a worker whose lease had not run out"
    if rule == "T5" and old.past.cancel_answered:
        yield f"I6: {name} was started after its cancel was answered"
    if rule == "T5" and before.store.paused:
        yield f"I10: {name} was claimed though its queue is paused"


def of_attempt(machine: Machine, job: Job, step: Step) -> Iterator[str]:
    """Writes come from the current attempt, are answered alike when repeated, and code starts once an attempt."""
    hold, name = step.hold, machine.specs[step.job].name
    assert hold is not None
    mine = job.nonce == hold.nonce
    if step.answer is True or step.rule == "T13":
        wrote = step.rule != ""
        if not mine or (wrote and job.state != RUNNING):
            yield f"I5: a write by token {hold.token} was let through; {name} is {job.state}, its token {job.token}"
        elif not wrote and not job.wrote:
            yield f"I12: {name} was taken from token {hold.token}, which hears that its outcome was stored"
    if step.answer is True:
        again, answer = machine.finish(step.world.store, step.job, hold.token, hold.nonce, hold.outcome)
        if again is not None or answer is not True:
            yield f"I12: sent twice, the outcome of {name} is answered True, then {answer}"
    if hold.phase == "granted" and step.rule == "" and mine and job.past.begun:
        yield f"I5: the code of one attempt of {name} was started twice"


def beliefs(world: World, j: int) -> Iterator[tuple[int, int]]:
    """Give token and nonce of every attempt of a job that somebody might still write for."""
    for worker in world.workers:
        for hold in worker.holds:
            if hold.job == j:
                yield hold.token, hold.nonce
    for hold in world.wire:
        if hold.job == j:
            yield hold.token, hold.nonce
