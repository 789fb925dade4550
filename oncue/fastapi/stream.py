"""Server-sent events: how a job's events become a response, and how many such responses there may be at once."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, Final

from sse_starlette import EventSourceResponse
from sse_starlette.sse import SendTimeoutError
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from oncue.fastapi.watch import Event

__all__ = ["JobStream", "Seats"]

logger = logging.getLogger("oncue.fastapi")

_KEEP_ALIVE: Final = 15
"""Seconds between comments, without which proxies take a quiet stream for dead."""
_SEND_TIMEOUT: Final = 30.0
"""Seconds that a client may take nothing of what is sent."""
_FAREWELL: Final = 1.0
"""Seconds that a stream has to end in order once the server ends: cut off, it looks to its client like a failure."""
_RETRY: Final = 1000
"""Milliseconds after which a browser that lost the stream asks again."""


class Seats:
    """How many streams a process serves at once.

    Attributes:
        taken: how many it serves now.
    """

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.taken = 0


class JobStream(EventSourceResponse):
    """The events of one job, for one client, on one seat; `full` is answered if none is free."""

    def __init__(self, events: AsyncGenerator[Event, None], seats: Seats, full: Response) -> None:
        super().__init__(_frames(events), ping=_KEEP_ALIVE, send_timeout=_SEND_TIMEOUT, shutdown_grace_period=_FAREWELL)
        self._seats = seats
        self._full = full

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the stream. The seat is taken here, and not by the route, so that it is given back for certain."""
        if self._seats.taken >= self._seats.capacity:
            await self._full(scope, receive, send)
            return
        self._seats.taken += 1
        try:
            await super().__call__(scope, receive, send)
        except SendTimeoutError:
            logger.info("a client that read nothing for %g seconds was let go", _SEND_TIMEOUT)
        finally:
            self._seats.taken -= 1


async def _frames(events: AsyncGenerator[Event, None]) -> AsyncIterator[dict[str, Any]]:
    async with aclosing(events):
        yield {"retry": _RETRY}
        async for event in events:
            yield {"id": event.id, "event": event.kind, "data": event.data}
