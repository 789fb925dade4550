"""A program whose wall clock is stepped while it works: `python -m tests.sqlite.skewed_worker STORE JOBS`.

Runs so many jobs of a fifth of a second with leases of a second, in two workers, and prints what became of them.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter

from oncue import Oncue


async def main(store: str, count: int) -> None:
    """Run the jobs and print a JSON object."""
    jobs, other = Oncue(f"sqlite:///{store}"), Oncue(f"sqlite:///{store}")
    runs: Counter[int] = Counter()

    @jobs.task()
    async def work(number: int) -> float:
        runs[number] += 1
        await asyncio.sleep(0.2)
        return time.time()

    @other.task(name=work.name)
    async def same(number: int) -> float:
        runs[number] += 1
        await asyncio.sleep(0.2)
        return time.time()

    async with jobs, other:
        handles = await jobs.enqueue_many([work.request(number) for number in range(count)])
        workers = [app.worker(lease=1.5, concurrency=4) for app in (jobs, other)]
        running = [asyncio.create_task(worker.run()) for worker in workers]
        ended = [await handle.result(timeout=60) for handle in handles]
        for worker in workers:
            worker.stop()
        await asyncio.gather(*running)
        infos = [info for info in await jobs.client.infos([handle.id for handle in handles]) if info is not None]
    print(
        json.dumps(
            {
                "ran": len(runs),
                "twice": [number for number, times in runs.items() if times > 1],
                "crashes": sum(info.crashes for info in infos),
                "clock": [min(ended) - time.time(), max(ended) - time.time()],
            }
        )
    )


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
