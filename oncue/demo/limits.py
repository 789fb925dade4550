"""How much a request may carry: pure ASGI, for every route but those that count for themselves."""

from __future__ import annotations

from typing import Final

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from oncue.demo.problems import problem

__all__ = ["SmallBodies"]

LIMIT: Final = 64 * 1024


class SmallBodies:
    """Refuses bodies of more than 64 kB, but for the path `/upload-image/`, whose route has a limit of its own."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == "/upload-image/":
            await self.app(scope, receive, send)
            return
        declared = Headers(scope=scope).get("content-length", "")
        if declared.isdigit() and int(declared) > LIMIT:
            await problem(scope, 413, _TOO_LARGE)(scope, receive, send)
            return
        taken = 0

        async def receive_some() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > LIMIT:
                raise HTTPException(413, _TOO_LARGE)
            return message

        await self.app(scope, receive_some, send)


_TOO_LARGE: Final = "The request is larger than anything that is asked for here."
