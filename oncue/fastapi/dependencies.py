"""How an endpoint gets the application's jobs, and how a test puts others in their place."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import Depends
from starlette.requests import HTTPConnection

from oncue.app import Oncue
from oncue.errors import ConfigError

__all__ = ["BOUND", "RUNNING", "JobsDep", "get_jobs"]

BOUND: Final = "oncue.jobs"
"""Key of a request's scope under which a route of an Oncue router has the router's own jobs."""
RUNNING: Final = "oncue_jobs"
"""Name in `app.state` of the list of jobs whose routers' lifespans have begun."""


async def get_jobs(connection: HTTPConnection) -> Oncue:
    """Return the jobs of the application that serves this request: those of its router.

    Raises `ConfigError` if it has none, or several: which are meant cannot be known then.
    """
    bound = connection.scope.get(BOUND)
    if isinstance(bound, Oncue):
        return bound
    running: list[Oncue] = list(dict.fromkeys(getattr(connection.app.state, RUNNING, [])))
    if len(running) == 1:
        [jobs] = running
        return jobs
    if running:
        raise ConfigError(
            f"JobsDep cannot tell which of {len(running)} Oncue applications is meant here; name one: "
            "Annotated[Oncue, Depends(lambda: jobs)]"
        )
    raise ConfigError(
        "JobsDep found no Oncue application: app.include_router(oncue_router(jobs), prefix='/jobs') on the application "
        "that is served, whose lifespan must run; or set app.dependency_overrides[get_jobs]"
    )


JobsDep = Annotated[Oncue, Depends(get_jobs)]
"""The application's jobs as a parameter: `async def start(jobs: JobsDep)`. A test replaces them for all endpoints and
routes with `app.dependency_overrides[get_jobs] = lambda: others`."""
