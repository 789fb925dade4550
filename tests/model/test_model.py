"""The rules hold in every world that can be reached, and each rule is needed: broken, it is found out."""

from __future__ import annotations

import functools

import pytest

from tests.measured import Report
from tests.model import variants
from tests.model.explore import Exploration, explore
from tests.model.invariants import MOVES
from tests.model.machine import Spec
from tests.model.world import Machine, Setup

A, B = Spec("A"), Spec("B")
FRAGILE = Spec("F", max_crashes=1)
STUBBORN = Spec("S", max_attempts=2)


def words(text: str) -> frozenset[str]:
    return frozenset(text.split())


SETUPS = [
    Setup("one job, asked much of", (STUBBORN,), actions=2, kinds=words("cancel again shutdown")),
    Setup("one job, harmed much", (STUBBORN,), faults=2),
    Setup("a delayed job that must not start late", (STUBBORN._replace(delayed=True, expires=True),),
          faults=0, kinds=words("cancel again delete prune snooze")),
    Setup("two jobs", (A, B._replace(max_crashes=1))),
    Setup("a worker with two slots", (A,), slots=2, kinds=words("cancel pause shutdown")),
    Setup("three workers", (A,), workers=3, faults=3),
    Setup("a job after another", (A, FRAGILE._replace(after=(0,))), kinds=words("cancel again delete prune")),
    Setup("a delayed job after another, however that ended",
          (FRAGILE, FRAGILE._replace(name="G", after=(0,), after_any=True, delayed=True)),
          kinds=words("cancel again delete")),
    Setup("a job after two others", (FRAGILE, FRAGILE._replace(name="G"), FRAGILE._replace(name="H", after=(0, 1))),
          faults=0, kinds=words("cancel again delete")),
    Setup("a diamond", (A, FRAGILE._replace(after=(0,)), FRAGILE._replace(name="G", after=(0, 1))),
          actions=0),
    Setup("two jobs with one unique key", (A._replace(unique="running"), FRAGILE._replace(unique="running")),
          faults=0, kinds=words("cancel again")),
    Setup("a job that replaces another",
          (FRAGILE._replace(unique="pending"), FRAGILE._replace(name="G", unique="pending", replace=True)),
          kinds=words("cancel again shutdown")),
    Setup("a job that replaces the one it waits for",
          (FRAGILE._replace(unique="running"), FRAGILE._replace(name="G", after=(0,), unique="running", replace=True)),
          kinds=words("cancel again")),
    Setup("a power cut", (A,), dangers=words("power")),
]  # fmt: skip

LARGE_SETUPS = [
    Setup("one job, two faults and two actions", (STUBBORN,), faults=2, actions=2,
          kinds=words("cancel pause again shutdown")),
    Setup("two jobs, two faults", (A, B), faults=2, actions=0),
    Setup("two jobs, both crashing", (A, B), kinds=words("cancel pause")),
    Setup("two slots, two faults", (A,), slots=2, faults=2, kinds=words("cancel shutdown")),
    Setup("two jobs after one another, both crashing", (A, B._replace(after=(0,))), faults=2,
          kinds=words("cancel again delete prune")),
    Setup("a job after two others, with a fault", (FRAGILE, FRAGILE._replace(name="G"),
          FRAGILE._replace(name="H", after=(0, 1))), faults=1, actions=0),
    Setup("two jobs with one unique key, both crashing", (A._replace(unique="running"), B._replace(unique="running")),
          kinds=words("cancel again")),
    Setup("a power cut and a frozen worker", (A,), faults=2, dangers=words("power freeze")),
]  # fmt: skip


@functools.cache
def explored(setup: Setup) -> Exploration:
    return explore(Machine(setup))


@pytest.mark.parametrize("setup", SETUPS, ids=lambda setup: setup.name)
def test_no_reachable_world_breaks_an_invariant_and_every_job_can_end(setup: Setup, report: Report) -> None:
    found = explored(setup)
    print(found)
    report(f"model: {setup.name}", f"{found.states:,} states, {found.steps:,} steps, {found.seconds:.1f} s")
    assert not found.broken, str(found)


@pytest.mark.soak
@pytest.mark.parametrize("setup", LARGE_SETUPS, ids=lambda setup: setup.name)
def test_no_world_of_a_larger_exploration_breaks_an_invariant(setup: Setup) -> None:
    found = explore(Machine(setup))
    print(found)
    assert not found.broken, str(found)


def test_every_move_of_the_table_is_really_taken() -> None:
    taken = {move for setup in SETUPS for move in explored(setup).moves}
    assert taken == {move for moves in MOVES.values() for move in moves}


ONE = Setup("one job", (A,))
RETRIED = Setup("one job that may be tried twice", (STUBBORN,))
CHAIN = Setup("a job after another", (A, B._replace(after=(0,))))
FORK = Setup("a job after two others", (A, B, Spec("C", after=(0, 1))), faults=0, kinds=words("again"))
PAIR = Setup("two jobs with one unique key", (A._replace(unique="running"), B._replace(unique="running")))


@pytest.mark.parametrize(
    ("variant", "setup", "broken"),
    [
        (variants.NoFence, ONE, "let through; A is queued"),
        (variants.FenceOnState, ONE, "the code of its current attempt did not run"),
        (variants.FenceOnTokenAlone, Setup("a power cut", (A,), dangers=words("power")), "I5: a write by"),
        (variants.RescueFromSnapshot, ONE, "I1: A went from completed to queued by T11"),
        (variants.CancelByHint, ONE, "I6: A was started after its cancel was answered"),
        (variants.CrashForgotten, ONE, "I4: A was taken back 3 times, 2 are allowed"),
        (variants.FanInInTwoSteps, CHAIN, "I8: B is waiting and waits for 0 jobs"),
        (variants.ClaimDeletes, ONE, "I1: A was accepted, and is nowhere"),
        (variants.CancelForgottenAtRescue, ONE, "I6: A was started after its cancel was answered"),
        (variants.RetryWinsOverCancel, RETRIED, "I6: S was started after its cancel was answered"),
        (variants.PauseIgnored, ONE._replace(kinds=words("pause")), "I10: A was claimed though its queue is paused"),
        (variants.OutcomeForgotten, ONE, "I12: sent twice"),
        (variants.TokenLeftStanding, ONE, "hears that its outcome was stored"),
        (variants.KeyKept, PAIR, "I7: the key is held by ['A'], and belongs to nobody"),
        (variants.KeyTakenTwice, PAIR._replace(kinds=words("again")), "I7: the key is held by"),
        (variants.EndCountedTwice, FORK, "I8: C was let go while 1 of its parents were open"),
        (variants.ForgottenBeforeTheAnswer, ONE._replace(slots=2), "I5: the code of one attempt"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_a_model_with_one_rule_broken_is_found_out(variant: type[Machine], setup: Setup, broken: str) -> None:
    found = explore(variant(setup), heed=lambda what: broken in what)
    print(found)
    assert found.broken, "no violation"
    assert len(found.trace) <= 12, f"no short story:\n{found}"


@pytest.mark.parametrize(
    ("variant", "setup"),
    [
        (variants.ClaimDeletes, ONE._replace(dangers=words("die"))),
        (variants.FanInInTwoSteps, CHAIN._replace(dangers=words("die"), kinds=words(""))),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_a_job_that_a_broken_rule_loses_never_ends(variant: type[Machine], setup: Setup) -> None:
    found = explore(variant(setup), heed=lambda broken: False)
    print(found)
    assert found.broken.startswith("L1")
    assert found.trace[-1].text.endswith("dies")
