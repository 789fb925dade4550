"""The command line: `oncue worker`, `oncue demo`. Each command is in a module of its own, imported when it is called."""

from __future__ import annotations

from oncue.cli.main import main

__all__ = ["main"]
