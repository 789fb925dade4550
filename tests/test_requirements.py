"""The suite's own promises: a missing service is never silent, and a measured number is always seen."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.requirements import require

HERE = Path(__file__).parent

SUITE = """
import pytest

from tests.requirements import require, used


def test_that_measures(report):
    used("redis", "Valkey 9.1")
    report("enqueue, one writer", 12345.6, "jobs/s")


@pytest.mark.soak
def test_that_takes_minutes():
    pass


def test_that_needs_a_moon():
    require("moon", False, "look up")
"""


def test_a_missing_service_skips_and_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONCUE_REQUIRE", "")
    with pytest.raises(pytest.skip.Exception, match="needs moon: look up"):
        require("moon", False, "look up")


def test_a_missing_service_that_is_demanded_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONCUE_REQUIRE", "browser, moon")
    with pytest.raises(pytest.fail.Exception, match="needs moon, and ONCUE_REQUIRE demands it"):
        require("moon", False, "look up")


def test_a_service_that_is_there_lets_the_test_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONCUE_REQUIRE", "moon")
    require("moon", True, "look up")


@pytest.fixture
def suite(tmp_path: Path) -> Path:
    """A suite of three tests under this suite's own conftest and configuration."""
    tests = tmp_path / "tests"
    tests.mkdir()
    for name in ("__init__.py", "conftest.py", "measured.py", "requirements.py"):
        shutil.copy(HERE / name, tests)
    shutil.copy(HERE.parent / "pyproject.toml", tmp_path)
    (tests / "test_sample.py").write_text(SUITE)
    return tmp_path


def run_pytest(suite: Path, *arguments: str, demanded: str = "") -> str:
    environment = {**os.environ, "ONCUE_REQUIRE": demanded, "PYTEST_ADDOPTS": ""}
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *arguments],
        cwd=suite,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    return run.stdout + run.stderr


def test_a_run_ends_with_what_was_measured_and_what_it_ran_on(suite: Path) -> None:
    output = run_pytest(suite)
    assert "enqueue, one writer  12,346 jobs/s" in output
    assert "redis: Valkey 9.1" in output
    assert "needs moon: look up" in output
    assert "1 passed, 1 skipped, 1 deselected" in output.splitlines()[-1]


def test_long_tests_run_when_asked_for(suite: Path) -> None:
    assert "2 passed, 1 skipped" in run_pytest(suite, "--soak").splitlines()[-1]


def test_a_demand_that_no_test_asked_for_is_named(suite: Path) -> None:
    output = run_pytest(suite, demanded="moon,brower")
    assert "brower: demanded by ONCUE_REQUIRE, and no test of this run asked for it" in output
    assert "1 failed, 1 passed, 1 deselected" in output.splitlines()[-1]
