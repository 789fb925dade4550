"""`oncue worker`: find the application, run a worker for it until a signal."""

from __future__ import annotations

import asyncio
import importlib
import logging
import os
import sys
import threading
from collections.abc import Mapping
from typing import Any

from oncue.app import Oncue
from oncue.errors import ConfigError

__all__ = ["find_app", "run_worker"]

logger = logging.getLogger("oncue.worker")

_REST = 0.5
"""Seconds that the process may take to end after its worker has."""
_STUCK = 70
"""Exit status of a worker whose event loop is stuck for good (EX_SOFTWARE of sysexits.h)."""


def find_app(target: str) -> Oncue:
    """Return the Oncue object at `MODULE:APP`. Raises `ConfigError` saying what is missing."""
    module_name, _, attribute = target.partition(":")
    if not module_name or not attribute:
        raise ConfigError(f"{target!r} does not say where the Oncue object is; write MODULE:APP, for example app:jobs")
    if module_name.endswith(".py"):
        raise ConfigError(f"{target!r} names a file; write the module: {module_name.removesuffix('.py')}:{attribute}")
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name + ".").startswith(error.name + "."):
            raise  # a module that the application itself imports: its traceback says where
        here = os.getcwd()
        raise ConfigError(f"no module named {error.name!r} in {here}; run it where {module_name} is") from None
    found: Any = module
    for name in attribute.split("."):
        found = getattr(found, name, None)
    if isinstance(found, Oncue):
        return found
    there = ", ".join(name for name, value in vars(module).items() if isinstance(value, Oncue)) or "none"
    what = "there is no such name" if found is None else f"it is a {type(found).__name__}"
    raise ConfigError(f"{target!r} is no Oncue object: {what}; in {module_name} there are: {there}")


def run_worker(target: str, options: Mapping[str, Any]) -> None:
    """Run a worker until SIGINT or SIGTERM, or with `burst` until nothing is left."""
    jobs = find_app(target)
    try:
        import uvloop
    except ImportError:
        asyncio.run(_run(jobs, options))
    else:
        uvloop.run(_run(jobs, options))


async def _run(jobs: Oncue, options: Mapping[str, Any]) -> None:
    async with jobs:
        worker = jobs.worker(**options)
        # Its jobs are other workers' now, and nothing here can free the loop: whoever started it starts it anew.
        worker.on_stall = lambda: os._exit(_STUCK)
        try:
            await worker.run(signals=True)
        finally:
            _end_soon(1 if sys.exc_info()[0] else 0)


def _end_soon(status: int) -> None:
    """See to it that the process ends: what tasks left behind, in threads and loops of their own, may never.

    The worker has stored every outcome and given the rest back by now; closing the store takes a moment.
    """

    def end() -> None:
        logger.warning("code of a task is still running %g s after the worker has stopped: ending the process", _REST)
        logging.shutdown()
        os._exit(status)

    timer = threading.Timer(_REST, end)
    timer.daemon = True
    timer.start()
