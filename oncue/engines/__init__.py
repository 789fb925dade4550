"""The stores. `engine_for` turns a URL into the engine that speaks to it; nothing else is known of them above."""

from __future__ import annotations

from oncue.engine import Engine
from oncue.errors import ConfigError

__all__ = ["engine_for"]


def engine_for(url: str) -> Engine:
    """Return the engine for a store URL, not opened yet. Raises `ConfigError` if there is none."""
    scheme = url.partition(":")[0]
    if scheme == "sqlite":
        from oncue.engines.sqlite import SQLiteEngine

        return SQLiteEngine(url)
    raise ConfigError(
        f"no engine for store URLs that begin with {scheme!r}; use sqlite:///jobs.db or sqlite://:memory:"
    )
