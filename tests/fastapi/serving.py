"""The application under test in a process of its own, under uvicorn, as a user would run it.

Run as a program it is that process: it serves on the listening socket whose file descriptor it is given.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import httpx
import uvicorn

ROOT = Path(__file__).parents[2]
PATIENCE = 20.0


def until(condition: Callable[[], bool], what: str, patience: float = PATIENCE) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < deadline, f"waited {patience:g} s in vain until {what}"
        time.sleep(0.02)


class Server:
    """Serves on one address, through restarts: the socket stays here, so that nobody else gets the port."""

    def __init__(self, store: Path, **environment: str) -> None:
        self._environment = {**os.environ, "JOBS_UNDER_TEST": str(store), **environment}
        self._socket = socket.socket()
        self._socket.bind(("127.0.0.1", 0))
        self._socket.listen(1024)
        self._log = store.with_name("server.log")
        self.process: subprocess.Popen[bytes] | None = None
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        self._socket.close()

    @property
    def log(self) -> str:
        """What the server has printed."""
        return self._log.read_text()

    def start(self) -> None:
        """Start, and return when the application is ready."""
        descriptor = self._socket.fileno()
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.fastapi.serving", str(descriptor)],
                cwd=ROOT,
                env=self._environment,
                stdout=log,
                stderr=log,
                pass_fds=[descriptor],
            )
        until(self._is_ready, "the server is ready")

    def _is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log
        try:
            return httpx.get(f"{self.url}/ready", timeout=1).status_code == 200
        except httpx.TransportError:
            return False

    def stop(self, number: signal.Signals = signal.SIGTERM) -> float:
        """Tell the server to end, and return how many seconds that took."""
        assert self.process is not None
        begun = time.monotonic()
        self.process.send_signal(number)
        self.process.wait(PATIENCE)
        return time.monotonic() - begun

    def enqueue(self, task: str, *arguments: object) -> str:
        """Have the application enqueue a job, and return its id."""
        answer = httpx.post(f"{self.url}/start/{task}", json=arguments).raise_for_status().json()
        return str(answer["id"])


if __name__ == "__main__":
    patience = int(os.environ.get("PATIENCE_UNDER_TEST", 0)) or None
    config = uvicorn.Config("tests.fastapi.application:served", factory=True, timeout_graceful_shutdown=patience)
    uvicorn.Server(config).run(sockets=[socket.socket(fileno=int(sys.argv[1]))])
