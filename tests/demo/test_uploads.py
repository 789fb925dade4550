"""Uploads: what is taken, where it is kept, what is refused, and that nothing of a refused one stays."""

from __future__ import annotations

import os
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from oncue.demo.uploads import FORM_OVERHEAD, NoFile, Uploads, UploadTooLarge, receive

LIMIT = 100_000

pytestmark = pytest.mark.anyio


@pytest.fixture
def uploads(tmp_path: Path) -> Uploads:
    uploads = Uploads(tmp_path / "data")
    uploads.open()
    return uploads


@pytest.fixture
async def client(uploads: Uploads) -> AsyncIterator[httpx.AsyncClient]:
    async def upload(request: Request) -> Response:
        try:
            received = await receive(request, uploads, limit=LIMIT)
        except (NoFile, UploadTooLarge) as error:
            return JSONResponse({"refused": type(error).__name__, "detail": str(error)}, 400)
        return JSONResponse({"key": received.key, "name": received.name})

    app = Starlette(routes=[Route("/", upload, methods=["POST"])])
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://demo") as client:
        yield client


def stored(tmp_path: Path) -> list[Path]:
    return [path for path in (tmp_path / "data").rglob("*") if path.is_file()]


async def test_an_upload_is_kept_under_a_random_key_and_its_own_name_is_only_shown(
    client: httpx.AsyncClient, uploads: Uploads, tmp_path: Path
) -> None:
    name = "../../C:\\etc\\pass\x07wd <b>é.jpg"
    first = (await client.post("/", files={"file": (name, b"picture")})).json()
    second = (await client.post("/", files={"file": (name, b"picture")})).json()
    assert first["key"] != second["key"]
    assert "/" not in first["name"]
    assert "\\" not in first["name"]
    assert first["name"].isprintable()
    assert uploads.original(first["key"]).read_bytes() == b"picture"
    assert {path.name for path in stored(tmp_path)} == {first["key"], second["key"]}


async def test_a_file_as_large_as_the_limit_is_taken_and_one_byte_more_is_not(
    client: httpx.AsyncClient, tmp_path: Path
) -> None:
    assert "key" in (await client.post("/", files={"file": ("a", b"x" * LIMIT)})).json()
    answer = (await client.post("/", files={"file": ("a", b"x" * (LIMIT + 1))})).json()
    assert answer["refused"] == "UploadTooLarge"
    assert len(stored(tmp_path)) == 1


@pytest.mark.parametrize("declared", [True, False])
async def test_a_huge_upload_is_cut_off_and_not_read_to_its_end(
    client: httpx.AsyncClient, tmp_path: Path, declared: bool
) -> None:
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        head = b'--cut\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
        yield head
        while taken < 1_000_000_000:
            taken += 65_536
            yield b"x" * 65_536

    headers = {"Content-Type": "multipart/form-data; boundary=cut"}
    if declared:
        headers["Content-Length"] = "1000000000"
    answer = (await client.post("/", content=endless(), headers=headers)).json()
    assert answer["refused"] == "UploadTooLarge"
    assert answer["detail"] == "The file is larger than the limit of 0.1 MB."
    assert taken < 6 * (LIMIT + FORM_OVERHEAD)
    assert stored(tmp_path) == []


async def test_a_sender_that_waits_for_leave_is_answered_at_once(client: httpx.AsyncClient) -> None:
    async def never() -> AsyncIterator[bytes]:
        raise AssertionError("the body was asked for")
        yield b""

    headers = {
        "Content-Type": "multipart/form-data; boundary=cut",
        "Content-Length": "1000000000",
        "Expect": "100-continue",
    }
    answer = (await client.post("/", content=never(), headers=headers)).json()
    assert answer["refused"] == "UploadTooLarge"


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b'--cut\r\nContent-Disposition: form-data; name="file"; filename=""\r\n\r\n\r\n--cut--\r\n', "multipart"),
        (b'--cut\r\nContent-Disposition: form-data; name="file"\r\n\r\nno file\r\n--cut--\r\n', "multipart"),
        (b"--cut--\r\n", "multipart"),
        (b"file=a", "urlencoded"),
        (b"", "none"),
    ],
)
async def test_a_form_without_a_file_is_told_so(client: httpx.AsyncClient, content: bytes, kind: str) -> None:
    kinds = {
        "multipart": {"Content-Type": "multipart/form-data; boundary=cut"},
        "urlencoded": {"Content-Type": "application/x-www-form-urlencoded"},
        "none": {},
    }
    answer = (await client.post("/", content=content, headers=kinds[kind])).json()
    assert answer["refused"] == "NoFile"
    assert answer["detail"].startswith("Choose a picture first")


async def test_a_name_that_is_no_key_never_becomes_a_path(uploads: Uploads, tmp_path: Path) -> None:
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    outside = ["..", "../secret.jpg", "..%2fsecret.jpg", "/etc/passwd", "", ".", "a/b", "a\\b", "ä", "x" * 300, "a\0b"]
    for name in outside:
        with pytest.raises(LookupError):
            uploads.original(name)
        with pytest.raises(LookupError):
            uploads.versions(name)
        with pytest.raises(LookupError):
            uploads.version("job", name)
        with pytest.raises(LookupError):
            uploads.version(name, "size-160.jpg")


async def test_a_version_is_found_under_its_job_and_nowhere_else(uploads: Uploads) -> None:
    uploads.versions("job-1").mkdir()
    (uploads.versions("job-1") / "size-160.jpg").write_bytes(b"small")
    assert uploads.version("job-1", "size-160.jpg").read_bytes() == b"small"
    for job, name in (("job-2", "size-160.jpg"), ("job-1", "size-320.jpg")):
        with pytest.raises(LookupError):
            uploads.version(job, name)


async def test_cleaning_takes_what_is_old_and_leaves_the_rest(uploads: Uploads) -> None:
    kept, old = uploads.new(), uploads.new()
    for _, path in (kept, old):
        path.write_bytes(b"picture")
    for job in ("kept", "old"):
        uploads.versions(job).mkdir()
        (uploads.versions(job) / "size-160.jpg").write_bytes(b"small")
    two_hours_ago, two_days_ago = time.time() - 7_200, time.time() - 172_800
    os.utime(old[1], (two_hours_ago, two_hours_ago))
    os.utime(uploads.versions("kept"), (two_hours_ago, two_hours_ago))
    os.utime(uploads.versions("old"), (two_days_ago, two_days_ago))
    assert uploads.clean(originals=timedelta(hours=1), versions=timedelta(days=1)) == 2
    assert kept[1].exists()
    assert not old[1].exists()
    assert uploads.versions("kept").is_dir()
    assert not uploads.versions("old").exists()
    assert uploads.clean(originals=timedelta(hours=1), versions=timedelta(days=1)) == 0


async def test_the_folders_are_for_their_owner_alone(uploads: Uploads, tmp_path: Path) -> None:
    for folder in (tmp_path / "data" / "uploads", tmp_path / "data" / "versions"):
        assert folder.stat().st_mode & 0o077 == 0
