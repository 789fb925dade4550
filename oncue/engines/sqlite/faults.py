"""Turns what `sqlite3` raises into Oncue's errors, here at the edge and nowhere else."""

from __future__ import annotations

import sqlite3

from oncue.engines.sqlite.settings import SQLiteSettings
from oncue.errors import EngineError, EngineUnavailable, EngineUnusable, QueueFull

__all__ = ["is_broken", "is_busy", "is_full", "translate"]

_BUSY = {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL}


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF  # the primary code of an extended one


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another process holds the lock."""
    return _code(error) in _BUSY


def is_full(error: sqlite3.Error) -> bool:
    """Whether the disk has no room left."""
    return _code(error) == sqlite3.SQLITE_FULL


def is_broken(error: sqlite3.Error) -> bool:
    """Whether the connection should be replaced before it is used again."""
    return _code(error) in (
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_NOTADB,
    )


def translate(error: sqlite3.Error, settings: SQLiteSettings) -> EngineError:
    """Return the Oncue error for one of sqlite3's."""
    file, code = settings.path or "the store in memory", _code(error)
    if code in _BUSY:
        return EngineUnavailable(
            f"{file} is locked by another program for longer than {settings.timeout:g} s; end its transaction, or "
            "raise the deadline with ?timeout="
        )
    if code == sqlite3.SQLITE_FULL:
        return QueueFull(f"no space left for {file}: free some; nothing that was accepted is lost")
    if code == sqlite3.SQLITE_READONLY:
        return EngineUnusable(
            f"cannot write {file}: it is read-only; check the file's, its folder's and the disk's mode"
        )
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return EngineUnusable(
            f"{file} is damaged or no SQLite database ({error}); nothing was changed: restore a copy, or salvage it "
            "with the sqlite3 command .recover"
        )
    if code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM, sqlite3.SQLITE_AUTH):
        return EngineUnusable(f"cannot open {file}: {error}; check the modes of the file and its folder")
    return EngineUnavailable(f"{file}: {error}")
