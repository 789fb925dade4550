"""The demo's tasks: what its jobs do.

Each shows one side of Oncue: many small jobs in line, work in a thread with progress, retries, streamed output, a
schedule. How they are started and shown is the business of `api` and `pages`.
"""

from __future__ import annotations

import asyncio
import math
import random
import threading
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import Final

from oncue import Context, GiveUp, Oncue, Retry, Task
from oncue.demo.decoding import ImageProblem
from oncue.demo.images import ImageReport, process
from oncue.demo.uploads import Uploads

__all__ = ["DemoTasks", "Digits", "digits_of_pi", "hard_number", "prime_factors", "product", "register"]

KEEP_ORIGINALS: Final = timedelta(hours=1)
KEEP_RESULTS: Final = timedelta(days=1)
DIVISIONS: Final = 5_000
"""How many divisions are tried before other jobs get their turn: a millisecond or less."""
PAUSE: Final = 0.06
"""Seconds. Nothing here needs that long; people who want to see jobs come and go do."""


@dataclass(frozen=True)
class Digits:
    """Ten digits of π. They say where they belong: an attempt that was lost with its server is begun anew."""

    at: int
    digits: str


class Interrupted(Exception):
    """The attempt was asked to stop; the worker knows why."""


@dataclass(frozen=True)
class DemoTasks:
    """The tasks, registered on one app."""

    factorise: Task[[int], str]
    add: Task[[int, int], int]
    work_on_image: Task[[str, str], ImageReport]
    fail_twice: Task[[], str]
    stream_pi: Task[[int], None]


def register(jobs: Oncue, uploads: Uploads) -> DemoTasks:
    """Register the demo's tasks and its schedule."""
    decoding = threading.BoundedSemaphore(2)  # a large picture takes a few hundred megabytes while it is decoded

    @jobs.task(keep=KEEP_RESULTS)
    async def factorise(number: int) -> str:
        """Take a number apart into its prime factors, a little at a time."""
        factors: list[int] = []
        for found in prime_factors(number):
            factors.extend(found)
            await asyncio.sleep(PAUSE)
        return f"{number:,} = {product(factors)}"

    @jobs.task(keep=KEEP_RESULTS)
    async def add(a: int, b: int) -> int:
        """Add two numbers."""
        return a + b

    @jobs.task(timeout=120, priority=10, keep=KEEP_RESULTS)
    def work_on_image(ctx: Context, key: str, name: str) -> ImageReport:
        """Make the versions of an upload. A plain function: it runs in a thread, and the event loop goes on."""
        started = last = time.monotonic()
        doing = ""

        def progress(done: int, total: int, message: str) -> None:
            nonlocal last, doing
            if ctx.cancelled:  # a thread cannot be interrupted: it has to look
                raise Interrupted
            now = time.monotonic()
            if doing:
                ctx.log_sync(f"{(now - started) * 1000:6.0f} ms  {doing}")
            last, doing = now, message
            ctx.progress_sync(done, total, message)

        try:
            with decoding:
                return process(uploads.original(key), uploads.versions(ctx.job_id), progress)
        except ImageProblem as error:
            raise GiveUp(str(error)) from error  # trying again would not help
        except FileNotFoundError as error:
            raise GiveUp("The upload is gone: uploads are kept for an hour.") from error

    @jobs.task(priority=5, retry=Retry(max=3, base=1.0, jitter="none", on=(ConnectionError,)), keep=KEEP_RESULTS)
    async def fail_twice(ctx: Context) -> str:
        """Ask a service that is down at the first two calls."""
        await asyncio.sleep(0.7)
        if ctx.attempt < 3:
            raise ConnectionError(f"the weather service did not answer (call {ctx.attempt})")
        return "The weather service answered at the third call: sunny, 21 °C."

    @jobs.task(priority=5, keep=KEEP_RESULTS)
    async def stream_pi(digits: int) -> AsyncIterator[Digits]:
        """Compute digits of π and yield them in tens."""
        source = digits_of_pi()
        for at in range(0, digits, 10):
            yield Digits(at=at, digits="".join(str(digit) for digit in islice(source, 10)))
            await asyncio.sleep(PAUSE)

    @jobs.every(600, name="clean-uploads")
    @jobs.task()
    def clean_uploads() -> int:
        """Delete old uploads, and what was made of them once the jobs themselves are gone."""
        return uploads.clean(originals=KEEP_ORIGINALS, versions=KEEP_RESULTS)

    return DemoTasks(factorise, add, work_on_image, fail_twice, stream_pi)


def hard_number() -> int:
    """Return a product of two primes; how long it takes to find them depends on the smaller one."""
    return _prime(1_000, 250_000) * _prime(250_000, 10_000_000)


def _prime(low: int, high: int) -> int:
    while True:
        candidate = random.randrange(low, high) | 1
        if all(candidate % divisor for divisor in range(3, math.isqrt(candidate) + 1, 2)):
            return candidate


def prime_factors(number: int) -> Iterator[list[int]]:
    """Yield the prime factors of a number, smallest first, after every `DIVISIONS` divisions those found meanwhile."""
    found: list[int] = []
    divisor, tried = 2, 0
    while divisor * divisor <= number:
        if number % divisor:
            divisor += 1 if divisor == 2 else 2
        else:
            number //= divisor
            found.append(divisor)
        tried += 1
        if tried % DIVISIONS == 0:
            yield found
            found = []
    yield [*found, number]


def product(factors: list[int]) -> str:
    """Return factors as people write them, such as `2³ × 5`."""
    return " × ".join(
        f"{factor:,}" + ("" if power == 1 else str(power).translate(_RAISED))
        for factor, power in sorted(Counter(factors).items())
    )


_RAISED: Final = str.maketrans("0123456789", "⁰¹²³⁴⁵⁶⁷⁸⁹")


def digits_of_pi() -> Iterator[int]:
    """Yield the digits of π after the point, without end.

    The streaming algorithm of Jeremy Gibbons, "Unbounded Spigot Algorithms for the Digits of Pi" (2006).
    """
    q, r, t, k, n, l = 1, 0, 1, 1, 3, 3  # noqa: E741  (the paper's names)
    first = True
    while True:
        if 4 * q + r - t < n * t:
            if not first:
                yield n
            first = False
            q, r, n = 10 * q, 10 * (r - n * t), 10 * (3 * q + r) // t - 10 * n
        else:
            q, r, t, k, n, l = q * k, (2 * q + r) * l, t * l, k + 1, (q * (7 * k + 2) + r * l) // (t * l), l + 2  # noqa: E741
