"""The process that claims jobs and runs them: one loop, one file, all started in `worker.py`."""

from __future__ import annotations

from oncue.worker.settings import WorkerSettings
from oncue.worker.worker import Worker

__all__ = ["Worker", "WorkerSettings"]
