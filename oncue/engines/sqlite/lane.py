"""Threads that own a connection: one that writes, one that reads.

Calls from any thread and event loop queue up in a lane; whatever is there when the lane turns to it travels together.
The writing lane runs a turn as one transaction (group commit): the cost of a durable commit is shared by all that
came in while the one before it was being written. Calls of one operation in a row are one call to it.

A turn that fails is rolled back and its calls are run again one by one, so that only the guilty one fails. A call
whose deadline passes before its turn has begun is dropped, never half done: its caller gets `EngineUnavailable`.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, Final

from oncue.engines.sqlite.checkpoint import Checkpointer
from oncue.engines.sqlite.clock import Clock
from oncue.engines.sqlite.faults import is_broken, is_busy, is_full, translate
from oncue.engines.sqlite.files import check_identity, connect, identity
from oncue.engines.sqlite.hints import Hub
from oncue.engines.sqlite.quarantine import may_be_unreadable, mend
from oncue.engines.sqlite.settings import SQLiteSettings
from oncue.engines.sqlite.unit import Unit
from oncue.errors import EngineUnavailable, EngineUnusable, OncueError, QueueFull

__all__ = ["Lane", "Operation", "ReadingLane", "WritingLane"]

logger = logging.getLogger("oncue.engine")

Operation = Callable[[Unit, Sequence[Any]], list[Any]]
_TURN: Final = 2_000
"""Requests in one turn: bounds how long the lock is held."""
_POLL: Final = 0.020
"""Seconds between looks for other processes' commits, while somebody here listens. The look costs 4 µs, waking up
for it ten times that: this keeps an idle worker at about 2 ms of CPU a second."""

_TRIES: Final = 5
_NOTHING_FOUND: Final = 10.0
"""Seconds until unreadable records are looked for again, if an error had another cause."""


@dataclass(slots=True, eq=False)
class _Call:
    operation: Operation
    requests: Sequence[Any]
    deadline: float
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[Any]
    adds: int = 0
    answer: Any = field(default=None)
    error: BaseException | None = None


class Lane:
    """A thread with a connection and a queue of calls."""

    _query_only = False

    def __init__(self, name: str, settings: SQLiteSettings, clock: Clock, conn: sqlite3.Connection) -> None:
        self._settings = settings
        self._clock = clock
        self._conn = conn
        self._broken = False
        self._not_mended_before = 0.0
        self._identity = None if settings.path is None else identity(settings.path)
        self._pid = os.getpid()
        self._calls: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._gate = threading.Lock()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def submit(self, operation: Operation, requests: Sequence[Any], adds: int = 0) -> asyncio.Future[list[Any]]:
        """Queue a call; the future, of the running loop, gets one answer a request, or an `EngineError`.

        `adds`: about how many bytes the call brings that were not asked for before. Other calls are never refused for
        want of room as long as there is any.
        """
        if os.getpid() != self._pid:
            raise EngineUnusable("this engine was opened before a fork; open one of its own in each process")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Any]] = loop.create_future()
        call = _Call(operation, requests, time.monotonic() + self._settings.timeout, loop, future, adds)
        with self._gate:  # no call may slip in behind the mark that ends the thread: nobody would answer it
            if self._closed:
                raise EngineUnavailable(f"{self._settings.path or 'the store in memory'} is closed")
            self._calls.put(call)
        return future

    def close(self) -> None:
        """Run what is queued, close the connection, end the thread. Blocks."""
        with self._gate:
            if not self._closed:
                self._closed = True
                self._calls.put(None)
        if self._thread is not threading.current_thread() and os.getpid() == self._pid:
            self._thread.join()

    def _run(self) -> None:
        closing = False
        while not closing:
            calls = self._next()
            if calls and calls[-1] is None:
                closing = True
                calls.pop()
            turn = [call for call in calls if call is not None]
            if turn:
                self._turn(turn)
        self._end()

    def _next(self) -> list[_Call | None]:
        """Wait for a call and take all that are there with it."""
        try:
            first = self._calls.get(timeout=self._patience())
        except queue.Empty:
            self._idle()
            return []
        calls = [first]
        size = 0 if first is None else len(first.requests)
        try:
            while calls[-1] is not None and size < _TURN:
                call = self._calls.get_nowait()
                calls.append(call)
                size += 0 if call is None else len(call.requests)
        except queue.Empty:
            pass
        return calls

    def _patience(self) -> float | None:
        return None

    def _idle(self) -> None:
        pass

    def _turn(self, calls: list[_Call]) -> None:
        """Run calls together; if that fails, one by one, so that only the guilty fails."""
        try:
            self._together(calls)
        except Exception as error:
            self._roll_back(error)
            if not self._may_work_now(error) and len(calls) == 1:
                self._refuse(calls[0], error)
                return
            for call in calls:
                self._alone(call)

    def _alone(self, call: _Call) -> None:
        """Run a call, again if what was in its way could be removed."""
        for _ in range(_TRIES):
            try:
                self._together([call])
            except Exception as error:
                self._roll_back(error)
                failure = error
                if not self._may_work_now(error):
                    break
            else:
                return
        self._refuse(call, failure)

    def _together(self, calls: list[_Call]) -> None:
        raise NotImplementedError

    def _roll_back(self, error: Exception) -> None:
        try:
            if self._conn.in_transaction:
                self._conn.execute("ROLLBACK")
        except sqlite3.Error:
            self._broken = True
        if isinstance(error, sqlite3.Error) and is_broken(error) and self._settings.path is not None:
            self._broken = True

    def _may_work_now(self, error: Exception) -> bool:
        """Whether something could be done about an error."""
        if not may_be_unreadable(error) or time.monotonic() < self._not_mended_before:
            return False
        try:
            if self._mend_records():
                return True
        except sqlite3.Error:
            logger.exception("unreadable records could not be looked for")
        self._not_mended_before = time.monotonic() + _NOTHING_FOUND
        return False

    def _mend_records(self) -> bool:
        """Mend records that cannot be read; whether there were any."""
        if self._settings.path is None:
            return mend(self._conn, self._clock)
        self._broken = True  # the statement that failed in the midst of its rows may hold on to what it saw
        conn = connect(self._settings)
        try:
            conn.execute("PRAGMA busy_timeout = 5000")
            return mend(conn, self._clock)
        finally:
            conn.close()

    def _refuse(self, call: _Call, error: Exception) -> None:
        if not isinstance(error, sqlite3.Error | OncueError):
            logger.error("internal error in %s", call.operation.__name__, exc_info=error)
        call.error = translate(error, self._settings) if isinstance(error, sqlite3.Error) else error
        if isinstance(call.error, QueueFull) and not call.adds:
            call.error = EngineUnavailable(str(call.error))  # it brings no jobs: it is to be repeated
        self._answer([call])

    def _mend(self) -> None:
        """See that the file is still the one that was opened; replace a connection that may stay broken."""
        if self._settings.path is not None and self._identity is not None:
            check_identity(self._settings.path, self._identity)
        if self._broken:
            conn = connect(self._settings, query_only=self._query_only)
            self._conn.close()
            self._conn, self._broken = conn, False

    def _end(self) -> None:
        self._conn.close()

    def _answer(self, calls: Sequence[_Call]) -> None:
        """Hand answers to their loops, one wake-up a loop."""
        by_loop: dict[asyncio.AbstractEventLoop, list[_Call]] = {}
        for call in calls:
            by_loop.setdefault(call.loop, []).append(call)
        for loop, theirs in by_loop.items():
            try:
                loop.call_soon_threadsafe(_resolve, theirs)
            except RuntimeError:  # the loop is closed: nobody waits any more
                logger.debug("an event loop was closed with %d calls under way", len(theirs))

    def _in_time(self, calls: list[_Call]) -> list[_Call]:
        """Refuse the calls whose deadline has passed and return the others."""
        now = time.monotonic()
        late = [call for call in calls if call.deadline <= now]
        if not late:
            return calls
        for call in late:
            call.error = EngineUnavailable(
                f"{self._settings.path} was busy for {self._settings.timeout:g} s: another program holds its "
                "lock, or more is asked than the disk can write; nothing of this call was done"
            )
        self._answer(late)
        return [call for call in calls if call.deadline > now]

    def _perform(self, unit: Unit, calls: Sequence[_Call]) -> None:
        """Run calls in order, neighbours of one operation together, and give each its share of the answers."""
        for operation, group in groupby(calls, key=lambda call: call.operation):
            together = list(group)
            if len(together) == 1:
                together[0].answer = operation(unit, together[0].requests)
                continue
            answers = operation(unit, [request for call in together for request in call.requests])
            start = 0
            for call in together:
                call.answer = answers[start : start + len(call.requests)]
                start += len(call.requests)

    def _unit(self) -> Unit:
        return Unit(self._conn, self._clock.wall(), self._clock.steady())


def _resolve(calls: list[_Call]) -> None:
    for call in calls:
        if call.future.done():  # its caller was cancelled
            continue
        if call.error is not None:
            call.future.set_exception(call.error)
        else:
            call.future.set_result(call.answer)


def _data_version(conn: sqlite3.Connection) -> int:
    """Return a number that changes when another connection commits, and means nothing to others than this one."""
    version: int = conn.execute("PRAGMA data_version").fetchone()[0]
    return version


class WritingLane(Lane):
    """The one writer of this process: a turn is a transaction."""

    def __init__(self, settings: SQLiteSettings, clock: Clock, conn: sqlite3.Connection, hub: Hub) -> None:
        self._hub = hub
        self._checkpointer = Checkpointer(settings)
        # From here on: what others commit before the first look is news too.
        self._seen_version = _data_version(conn)
        super().__init__("oncue-sqlite-writer", settings, clock, conn)

    def _patience(self) -> float | None:
        if self._settings.path is None or not self._hub.listening:
            # Asked again every so often: a first listener does not queue a call.
            return None if self._settings.path is None else 0.25
        return _POLL

    def _idle(self) -> None:
        """Hint everything if another connection has committed; our own commits do not change the number."""
        if self._settings.path is None:
            return
        try:
            version = _data_version(self._conn)
        except sqlite3.Error:
            return  # the next turn will say what is wrong
        if version != self._seen_version:
            self._hub.publish_all()
            self._seen_version = version

    def _together(self, calls: list[_Call]) -> None:
        calls = self._begin(self._with_room(calls))
        if not calls:
            return
        unit = self._unit()
        self._perform(unit, calls)
        unit.write_sums()
        self._conn.execute("COMMIT")
        self._answer(calls)
        try:
            self._hub.publish(unit.hints, unit.moved)
            if self._settings.path is not None:
                self._idle()
                self._checkpointer.after_commit(self._conn)
        except Exception:  # the calls are done: they must not be run again
            logger.exception("internal error after a commit")

    def _with_room(self, calls: list[_Call]) -> list[_Call]:
        """Refuse the calls whose jobs the disk has no room for and return the others."""
        if self._settings.path is None or not any(call.adds for call in calls):
            return calls
        self._mend()
        has_room = self._checkpointer.room(self._conn)
        fitting = []
        for call in calls:
            if call.adds and not has_room(call.adds):
                call.error = QueueFull(
                    f"the disk of {self._settings.path} is nearly full: no new jobs until there is space, so that "
                    "those accepted can end"
                )
                self._answer([call])
            else:
                fitting.append(call)
        return fitting

    def _may_work_now(self, error: Exception) -> bool:
        if isinstance(error, sqlite3.Error) and is_full(error) and self._settings.path is not None:
            return self._checkpointer.make_room(self._conn)
        return super()._may_work_now(error)

    def _begin(self, calls: list[_Call]) -> list[_Call]:
        """Take the write lock; return the calls whose deadline has not passed meanwhile."""
        while calls := self._in_time(calls):
            try:
                self._mend()
                self._conn.execute("BEGIN IMMEDIATE")
            except sqlite3.Error as error:
                if not is_busy(error):
                    raise
            else:
                break
        return calls

    def _end(self) -> None:
        if self._settings.path is not None:
            self._checkpointer.at_close(self._conn)
        super()._end()


class ReadingLane(Lane):
    """A reader beside the writer: a turn is one snapshot."""

    _query_only = True

    def _together(self, calls: list[_Call]) -> None:
        while calls := self._in_time(calls):
            try:
                self._mend()
                self._conn.execute("BEGIN")
                self._perform(self._unit(), calls)
                self._conn.execute("COMMIT")
            except sqlite3.Error as error:
                # Readers wait for nobody but a process that mends the log after another one's death.
                if not is_busy(error):
                    raise
                self._roll_back(error)
            else:
                break
        self._answer(calls)
