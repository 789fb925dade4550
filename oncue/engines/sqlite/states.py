"""The states as plain strings.

sqlite3 takes the slow way round for a subclass of str, and a member of an enum hashes in Python: in the hot path both
cost more than the statement they serve.
"""

from __future__ import annotations

from typing import Final

from oncue.job import FINAL as _FINAL
from oncue.job import PENDING as _PENDING
from oncue.job import State

SCHEDULED: Final[str] = State.SCHEDULED.value
WAITING: Final[str] = State.WAITING.value
QUEUED: Final[str] = State.QUEUED.value
RUNNING: Final[str] = State.RUNNING.value
RETRYING: Final[str] = State.RETRYING.value
COMPLETED: Final[str] = State.COMPLETED.value
FAILED: Final[str] = State.FAILED.value
CANCELLED: Final[str] = State.CANCELLED.value

FINAL: Final[frozenset[str]] = frozenset(state.value for state in _FINAL)
PENDING: Final[frozenset[str]] = frozenset(state.value for state in _PENDING)

STATE: Final[dict[str, State]] = {state.value: state for state in State}
