"""What every test may ask for: the event loop, the report of measured numbers, and the switch for long tests."""

from __future__ import annotations

import pytest

from tests import requirements
from tests.measured import Report

_REPORT = pytest.StashKey[Report]()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--soak", action="store_true", help="also run the tests that take minutes")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_REPORT] = Report()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--soak"):
        return
    long_ones = [item for item in items if item.get_closest_marker("soak")]
    if long_ones:
        config.hook.pytest_deselected(items=long_ones)
        items[:] = [item for item in items if not item.get_closest_marker("soak")]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    for heading, lines in (
        ("measured", list(config.stash[_REPORT].lines())),
        ("ran on", list(requirements.closing_lines())),
    ):
        if lines:
            terminalreporter.section(heading)
            for line in lines:
                terminalreporter.line(line)


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    """Run async tests on asyncio, for which Oncue is made."""
    return "asyncio"


@pytest.fixture(scope="session")
def report(pytestconfig: pytest.Config) -> Report:
    """Show a measured number at the end of the run."""
    return pytestconfig.stash[_REPORT]
