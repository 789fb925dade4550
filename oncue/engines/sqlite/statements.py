"""Reads the `.sql` files: named queries and the fragments they share. No SQL is made from values, ever.

A query begins with `-- name: NAME`, a fragment with `-- fragment: NAME`; `{NAME}` in a query is replaced by the
fragment's text when the file is read.
"""

from __future__ import annotations

import re
from importlib.resources import files
from types import SimpleNamespace

__all__ = ["load", "load_script"]

_HEAD = re.compile(r"^-- (name|fragment): (\w+)$", re.MULTILINE)


def load_script(file: str) -> str:
    """Return a whole `.sql` file, for `executescript`."""
    return (files(__package__) / "sql" / file).read_text(encoding="utf-8")


def load(file: str) -> SimpleNamespace:
    """Return a file's queries as attributes named as in the file; an unknown name is an AttributeError."""
    _, *parts = _HEAD.split(load_script(file))
    fragments: dict[str, str] = {}
    queries: dict[str, str] = {}
    for kind, name, text in zip(parts[0::3], parts[1::3], parts[2::3], strict=True):
        body = "\n".join(line for line in text.strip().splitlines() if not line.lstrip().startswith("--"))
        if kind == "fragment":
            fragments[name] = body.strip()
        else:
            for fragment, replacement in fragments.items():
                body = body.replace("{" + fragment + "}", replacement)
            queries[name] = body.strip()
    return SimpleNamespace(**queries)
