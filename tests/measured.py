"""Numbers that tests measure and people want to see, also when every test passes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field


@dataclass
class Report:
    """Collects what tests measure; the run prints it at its end.

    `report("claim, 100 at a time", 41_200, "jobs/s")`
    """

    rows: list[tuple[str, str]] = field(default_factory=list)

    def __call__(self, name: str, value: object, unit: str = "") -> None:
        self.rows.append((name, f"{_readable(value)} {unit}".rstrip()))

    def lines(self) -> Iterator[str]:
        width = max((len(name) for name, _ in self.rows), default=0)
        for name, value in self.rows:
            yield f"{name:<{width}}  {value}"


def _readable(value: object) -> str:
    match value:
        case bool():
            return str(value)
        case int():
            return f"{value:,}"
        case float():
            return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"
        case _:
            return str(value)
