"""A program that is not Oncue and holds a file's write lock."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

__all__ = ["locked"]

_PROGRAM = """
import sqlite3, sys
conn = sqlite3.connect(sys.argv[1], isolation_level=None)
conn.execute(sys.argv[2])
conn.execute("BEGIN EXCLUSIVE")
print("locked", flush=True)
sys.stdin.read()
conn.execute("ROLLBACK")
"""


@contextlib.contextmanager
def locked(path: Path, *, before: str = "PRAGMA busy_timeout = 5000") -> Iterator[None]:
    """Hold the lock of a file, from another process, while the block runs."""
    process = subprocess.Popen(
        [sys.executable, "-c", _PROGRAM, str(path), before], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        assert process.stdout.readline() == "locked\n"
        yield
    finally:
        process.stdin.close()
        process.wait(10)
        process.stdout.close()
