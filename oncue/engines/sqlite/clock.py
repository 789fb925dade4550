"""The engine's time, and the one place where milliseconds and datetimes turn into each other."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

__all__ = ["Clock", "from_ms", "to_ms"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_LATEST: Final = 253_402_300_799_000  # the last second of the year 9999: no datetime lies behind it
_MILLISECOND: Final = timedelta(milliseconds=1)


def from_ms(ms: int) -> datetime:
    """Return the aware datetime of a stored time."""
    return datetime.fromtimestamp(ms / 1000, UTC)


def to_ms(when: datetime) -> int:
    """Return the stored time of an aware datetime; a fraction counts up, so that nothing starts before its time."""
    return -((_EPOCH - when) // _MILLISECOND)


def later(ms: int, seconds: float) -> int:
    """Return the stored time `seconds` after another, at the latest the end of the year 9999."""
    return min(int(ms + min(max(seconds, 0), 1e12) * 1000), _LATEST)


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""  # not Linux: leases of before a boot expire by time instead of at once


class Clock:
    """Wall-clock time for what people schedule, time since boot for leases; both can be moved forward by tests.

    Every process on a machine reads the same two clocks. The one since boot runs on while the machine sleeps and is
    not stepped with the wall clock.
    """

    def __init__(self) -> None:
        self.boot_id = _boot_id()
        self._ahead = 0
        # Linux has CLOCK_BOOTTIME; elsewhere the monotonic clock is the nearest there is.
        self._steady_clock = time.CLOCK_BOOTTIME if sys.platform == "linux" else time.CLOCK_MONOTONIC

    def wall(self) -> int:
        """Milliseconds since 1970."""
        return time.time_ns() // 1_000_000 + self._ahead

    def steady(self) -> int:
        """Milliseconds since boot."""
        return time.clock_gettime_ns(self._steady_clock) // 1_000_000 + self._ahead

    def advance(self, by: timedelta) -> None:
        """Move both clocks forward."""
        self._ahead += by // _MILLISECOND
