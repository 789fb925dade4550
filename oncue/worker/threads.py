"""Threads for plain functions: as many as are needed at once, kept for the next, none of which holds up the exit.

The standard library's executor joins its threads when the interpreter ends, and so lets a task that does not return
keep the process alive for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from contextvars import Context
from typing import Any, Final

__all__ = ["Threads"]

_IDLE: Final = 10.0
"""Seconds that a thread without work stays."""

_Work = tuple[asyncio.AbstractEventLoop, "asyncio.Future[Any]", Callable[[], Any], Context]


class Threads:
    """Runs functions in daemon threads."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._idle = 0
        self._closed = False

    def run(self, function: Callable[[], Any], context: Context) -> asyncio.Future[Any]:
        """Run a function in a thread, in its context; a future of the running loop gets what it returns or raises.

        Cancelling the future lets go of the thread, which runs on until the function returns.
        """
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        with self._lock:
            if self._idle > 0:
                self._idle -= 1
            else:
                threading.Thread(target=self._run, name="oncue-task", daemon=True).start()
            self._work.put((loop, future, function, context))
        return future

    def close(self) -> None:
        """End the threads that have no work; the others end with what they do."""
        with self._lock:
            self._closed = True
            for _ in range(self._idle):
                self._work.put(None)

    def _run(self) -> None:
        while True:
            try:
                work = self._work.get(timeout=_IDLE)
            except queue.Empty:
                with self._lock:
                    if self._work.empty() and self._idle > 0:
                        self._idle -= 1
                        return
                continue
            if work is None:
                return
            loop, future, function, context = work
            value, error = None, None
            try:
                value = context.run(function)
            except BaseException as raised:
                error = raised
            with self._lock:
                closed = self._closed
                self._idle += not closed
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(_resolve, future, value, error)
            del work, loop, future, function, context, value, error
            if closed:
                return


def _resolve(future: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(value)
    elif isinstance(error, (StopIteration, GeneratorExit)):  # to a coroutine that awaits they mean something else
        wrapped = RuntimeError(f"task raised {type(error).__name__}")
        wrapped.__cause__ = error
        future.set_exception(wrapped)
    else:
        future.set_exception(error)
