"""Whether the server that this process runs has been told to end.

The lifespan learns of it only when every request is over, and a stream is never over by itself. uvicorn registers a
method of its server as signal handler, which is where the server can be found. Under another server, and under one that
is stopped without a signal, nothing is seen here: streams end when that server closes their connections. A client that
has stopped reading is the server's to give up, with uvicorn's `--timeout-graceful-shutdown`.
"""

from __future__ import annotations

import signal

__all__ = ["is_ending", "is_hurried"]


def is_ending() -> bool:
    """Whether the server takes no more requests."""
    return _asked("should_exit")


def is_hurried() -> bool:
    """Whether it was told a second time."""
    return _asked("force_exit")


def _asked(flag: str) -> bool:
    server = getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
    return getattr(server, flag, False) is True
