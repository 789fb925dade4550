"""Follows each job once, however many clients of this process watch it.

A `_Watch` asks the store what a job is at whenever it is hinted, and once a second should a hint be lost. Its watchers
read from it; one that is behind what the watch keeps reads the rest from the store by itself. What comes out is what
`Job.events` yields, as JSON text, under the same ids.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import random
import re
from bisect import bisect_right
from collections.abc import AsyncGenerator, Iterator
from contextvars import Context
from typing import Final, NamedTuple, Self

from oncue.client import Client
from oncue.engine import topic_job
from oncue.errors import EngineError, JobNotFound, PayloadError
from oncue.fastapi import shutdown
from oncue.handles import status_data
from oncue.job import FeedItem, FeedKind, JobInfo, State

__all__ = ["BEGINNING", "Event", "Position", "Watches"]

logger = logging.getLogger("oncue.fastapi")

_LOOK: Final = 1.0
"""Seconds between looks at a job, should a hint be lost."""
_PAGE: Final = 100
"""Items read at once; each may be as large as a payload."""
_KEPT_ITEMS: Final = 500
_KEPT_SIZE: Final = 262_144
_ENDING_LOOK: Final = 0.1
"""Seconds between looks whether the server ends; while nobody watches there are none."""

_Place = tuple[int, int]
_START: Final[_Place] = (-1, -1)


class Event(NamedTuple):
    """Something that happened to a job; `data` is JSON text."""

    id: str
    kind: str
    data: str


class Position(NamedTuple):
    """How far a watcher is: the revision of the last state it saw, and the place of the last item of the feed."""

    revision: int = -1
    place: _Place = _START

    @classmethod
    def parse(cls, event_id: str) -> Self:
        """Read the id of an event; raises `ValueError` if it is none."""
        match = re.fullmatch(r"(-1|[0-9]{1,18})\.(?:([0-9]{1,18})-([0-9]{1,18}))?", event_id)
        if match is None:
            raise ValueError(f"{event_id!r:.80} is not the id of an event")
        revision, token, ordinal = match.groups()
        return cls(int(revision), _START if token is None else (int(token), int(ordinal)))

    def __str__(self) -> str:
        return f"{self.revision}.{_cursor(self.place) or ''}"


BEGINNING: Final = Position()


def _cursor(place: _Place) -> str | None:
    return None if place == _START else f"{place[0]}-{place[1]}"


class _Item(NamedTuple):
    place: _Place
    kind: str
    data: str


class _Watch:
    """One job, followed for all who watch it.

    Attributes:
        info: what the job is at; None until that is known. Its feed is known as far as that at least.
        gone: whether the store has no such job any more.
        error: why the watch has ended, if it broke.
        changed: set when there is news, and replaced by another.
        watchers: how many there are.
        task: runs it.

    Args:
        place: behind which the feed is wanted; None if only the job's state is.
    """

    def __init__(self, client: Client, job_id: str, place: _Place | None) -> None:
        self.info: JobInfo | None = None
        self.gone = False
        self.error: Exception | None = None
        self.changed = asyncio.Event()
        self.watchers = 0
        self._client = client
        self._job_id = job_id
        self._with_feed = place is not None
        self._items: list[_Item] = []
        self._size = 0
        self._floor = self._top = place or _START
        """Items between these two places are kept."""
        # In a context of its own: the first watcher's request, with its trace id, is not the others'.
        self.task = asyncio.create_task(self._follow(), name=f"oncue-watch-{job_id}", context=Context())

    @property
    def over(self) -> bool:
        """Whether nothing more will be told."""
        return self.gone or self.error is not None or (self.info is not None and self.info.state.final)

    def tell(self) -> None:
        """Wake the watchers."""
        told, self.changed = self.changed, asyncio.Event()
        told.set()

    async def after(self, place: _Place) -> list[_Item]:
        """Return items behind a place; none if none are known."""
        if place < self._floor:
            if page := await self._page(place):
                return page
            place = self._floor  # of what was behind it nothing is left: of progress the store keeps the latest alone
        return self._items[bisect_right(self._items, place, key=lambda item: item.place) :]

    async def _follow(self) -> None:
        hints = self._client.engine.subscribe(topic_job(self._job_id))
        try:
            while not self.over:
                [info] = await self._client.engine.get([self._job_id])
                if info is not None and self._with_feed:
                    await self._read_feed()
                before, self.info, self.gone = self.info, info or self.info, info is None
                if info is None or before is None or info.revision != before.revision:
                    self.tell()
                if not self.over:
                    await hints.wait(_LOOK * random.uniform(0.8, 1.2))
        except Exception as error:
            self.error = error
            self.tell()
        finally:
            hints.close()

    async def _read_feed(self) -> None:
        while page := await self._page(self._top):
            self._keep(page)
            self.tell()
            if len(page) < _PAGE:
                return

    async def _page(self, place: _Place) -> list[_Item]:
        stored = await self._client.engine.read(self._job_id, after=_cursor(place), limit=_PAGE)
        return [_Item((item.token, item.ordinal), FeedKind(item.kind).value, self._text(item)) for item in stored]

    def _text(self, item: FeedItem) -> str:
        try:
            text = self._client.envelope.open(item.body).decode()
            if "NaN" in text or "Infinity" in text:  # Python writes and reads them; browsers do neither
                text = json.dumps(json.loads(text, parse_constant=lambda _: None))
            return text
        except (PayloadError, ValueError) as error:
            logger.warning("an item of the feed of job %s cannot be read: %s", self._job_id, error)
            return "null"

    def _keep(self, page: list[_Item]) -> None:
        self._items += page
        self._top = page[-1].place
        self._size += sum(len(item.data) for item in page)
        excess = max(len(self._items) - _KEPT_ITEMS, 0)
        size = self._size - sum(len(item.data) for item in self._items[:excess])
        while size > _KEPT_SIZE:
            size -= len(self._items[excess].data)
            excess += 1
        if excess:
            self._floor, self._size = self._items[excess - 1].place, size
            del self._items[:excess]


class Watches:
    """The jobs that are watched in this process.

    Attributes:
        ended: whether everybody was sent home.
    """

    def __init__(self) -> None:
        self._watches: dict[tuple[Client, str, bool], _Watch] = {}
        self._lookout: asyncio.Task[None] | None = None
        self.ended = False

    def end(self) -> None:
        """Send everybody home: the server ends."""
        self.ended = True
        for watch in self._watches.values():
            watch.tell()

    async def wait(self, client: Client, job_id: str, timeout: float) -> JobInfo:
        """Wait until a job has ended; when the time is up, or the server ends, answer what it is then.

        Raises `JobNotFound` and `EngineError`.
        """
        info = await client.info(job_id)
        if info.state.final or timeout <= 0:
            return info
        with self._joined(client, job_id) as watch:
            deadline = asyncio.get_running_loop().time() + timeout
            waiting = True
            while waiting and not self.ended and not watch.over:
                waiting = await _set(watch.changed, deadline)
            if watch.error is not None:
                raise watch.error
            if watch.gone:
                raise JobNotFound(job_id)
            return watch.info or info

    async def events(
        self, client: Client, job_id: str, position: Position = BEGINNING, *, life: float = 3600
    ) -> AsyncGenerator[Event, None]:
        """Yield what happens to a job behind a position, and end after its last state.

        Ends early when the server does, when the job is deleted, and after `life` seconds. An outage is waited for.
        """
        loop = asyncio.get_running_loop()
        deadline = loop.time() + life
        revision, place = position
        while not self.ended and loop.time() < deadline:
            with self._joined(client, job_id, place) as watch, contextlib.suppress(EngineError):
                while True:
                    changed, info = watch.changed, watch.info
                    if info is not None and info.state is State.RUNNING and info.revision != revision:
                        revision = info.revision  # before what the attempt reports
                        yield Event(str(Position(revision, place)), "status", json.dumps(status_data(info)))
                    while page := await watch.after(place):
                        for item in page:
                            place = item.place
                            yield Event(str(Position(revision, place)), item.kind, item.data)
                    if info is not None and info.revision != revision:
                        revision = info.revision
                        yield Event(str(Position(revision, place)), "status", json.dumps(status_data(info)))
                    if watch.error is not None:
                        raise watch.error
                    if self.ended or (watch.over and info is watch.info) or not await _set(changed, deadline):
                        return
            await asyncio.sleep(_LOOK)

    @contextlib.contextmanager
    def _joined(self, client: Client, job_id: str, place: _Place | None = None) -> Iterator[_Watch]:
        key = (client, job_id, place is not None)
        watch = self._watches.get(key)
        if watch is None or watch.over:
            watch = self._watches[key] = _Watch(client, job_id, place)
        if self._lookout is None or self._lookout.done():
            self._lookout = asyncio.create_task(self._look_out(), name="oncue-lookout", context=Context())
        watch.watchers += 1
        try:
            yield watch
        finally:
            watch.watchers -= 1
            if watch.watchers == 0:
                watch.task.cancel()
                if self._watches.get(key) is watch:
                    del self._watches[key]

    async def _look_out(self) -> None:
        while self._watches:
            if shutdown.is_ending():
                self.end()
                return
            await asyncio.sleep(_ENDING_LOOK)


async def _set(event: asyncio.Event, deadline: float) -> bool:
    """Wait until an event is set; False if the deadline came first."""
    try:
        async with asyncio.timeout_at(deadline):
            await event.wait()
    except TimeoutError:
        return False
    return True
