"""The demo as a process of its own: uvicorn on one socket, which is bound before anything is said."""

from __future__ import annotations

import socket
import warnings
from contextlib import suppress
from pathlib import Path

import uvicorn

from oncue.demo.app import build
from oncue.errors import ConfigError

__all__ = ["run"]


def run(host: str, port: int, url: str | None, data_dir: Path) -> None:
    """Serve until interrupted. Raises `ConfigError` if the address cannot be had."""
    app = build(url, data_dir)
    listener = _bound(host, port)
    # Pillow warns of odd files on the console; people who sent one are told on their page.
    warnings.filterwarnings("ignore", module=r"PIL\.")
    config = uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=5)
    server = _Server(config, _address(listener), data_dir)
    with listener, suppress(KeyboardInterrupt):  # uvicorn has ended in good order, and then says what ended it
        server.run(sockets=[listener])


class _Server(uvicorn.Server):
    """Says where the demo is once it answers, and not before."""

    def __init__(self, config: uvicorn.Config, address: str, data_dir: Path) -> None:
        super().__init__(config)
        self._address = address
        self._data_dir = data_dir

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            print(f"Oncue demo: {self._address}  (its data is in {self._data_dir}; Ctrl+C ends it)", flush=True)


def _bound(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise ConfigError(f"cannot listen on port={port}: ports go from 0 (any free one) to 65535, for example 8000")
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise ConfigError(
            f"cannot listen on host={host!r}, port={port}: {error}; for example 127.0.0.1 and 8000"
        ) from None
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind(address)
    except OSError as error:
        listener.close()
        raise ConfigError(
            f"cannot listen on {host} port {port}: {error}; another port may be free, or port=0"
        ) from None
    return listener


def _address(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
