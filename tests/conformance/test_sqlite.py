"""The conformance suite on SQLite: in memory and in a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from oncue.engine import Engine
from oncue.engines.sqlite import SQLiteEngine
from oncue.testing.conformance import EngineConformance


class TestSQLiteInMemory(EngineConformance):
    """The engine of tests."""

    keeps_jobs_when_closed = False

    @pytest.fixture
    def new_engine(self) -> Engine:
        """Return an engine on a new store in memory."""
        return SQLiteEngine("sqlite://:memory:")


class TestSQLiteFile(EngineConformance):
    """The engine of programs."""

    @pytest.fixture
    def new_engine(self, tmp_path: Path) -> Engine:
        """Return an engine on a new file."""
        return SQLiteEngine(f"sqlite:///{tmp_path}/jobs.db")
