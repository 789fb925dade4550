"""One attempt while a worker has it, and the slots in which attempts run."""

from __future__ import annotations

import asyncio
from enum import Enum

from oncue.context import Context
from oncue.job import Claimed, Lease

__all__ = ["Attempt", "Cause", "Slots"]


class Cause(Enum):
    """Why a worker interrupts an attempt."""

    TIMEOUT = "timeout"
    CANCEL = "cancel"
    SHUTDOWN = "shutdown"
    LOST = "lost"


class Attempt:
    """One attempt under way.

    Attributes:
        claimed: what the store handed out.
        context: what the task is told.
        cause: why it was interrupted, None if it was not. The first one stands, but for `LOST`, which tops all.
        concluded: whether its outcome has been given to the finisher.
        entered: whether user code was begun.
        cooperative: whether it runs where it cannot be interrupted, in a thread: it is told, and waited for.
    """

    __slots__ = ("_in_user_code", "cause", "claimed", "concluded", "context", "cooperative", "entered", "task", "timer")

    def __init__(self, claimed: Claimed) -> None:
        self.claimed = claimed
        self.context: Context | None = None
        self.cause: Cause | None = None
        self.concluded = False
        self.task: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None
        self._in_user_code = False
        self.entered = False
        self.cooperative = False

    @property
    def lease(self) -> Lease:
        return self.claimed.lease

    def enter(self) -> None:
        """Mark that user code runs from here: it may be interrupted."""
        self._in_user_code = self.entered = True

    def leave(self) -> None:
        """Mark that user code is over: what is left must not be interrupted."""
        self._in_user_code = False
        if self.timer is not None:
            self.timer.cancel()

    def interrupt(self, cause: Cause) -> None:
        """Ask the attempt to stop; on the worker's event loop. Asked again it is not interrupted in cleaning up."""
        first = self.cause is None
        if first or cause is Cause.LOST:
            self.cause = cause
        if self.context is not None:
            self.context.stop(lost=cause is Cause.LOST)
        if first and self._in_user_code and not self.cooperative and self.task is not None:
            self.task.cancel()


class Slots:
    """The attempts of one worker: those that run, and those whose outcome is not stored yet.

    The heartbeat's thread reads `leases`, which is why nothing here is ever half changed.
    """

    def __init__(self, concurrency: int) -> None:
        self.concurrency = concurrency
        self.running: set[Attempt] = set()
        """Two of one job at most for a while: one that was lost and has not ended, and the one after it."""
        self._held: dict[Lease, Attempt] = {}
        self._changed = asyncio.Event()

    @property
    def free(self) -> int:
        """How many more attempts may start."""
        return self.concurrency - len(self.running)

    @property
    def leases(self) -> list[Lease]:
        """The leases to be renewed; from any thread."""
        return list(self._held)

    @property
    def attempts(self) -> list[Attempt]:
        """The attempts that hold a lease; from any thread."""
        return list(self._held.values())

    @property
    def job_ids(self) -> frozenset[str]:
        """The jobs that this worker knows it holds; one it has lost it may have been given anew."""
        return frozenset(a.lease.job_id for a in self._held.values() if a.cause is not Cause.LOST)

    def find(self, lease: Lease) -> Attempt | None:
        """Return the attempt under a lease."""
        return self._held.get(lease)

    def take(self, attempt: Attempt) -> None:
        """Put an attempt into a slot."""
        self.running.add(attempt)
        self._held[attempt.lease] = attempt

    def ended(self, attempt: Attempt) -> None:
        """Free the slot; the lease is held until the outcome is stored."""
        self.running.discard(attempt)
        self._changed.set()

    def changed(self) -> None:
        """Wake those that wait for something here."""
        self._changed.set()

    def stored(self, lease: Lease) -> None:
        """Let the lease go: its outcome is stored, or refused."""
        self._held.pop(lease, None)

    async def wait(self) -> None:
        """Wait until a slot was freed."""
        self._changed.clear()
        await self._changed.wait()
