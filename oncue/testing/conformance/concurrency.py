"""Calls beside each other: each job goes to one, each id and key to one, and races have one outcome."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest

from oncue.engine import CancelAnswer, Engine
from oncue.job import Outcome, State, Unique
from oncue.testing.conformance.base import Conformance
from oncue.testing.conformance.invariants import all_jobs, check_invariants
from oncue.testing.conformance.steps import (
    BOOM,
    COMPLETED,
    FAILED,
    LEASE,
    end,
    info,
    job,
    pass_leases,
    put,
    put_one,
    rescue,
    start,
    state,
    take,
    take_one,
)

__all__ = ["ConcurrencyConformance"]


class ConcurrencyConformance(Conformance):
    """Cases of calls beside each other, of one engine and of its siblings."""

    async def test_claims_beside_each_other_give_each_job_once(self, engine: Engine) -> None:
        ids = await put(engine, *[job() for _ in range(500)])
        batches = await asyncio.gather(*[take(engine, 10) for _ in range(50)])
        claimed = [one.id for batch in batches for one in batch]
        assert sorted(claimed) == sorted(ids)
        assert await take(engine) == []

    async def test_claims_beside_each_other_give_each_job_once_though_there_are_too_few(self, engine: Engine) -> None:
        ids = await put(engine, *[job() for _ in range(30)])
        batches = await asyncio.gather(*[take(engine, 10) for _ in range(20)])
        assert sorted(one.id for batch in batches for one in batch) == sorted(ids)

    async def test_claims_of_siblings_in_threads_give_each_job_once(self, engine: Engine) -> None:
        ids = await put(engine, *[job() for _ in range(300)])
        siblings = [engine.sibling() for _ in range(4)]

        async def work(sibling: Engine) -> list[str]:
            async with sibling:
                done: list[str] = []
                while claimed := await take(sibling, 7):
                    outcomes = [(one.lease, COMPLETED) for one in claimed]
                    assert await sibling.finish(outcomes) == [True] * len(claimed)
                    done += [one.id for one in claimed]
                return done

        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(4) as threads:
            done = await asyncio.gather(*[loop.run_in_executor(threads, asyncio.run, work(one)) for one in siblings])
        assert sorted(job_id for part in done for job_id in part) == sorted(ids)
        assert {read.state for read in await all_jobs(engine)} == {State.COMPLETED}

    async def test_requests_for_one_id_beside_each_other_make_one_job(self, engine: Engine) -> None:
        answers = await asyncio.gather(*[engine.enqueue([job("j", payload=b"%d" % n)]) for n in range(100)])
        assert [answer.created for (answer,) in answers].count(True) == 1
        assert {answer.id for (answer,) in answers} == {"j"}
        (winner,) = [b"%d" % place for place, (answer,) in enumerate(answers) if answer.created]
        assert (await info(engine, "j", bodies=True)).payload == winner
        assert len(await all_jobs(engine)) == 1

    async def test_one_request_beside_itself_makes_one_job(self, engine: Engine) -> None:
        request = job("j")
        answers = await asyncio.gather(*[engine.enqueue([request]) for _ in range(100)])
        assert [answer.created for (answer,) in answers] == [True] * 100
        assert len(await all_jobs(engine)) == 1

    async def test_requests_for_one_key_beside_each_other_make_one_job(self, engine: Engine) -> None:
        answers = await asyncio.gather(*[engine.enqueue([job(unique=Unique("k"))]) for _ in range(100)])
        assert [answer.created for (answer,) in answers].count(True) == 1
        assert len({answer.id for (answer,) in answers}) == 1
        assert len(await all_jobs(engine)) == 1

    async def test_replacements_beside_each_other_leave_one_job(self, new_engine: Engine) -> None:
        unique = Unique("k", on_conflict="replace")
        async with new_engine as engine:
            answers = await asyncio.gather(*[engine.enqueue([job(unique=unique)]) for _ in range(50)])
            assert [answer.created for (answer,) in answers] == [True] * 50
            states = [read.state for read in await all_jobs(engine)]
            assert (states.count(State.QUEUED), states.count(State.CANCELLED)) == (1, 49)
            await check_invariants(engine)

    async def test_requests_of_siblings_for_one_id_make_one_job(self, engine: Engine) -> None:
        async with engine.sibling() as second, engine.sibling() as third:
            engines = [engine, second, third] * 20
            answers = await asyncio.gather(*[one.enqueue([job("j")]) for one in engines])
        assert [answer.created for (answer,) in answers].count(True) == 1

    @pytest.mark.parametrize("first", ["cancel", "claim"])
    async def test_a_cancel_that_races_a_claim_has_one_outcome(self, engine: Engine, first: str) -> None:
        for _ in range(25):
            job_id = await put_one(engine)
            if first == "cancel":
                (answer,), claimed = await asyncio.gather(engine.cancel([job_id]), take(engine))
            else:
                claimed, (answer,) = await asyncio.gather(take(engine), engine.cancel([job_id]))
            if answer is CancelAnswer.CANCELLED:
                assert claimed == []
                assert await state(engine, job_id) is State.CANCELLED
            else:
                assert answer is CancelAnswer.REQUESTED
                assert [one.id for one in claimed] == [job_id]
                await end(engine, claimed[0])
                assert await state(engine, job_id) is State.CANCELLED

    async def test_a_cancel_of_a_sibling_that_races_a_claim_has_one_outcome(self, engine: Engine) -> None:
        async with engine.sibling() as sibling:
            for _ in range(15):
                job_id = await put_one(engine)
                claimed, (answer,) = await asyncio.gather(take(engine), sibling.cancel([job_id]))
                assert answer is (CancelAnswer.REQUESTED if claimed else CancelAnswer.CANCELLED)
                if claimed:
                    await end(engine, claimed[0])
                assert await state(engine, job_id) is State.CANCELLED

    async def test_a_cancel_that_races_the_outcome_has_one_outcome(self, new_engine: Engine) -> None:
        async with new_engine as engine:
            for _ in range(25):
                claimed = await start(engine)
                (answer,), (stored,) = await asyncio.gather(
                    engine.cancel([claimed.id]), engine.finish([(claimed.lease, COMPLETED)])
                )
                assert stored
                expected = State.COMPLETED if answer is CancelAnswer.FINISHED else State.CANCELLED
                assert await state(engine, claimed.id) is expected
                assert (await engine.cancel([claimed.id]))[0] in (CancelAnswer.FINISHED, CancelAnswer.CANCELLED)
            await check_invariants(engine)

    async def test_of_outcomes_beside_each_other_one_is_stored(self, new_engine: Engine) -> None:
        async with new_engine as engine:
            claimed = await start(engine, "j")
            outcomes = [COMPLETED, FAILED, Outcome.retrying(0, BOOM), Outcome.released()] * 5
            await asyncio.gather(*[engine.finish([(claimed.lease, outcome)]) for outcome in outcomes])
            assert len(await engine.attempts("j")) <= 1
            assert sum(sum(row.run.values()) for row in await engine.metrics(since=LEASE * 60)) == 1
            await check_invariants(engine)

    async def test_rescues_beside_each_other_count_a_crash_once(self, new_engine: Engine) -> None:
        async with new_engine as engine:
            await put(engine, *[job() for _ in range(50)])
            await take(engine, 50, worker="dead")
            rescued = await asyncio.gather(*[rescue(engine, dead=["dead"]) for _ in range(10)])
            assert len([one for part in rescued for one in part]) == 50
            assert {read.crashes for read in await all_jobs(engine)} == {1}
            await check_invariants(engine)

    async def test_parents_that_end_beside_each_other_start_their_child_once(self, engine: Engine) -> None:
        parents = await put(engine, *[job() for _ in range(30)])
        await put_one(engine, "child", after=tuple(parents))
        claimed = await take(engine, 30)
        await asyncio.gather(*[end(engine, one) for one in claimed])
        assert [one.id for one in await take(engine, 10)] == ["child"]

    async def test_a_parent_that_ends_while_its_child_is_enqueued_does_not_leave_it_stuck(
        self, new_engine: Engine
    ) -> None:
        async with new_engine as engine:
            for _ in range(25):
                parent = await start(engine)
                child = job(after=(parent.id,))
                await asyncio.gather(end(engine, parent), engine.enqueue([child]))
                assert (await take_one(engine)).id == child.id

    async def test_no_job_is_claimed_after_a_pause_was_answered(self, engine: Engine) -> None:
        await put(engine, *[job() for _ in range(200)])
        paused = False

        async def claim_on() -> int:
            late = 0
            for _ in range(30):
                asked_late = paused
                claimed = await take(engine)
                late += bool(asked_late and claimed)
            return late

        async def pause() -> int:
            nonlocal paused
            await take(engine)
            await engine.set_queue("default", paused=True)
            paused = True
            return 0

        assert sum(await asyncio.gather(claim_on(), claim_on(), pause())) == 0
        assert await take(engine) == []

    async def test_reads_beside_writes_never_see_a_job_in_two_places_or_none(self, new_engine: Engine) -> None:
        async with new_engine as engine:
            ids = set(await put(engine, *[job(max_attempts=9) for _ in range(40)]))
            done = False

            async def move() -> None:
                nonlocal done
                outcomes = [COMPLETED, FAILED, Outcome.retrying(0, BOOM), Outcome.released()]
                for number in range(25):
                    claimed = await take(engine, 8)
                    await engine.finish([(one.lease, outcomes[(number + i) % 4]) for i, one in enumerate(claimed)])
                done = True

            async def look() -> None:
                while not done:
                    assert None not in await engine.get(list(ids))
                    (queue,) = await engine.queues()
                    assert sum(queue.counts.values()) == 40
                    assert {read.id for read in await all_jobs(engine)} == ids

            await asyncio.gather(move(), look(), look())
            await check_invariants(engine)

    async def test_many_kinds_of_calls_beside_each_other_leave_a_consistent_store(self, new_engine: Engine) -> None:
        async with new_engine as engine:
            ids = await put(engine, *[job(max_attempts=9, max_crashes=99) for _ in range(60)])

            async def run(worker: str) -> None:
                for number in range(12):
                    claimed = await take(engine, 4, worker=f"{worker}-{number}")
                    outcomes = [COMPLETED, FAILED, Outcome.retrying(0, BOOM), Outcome.released()]
                    await engine.finish([(one.lease, outcomes[i]) for i, one in enumerate(claimed[:3])])

            async def meddle(start_at: int) -> None:
                for place in range(start_at, 60, 7):
                    await engine.cancel([ids[place]])
                    await engine.retry([ids[(place + 3) % 60]])
                    await engine.delete([ids[(place + 5) % 60]])
                    await rescue(engine, dead=[f"a-{place % 12}", f"b-{place % 12}"])

            await asyncio.gather(run("a"), run("b"), meddle(0), meddle(1))
            await check_invariants(engine)
            await pass_leases(engine)
            await check_invariants(engine)
