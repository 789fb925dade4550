"""A worker that was frozen past its lease wakes up, and what it still writes counts for nothing."""

from __future__ import annotations

import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import pytest

from oncue import Job, State
from tests.measured import Report
from tests.multiprocess.harness import Effect, Fleet, WorkerProcess, all_final, counted, eventually, judge

pytestmark = [pytest.mark.anyio, pytest.mark.multiprocess]

LEASE = 0.8
JOBS = 20
"""A round."""


async def freeze_and_thaw(folder: Path, report: Report, *, rounds: int, when: str) -> None:
    """Let one worker be frozen with 20 jobs in hand, which the other one then runs, round after round."""
    accepted = 0
    async with Fleet(folder, lease=LEASE, concurrency=2 * JOBS) as fleet:
        zombie, other = await fleet.serving(2)
        for _ in range(rounds):
            await other.freeze()  # so that all jobs go to the zombie
            handles = [await fleet.jobs.enqueue("work", 1.1 * LEASE) for _ in range(JOBS)]
            accepted += await one_round(fleet, zombie, other, handles, when=when)
        assert zombie.alive
        assert other.alive
        refused = len(fleet.lines("was refused"))
        told = len(fleet.lines("was taken back from this worker"))
        fenced = await counted(fleet.jobs, "fenced")
        assert fleet.faults_in_logs() == []
        assert fenced >= refused
    assert accepted == 0
    name = f"zombies thawed {when}, {rounds * JOBS} attempts"
    report(f"{name}: stale results that stand", accepted)
    report(f"{name}: outcomes refused / told by the heartbeat / fenced", f"{refused} / {told} / {fenced}")


async def one_round(
    fleet: Fleet, zombie: WorkerProcess, other: WorkerProcess, handles: list[Job[Any]], *, when: str
) -> int:
    """Return how many results of the zombie stand."""
    ids = [job.id for job in handles]
    await started(fleet, ids, times=1)
    await zombie.freeze()
    other.thaw()
    await started(fleet, ids, times=2)
    if when == "after the newer attempt":
        for job in handles:
            await job.wait(20)
    zombie.thaw()
    # It learns of each: by a refused outcome, or by its heartbeat.
    await eventually(lambda: zombie_knows(zombie.log, ids) == set(ids), "the zombie knows of all")
    latest, accepted = newest(fleet, ids), 0
    for job in handles:
        info = await job.wait(20)
        assert (info.state, info.attempts, info.crashes) == (State.COMPLETED, 2, 1)
        accepted += await job.result() != f"{job.id} by {latest[job.id].token}"
        assert len(fleet.effects("start", job=job.id)) == 2
    return accepted


async def started(fleet: Fleet, ids: list[str], *, times: int) -> None:
    def all_are() -> bool:
        counts: dict[str, int] = defaultdict(int)
        for effect in fleet.effects("start"):
            counts[effect.job] += 1
        return all(counts[job] >= times for job in ids)

    await eventually(all_are, f"every job has started {times} times")


def newest(fleet: Fleet, ids: list[str]) -> dict[str, Effect]:
    found: dict[str, Effect] = {}
    for effect in fleet.effects("start"):
        if effect.job in ids and (effect.job not in found or effect.token > found[effect.job].token):
            found[effect.job] = effect
    return found


def zombie_knows(log: str, ids: list[str]) -> set[str]:
    told = [line for line in log.splitlines() if "was refused" in line or "taken back from this worker" in line]
    return {job for job in ids if any(job in line for line in told)}


@pytest.mark.parametrize("when", ["during the newer attempt", "after the newer attempt"])
async def test_a_frozen_worker_cannot_overwrite_the_newer_attempt(tmp_path: Path, report: Report, when: str) -> None:
    """F03, Q8."""
    await freeze_and_thaw(tmp_path, report, rounds=2, when=when)


@pytest.mark.soak
@pytest.mark.parametrize("when", ["during the newer attempt", "after the newer attempt"])
async def test_a_frozen_worker_cannot_overwrite_the_newer_attempt_in_many_rounds(
    tmp_path: Path, report: Report, when: str
) -> None:
    """F03, Q8: 200 trials."""
    await freeze_and_thaw(tmp_path, report, rounds=10, when=when)


async def test_what_a_frozen_worker_still_reports_is_refused_and_its_renewals_steal_nothing_back(
    tmp_path: Path, report: Report
) -> None:
    """Q8: feed, heartbeat and outcome of the old attempt, beside a newer one that goes on for three leases."""
    async with Fleet(tmp_path, lease=LEASE) as fleet:
        [zombie] = await fleet.serving()
        job = await fleet.jobs.enqueue("chatter", 3 * LEASE)
        [old] = await fleet.noted("start", job.id)
        await eventually(lambda: fleet.jobs.engine.read(job.id), "the first lines are stored")
        await zombie.freeze()
        await fleet.serving()
        [_, new] = await fleet.noted("start", job.id, times=2)
        zombie.thaw()
        await eventually(lambda: zombie_knows(zombie.log, [job.id]), "the zombie knows")
        assert await job.result(20) == new.token
        info = await job.info()
        assert (info.attempts, info.crashes) == (2, 1)
        fenced = await counted(fleet.jobs, "fenced")
        said = [event.data["message"] async for event in job.events() if event.kind == "log"]
        tokens = [int(line.split()[0]) for line in said]
        assert tokens == sorted(tokens), "a line of the old attempt stands among those of the newer one"
        assert {old.token, new.token} == set(tokens)
        numbers = [int(line.split()[1]) for line in said if line.startswith(str(new.token))]
        assert numbers == list(range(1, len(numbers) + 1))
        assert fleet.faults_in_logs() == []
    report("zombie that writes to its job's feed: writes refused and counted", fenced)


async def test_a_process_frozen_with_the_stores_lock_costs_time_and_nothing_else(
    tmp_path: Path, report: Report
) -> None:
    """Nobody can renew a lease meanwhile, so nobody's is taken for expired afterwards, not even the frozen one's."""
    lease, number, frozen = 1.0, 400, 3.0
    async with Fleet(tmp_path, lease=lease, concurrency=25) as fleet:
        holder, other = await fleet.serving(2)
        work = fleet.jobs.tasks_by_name["work"]
        handles = await fleet.jobs.enqueue_many([work.request(0.1 + n % 7 / 10) for n in range(number)])
        ids = [job.id for job in handles]
        await eventually(lambda: len(fleet.effects("end")) > 20, "they are busy")
        await holder.freeze(with_lock=True)
        since = time.monotonic()
        await eventually(lambda: time.monotonic() - since > frozen, "three leases have passed")
        holder.thaw()
        await all_final(fleet.jobs, within=60)
        verdict = await judge(fleet, ids)
        assert verdict.faults == {}, str(verdict)
        assert (verdict.dup_excused, verdict.crashed) == (0, 0), str(verdict)
        assert verdict.runs == number
        assert other.alive
        assert fleet.faults_in_logs() == []
    report(
        f"process frozen for {frozen / lease:g} leases with the store's lock, {number} jobs: lost, run twice", "0, 0"
    )
