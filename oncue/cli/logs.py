"""How the command line's log lines look. Text from a job stays on its line: control characters are escaped."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

from oncue.failures import printable

__all__ = ["JSONFormatter", "TextFormatter", "set_up_logging"]

_LIMIT = 4_096
_EXTRA = ("job_id", "task", "queue", "attempt", "state", "duration", "waited")


class TextFormatter(logging.Formatter):
    """Time, level where it matters, message."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(message)s", "%Y-%m-%d %H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        """Return one line, and a traceback behind it if there is one."""
        return printable(super().format(record))


class JSONFormatter(logging.Formatter):
    """One JSON object a line: `time`, `level`, `logger`, `message`; for a job `job_id`, `task`, `state` and so on."""

    def format(self, record: logging.LogRecord) -> str:
        """Return one line."""
        fields: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage()[:_LIMIT],
        }
        fields |= {name: getattr(record, name) for name in _EXTRA if hasattr(record, name)}
        if record.exc_info or record.exc_text:
            fields["traceback"] = record.exc_text or self.formatException(record.exc_info or (None, None, None))
        return json.dumps(fields, default=str)


def set_up_logging(style: str, level: str) -> None:
    """Send everything at or above a level to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JSONFormatter() if style == "json" else TextFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler])
