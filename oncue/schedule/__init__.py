"""Enqueues jobs by the clock."""

from __future__ import annotations

from oncue.schedule.scheduler import Scheduler

__all__ = ["Scheduler"]
