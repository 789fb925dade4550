"""The demo: a FastAPI application on Oncue, to look at and to read.

`serve` runs it, `create_app` makes it. Read `app` first, which wires it, then `tasks`, which is what its jobs do.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Final

from oncue.errors import MissingExtra

if TYPE_CHECKING:
    from fastapi import FastAPI

__all__ = ["DEFAULT_FOLDER", "create_app", "serve"]

DEFAULT_FOLDER: Final = "oncue-demo"
"""In the current folder: easy to find, and easy to delete."""
_NEEDED: Final = ("fastapi", "jinja2", "python_multipart", "sse_starlette", "uvicorn", "PIL")


def create_app(url: str | None = None, data_dir: Path | str = DEFAULT_FOLDER) -> FastAPI:
    """Return the demo as a FastAPI application, its worker inside.

    Args:
        url: the store; None is a SQLite file in `data_dir`.
        data_dir: where uploads and their versions go; made when the application starts.

    Raises:
        MissingExtra: the extra `demo` is not installed.
        ConfigError: the URL cannot be.
    """
    _check_installed()
    from oncue.demo.app import build

    return build(url, Path(data_dir))


def serve(
    *, host: str = "127.0.0.1", port: int = 8000, url: str | None = None, data_dir: Path | str = DEFAULT_FOLDER
) -> None:
    """Run the demo until it is interrupted, and say where it is.

    Args:
        host: the address to listen on.
        port: 0 takes a free one.
        url: the store; None is a SQLite file in `data_dir`.
        data_dir: where uploads and their versions go.

    Raises:
        MissingExtra: the extra `demo` is not installed.
        ConfigError: the URL cannot be, or the address is taken or not this machine's.
    """
    _check_installed()
    from oncue.demo.server import run

    run(host, port, url, Path(data_dir))


def _check_installed() -> None:
    if not all(find_spec(name) for name in _NEEDED):
        raise MissingExtra("demo", needed_for="the demo")
