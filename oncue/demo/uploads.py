"""Uploads and what is made of them, in a folder beside the queue.

A job carries the key of its upload, not the bytes. Names that come from outside never become paths: an upload is kept
under a random key, versions under the id of their job, and both are checked for their form before a path is made of
them. Whether a file is a picture is the business of `decoding`.
"""

from __future__ import annotations

import asyncio
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Final

from fastapi import Request
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.types import Message

__all__ = ["MAX_UPLOAD", "NoFile", "Received", "UploadTooLarge", "Uploads", "receive"]

MAX_UPLOAD: Final = 10_000_000
FORM_OVERHEAD: Final = 64 * 1024
"""What a form may add to the file it carries."""
PATIENCE: Final = 3.0
"""For how many seconds the rest of an upload that is too large is thrown away before it is answered."""

_KEY: Final = re.compile(r"[0-9a-f]{32}")
_JOB: Final = re.compile(r"[0-9A-Za-z_-]{1,64}")
_FILE: Final = re.compile(r"[a-z0-9-]{1,64}\.(jpg|png|webp)")


class UploadTooLarge(Exception):
    """The upload is beyond the limit; it was cut off and nothing of it was kept."""

    def __init__(self, limit: int) -> None:
        super().__init__(f"The file is larger than the limit of {limit / 1_000_000:g} MB.")


class NoFile(Exception):
    """The form came without a file."""

    def __init__(self) -> None:
        super().__init__("Choose a picture first: the form came without a file.")


@dataclass(frozen=True)
class Received:
    """An upload that is stored; `name` is what its owner calls it, for showing only."""

    key: str
    name: str


class Uploads:
    """The folder of uploads and of the versions made from them."""

    def __init__(self, folder: Path) -> None:
        self._originals = folder / "uploads"
        self._versions = folder / "versions"

    def open(self) -> None:
        """Make the folders, readable by this user alone: an upload may be private."""
        for folder in (self._originals, self._versions):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def new(self) -> tuple[str, Path]:
        """Return a fresh key and where its upload goes."""
        key = secrets.token_hex(16)
        return key, self.original(key)

    def original(self, key: str) -> Path:
        """Return where an upload is kept. Raises `LookupError` if that is no key."""
        if not _KEY.fullmatch(key):
            raise LookupError("that is no key of an upload")
        return self._originals / key

    def discard(self, key: str) -> None:
        """Delete an upload; again does no harm."""
        self.original(key).unlink(missing_ok=True)

    def versions(self, job_id: str) -> Path:
        """Return the folder for what a job makes. Raises `LookupError` if no folder can have that name."""
        if not _JOB.fullmatch(job_id):
            raise LookupError("no job of that id makes pictures")
        return self._versions / job_id

    def version(self, job_id: str, file: str) -> Path:
        """Return a file that a job has made. Raises `LookupError` if there is none."""
        if not _FILE.fullmatch(file):
            raise LookupError("no version has that name")
        path = self.versions(job_id) / file
        if not path.is_file():
            raise LookupError("there is no such version, or it was cleaned away")
        return path

    def clean(self, *, originals: timedelta, versions: timedelta) -> int:
        """Delete uploads and versions older than that; return how many uploads and folders went."""
        gone = 0
        for path in _older(self._originals, originals):
            path.unlink(missing_ok=True)
            gone += 1
        for path in _older(self._versions, versions):
            shutil.rmtree(path, ignore_errors=True)
            gone += 1
        return gone


def _older(folder: Path, age: timedelta) -> Iterator[Path]:
    limit = time.time() - age.total_seconds()
    for path in folder.iterdir():
        try:
            if path.stat().st_mtime < limit:
                yield path
        except FileNotFoundError:  # another cleaner was quicker
            continue


async def receive(request: Request, uploads: Uploads, *, limit: int = MAX_UPLOAD) -> Received:
    """Store the first file of a multipart form. Raises `UploadTooLarge` or `NoFile`; then nothing is left behind.

    The limit holds while the body comes in: at no time is more than it on the disk or in memory.
    """
    body = _LimitedBody(request, limit + FORM_OVERHEAD)
    try:
        async with Request(request.scope, body.receive).form(max_files=1, max_fields=20) as form:
            file = next((value for _, value in form.multi_items() if isinstance(value, UploadFile)), None)
            if file is None or (not file.filename and not file.size):
                raise NoFile
            if (file.size or 0) > limit:
                raise UploadTooLarge(limit)
            key, path = uploads.new()
            await run_in_threadpool(_store, file, path)
            return Received(key, _shown(file.filename))
    except _BodyTooLarge:
        await body.throw_away()
        raise UploadTooLarge(limit) from None


def _store(file: UploadFile, path: Path) -> None:
    try:
        with path.open("xb") as target:
            shutil.copyfileobj(file.file, target)
    except OSError:
        path.unlink(missing_ok=True)
        raise


def _shown(name: str | None) -> str:
    """Return the last part of a file name, printable and short."""
    last = re.split(r"[/\\]", name or "")[-1]
    text = "".join(letter for letter in last if letter.isprintable()).strip()
    return text[:100] or "picture"


class _BodyTooLarge(Exception):
    """More came in than was allowed."""


class _LimitedBody:
    """The body of a request, of which no more than `limit` bytes are taken."""

    def __init__(self, request: Request, limit: int) -> None:
        self._receive = request.receive
        self._limit = limit
        self._taken = 0
        self._ended = False
        declared = request.headers.get("content-length", "")
        self._declared_too_large = declared.isdigit() and int(declared) > limit
        self._waits_for_answer = "expect" in request.headers

    async def receive(self) -> Message:
        if self._declared_too_large:
            raise _BodyTooLarge
        message = await self._take()
        if self._taken > self._limit:
            raise _BodyTooLarge
        return message

    async def throw_away(self) -> None:
        """Read on without keeping anything, but not for long and not without end.

        A browser whose connection is closed while it sends may show a broken connection, and not the answer.
        """
        if self._waits_for_answer:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(PATIENCE):
                while not self._ended and self._taken < 5 * self._limit:
                    await self._take()

    async def _take(self) -> Message:
        message = await self._receive()
        self._taken += len(message.get("body", b""))
        self._ended = message["type"] == "http.disconnect" or not message.get("more_body", False)
        return message
