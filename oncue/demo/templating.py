"""The pages' templates: where they are, and the few words that all of them need."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined

__all__ = ["render"]


class Link(NamedTuple):
    """An entry of the navigation."""

    path: str
    label: str


NAVIGATION: Final = (
    Link("/", "Tasks"),
    Link("/images", "Images"),
    Link("/retry", "Retry"),
    Link("/stream", "Stream"),
)


def file_size(size: int) -> str:
    """Return a number of bytes as people read it."""
    if size < 1000:
        return f"{size} B"
    return f"{size / 1000:.3g} kB" if size < 999_500 else f"{size / 1_000_000:.3g} MB"


def clock(moment: datetime) -> str:
    """Return the time of day to the tenth of a second, in UTC."""
    return f"{moment:%H:%M:%S}.{moment.microsecond // 100_000} UTC"


def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,  # for every template, whatever its name
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["navigation"] = NAVIGATION
    environment.filters["file_size"] = file_size
    environment.filters["clock"] = clock
    return environment


_TEMPLATES: Final = _environment()


def render(template: str, **values: Any) -> str:
    """Return a page; everything put into it is escaped."""
    return _TEMPLATES.get_template(template).render(values)
