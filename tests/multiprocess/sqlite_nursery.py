"""Starts processes in a few milliseconds, by forking one that has imported everything and opened nothing.

Run as a module it is that one. It takes orders as lines of JSON and answers each with one.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any, Self

from tests.multiprocess import sqlite_programs

__all__ = ["Nursery"]

ROOT = Path(__file__).parent.parent.parent


class Nursery:
    """A source of processes, each of which runs a function of `sqlite_programs`."""

    def __init__(self) -> None:
        self._mother = subprocess.Popen(
            [sys.executable, "-m", __name__],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        assert self._mother.stdin is not None
        assert self._mother.stdout is not None
        self._mother.stdin.close()
        self._mother.wait(10)
        self._mother.stdout.close()

    def start(self, program: str, *arguments: Any) -> int:
        """Start a process and return its id."""
        return int(self._ask("start", program, *arguments))

    def kill(self, pid: int) -> int:
        """End a process between two instructions; return how it ended."""
        os.kill(pid, signal.SIGKILL)
        return self.wait(pid)

    def wait(self, pid: int) -> int:
        """Wait for the end of a process; return its exit code, negative for a signal."""
        return int(self._ask("wait", pid))

    def _ask(self, *order: Any) -> Any:
        assert self._mother.stdin is not None
        assert self._mother.stdout is not None
        self._mother.stdin.write(json.dumps(order) + "\n")
        self._mother.stdin.flush()
        return json.loads(self._mother.stdout.readline())


def _start(program: str, arguments: list[Any]) -> int:
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        _die_with_parent()
        os.close(0)
        os.dup2(2, 1)
        getattr(sqlite_programs, program)(*arguments)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _die_with_parent() -> None:
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def main() -> None:
    """Obey until the orders end."""
    for line in sys.stdin:
        order, *arguments = json.loads(line)
        if order == "start":
            answer = _start(arguments[0], arguments[1:])
        else:
            answer = os.waitstatus_to_exitcode(os.waitpid(arguments[0], 0)[1])
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
