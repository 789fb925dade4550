"""Measures Oncue on SQLite on this machine: `make bench`, or `python benchmarks/run.py [--jobs N] [--rounds N]`.

Every round is a process of its own with a new file, so that none warms the next; shown are minimum, median, maximum.
The job is a no-op that takes and returns one int; results are stored, attempts counted, log lines go to a file.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import platform
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from oncue import Context, Oncue, State

COROUTINES = 64


async def measure(folder: Path, count: int) -> dict[str, float]:
    """Return the figures of one round."""
    logging.basicConfig(level="INFO", filename=folder / "worker.log")
    jobs = Oncue(f"sqlite:///{folder / 'bench.db'}")
    started: dict[str, float] = {}

    @jobs.task()
    async def noop(x: int) -> int:
        return x

    @jobs.task(queue="latency")
    async def stamp(ctx: Context) -> None:
        started[ctx.job_id] = time.perf_counter()

    figures: dict[str, float] = {}
    async with jobs:
        share = count // COROUTINES

        async def enqueue_share() -> None:
            for number in range(share):
                await noop.enqueue(number)

        begin = time.perf_counter()
        await asyncio.gather(*(enqueue_share() for _ in range(COROUTINES)))
        figures[f"enqueue, {COROUTINES} coroutines, jobs/s"] = share * COROUTINES / (time.perf_counter() - begin)

        worker = jobs.worker(burst=True, queues=["default"])
        begin = time.perf_counter()
        await worker.run()
        figures["drain, one worker, jobs/s"] = share * COROUTINES / (time.perf_counter() - begin)
        counts = {queue.name: queue.counts for queue in await jobs.engine.queues()}
        assert counts["default"][State.COMPLETED] == share * COROUTINES, counts

        begin = time.perf_counter()
        await jobs.enqueue_many([noop.request(number) for number in range(count)])
        figures["enqueue_many, jobs/s"] = count / (time.perf_counter() - begin)

        worker = jobs.worker(queues=["latency"])
        running = asyncio.create_task(worker.run())
        starts, results = [], []
        for _ in range(200):
            begin = time.perf_counter()
            job = await stamp.enqueue()
            await job.result(timeout=10)
            results.append((time.perf_counter() - begin) * 1000)
            starts.append((started[job.id] - begin) * 1000)
        worker.stop()
        await running
        for name, values in (("to start", starts), ("to result seen", results)):
            values.sort()
            figures[f"idle worker, enqueue {name}, p50 ms"] = values[100]
            figures[f"idle worker, enqueue {name}, p99 ms"] = values[197]
    return figures


def main() -> None:
    """Run the rounds and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--once", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.once:
        with tempfile.TemporaryDirectory() as folder:
            print(json.dumps(asyncio.run(measure(Path(folder), options.jobs))))
        return
    rounds = []
    for number in range(options.rounds):
        print(f"round {number + 1} of {options.rounds} …", file=sys.stderr)
        command = [sys.executable, __file__, "--once", "--jobs", str(options.jobs)]
        rounds.append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    print(
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, {platform.machine()}, synchronous=full"
    )
    print(f"{'':48}{'min':>10}{'median':>10}{'max':>10}")
    for name in rounds[0]:
        values = sorted(figures[name] for figures in rounds)
        low, middle, high = values[0], statistics.median(values), values[-1]
        print(f"{name:48}{low:>10,.1f}{middle:>10,.1f}{high:>10,.1f}")


if __name__ == "__main__":
    main()
