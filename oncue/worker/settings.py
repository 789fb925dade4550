"""What a worker is told: one frozen object, checked once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from datetime import timedelta
from typing import Any, Self

from oncue.errors import ConfigError
from oncue.job import check_name

__all__ = ["WorkerSettings"]


@dataclass(frozen=True, slots=True)
class WorkerSettings:
    """How a worker behaves. Durations are seconds.

    Attributes:
        queues: which it serves, all alike; none named means those of its tasks.
        concurrency: attempts that run at the same time.
        lease: how long a job stays with a worker that says nothing. A worker renews at a third of it. After the death
            of a worker its jobs are taken back within `lease` and one turn of maintenance.
        grace: at shutdown, how long running jobs may go on before they are cancelled and given back.
        cleanup: after a cancel or a timeout, how long a task may take to end; then its slot is used again without it.
        burst: end when no job is left to run.
        stall_warning: after how long the log names the job whose code blocks the event loop.
        stall_timeout: after how long a blocked event loop is given up: its leases are not renewed any more.
        keep_finished: ended jobs that stay in the store at most.
        maintenance: how often jobs of dead workers are looked for, and old jobs pruned; a third of the lease, if
            not given.
    """

    queues: tuple[str, ...] = ()
    concurrency: int = 100
    lease: float = 15.0
    grace: float = 10.0
    cleanup: float = 5.0
    burst: bool = False
    stall_warning: float = 5.0
    stall_timeout: float = 60.0
    keep_finished: int = 1_000_000
    maintenance: float | None = None

    def __post_init__(self) -> None:
        """Check every setting."""
        if isinstance(self.queues, str):
            raise ConfigError(f"queues must be a list of names, for example ['default']; not {self.queues!r:.80}")
        object.__setattr__(self, "queues", tuple(check_name(queue) for queue in self.queues))
        self._check("concurrency", self.concurrency, 1, 100_000, "100", whole=True)
        self._check("lease", self.lease, 0.1, 86_400, "15")
        self._check("grace", self.grace, 0, 86_400, "10")
        self._check("cleanup", self.cleanup, 0, 86_400, "5")
        self._check("stall_warning", self.stall_warning, 0.01, 86_400, "5")
        self._check("stall_timeout", self.stall_timeout, 0.01, 1e9, "60")
        self._check("keep_finished", self.keep_finished, 0, 10**12, "1000000", whole=True)
        if self.maintenance is not None:
            # Rarer than that, and the store would seem to have been away (see `Engine.rescue`).
            self._check("maintenance", self.maintenance, 0.01, self.lease / 2, f"{self.lease / 3:.1f}")

    def _check(self, name: str, value: Any, least: float, most: float, example: str, *, whole: bool = False) -> None:
        number = int if whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, number) or not least <= value <= most:
            raise ConfigError(f"{name} must be {least:g} to {most:g}, for example {example}; not {value!r:.80}")

    def with_options(self, options: Mapping[str, Any]) -> Self:
        """Return these settings with some replaced; raises `ConfigError` for one that there is not."""
        known = {field.name for field in fields(self)}
        if unknown := options.keys() - known:
            raise ConfigError(f"unknown worker option {min(unknown)!r}; there are: {', '.join(sorted(known))}")
        return replace(self, **options)

    @property
    def lease_time(self) -> timedelta:
        """The lease, as the engine takes it."""
        return timedelta(seconds=self.lease)

    @property
    def beat(self) -> float:
        """Seconds between heartbeats."""
        return self.lease / 3

    @property
    def maintenance_pace(self) -> float:
        """Seconds between turns of maintenance."""
        return self.lease / 3 if self.maintenance is None else self.maintenance
