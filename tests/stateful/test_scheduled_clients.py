"""Workers that freeze, die and lose replies, people who cancel, rescuers: in whatever order, no promise is broken."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from oncue.engines.sqlite import SQLiteEngine
from tests.measured import Report
from tests.stateful.histories import SideBySide
from tests.stateful.judge import judge
from tests.stateful.scheduler import Checked, Crowd, Scheduler, Store

SEEDS = 500
STEPS = 60


def play(seed: int, store: Store, *, at_once: int) -> int:
    """Play one history and judge it; return how many calls it took."""
    scheduler = Scheduler(seed, store, at_once=at_once)
    try:
        judge(scheduler.stage, scheduler.play(STEPS))
    except AssertionError as error:
        error.add_note(f"seed {seed}, {at_once} at once, step {scheduler.stage.step}")
        raise
    return scheduler.calls


def checked(seed: int) -> int:
    both = SideBySide(SQLiteEngine("sqlite://:memory:"))
    both.twice = seed % 3 == 0
    try:
        return play(seed, Checked(both), at_once=1)
    finally:
        both.close()


def crowded(seed: int, url: str = "sqlite://:memory:") -> int:
    engine = SQLiteEngine(url)
    with asyncio.Runner() as runner:
        runner.run(engine.open())
        try:
            return play(seed, Crowd(engine, runner), at_once=4)
        finally:
            runner.run(engine.close())


def test_five_hundred_orders_of_calls_break_no_promise_and_are_answered_as_the_model_says(report: Report) -> None:
    calls = sum(checked(seed) for seed in range(SEEDS))
    report("scheduled clients, one call at a time", f"{SEEDS:,} seeds, {calls:,} calls")


def test_five_hundred_orders_of_calls_at_the_same_time_break_no_promise(report: Report) -> None:
    calls = sum(crowded(seed) for seed in range(SEEDS))
    report("scheduled clients, up to four calls at once", f"{SEEDS:,} seeds, {calls:,} calls")


def test_orders_of_calls_break_no_promise_on_disk(tmp_path: Path, report: Report) -> None:
    calls = sum(crowded(seed, f"sqlite:///{tmp_path}/{seed}.db") for seed in range(20))
    report("scheduled clients, on disk", f"20 seeds, {calls:,} calls")


@pytest.mark.soak
@pytest.mark.parametrize("start", range(1_000, 21_000, 1_000))
def test_a_thousand_more_orders_break_no_promise(start: int) -> None:
    for seed in range(start, start + 1_000):
        checked(seed)
        crowded(seed)
