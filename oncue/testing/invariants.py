"""Checks what must be true of a store at any moment, whatever calls, crashes and races led to it.

`check_invariants` looks into the store itself, below the contract; each engine says how. It may be called while workers
work. Each broken invariant begins with a number, `I1` and so on: what it is about.

    async def test_mine(engine):
        before = await snapshot(engine)
        ...
        await check_invariants(engine, since=before)
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from oncue.engine import Engine
from oncue.engines.sqlite import SQLiteEngine, checker

__all__ = ["check_file", "check_invariants", "snapshot", "violations"]


def _store(engine: Engine) -> SQLiteEngine:
    """Return the engine that stores, under whatever wraps it."""
    inner: Any = engine
    while not isinstance(inner, SQLiteEngine):
        inner = getattr(inner, "_engine", None) or getattr(inner, "engine", None)
        if inner is None:
            raise TypeError(f"no checker of invariants for {type(engine).__name__}")
    return inner


async def violations(engine: Engine, *, since: checker.Marks | None = None) -> list[str]:
    """Return a sentence for each broken invariant, with its number and the jobs that break it.

    Args:
        engine: open; it may be wrapped in others that keep it as `engine` or `_engine`.
        since: an earlier `snapshot`, to see that nothing fell that may only grow.
    """
    store = _store(engine)
    found = await checker.broken(store)
    if since is not None:
        found += checker.broken_since(since, await checker.marks(store))
    return found


async def snapshot(engine: Engine) -> checker.Marks:
    """Return what of each job may only grow, for `since`."""
    return await checker.marks(_store(engine))


async def check_invariants(engine: Engine, *, since: checker.Marks | None = None) -> None:
    """Raise `AssertionError` with a list of the broken invariants; see `violations`."""
    _insist(await violations(engine, since=since), engine.url)


def check_file(path: Path | str) -> None:
    """Raise `AssertionError` if a store's file is damaged or an invariant is broken. No engine need be open. Blocks."""
    _insist(checker.broken_in_file(Path(path)), str(path))


def _insist(found: list[str], where: str) -> None:
    if found:
        raise AssertionError("\n  ".join([f"{len(found)} broken invariants in {where}:", *found]))
