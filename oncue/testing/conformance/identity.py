"""Ids and unique keys: compared byte for byte, one holder each, and given back when the promise says so."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest

from oncue.engine import Engine
from oncue.job import Outcome, Reason, State, Unique, UniqueWhile, new_id
from oncue.testing.conformance.base import Conformance
from oncue.testing.conformance.invariants import all_jobs
from oncue.testing.conformance.steps import (
    BOOM,
    COMPLETED,
    FAILED,
    advance,
    end,
    ended,
    info,
    job,
    pass_leases,
    put,
    put_one,
    start,
    state,
    take,
    take_one,
)

__all__ = ["IdentityConformance"]

COMPOSED = unicodedata.normalize("NFC", "Zoë 한")
DECOMPOSED = unicodedata.normalize("NFD", "Zoë 한")

LOOKALIKES = [
    ["a", "A"],
    ["a", "a ", " a"],
    ["1", "01", "1.0", "1e0", "+1", "0x1"],
    ["null", "NULL", "None", "nil"],
    [COMPOSED, DECOMPOSED],
    ["ß", "ss", "SS"],
    ["\u0131", "i", "I", "\u0130"],
    ["a", "ab", "abc"],
    ["x" * 254, "x" * 255],
    ["9223372036854775807", "9223372036854775808", "9.223372036854775807e18"],
    ["🏳️‍🌈", "🏳️🌈", "🏳🌈"],
    ["a_b", "a%b", "a*b", "a?b"],
]
NAMES = [
    "case",
    "spaces",
    "numbers",
    "nothing",
    "normal-forms",
    "sharp-s",
    "dotless-i",
    "prefixes",
    "length",
    "large-numbers",
    "emoji",
    "wildcards",
]

lookalikes = pytest.mark.parametrize("names", LOOKALIKES, ids=NAMES)
while_open = pytest.mark.parametrize("while_", ["pending", "running"])


class IdentityConformance(Conformance):
    """Cases of ids and unique keys."""

    @lookalikes
    async def test_ids_are_compared_byte_for_byte(self, engine: Engine, names: list[str]) -> None:
        await put(engine, *[job(name, payload=name.encode()) for name in names])
        read = await engine.get(names, bodies=True)
        assert [one and (one.id, one.payload) for one in read] == [(name, name.encode()) for name in names]
        assert await engine.cancel([names[0]]) == ["cancelled"]
        assert [await state(engine, name) for name in names[1:]] == [State.QUEUED] * (len(names) - 1)
        assert [claimed.id for claimed in await take(engine, 10)] == names[1:]

    @lookalikes
    async def test_unique_keys_are_compared_byte_for_byte(self, engine: Engine, names: list[str]) -> None:
        ids = await put(engine, *[job(unique=Unique(name)) for name in names])
        read = await engine.get(ids)
        assert [one and one.unique_key for one in read] == names
        answers = await engine.enqueue([job(unique=Unique(name)) for name in names])
        assert [(answer.id, answer.created) for answer in answers] == [(job_id, False) for job_id in ids]

    async def test_ids_and_unique_keys_are_two_things(self, engine: Engine) -> None:
        await put(engine, job("a", unique=Unique("b")), job("b", unique=Unique("a")), job("c"))
        await put_one(engine, "d", unique=Unique("c"))
        assert len(await all_jobs(engine)) == 4

    async def test_an_id_is_one_in_the_whole_store(self, engine: Engine) -> None:
        await put_one(engine, "j", queue="a", task="x")
        (answer,) = await engine.enqueue([job("j", queue="b", task="y")])
        assert (answer.created, answer.conflict) == (False, "id")
        assert (await info(engine, "j")).queue == "a"

    async def test_a_unique_key_is_one_in_the_whole_store(self, engine: Engine) -> None:
        await put_one(engine, "j", queue="a", task="x", unique=Unique("k"))
        (answer,) = await engine.enqueue([job(queue="b", task="y", unique=Unique("k"))])
        assert (answer.id, answer.created, answer.conflict) == ("j", False, "unique")

    async def test_jobs_without_unique_key_do_not_meet(self, engine: Engine) -> None:
        await put(engine, *[job(task="same", payload=b"same") for _ in range(10)])
        assert len(await take(engine, 20)) == 10

    @pytest.mark.parametrize("on_conflict", ["return", "raise", "skip"])
    async def test_a_held_key_answers_with_its_holder(self, engine: Engine, on_conflict: str) -> None:
        """The engine answers `"raise"` like the others: it is the client who raises."""
        await put_one(engine, "holder", unique=Unique("k"))
        late = job("late", unique=Unique("k", on_conflict=on_conflict))
        (answer,) = await engine.enqueue([late])
        assert (answer.id, answer.created, answer.conflict) == ("holder", False, "unique")
        assert answer.state is State.QUEUED
        assert await engine.get(["late"]) == [None]
        assert [claimed.id for claimed in await take(engine, 10)] == ["holder"]

    async def test_a_held_key_answers_with_the_present_state_of_its_holder(self, engine: Engine) -> None:
        await start(engine, "holder", unique=Unique("k"))
        (answer,) = await engine.enqueue([job(unique=Unique("k"))])
        assert (answer.id, answer.state) == ("holder", State.RUNNING)

    async def test_the_holder_of_a_key_that_is_sent_again_is_not_in_its_own_way(self, engine: Engine) -> None:
        for on_conflict in ("return", "raise", "skip", "replace"):
            request = job(unique=Unique(on_conflict, on_conflict=on_conflict))
            for _ in range(2):
                (answer,) = await engine.enqueue([request])
                assert (answer.id, answer.created, answer.conflict) == (request.id, True, None)
        assert [read.state for read in await all_jobs(engine)] == [State.QUEUED] * 4

    async def test_one_key_asked_for_twice_in_a_batch_has_one_holder(self, engine: Engine) -> None:
        first, second = job(unique=Unique("k")), job(unique=Unique("k"))
        answers = await engine.enqueue([first, second])
        assert [(answer.id, answer.created, answer.conflict) for answer in answers] == [
            (first.id, True, None),
            (first.id, False, "unique"),
        ]

    @while_open
    async def test_a_key_is_held_until_the_job_is_started_at_least(self, engine: Engine, while_: str) -> None:
        parent = await start(engine)
        ways: dict[str, dict[str, Any]] = {"q": {}, "s": {"delay": 60}, "w": {"after": (parent.id,)}}
        for key, options in ways.items():
            holder = await put_one(engine, unique=Unique(key, while_), **options)
            (answer,) = await engine.enqueue([job(unique=Unique(key, while_))])
            assert (answer.id, answer.created) == (holder, False)

    async def test_a_key_held_while_pending_is_free_when_the_job_was_started(self, engine: Engine) -> None:
        await start(engine, "first", unique=Unique("k", UniqueWhile.PENDING))
        await put_one(engine, "second", unique=Unique("k", UniqueWhile.PENDING))
        (answer,) = await engine.enqueue([job(unique=Unique("k", UniqueWhile.PENDING))])
        assert answer.id == "second"

    async def test_a_key_held_while_pending_is_not_taken_again_by_a_retry_of_the_attempt(self, engine: Engine) -> None:
        await ended(engine, Outcome.retrying(60, BOOM), "first", unique=Unique("k", "pending"))
        await put_one(engine, "second", unique=Unique("k", "pending"))
        advance(engine, 61)
        assert sorted(claimed.id for claimed in await take(engine, 10)) == ["first", "second"]

    @pytest.mark.parametrize(
        "outcome",
        [Outcome.retrying(60, BOOM), Outcome.snoozed(60), Outcome.released()],
        ids=["retrying", "snoozed", "released"],
    )
    async def test_a_key_held_while_running_is_held_between_attempts(self, engine: Engine, outcome: Outcome) -> None:
        await ended(engine, outcome, "first", unique=Unique("k"))
        (answer,) = await engine.enqueue([job(unique=Unique("k"))])
        assert (answer.id, answer.created, answer.state) == ("first", False, outcome.state)

    @pytest.mark.parametrize("outcome", [COMPLETED, FAILED, Outcome.cancelled()], ids=lambda outcome: outcome.state)
    async def test_a_key_held_while_running_is_free_when_the_job_ended(self, engine: Engine, outcome: Outcome) -> None:
        claimed = await start(engine, "first", unique=Unique("k"))
        (answer,) = await engine.enqueue([job(unique=Unique("k"))])
        assert answer.id == "first"
        await end(engine, claimed, outcome)
        await put_one(engine, "second", unique=Unique("k"))

    async def test_a_key_is_free_when_its_holder_crashed_too_often(self, engine: Engine) -> None:
        await start(engine, "first", unique=Unique("k"), max_crashes=1)
        await pass_leases(engine)
        await put_one(engine, "second", unique=Unique("k"))

    async def test_a_key_is_held_on_while_its_holder_waits_for_the_next_worker(self, engine: Engine) -> None:
        await start(engine, "first", unique=Unique("k"))
        await pass_leases(engine)
        (answer,) = await engine.enqueue([job(unique=Unique("k"))])
        assert answer.id == "first"

    @while_open
    async def test_a_key_is_free_when_its_holder_expired(self, engine: Engine, while_: str) -> None:
        await put_one(engine, "first", unique=Unique("k", while_), expires_in=5)
        advance(engine, 6)
        await pass_leases(engine)
        await put_one(engine, "second", unique=Unique("k", while_))

    @while_open
    async def test_a_key_is_free_when_its_holder_is_gone(self, engine: Engine, while_: str) -> None:
        await put_one(engine, "first", unique=Unique("k", while_))
        await engine.delete(["first"])
        await put_one(engine, "second", unique=Unique("k", while_))

    @while_open
    async def test_a_key_is_not_held_by_a_job_that_was_cancelled_as_it_came(self, engine: Engine, while_: str) -> None:
        await put_one(engine, "first", unique=Unique("k", while_), after=("never",))
        assert await state(engine, "first") is State.CANCELLED
        await put_one(engine, "second", unique=Unique("k", while_))

    async def test_a_key_held_for_a_time_is_held_whatever_becomes_of_the_job(self, engine: Engine) -> None:
        claimed = await start(engine, "first", unique=Unique("k", "ttl", ttl=100))
        advance(engine, 40)
        await end(engine, claimed)
        advance(engine, 40)
        (answer,) = await engine.enqueue([job(unique=Unique("k", "ttl", ttl=100))])
        assert (answer.id, answer.created, answer.state) == ("first", False, State.COMPLETED)
        advance(engine, 30)
        await put_one(engine, "second", unique=Unique("k", "ttl", ttl=100))

    async def test_a_key_held_for_a_time_is_free_after_it_though_the_job_runs(self, engine: Engine) -> None:
        await start(engine, "first", unique=Unique("k", "ttl", ttl=10))
        advance(engine, 11)
        await put_one(engine, "second", unique=Unique("k", "ttl", ttl=10))
        (answer,) = await engine.enqueue([job(unique=Unique("k"))])
        assert answer.id == "second"

    async def test_a_key_held_for_a_time_outlasts_a_cancellation(self, engine: Engine) -> None:
        await put_one(engine, "first", unique=Unique("k", "ttl", ttl=100))
        await engine.cancel(["first"])
        (answer,) = await engine.enqueue([job(unique=Unique("k"))])
        assert (answer.id, answer.created) == ("first", False)
        advance(engine, 101)
        await put_one(engine, "second", unique=Unique("k"))

    async def test_the_end_of_an_old_holder_does_not_free_the_key_of_the_new_one(self, engine: Engine) -> None:
        for while_, ttl in (("ttl", 10.0), ("pending", None)):
            old = await start(engine, unique=Unique(while_, while_, ttl=ttl))
            advance(engine, 11)
            new = await put_one(engine, unique=Unique(while_, "running"))
            await end(engine, old)
            await engine.delete([old.id])
            (answer,) = await engine.enqueue([job(unique=Unique(while_))])
            assert answer.id == new
            await engine.delete([new])

    @pytest.mark.parametrize("where", [State.QUEUED, State.SCHEDULED, State.WAITING])
    async def test_a_holder_that_was_not_started_is_replaced(self, engine: Engine, where: State) -> None:
        parent = await start(engine)
        options: dict[State, dict[str, Any]] = {
            State.QUEUED: {},
            State.SCHEDULED: {"delay": 60},
            State.WAITING: {"after": (parent.id,)},
        }
        await put_one(engine, "old", unique=Unique("k"), **options[where])
        assert await state(engine, "old") is where
        (answer,) = await engine.enqueue([job("new", unique=Unique("k", on_conflict="replace"))])
        assert (answer.id, answer.created, answer.state, answer.conflict) == ("new", True, State.QUEUED, None)
        assert await state(engine, "old") is State.CANCELLED
        assert [claimed.id for claimed in await take(engine, 10)] == ["new"]
        (answer,) = await engine.enqueue([job(unique=Unique("k"))])
        assert answer.id == "new"

    async def test_a_holder_that_was_started_is_not_replaced(self, engine: Engine) -> None:
        claimed = await start(engine, "old", unique=Unique("k"), max_attempts=2)
        replacing = Unique("k", on_conflict="replace")
        (answer,) = await engine.enqueue([job("new", unique=replacing)])
        assert (answer.id, answer.created, answer.conflict) == ("old", False, "unique")
        await end(engine, claimed, Outcome.retrying(60, BOOM))
        (answer,) = await engine.enqueue([job("new", unique=replacing)])
        assert (answer.id, answer.created, answer.conflict) == ("old", False, "unique")
        assert await state(engine, "old") is State.RETRYING
        assert await engine.get(["new"]) == [None]

    async def test_replacing_a_free_key_takes_it(self, engine: Engine) -> None:
        await put_one(engine, "new", unique=Unique("k", on_conflict="replace"))
        (answer,) = await engine.enqueue([job(unique=Unique("k"))])
        assert answer.id == "new"

    async def test_a_replacement_may_be_replaced(self, engine: Engine) -> None:
        for number in range(5):
            await put_one(engine, str(number), unique=Unique("k", on_conflict="replace"), delay=60)
        advance(engine, 61)
        assert [claimed.id for claimed in await take(engine, 10)] == ["4"]

    async def test_of_several_replacements_in_a_batch_the_last_stands(self, engine: Engine) -> None:
        await put(engine, *[job(str(number), unique=Unique("k", on_conflict="replace")) for number in range(5)])
        assert [claimed.id for claimed in await take(engine, 10)] == ["4"]

    async def test_jobs_that_wait_for_a_replaced_one_are_cancelled(self, engine: Engine) -> None:
        await put(engine, job("old", unique=Unique("k")), job("child", after=("old",)))
        await put_one(engine, "new", unique=Unique("k", on_conflict="replace"))
        read = await info(engine, "child")
        assert (read.state, read.reason) == (State.CANCELLED, Reason.DEPENDENCY)

    async def test_a_batch_in_which_one_key_is_held_accepts_the_others(self, engine: Engine) -> None:
        await put_one(engine, "holder", unique=Unique("k"))
        answers = await engine.enqueue([job("a"), job("b", unique=Unique("k")), job("c", unique=Unique("l"))])
        assert [(answer.id, answer.created) for answer in answers] == [("a", True), ("holder", False), ("c", True)]

    async def test_a_taken_id_is_told_also_if_a_key_is_asked_for(self, engine: Engine) -> None:
        await put_one(engine, "j")
        (answer,) = await engine.enqueue([job("j", unique=Unique("k"))])
        assert (answer.id, answer.created, answer.conflict) == ("j", False, "id")
        await put_one(engine, "next", unique=Unique("k"))

    async def test_ids_as_oncue_makes_them_are_accepted(self, engine: Engine) -> None:
        made = [new_id() for _ in range(50)]
        await put(engine, *[job(one) for one in made])
        assert [claimed.id for claimed in await take(engine, 100)] == made
        await put_one(engine, "own id")
        assert (await take_one(engine)).id == "own id"

    async def test_a_key_held_for_a_time_is_not_that_of_a_later_job_with_the_same_id(self, engine: Engine) -> None:
        await put(engine, job("b", unique=Unique("k", "ttl", ttl=1000)))
        await engine.delete(["b"])
        await put_one(engine, "b")
        await engine.enqueue([job("c", unique=Unique("k", on_conflict="replace"))])
        assert (await info(engine, "b")).state is State.QUEUED
