"""The command line: `oncue worker`, `oncue demo`. What a command does is imported when it is called."""

from __future__ import annotations

from oncue.cli.main import main

__all__ = ["main"]
