"""Somebody reads for long while others write: the log grows meanwhile, and is short again soon after."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from oncue.testing.invariants import check_file
from tests.measured import Report
from tests.multiprocess.sqlite_nursery import Nursery

pytestmark = [pytest.mark.multiprocess]

MEGABYTE = 2**20


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    """Return a source of processes."""
    with Nursery() as nursery:
        yield nursery


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Keep a snapshot, as a backup or a report does."""
    conn = sqlite3.connect(path, isolation_level=None)
    conn.execute("BEGIN")
    conn.execute("SELECT count(*) FROM jobs").fetchone()
    try:
        yield
    finally:
        conn.execute("COMMIT")
        conn.close()


def log_size(path: Path) -> int:
    log = path.with_name("jobs.db-wal")
    return log.stat().st_size if log.exists() else 0


def answers(noted: Path) -> Counter[str]:
    """Count what the writers were answered."""
    return Counter(json.loads(line)[0] for line in noted.read_text().split("\n")[:-1])


def largest_log(path: Path, seconds: float) -> int:
    """Watch the log for so long and return its largest size."""
    until, largest = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        largest = max(largest, log_size(path))
        time.sleep(0.02)
    return largest


@pytest.mark.parametrize(
    ("seconds", "cycles"), [pytest.param(2, 1, id="2 s"), pytest.param(10, 3, id="1 min", marks=pytest.mark.soak)]
)
def test_the_log_is_short_again_after_a_long_read_while_three_processes_write(
    tmp_path: Path, nursery: Nursery, report: Report, seconds: float, cycles: int
) -> None:
    path, noted = tmp_path / "jobs.db", tmp_path / "notes"
    writers = [nursery.start("enqueue_bodies_for_ever", str(path), str(noted), number) for number in range(3)]
    deadline = time.monotonic() + 20
    while not noted.exists() or not noted.stat().st_size:
        assert time.monotonic() < deadline, "nothing was written"
        time.sleep(0.01)
    during = after = 0
    short_again = 0.0
    for _ in range(cycles):
        with reading(path):
            during = max(during, largest_log(path, seconds))
        ended = time.monotonic()
        while log_size(path) > 16 * MEGABYTE:
            assert time.monotonic() < ended + 60, f"the log stays {log_size(path) // MEGABYTE} MB long"
            time.sleep(0.01)
        short_again = max(short_again, time.monotonic() - ended)
        before = answers(noted)["enqueued"]
        after = max(after, largest_log(path, seconds))
        assert answers(noted)["enqueued"] > before, "nobody wrote any more"
    for writer in writers:
        nursery.kill(writer)
    report(f"log while 3 processes write and one reads for {seconds:g} s: largest", during / MEGABYTE, "MB")
    report("log when nobody reads for long: largest", after / MEGABYTE, "MB")
    report("log is short again after a long read ended", short_again, "s")
    report("calls refused meanwhile, of", "{refused:,}, {enqueued:,}".format_map(answers(noted)))
    assert after <= 64 * MEGABYTE
    check_file(path)
    written = answers(noted)["enqueued"] * 4
    with contextlib.closing(sqlite3.connect(path)) as conn:
        (jobs,) = conn.execute("SELECT count(*) FROM jobs").fetchone()
    assert jobs >= written


def test_a_process_that_dies_in_a_checkpoint_leaves_it_to_the_next(tmp_path: Path, nursery: Nursery) -> None:
    path, noted = tmp_path / "jobs.db", tmp_path / "notes"
    for _ in range(3):
        writers = [nursery.start("enqueue_bodies_for_ever", str(path), str(noted), number) for number in range(3)]
        time.sleep(0.4)
        for writer in writers:
            nursery.kill(writer)
        check_file(path)
    assert log_size(path) <= 64 * MEGABYTE
