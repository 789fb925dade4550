"""Batches of jobs that are shown together, and arq's words for what a job is at.

A batch is stored nowhere: its id says how many jobs it has, and the ids of its jobs follow from it. So a page, an event
stream or another server can watch it from its address alone.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final

from oncue.job import JobInfo, State, new_id

__all__ = ["MOST", "Batch", "Row", "Snapshot", "arq_status"]

MOST: Final = 100
_BATCH: Final = re.compile(r"[0-9a-z]{26}-[1-9][0-9]{0,2}")
_WORDS: Final = {
    State.SCHEDULED: "deferred",
    State.RETRYING: "deferred",
    State.WAITING: "deferred",
    State.QUEUED: "queued",
    State.RUNNING: "in_progress",
    State.COMPLETED: "complete",
    State.FAILED: "complete",
    State.CANCELLED: "complete",
}


def arq_status(info: JobInfo | None) -> str:
    """Return arq's word for the state of a job; None is a job that is not there."""
    return "not_found" if info is None else _WORDS[info.state]


@dataclass(frozen=True)
class Batch:
    """A batch of jobs."""

    id: str
    count: int

    @classmethod
    def new(cls, count: int) -> Batch:
        """Return a batch of its own for `count` jobs."""
        return cls(f"{new_id()}-{count}", count)

    @classmethod
    def parse(cls, text: str) -> Batch:
        """Return the batch of an id. Raises `LookupError` if there cannot be one."""
        count = int(text.rpartition("-")[2]) if _BATCH.fullmatch(text) else 0
        if not 1 <= count <= MOST:
            raise LookupError("no batch has that id")
        return cls(text, count)

    def job_ids(self) -> list[str]:
        """Return the ids of its jobs, in order."""
        return [f"{self.id}-{number:03}" for number in range(1, self.count + 1)]


@dataclass(frozen=True)
class Row:
    """What a table shows of a job."""

    job_id: str
    status: str
    result: Any


@dataclass(frozen=True)
class Snapshot:
    """A batch at one moment."""

    id: str
    rows: list[Row]

    @property
    def total(self) -> int:
        return len(self.rows)

    @property
    def done(self) -> int:
        return self._count("complete", "not_found")

    @property
    def ended(self) -> bool:
        return self.done == self.total

    @property
    def summary(self) -> str:
        """The numbers in words, such as `42 of 100 complete · 10 in progress · 48 queued`."""
        parts = [f"{self._count('complete')} of {self.total} complete"]
        for status in ("in_progress", "queued", "deferred", "not_found"):
            if number := self._count(status):
                parts.append(f"{number} {status.replace('_', ' ')}")
        return " · ".join(parts)

    def _count(self, *statuses: str) -> int:
        return sum(row.status in statuses for row in self.rows)
