"""`Oncue`: one application's tasks, its store, and the ways in."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Self

from oncue.client import Client
from oncue.engine import Engine
from oncue.engines import engine_for
from oncue.errors import ConfigError
from oncue.handles import Job, Request, Task
from oncue.job import check_id
from oncue.router import Schedule, TaskRouter
from oncue.serializers import Envelope, Serializer
from oncue.tasks import Registry
from oncue.worker import Worker, WorkerSettings

__all__ = ["Oncue"]

_DEFAULT_URL = "sqlite:///oncue.db"


class Oncue(TaskRouter):
    """An application's jobs.

        jobs = Oncue("sqlite:///jobs.db")

        @jobs.task(retry=5)
        async def greet(name: str) -> str: ...

        async with jobs:
            job = await greet.enqueue("Ada")

    Args:
        url: the store, `sqlite:///jobs.db` or an opened-elsewhere `Engine`. None takes `$ONCUE_URL`, and without it
            `sqlite:///oncue.db` in the current folder.
        serializer: what stored bytes go through, for example encryption; see `oncue.serializers.Serializer`.
        settings: what its workers do unless told otherwise.

    Two applications in one process share nothing.
    """

    def __init__(
        self,
        url: str | Engine | None = None,
        *,
        serializer: Serializer | None = None,
        settings: WorkerSettings | None = None,
    ) -> None:
        super().__init__()
        if url is None:
            url = os.environ.get("ONCUE_URL") or _DEFAULT_URL
        engine = engine_for(url) if isinstance(url, str) else url
        if not isinstance(engine, Engine):
            raise ConfigError(f"the store must be a URL or an engine, for example 'sqlite:///jobs.db'; not {url!r:.80}")
        self.settings = settings or WorkerSettings()
        self.registry = Registry()
        self.client = Client(engine, self.registry, Envelope(serializer))
        self._opened = 0

    def __repr__(self) -> str:
        return f"<Oncue {self.engine.url}, {len(self.registry)} tasks>"

    @property
    def engine(self) -> Engine:
        """The store."""
        return self.client.engine

    def _add(self, task: Task[..., Any]) -> None:
        spec = task.spec
        if self.client.envelope.custom:
            spec = spec.with_envelope(self.client.envelope)
        self.registry.add(spec)
        task.attach(self.client, spec)
        super()._add(task)

    def _add_schedule(self, schedule: Schedule) -> None:
        if any(known.name == schedule.name for known in self.schedules):
            raise ConfigError(f"there are two schedules named {schedule.name!r}; give one another name=…")
        super()._add_schedule(schedule)

    def include(self, router: TaskRouter) -> None:
        """Take in the tasks and schedules of a router."""
        for task in router.tasks:
            self._add(task)
        for schedule in router.schedules:
            self._add_schedule(schedule)

    async def open(self) -> None:
        """Open the store. Each `open` wants its own `close`."""
        await self.engine.open()
        self._opened += 1

    async def close(self) -> None:
        """Close the store when everybody who opened it has closed it."""
        self._opened -= 1
        if self._opened <= 0:
            self._opened = 0
            await self.engine.close()

    def close_sync(self) -> None:
        """Close the store that a script opened by `enqueue_sync` or `result_sync`."""
        self.client.close_sync()

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    def job(self, job_id: str) -> Job[Any]:
        """Return the handle of a job whose id came from elsewhere; whether it exists shows when it is asked."""
        return Job(self.client, check_id(job_id))

    async def enqueue(self, task: str, /, *args: Any, **kwargs: Any) -> Job[Any]:
        """Enqueue by name; raises `UnknownTask` if no task of that name is registered here."""
        return await Task[..., Any](self.registry[task], self.client).enqueue(*args, **kwargs)

    async def enqueue_many(self, requests: Sequence[Request[Any]]) -> list[Job[Any]]:
        """Enqueue many jobs, `[task.request(…), …]`, in calls of up to a thousand; one handle each, in order."""
        for request in requests:
            if not isinstance(request, Request):
                raise ConfigError(f"enqueue_many takes [task.request(…), …], not a {type(request).__name__}")
        answers = await self.client.send_many([request.job for request in requests])
        return [request.accepted(self.client, answer) for request, answer in zip(requests, answers, strict=True)]

    def worker(self, **options: Any) -> Worker:
        """Return a worker for this application; `options` are those of `WorkerSettings`."""
        return Worker(self.client, self.schedules, self.settings.with_options(options) if options else self.settings)

    @property
    def tasks_by_name(self) -> Mapping[str, Task[..., Any]]:
        """The registered tasks, by name."""
        return {task.name: task for task in self.tasks}
