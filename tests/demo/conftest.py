"""The demo as its users meet it: a server in a process of its own, and a browser."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import httpx
import pytest
from playwright.sync_api import Browser, BrowserContext, ConsoleMessage, Page, sync_playwright

from tests.requirements import require, used

T = TypeVar("T")

CHROMIUM = Path("/usr/bin/chromium")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


class DemoServer:
    """The demo, served by `oncue.demo.serve` in a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = int(probe.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        self.said = ""
        self._process: subprocess.Popen[str] | None = None

    def start(self) -> None:
        code = "from sys import argv; from oncue.demo import serve; serve(port=int(argv[1]), data_dir=argv[2])"
        with (self.folder.parent / "server.log").open("a") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-W", "error::ResourceWarning", "-c", code, str(self.port), str(self.folder)],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert self._process.stdout is not None
        self.said = self._process.stdout.readline()
        if not self.said:
            self.kill()
            pytest.fail(f"the server did not start: {self.log()}")

    def kill(self) -> None:
        """End the process as a power cut would."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()
        self._close()

    def stop(self, *, with_signal: int = signal.SIGINT, within: float = 15) -> float:
        """End the process as Ctrl+C would; return how long it took."""
        assert self._process is not None
        started = time.monotonic()
        self._process.send_signal(with_signal)
        try:
            self._process.wait(within)
        except subprocess.TimeoutExpired:
            self.kill()
            pytest.fail(f"the server did not end within {within} s: {self.log()}")
        self._close()
        return time.monotonic() - started

    def log(self) -> str:
        """What the server wrote to stderr."""
        return (self.folder.parent / "server.log").read_text()

    def _close(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None

    @property
    def running(self) -> bool:
        return self._process is not None


def until(condition: Callable[[], T | None], what: str, *, within: float = 30) -> T:
    """Wait until a condition holds, and return what it gives."""
    deadline = time.monotonic() + within
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.05)
    pytest.fail(f"not within {within} s: {what}")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoServer]:
    """A server for the tests of one module."""
    server = DemoServer(tmp_path_factory.mktemp("demo") / "data")
    server.start()
    yield server
    if server.running:
        server.stop()
    assert "Traceback" not in server.log(), server.log()


@pytest.fixture(scope="module")
def http(demo: DemoServer) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=demo.url, timeout=20) as client:
        yield client


@pytest.fixture(scope="module")  # its driver keeps an event loop in this thread, where async tests run theirs
def browser() -> Iterator[Browser]:
    require("browser", os.access(CHROMIUM, os.X_OK), "apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        used("browser", f"Chromium {browser.version}")
        yield browser
        browser.close()


class Watched:
    """What a browser complained of."""

    def __init__(self) -> None:
        self.complaints: list[str] = []
        self.expected: tuple[str, ...] = ()

    def listen(self, page: Page) -> None:
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.complaints.append(f"{page.url}: {error}"))
        page.add_init_script("addEventListener('securitypolicyviolation', e => console.error('CSP', e.blockedURI))")

    def _console(self, message: ConsoleMessage) -> None:
        if message.type in ("error", "warning") and not any(words in message.text for words in self.expected):
            self.complaints.append(f"{message.location.get('url')}: {message.text}")


@pytest.fixture
def watched() -> Iterator[Watched]:
    """Fails the test if the browser complains: errors, warnings, violations of the security policy."""
    watched = Watched()
    yield watched
    assert watched.complaints == []


@pytest.fixture
def context(browser: Browser, demo: DemoServer) -> Iterator[BrowserContext]:
    context = browser.new_context(base_url=demo.url)
    context.set_default_timeout(15_000)
    yield context
    context.close()


@pytest.fixture
def page(context: BrowserContext, watched: Watched) -> Page:
    page = context.new_page()
    watched.listen(page)
    return page
