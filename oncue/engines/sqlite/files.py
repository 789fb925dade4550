"""Opening the file: is it ours, may we, is it whole, is it where locks work; creating and migrating it.

Every refusal is an `EngineUnusable` that names the file and the way out; nothing was changed then.
"""

from __future__ import annotations

import os
import random
import sqlite3
import stat
import threading
import time
from pathlib import Path
from typing import Final
from urllib.parse import quote

from oncue.engines.sqlite.clock import Clock
from oncue.engines.sqlite.faults import is_busy, translate
from oncue.engines.sqlite.settings import SQLiteSettings
from oncue.engines.sqlite.statements import load, load_script
from oncue.errors import EngineUnusable

__all__ = ["check_identity", "connect", "file_system_of", "identity", "prepare", "prepare_reader"]

APPLICATION_ID: Final = 0x4F6E4375  # "OnCu"
SCHEMA_VERSION: Final = 1
_OLDEST_SQLITE: Final = (3, 35, 0)  # RETURNING

_NETWORK: Final = frozenset(
    [
        "nfs",
        "nfs3",
        "nfs4",
        "cifs",
        "smb",
        "smb2",
        "smb3",
        "smbfs",
        "afs",
        "ncpfs",
        "9p",
        "ceph",
        "glusterfs",
        "lustre",
        "gpfs",
        "beegfs",
        "fuse.sshfs",
        "fuse.glusterfs",
        "fuse.ceph",
        "fuse.s3fs",
        "fuse.gcsfuse",
        "fuse.rclone",
        "fuse.davfs",
        "davfs",
    ]
)

_SMALLEST: Final = 512
"""Bytes of the smallest page."""
_creating: Final = threading.Lock()
"""Held while a file is looked at and created. A process that closes any handle of a file gives back all locks that it
has on it: no other thread may open the file with SQLite between the two."""

_sql = load("upkeep.sql")
_opening = load("opening.sql")


def connect(settings: SQLiteSettings, *, query_only: bool = False) -> sqlite3.Connection:
    """Return a connection set up for its role, to a file that is there. Its user waits for locks, 50 ms at a time."""
    if settings.path is None:
        conn = sqlite3.connect(":memory:", isolation_level=None, check_same_thread=False, cached_statements=256)
        conn.execute("PRAGMA foreign_keys = OFF")
        return conn
    # Not to be created: a file that is gone would be made anew, empty and for all to read.
    uri = f"file:{quote(str(settings.path))}?mode=rw"
    conn = sqlite3.connect(
        uri, uri=True, timeout=0.05, isolation_level=None, check_same_thread=False, cached_statements=256
    )
    try:
        conn.execute("PRAGMA cache_size = -16384")
        conn.execute("PRAGMA temp_store = MEMORY")
        conn.execute("PRAGMA mmap_size = 0")
        # One process at a time checkpoints, by the lane's hand: SQLite before 3.51.3 can lose a race between two.
        conn.execute("PRAGMA wal_autocheckpoint = 0")
        conn.execute("PRAGMA synchronous = FULL" if settings.synchronous == "full" else "PRAGMA synchronous = NORMAL")
        if query_only:
            conn.execute("PRAGMA query_only = ON")
    except sqlite3.Error:
        conn.close()
        raise
    return conn


def prepare(settings: SQLiteSettings, clock: Clock) -> sqlite3.Connection:
    """Check, create and migrate the store, and return the writing connection. Blocks; raises `EngineError`."""
    if sqlite3.sqlite_version_info < _OLDEST_SQLITE:
        raise EngineUnusable(
            f"SQLite {sqlite3.sqlite_version} is too old for Oncue: 3.35 or later is needed; use a newer Python build"
        )
    if settings.path is not None:
        with _creating:
            _check_place(settings.path)
    deadline = time.monotonic() + settings.timeout
    while True:
        try:
            return _prepared(settings, clock)
        except sqlite3.Error as error:
            # Two processes that open a new file together can be in each other's way: SQLite says so without waiting.
            if not is_busy(error) or time.monotonic() >= deadline:
                raise translate(error, settings) from error
        time.sleep(random.uniform(0.001, 0.01))


def prepare_reader(settings: SQLiteSettings) -> sqlite3.Connection:
    """Return a reading connection to a store that was prepared. Blocks; raises `EngineError`."""
    try:
        return connect(settings, query_only=True)
    except sqlite3.Error as error:
        raise translate(error, settings) from error


def _prepared(settings: SQLiteSettings, clock: Clock) -> sqlite3.Connection:
    conn = connect(settings)
    try:
        if settings.path is not None:
            _check_content(conn, settings.path)
        _adopt(conn, clock)
    except BaseException:
        conn.close()
        raise
    return conn


def identity(path: Path) -> tuple[int, int]:
    """Return what tells a file from another one of the same name."""
    found = os.stat(path)
    return found.st_dev, found.st_ino


def check_identity(path: Path, expected: tuple[int, int]) -> None:
    """Raise `EngineUnusable` if a file that is open was deleted or replaced: what is written to it would be lost."""
    try:
        if identity(path) == expected:
            return
    except FileNotFoundError:
        raise EngineUnusable(
            f"{path} was deleted or moved while it was open: put it back, with the -wal file beside it, and restart "
            "this program"
        ) from None
    raise EngineUnusable(f"{path} was replaced by another file while it was open: restart this program to use that one")


def _check_place(path: Path) -> None:
    """Refuse a place where no store can be; make a missing file. Never opens one that is there: see `_creating`."""
    folder = path.parent
    if not folder.is_dir():
        raise EngineUnusable(f"cannot open {path}: the folder {folder} does not exist; create it (mkdir -p) first")
    if (kind := file_system_of(folder)) in _NETWORK:
        raise EngineUnusable(
            f"cannot open {path}: {folder} is on a network file system ({kind}), where file locks do not hold and jobs "
            "would be lost; put the file on a local disk, or use a redis:// URL"
        )
    try:
        found = path.lstat()
    except FileNotFoundError:
        try:
            # Made here, before SQLite opens it, so that it is never readable by others, not even for a moment.
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o600))
        except FileExistsError:
            pass  # another process was quicker
        except OSError as error:
            raise EngineUnusable(f"cannot create {path}: {error.strerror}") from error
        return
    if stat.S_ISLNK(found.st_mode):
        raise EngineUnusable(f"cannot open {path}: it is a symbolic link; name the file it points to: {path.resolve()}")
    if not stat.S_ISREG(found.st_mode):
        raise EngineUnusable(f"cannot open {path}: it is not a regular file")
    if not os.access(path, os.R_OK | os.W_OK):
        raise EngineUnusable(f"cannot open {path}: this user may not write it (mode {stat.filemode(found.st_mode)})")
    if 0 < found.st_size < _SMALLEST:  # SQLite takes a file of a few bytes for an empty one, and overwrites it
        raise EngineUnusable(f"{path} is damaged or no SQLite database; nothing was changed: name another file")


def file_system_of(folder: Path, mounts: str | None = None) -> str:
    """Return the type of the file system a folder is on, such as `ext4`; empty where the system does not tell.

    `mounts` is the text of `/proc/self/mountinfo`, read if not given.
    """
    if mounts is None:
        try:
            mounts = Path("/proc/self/mountinfo").read_text()
        except OSError:
            return ""
    place, best, kind = folder.resolve(), -1, ""
    for line in mounts.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split()
        if len(fields) < 5 or not after:
            continue
        mount = Path(fields[4].replace("\\040", " "))
        if place.is_relative_to(mount) and len(mount.parts) >= best:
            best, kind = len(mount.parts), after.split()[0]
    return kind


def _check_content(conn: sqlite3.Connection, path: Path) -> None:
    """Refuse what is not ours or newer; then see to it that the file has a write-ahead log."""
    if conn.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
        if conn.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
            raise EngineUnusable(f"cannot use {path}: it is a database of another application; name another file")
        version = conn.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise EngineUnusable(
                f"cannot use {path}: its schema is version {version}, this Oncue knows {SCHEMA_VERSION}; "
                "upgrade Oncue here (older and newer releases share a file only up to the older one's schema)"
            )
    # A new file has none, nor has a copy made by VACUUM INTO.
    mode = conn.execute("PRAGMA journal_mode").fetchone()[0]
    if mode != "wal" and (mode := conn.execute("PRAGMA journal_mode = WAL").fetchone()[0]) != "wal":
        raise EngineUnusable(f"cannot use {path}: its file system allows no write-ahead log (it stays {mode})")


def _adopt(conn: sqlite3.Connection, clock: Clock) -> None:
    """Make an empty file ours, migrate an older one, and note a boot; without a lock if there is nothing to do."""
    if conn.execute("PRAGMA user_version").fetchone()[0] == SCHEMA_VERSION and _known_boot(conn) == clock.boot_id:
        return
    conn.execute("BEGIN IMMEDIATE")  # two processes that open a new file together take turns
    try:
        if conn.execute("PRAGMA user_version").fetchone()[0] == 0:
            for statement in _statements(load_script("schema.sql")):
                conn.execute(statement)
            conn.execute(f"PRAGMA application_id = {APPLICATION_ID}")
            conn.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
        _note_boot(conn, clock)
        conn.execute("COMMIT")
    except BaseException:
        if conn.in_transaction:
            conn.execute("ROLLBACK")
        raise


def _statements(script: str) -> list[str]:
    """Cut a script at the ends of its statements; `executescript` would commit the transaction it runs in."""
    statements, text = [], ""
    for line in script.splitlines(keepends=True):
        text += line
        if sqlite3.complete_statement(text):
            statements.append(text)
            text = ""
    return statements


def _known_boot(conn: sqlite3.Connection) -> str | None:
    row = conn.execute(_sql.get_meta, ("boot_id",)).fetchone()
    return None if row is None else row[0]


def _note_boot(conn: sqlite3.Connection, clock: Clock) -> None:
    """After a boot, let all leases expire at once: whoever held them is gone with the machine that was."""
    known = _known_boot(conn)
    if known != clock.boot_id:
        conn.execute(_sql.set_meta, ("boot_id", clock.boot_id))
        if known is not None:
            conn.execute(_sql.void_leases)
            conn.execute(_opening.void_workers)
            conn.execute(_sql.set_meta, ("last_rescue", clock.steady()))
            conn.execute(_sql.set_meta, ("no_rescue_before", 0))
