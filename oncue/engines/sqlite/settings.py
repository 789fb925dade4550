"""What a `sqlite://` URL says."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Self
from urllib.parse import parse_qsl, unquote, urlsplit

from oncue.errors import ConfigError

__all__ = ["SQLiteSettings"]

_EXAMPLE = "for example sqlite:///jobs.db (relative), sqlite:////var/lib/app/jobs.db (absolute) or sqlite://:memory:"


@dataclass(frozen=True, slots=True)
class SQLiteSettings:
    """A checked `sqlite://` URL.

    Attributes:
        path: the file; None for a store in memory that ends with its engine.
        synchronous: `"full"` (default: an accepted job survives a power cut) or `"normal"` (it survives any crash of
            processes, but a power cut may take back what came after the last checkpoint).
        timeout: deadline of each call, in seconds.
    """

    path: Path | None
    synchronous: str = "full"
    timeout: float = 5.0

    @classmethod
    def parse(cls, url: str) -> Self:
        """Read a URL. Raises `ConfigError`, naming the part that cannot be."""
        if url in ("sqlite://:memory:", "sqlite:///:memory:") or url.startswith("sqlite://:memory:?"):
            location, query = "", url.partition("?")[2]
        else:
            parts = urlsplit(url)
            if not url.startswith("sqlite:///") or len(parts.path) < 2:
                raise ConfigError(f"cannot read the store URL {url!r}: {_EXAMPLE}")
            location, query = unquote(parts.path[1:]), parts.query
        options = dict(parse_qsl(query, keep_blank_values=True))
        synchronous = options.pop("synchronous", "full").lower()
        if synchronous not in ("full", "normal"):
            raise ConfigError(f"option synchronous={synchronous!r} of {url!r} must be 'full' or 'normal'")
        text = options.pop("timeout", "5")
        try:
            timeout = float(text)
        except ValueError:
            timeout = -1
        if not 0 < timeout <= 3600:
            raise ConfigError(f"option timeout={text!r} of {url!r} must be seconds between 0 and 3600, for example 5")
        if options:
            raise ConfigError(f"unknown option {next(iter(options))!r} in {url!r}: there are synchronous and timeout")
        return cls(Path(location).absolute() if location else None, synchronous, timeout)
