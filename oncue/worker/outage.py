"""What every loop does when the store does not answer: wait ever longer, or until another one gets an answer.

The log has one line when the store went away and one when it is back for all, however many loops ask it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
import time

from oncue.errors import EngineError

__all__ = ["Outage", "Outages"]

logger = logging.getLogger("oncue.worker")

_FIRST = 0.1
_LONGEST = 5.0


class Outages:
    """What the loops of one worker know of the store; from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._away: set[Outage] = set()
        self._since = 0.0

    def of(self, what: str) -> Outage:
        """Return the memory of one loop, on the event loop where it turns; `what` says in the log what it asks for."""
        return Outage(self, what)

    def begins(self, outage: Outage, error: EngineError) -> None:
        """Note that a loop gets no answers any more."""
        with self._lock:
            first = not self._away
            self._away.add(outage)
        if first:
            self._since = time.monotonic()
            logger.warning("the store does not answer (%s), trying again until it does: %s", outage.what, error)

    def over(self, outage: Outage) -> None:
        """Note that a loop gets answers again; the others will not wait any longer."""
        with self._lock:
            self._away.discard(outage)
            others = list(self._away)
        if not others:
            logger.info("the store answers again, after %.1f s", time.monotonic() - self._since)
        for other in others:
            other.wake()


class Outage:
    """One loop's memory of whether the store answers."""

    def __init__(self, outages: Outages, what: str) -> None:
        self.what = what
        self._outages = outages
        self._delay = 0.0
        self._loop = asyncio.get_running_loop()
        self._wake = asyncio.Event()

    def over(self) -> None:
        """Note that a call succeeded."""
        if self._delay:
            self._delay = 0.0
            self._outages.over(self)

    def begins(self, error: EngineError) -> float:
        """Note that a call failed; return the seconds to wait before the next."""
        if not self._delay:
            self._delay = _FIRST
            self._outages.begins(self, error)
        else:
            self._delay = min(self._delay * 2, _LONGEST)
        return self._delay * random.uniform(0.5, 1.0)

    async def pause(self, error: EngineError) -> None:
        """Note that a call failed, and wait."""
        delay = self.begins(error)
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(delay):
                await self._wake.wait()

    def wake(self) -> None:
        """End the pause; from any thread."""
        with contextlib.suppress(RuntimeError):  # its loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._wake.set)
