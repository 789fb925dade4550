"""When the write-ahead log is copied back into the file, and by whom, and whether the disk has room.

SQLite before 3.51.3 can damage a file if one process resets the log while another checkpoints. So nobody does it
automatically: a writer that finds the log long takes a lock beside the file, which the system gives back should its
process die, and truncates the log while holding SQLite's writer lock too.

Part of the disk is set aside for ending the jobs that were accepted. When new ones would take from it they are
refused, and the log, through which every change goes, is kept as short as can be.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NamedTuple, Self

from oncue.engines.sqlite.settings import SQLiteSettings
from oncue.engines.sqlite.statements import load

try:
    import fcntl
except ImportError:  # Windows: SQLite's own locks alone
    fcntl = None  # type: ignore[assignment]

__all__ = ["Checkpointer"]

_LOG_LIMIT: Final = 16 * 2**20
_SHORT_LOG: Final = 64 * 1024
"""Not worth a checkpoint, however little room there is."""
_COMMIT: Final = 64 * 1024
"""What a commit takes, beside the bodies of jobs: a page of the table and of each index."""
_END: Final = 512
"""What a job takes when it ends, with a small result or error."""

_sql = load("checkpoint.sql")


class _Disk(NamedTuple):
    """What is free on the disk, and what of it is set aside: a twentieth of all, 384 KiB to 64 MiB. In bytes."""

    free: int
    reserve: int

    @classmethod
    def of(cls, folder: Path) -> Self:
        found = os.statvfs(folder)
        block = found.f_frsize
        return cls(found.f_bavail * block, min(max(found.f_blocks * block // 20, 384 * 2**10), 64 * 2**20))


class Checkpointer:
    """Keeps the write-ahead log short, and room on the disk."""

    def __init__(self, settings: SQLiteSettings) -> None:
        self.file = settings.path or Path()
        self._log = Path(f"{settings.path}-wal")
        self._lock = Path(f"{settings.path}-checkpoint")
        self._not_before = 0.0
        self._pause = 0.05

    def after_commit(self, conn: sqlite3.Connection) -> None:
        """Checkpoint if the log has grown long, or the disk is nearly full."""
        size = self._log_size()
        if size < _SHORT_LOG:
            return
        disk = _Disk.of(self.file.parent)
        scarce = disk.free < disk.reserve + 2 * size
        if size < _LOG_LIMIT and not scarce:
            return
        if time.monotonic() < self._not_before:
            return
        if self._checkpoint(conn):
            self._pause = 0.05
            self._not_before = 0.0 if scarce else time.monotonic() + self._pause
        else:  # a long reader, or another process at it: try again, ever less often
            self._pause = min(self._pause * 2, 2.0)
            self._not_before = time.monotonic() + self._pause

    def room(self, conn: sqlite3.Connection) -> Callable[[int], bool]:
        """Return what says, for one call after the other, whether the disk has room for the jobs that it brings.

        It is asked with the bytes of their bodies, outside of a transaction, and remembers what it has granted.
        """
        disk = _Disk.of(self.file.parent)
        if disk.free > disk.reserve + 2 * _LOG_LIMIT + self.file.stat().st_size:
            return lambda size: True
        return _Room(self, conn, disk).grant

    def make_room(self, conn: sqlite3.Connection) -> bool:
        """Give the log's place on a full disk back; whether that could be done."""
        return self._log_size() > 0 and self._checkpoint(conn)

    def _log_size(self) -> int:
        try:
            return self._log.stat().st_size
        except OSError:
            return 0

    def at_close(self, conn: sqlite3.Connection) -> None:
        """Leave a short log behind."""
        self._checkpoint(conn)

    def _checkpoint(self, conn: sqlite3.Connection) -> bool:
        with self._elected() as elected:
            if not elected:
                return False
            try:
                busy, _, _ = conn.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            except sqlite3.Error:
                return False  # nothing is lost: the log stays as long as it is
            return not busy

    @contextlib.contextmanager
    def _elected(self) -> Iterator[bool]:
        if fcntl is None:
            yield True
            return
        try:
            lock = os.open(self._lock, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError:
            yield False
            return
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
        finally:
            os.close(lock)


class _Room:
    """What is left on a disk that is nearly full, told exactly."""

    def __init__(self, checkpointer: Checkpointer, conn: sqlite3.Connection, disk: _Disk) -> None:
        self._checkpointer = checkpointer
        self._conn = conn
        self._disk = disk
        self._look()

    def _look(self) -> None:
        page = self._ask("PRAGMA page_size")
        file = self._checkpointer.file
        self._disk = _Disk.of(file.parent)
        # What is in the log alone will want its place in the file.
        owed = max(self._ask("PRAGMA page_count") * page - file.stat().st_size, 0)
        self._free = self._disk.free - owed - _COMMIT
        # Jobs that are gone have left room in the file; those that are open will want some to end.
        self._spare = self._ask("PRAGMA freelist_count") * page - self._ask(_sql.open_jobs) * _END

    def _ask(self, question: str) -> int:
        return int(self._conn.execute(question).fetchone()[0])

    def grant(self, size: int) -> bool:
        """Whether there is room for jobs with bodies of so many bytes; it is theirs then."""
        cost = 2 * size  # once in the log, once in the file
        if not self._fits(cost) and self._checkpointer.make_room(self._conn):
            self._look()
        if not self._fits(cost):
            return False
        self._free -= cost
        return True

    def _fits(self, cost: int) -> bool:
        reserve = self._disk.reserve
        return self._free - cost >= reserve // 2 and self._free + self._spare - cost >= reserve
