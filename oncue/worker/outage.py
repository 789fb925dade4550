"""What every loop does when the store does not answer: say so once, wait ever longer, say when it is back."""

from __future__ import annotations

import asyncio
import logging
import random

from oncue.errors import EngineError

__all__ = ["Outage"]

logger = logging.getLogger("oncue.worker")

_FIRST = 0.1
_LONGEST = 5.0


class Outage:
    """One loop's memory of whether the store answers."""

    def __init__(self, what: str) -> None:
        self._what = what
        self._delay = 0.0

    def over(self) -> None:
        """Note that a call succeeded."""
        if self._delay:
            self._delay = 0.0
            logger.info("the store answers again (%s)", self._what)

    def begins(self, error: EngineError) -> float:
        """Note that a call failed; return the seconds to wait before the next."""
        if not self._delay:
            logger.warning("the store does not answer (%s), trying again until it does: %s", self._what, error)
            self._delay = _FIRST
        else:
            self._delay = min(self._delay * 2, _LONGEST)
        return self._delay * random.uniform(0.5, 1.0)

    async def pause(self, error: EngineError) -> None:
        """Note that a call failed, and wait."""
        await asyncio.sleep(self.begins(error))
