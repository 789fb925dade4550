"""When the write-ahead log is copied back into the file, and by whom, and whether the disk has room.

SQLite before 3.51.3 can damage a file if one process resets the log while another checkpoints. So nobody does it
automatically: a writer that finds the log long takes a lock beside the file, which the system gives back should its
process die, and truncates the log while holding SQLite's writer lock too.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from oncue.engines.sqlite.settings import SQLiteSettings

try:
    import fcntl
except ImportError:  # Windows: SQLite's own locks alone
    fcntl = None  # type: ignore[assignment]

__all__ = ["Checkpointer", "has_room"]

_LOG_LIMIT: Final = 16 * 2**20
_HEADROOM: Final = 64 * 2**20


def has_room(path: Path, for_bytes: int = 0) -> bool:
    """Whether the disk has room for that many bytes more, and what is set aside for finishing accepted jobs.

    That is a twentieth of the disk, but at most 64 MiB and at least 384 KiB.
    """
    disk = os.statvfs(path.parent)
    reserve = min(max(disk.f_blocks * disk.f_frsize // 20, 384 * 1024), _HEADROOM)
    return disk.f_bavail * disk.f_frsize >= reserve + for_bytes


class Checkpointer:
    """Keeps the write-ahead log short."""

    def __init__(self, settings: SQLiteSettings) -> None:
        self._log = Path(f"{settings.path}-wal")
        self._lock = Path(f"{settings.path}-checkpoint")
        self._not_before = 0.0
        self._pause = 0.05

    def after_commit(self, conn: sqlite3.Connection) -> None:
        """Checkpoint if the log has grown long, or the disk is nearly full."""
        try:
            size = self._log.stat().st_size
        except OSError:
            return
        if size < _LOG_LIMIT and (size < 65_536 or has_room(self._log)):
            return
        now = time.monotonic()
        if now < self._not_before:
            return
        if self._checkpoint(conn):
            self._pause = 0.05
        else:  # a long reader, or another process at it: try again, ever less often
            self._pause = min(self._pause * 2, 2.0)
        self._not_before = time.monotonic() + self._pause

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
