"""Sends what running tasks report: progress, log lines and streamed items, many in one call."""

from __future__ import annotations

import asyncio
import threading

from oncue.engine import MAX_BATCH, Engine
from oncue.errors import EngineError, LeaseLost
from oncue.job import FeedItem, FeedKind
from oncue.serializers import Envelope
from oncue.worker.attempt import Attempt, Cause
from oncue.worker.outage import Outages

__all__ = ["Feed", "Reporter"]

_PACE = 0.05
"""Seconds that reports may wait for others to travel with."""
_FULL = 500
"""Items that wait at most before a streaming task is held up."""


class Feed:
    """The outbox of one attempt; see `oncue.context.Outbox`."""

    def __init__(self, reporter: Reporter, attempt: Attempt, envelope: Envelope) -> None:
        self._reporter = reporter
        self._envelope = envelope
        self._lock = reporter.lock
        self._ordinal = 0
        self._waiting: list[FeedItem] = []
        self._under_way = 0
        self._sending: asyncio.Lock | None = None
        self.attempt = attempt

    def put(self, kind: FeedKind, data: bytes) -> None:
        """Take JSON; from any thread."""
        self.put_sealed(kind, self._envelope.seal(data))

    def put_sealed(self, kind: FeedKind, body: bytes) -> None:
        """Take bytes as they are to be stored; from any thread. What an attempt says that is over is dropped."""
        if self.attempt.concluded:
            return
        with self._lock:
            unsent = len(self._waiting) > self._under_way
            if kind is FeedKind.PROGRESS and unsent and self._waiting[-1].kind is kind:
                self._waiting.pop()  # overtaken before it was sent
            # A number is never used again: what was overtaken may be stored, if only its answer was lost.
            self._ordinal += 1
            self._waiting.append(FeedItem(self.attempt.lease.token, self._ordinal, kind, body))
        self._reporter.wake(self)

    @property
    def waiting(self) -> int:
        """How many items are not stored yet."""
        return len(self._waiting)

    async def flush(self) -> None:
        """Store what waits, however long the store is away; raises `LeaseLost`."""
        outage = self._reporter.outages.of("reporting")
        try:
            while self._waiting and not self.attempt.concluded:
                try:
                    await self.send()
                except EngineError as error:
                    await outage.pause(error)
        finally:
            outage.over()

    async def room(self) -> None:
        """Return when there is room for another item: what holds up a task that streams faster than the store takes."""
        if len(self._waiting) >= _FULL:
            await self.flush()

    async def send(self) -> None:
        """Store what waits now. Raises `EngineError`, and `LeaseLost` if the attempt is no longer the current one."""
        if self._sending is None:
            self._sending = asyncio.Lock()
        async with self._sending:
            with self._lock:
                items = self._waiting[:MAX_BATCH]
                self._under_way = len(items)
            if not items:
                return
            accepted, stored = False, 0
            try:
                accepted = await self._reporter.engine.append(self.attempt.lease, items)
                stored = len(items)
            finally:
                with self._lock:
                    del self._waiting[:stored]
                    self._under_way = 0
            if not accepted:
                self._waiting.clear()
                self.attempt.interrupt(Cause.LOST)
                raise LeaseLost(f"job {self.attempt.claimed.id} is no longer this worker's")


class Reporter:
    """Turns to the feeds that have something, every so often."""

    def __init__(self, engine: Engine, outages: Outages) -> None:
        self.engine = engine
        self.outages = outages
        self.lock = threading.Lock()
        """Of all feeds, and of the list of them: most attempts report nothing, and need no lock of their own."""
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()
        self._ready: dict[Feed, None] = {}

    def wake(self, feed: Feed) -> None:
        """Note that a feed has something; from any thread."""
        with self.lock:
            if feed in self._ready:
                return
            self._ready[feed] = None
        self._loop.call_soon_threadsafe(self._wake.set)

    async def run(self) -> None:
        """Send, until cancelled."""
        outage = self.outages.of("reporting")
        while True:
            await self._wake.wait()
            await asyncio.sleep(_PACE)
            self._wake.clear()
            with self.lock:
                feeds, self._ready = list(self._ready), {}
            answers = await asyncio.gather(*(feed.send() for feed in feeds), return_exceptions=True)
            failed = [answer for answer in answers if isinstance(answer, EngineError)]
            for feed, answer in zip(feeds, answers, strict=True):
                if isinstance(answer, EngineError):
                    self.wake(feed)
            if failed:
                await outage.pause(failed[0])
            else:
                outage.over()
