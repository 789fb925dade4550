"""Task functions as users write them, with annotations that are text, in a module of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from decimal import Decimal


class Context:
    """What the worker gives."""


async def thumbnail(ctx: Context, image: bytes, width: int = 320) -> Thumbnail:
    """Defined above the class that it returns, which is there once the module is loaded."""
    return Thumbnail()


class Thumbnail:
    """No type that pydantic knows."""


async def hidden(amount: Decimal) -> None:
    """Its annotation is there for type checkers only."""


async def misspelt(ctx: Context, number: int, size: Siez) -> None:  # type: ignore[name-defined]  # noqa: F821
    """Its annotation is nowhere."""


async def returns_nothing_known(ctx: Context | None) -> dict[str, Nowhere]:  # type: ignore[name-defined]  # noqa: F821
    """Its return annotation is nowhere."""
    return {}


def tell(ctx: Context | None, text: str, *rest: int, loud: bool = False, **more: Any) -> str:
    """Plain, with everything a signature may have."""
    return text
