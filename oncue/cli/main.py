"""The commands and their options. What they do is imported when they run: `oncue --help` waits for nothing."""

from __future__ import annotations

import os
import sys
from enum import StrEnum
from typing import Annotated

import typer

from oncue.version import __version__

__all__ = ["app", "main"]

app = typer.Typer(
    name="oncue",
    help="Background jobs for FastAPI, right on cue.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class LogFormat(StrEnum):
    """How log lines look."""

    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """Which log lines are written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"oncue {__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", "-V", callback=_show_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Background jobs for FastAPI, right on cue."""


@app.command()
def worker(
    target: Annotated[str, typer.Argument(metavar="MODULE:APP", help="Where the Oncue object is, such as app:jobs.")],
    queues: Annotated[
        str | None, typer.Option(help="Queues to serve, separated by commas; those of the tasks if not given.")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(min=1, help="Attempts that run at the same time; 100 if not given.")
    ] = None,
    burst: Annotated[bool, typer.Option("--burst", help="End when no job is left to run.")] = False,
    log_format: Annotated[
        LogFormat, typer.Option(help="Lines for people, or one JSON object a line.")
    ] = LogFormat.TEXT,
    log_level: Annotated[LogLevel, typer.Option(help="The least that is logged.")] = LogLevel.INFO,
) -> None:
    """Run the jobs of an application."""
    from oncue.cli.logs import set_up_logging
    from oncue.cli.worker import run_worker

    set_up_logging(log_format.value, log_level.value)
    given = {"queues": tuple(queues.split(",")) if queues else None, "concurrency": concurrency, "burst": burst or None}
    run_worker(target, {name: value for name, value in given.items() if value is not None})


@app.command()
def demo(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port to listen on.")] = 8000,
    url: Annotated[str | None, typer.Option(help="The store; a file in ./oncue-demo if not given.")] = None,
) -> None:
    """Serve the demo: tasks that fill a table live, pictures processed, a job that fails and recovers."""
    from oncue.demo import serve

    serve(host=host, port=port, url=url)


def main() -> None:
    """Run the command line; an error that Oncue explains is a line, not a traceback."""
    from oncue.errors import OncueError

    sys.path.insert(0, os.getcwd())  # as `python -m` does: the application is here
    try:
        app()
    except OncueError as error:
        typer.secho(f"oncue: {error}", fg=typer.colors.RED, err=True)
        raise SystemExit(2) from None
