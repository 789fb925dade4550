"""`heartbeat` and `workers`: leases are renewed and answered for, and workers are known while they beat."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from oncue.engine import MAX_BATCH, Engine, Hold, WorkerInfo
from oncue.job import Lease, Outcome, State
from oncue.testing.conformance.base import Conformance
from oncue.testing.conformance.steps import (
    BOOM,
    LEASE,
    advance,
    beat,
    end,
    job,
    pass_leases,
    put,
    put_one,
    rescue,
    settle,
    start,
    state,
    take,
    take_one,
)

__all__ = ["HeartbeatConformance"]


class HeartbeatConformance(Conformance):
    """Cases of `heartbeat` and `workers`."""

    async def test_a_current_lease_is_held(self, engine: Engine) -> None:
        claimed = await start(engine)
        assert await beat(engine, claimed.lease) == [Hold.HELD]

    async def test_a_heartbeat_without_leases_is_answered_with_nothing(self, engine: Engine) -> None:
        assert await beat(engine) == []

    async def test_a_renewed_lease_does_not_expire(self, engine: Engine) -> None:
        await settle(engine)
        claimed = await start(engine, "j")
        for _ in range(9):
            engine.advance(LEASE / 3)
            assert await beat(engine, claimed.lease) == [Hold.HELD]
            assert await rescue(engine) == []
        assert await state(engine, "j") is State.RUNNING
        await end(engine, claimed)

    async def test_a_lease_lasts_as_long_as_the_latest_heartbeat_asked(self, engine: Engine) -> None:
        await settle(engine)
        claimed = await start(engine, "j")
        assert await beat(engine, claimed.lease, lease=LEASE * 10) == [Hold.HELD]
        assert await pass_leases(engine) == []
        assert await beat(engine, claimed.lease, lease=LEASE / 10) == [Hold.HELD]
        engine.advance(LEASE / 5)
        assert [rescued.job_id for rescued in await rescue(engine)] == ["j"]

    async def test_an_expired_lease_that_was_not_rescued_is_revived(self, engine: Engine) -> None:
        await settle(engine)
        claimed = await start(engine, "j")
        engine.advance(LEASE / 2)
        assert await rescue(engine) == []
        engine.advance(LEASE * 0.6)
        assert await beat(engine, claimed.lease) == [Hold.HELD]
        assert await rescue(engine) == []
        engine.advance(LEASE * 0.6)
        assert await rescue(engine) == []
        await end(engine, claimed)

    async def test_a_rescued_lease_is_lost(self, engine: Engine) -> None:
        claimed = await start(engine)
        await pass_leases(engine)
        assert await beat(engine, claimed.lease) == [Hold.LOST]

    async def test_a_lease_that_another_attempt_replaced_is_lost(self, engine: Engine) -> None:
        old = await start(engine)
        await pass_leases(engine)
        new = await take_one(engine)
        assert await beat(engine, old.lease, new.lease) == [Hold.LOST, Hold.HELD]

    async def test_the_lease_of_an_ended_job_is_lost(self, engine: Engine) -> None:
        claimed = await start(engine)
        await end(engine, claimed)
        assert await beat(engine, claimed.lease) == [Hold.LOST]

    async def test_the_lease_of_a_job_that_will_be_retried_is_lost(self, engine: Engine) -> None:
        claimed = await start(engine, "j")
        await end(engine, claimed, Outcome.retrying(60, BOOM))
        assert await beat(engine, claimed.lease) == [Hold.LOST]
        assert await state(engine, "j") is State.RETRYING

    async def test_a_lease_of_an_unknown_job_is_lost(self, engine: Engine) -> None:
        assert await beat(engine, Lease("unknown", 1, b"nonce")) == [Hold.LOST]

    async def test_a_lease_with_a_wrong_token_or_nonce_is_lost_and_renews_nothing(self, engine: Engine) -> None:
        await settle(engine)
        lease = (await start(engine, "j")).lease
        wrong = [
            lease._replace(token=lease.token + 1),
            lease._replace(token=lease.token - 1),
            lease._replace(nonce=bytes(len(lease.nonce))),
            lease._replace(nonce=b""),
        ]
        engine.advance(LEASE / 2)
        assert await beat(engine, *wrong) == [Hold.LOST] * 4
        assert await rescue(engine) == []
        engine.advance(LEASE * 0.6)
        assert [rescued.job_id for rescued in await rescue(engine)] == ["j"]

    async def test_a_job_that_was_asked_to_stop_says_so_until_it_ends(self, engine: Engine) -> None:
        claimed = await start(engine, "j")
        other = await start(engine)
        await engine.cancel(["j"])
        assert await beat(engine, claimed.lease, other.lease) == [Hold.CANCEL_REQUESTED, Hold.HELD]
        assert await beat(engine, claimed.lease) == [Hold.CANCEL_REQUESTED]
        await end(engine, claimed)
        assert await beat(engine, claimed.lease) == [Hold.LOST]

    async def test_a_job_that_was_asked_to_stop_is_renewed_as_well(self, engine: Engine) -> None:
        await settle(engine)
        claimed = await start(engine, "j")
        await engine.cancel(["j"])
        for _ in range(4):
            engine.advance(LEASE / 2)
            assert await beat(engine, claimed.lease) == [Hold.CANCEL_REQUESTED]
            assert await rescue(engine) == []
        assert await state(engine, "j") is State.RUNNING

    async def test_answers_of_a_heartbeat_come_in_the_order_of_the_leases(self, engine: Engine) -> None:
        await put(engine, *[job() for _ in range(4)])
        a, b, c, d = await take(engine, 4)
        await engine.cancel([b.id])
        await end(engine, c)
        holds = await beat(engine, d.lease, c.lease, b.lease, a.lease, d.lease)
        assert holds == [Hold.HELD, Hold.LOST, Hold.CANCEL_REQUESTED, Hold.HELD, Hold.HELD]

    async def test_a_thousand_leases_are_renewed_in_one_call(self, engine: Engine) -> None:
        await put(engine, *[job() for _ in range(MAX_BATCH)])
        claimed = await take(engine, MAX_BATCH)
        assert await beat(engine, *[one.lease for one in claimed]) == [Hold.HELD] * MAX_BATCH

    async def test_a_worker_reads_as_it_described_itself(self, engine: Engine) -> None:
        started = datetime(2024, 2, 29, 12, 30, tzinfo=UTC)
        said = WorkerInfo(
            id="w1",
            host='höst\'s, "a" 🐍',
            pid=2**31 - 1,
            version="1.2.3+local",
            queues=("a", "b:c"),
            tasks=("pkg.task", "name, with comma", "имя", "a|b"),
            concurrency=100,
            running=7,
            started_at=started,
        )
        await engine.heartbeat(said, [], lease=LEASE)
        (read,) = await engine.workers()
        assert (read.id, read.host, read.pid, read.version) == (said.id, said.host, said.pid, said.version)
        assert (read.queues, read.tasks) == (said.queues, said.tasks)
        assert (read.concurrency, read.running, read.started_at) == (100, 7, started)
        assert read.alive
        assert not read.stopped

    async def test_a_worker_was_seen_at_the_time_of_the_store(self, engine: Engine) -> None:
        advance(engine, 7 * 86_400)
        await put_one(engine, "j")
        await beat(engine, worker="w1")
        (read,) = await engine.workers()
        (made,) = await engine.get(["j"])
        assert made is not None
        assert read.seen_at is not None
        assert timedelta(0) <= read.seen_at - made.created_at < timedelta(seconds=60)

    async def test_the_latest_heartbeat_is_what_is_known_of_a_worker(self, engine: Engine) -> None:
        await engine.heartbeat(WorkerInfo("w1", running=1, queues=("a",)), [], lease=LEASE)
        advance(engine, 5)
        await engine.heartbeat(WorkerInfo("w1", running=2, queues=()), [], lease=LEASE)
        (read,) = await engine.workers()
        assert (read.running, read.queues) == (2, ())

    async def test_a_worker_is_alive_while_its_heartbeat_is_younger_than_its_lease(self, engine: Engine) -> None:
        await beat(engine, worker="short", lease=LEASE)
        await beat(engine, worker="long", lease=LEASE * 10)
        engine.advance(LEASE * 2)
        assert {worker.id: worker.alive for worker in await engine.workers()} == {"short": False, "long": True}
        await beat(engine, worker="short", lease=LEASE)
        assert {worker.id: worker.alive for worker in await engine.workers()} == {"short": True, "long": True}

    async def test_workers_are_read_oldest_first(self, engine: Engine) -> None:
        start_of_all = datetime(2024, 1, 1, tzinfo=UTC)
        for number, name in enumerate(["c", "a", "b"]):
            said = WorkerInfo(name, started_at=start_of_all + timedelta(seconds=number))
            await engine.heartbeat(said, [], lease=LEASE)
            advance(engine, 1)
        assert [worker.id for worker in await engine.workers()] == ["c", "a", "b"]

    async def test_a_worker_silent_for_an_hour_is_not_read(self, engine: Engine) -> None:
        await beat(engine, worker="w1")
        advance(engine, 3500)
        await beat(engine, worker="w2")
        assert [worker.id for worker in await engine.workers()] == ["w1", "w2"]
        advance(engine, 200)
        assert [worker.id for worker in await engine.workers()] == ["w2"]

    async def test_a_worker_that_stopped_is_forgotten(self, engine: Engine) -> None:
        await beat(engine, worker="w1")
        await beat(engine, worker="w2")
        await engine.heartbeat(WorkerInfo("w1", stopped=True), [], lease=LEASE)
        assert [worker.id for worker in await engine.workers()] == ["w2"]

    async def test_a_worker_that_stopped_before_it_was_known_stays_unknown(self, engine: Engine) -> None:
        await engine.heartbeat(WorkerInfo("w1", stopped=True), [], lease=LEASE)
        assert await engine.workers() == []
