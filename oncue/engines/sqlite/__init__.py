"""The SQLite engine: one file, no server."""

from __future__ import annotations

from oncue.engines.sqlite.engine import SQLiteEngine

__all__ = ["SQLiteEngine"]
