"""What every case of the suite stands on: the engine under test, plain and with every write sent twice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import ClassVar

import pytest

from oncue.engine import Engine
from oncue.testing.conformance.invariants import check_invariants
from oncue.testing.twice import Twice

__all__ = ["Conformance"]


class Conformance:
    """The fixtures of the suite. A subclass says how an engine on an empty store is made.

    Attributes:
        keeps_jobs_when_closed: whether jobs are still there when the only engine of a store was closed and opened.
    """

    pytestmark = pytest.mark.anyio
    keeps_jobs_when_closed: ClassVar[bool] = True

    @pytest.fixture
    def anyio_backend(self) -> str:
        """Run the cases on asyncio."""
        return "asyncio"

    @pytest.fixture
    def new_engine(self) -> Engine:
        """Return an engine on an empty store, not opened yet. To be overridden, also with a fixture that yields."""
        raise NotImplementedError(f"{type(self).__name__} must have a fixture `new_engine`")

    @pytest.fixture(params=["plain", "twice"])
    async def engine(self, request: pytest.FixtureRequest, new_engine: Engine) -> AsyncIterator[Engine]:
        """Open the engine, and check after the case that the store is consistent."""
        engine: Engine = Twice(new_engine) if request.param == "twice" else new_engine
        await engine.open()
        try:
            yield engine
            await check_invariants(engine)
        finally:
            await engine.close()
