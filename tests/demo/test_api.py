"""The demo for programs: its JSON routes, over HTTP, on a real server with its embedded worker."""

from __future__ import annotations

import json
import math
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from oncue import Oncue, State
from oncue.demo.headers import HEADERS
from oncue.demo.uploads import MAX_UPLOAD
from oncue.engine import JobFilter
from tests.demo import pictures
from tests.demo.conftest import DemoServer, until

WORDS = {"deferred", "queued", "in_progress", "complete", "not_found"}


def complete(http: httpx.Client, job_id: str) -> dict[str, Any]:
    """Wait until a job is complete, asking as a program would."""

    def look() -> dict[str, Any] | None:
        answer: dict[str, Any] = http.get(f"/jobs/{job_id}").raise_for_status().json()
        assert answer["status"] in WORDS
        return answer if answer["status"] == "complete" else None

    return until(look, f"job {job_id} is complete")


def unfinished(demo: DemoServer) -> list[str]:
    """Return the jobs in the store that have not ended."""

    async def look() -> list[str]:
        async with Oncue(f"sqlite:///{demo.folder / 'jobs.db'}") as jobs:
            open_states = frozenset(state for state in State if not state.final)
            found, _ = await jobs.engine.list_jobs(JobFilter(states=open_states), limit=10)
            return [f"{info.task} {info.id} {info.state}" for info in found]

    with ThreadPoolExecutor(1) as thread:  # this one may have an event loop: that of the browser's driver
        return thread.submit(anyio.run, look).result()


def await_idle(demo: DemoServer) -> None:
    """Wait until no job of the store is left to run; fail and name them if some stay."""
    deadline = time.monotonic() + 30
    while left := unfinished(demo):
        assert time.monotonic() < deadline, f"stuck: {left}"
        time.sleep(0.05)


def upload(http: httpx.Client, path: Path, *, name: str | None = None, accept: str = "*/*") -> httpx.Response:
    with path.open("rb") as file:
        return http.post("/upload-image/", files={"file": (name or path.name, file)}, headers={"Accept": accept})


def value(factor: str) -> int:
    """Return the value of `7` or `2³`."""
    match = re.fullmatch(r"([0-9]+)([⁰¹²³⁴⁵⁶⁷⁸⁹]*)", factor)
    assert match is not None
    power = int("".join(str("⁰¹²³⁴⁵⁶⁷⁸⁹".index(digit)) for digit in match[2]) or "1")
    return math.prod([int(match[1])] * power)


def test_the_server_says_where_it_is(demo: DemoServer) -> None:
    assert demo.said.startswith(f"Oncue demo: {demo.url} ")
    assert str(demo.folder) in demo.said


def test_tasks_are_started_and_their_results_are_right(http: httpx.Client) -> None:
    response = http.post("/task", json={"count": 7})
    assert response.status_code == 201
    answer = response.json()
    assert answer["queued"] == 7
    assert len(set(answer["task_ids"])) == 7
    assert set(answer) == {"queued", "task_ids"}
    assert http.get(response.headers["Location"]).status_code == 200
    for job_id in answer["task_ids"]:
        complete(http, job_id)
        status = http.get(f"/task/{job_id}").json()
        assert set(status) == {"job_id", "status", "result"}
        number, factors = (status["result"].replace(",", "")).split(" = ")
        assert math.prod(value(factor) for factor in factors.split(" × ")) == int(number)


@pytest.mark.parametrize("count", [0, 101, -1, 10**30, "7", 1.5, None, True, [], {}])
def test_a_number_of_tasks_outside_1_to_100_is_refused_and_starts_nothing(http: httpx.Client, count: Any) -> None:
    response = http.post("/task", json={"count": count})
    assert response.status_code == 422
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["detail"].startswith("body.count: ")


@pytest.mark.parametrize("body", ["", "{", "[]", "null", '{"n": 3}', "\x00"])
def test_a_body_that_is_no_order_is_refused(http: httpx.Client, body: str) -> None:
    response = http.post("/task", content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == 422
    assert response.json()["status"] == 422


def test_a_task_that_is_not_there_is_told_at_once(http: httpx.Client) -> None:
    for job_id in ("nobody", "0" * 300, "ä%00", "..%2f"):
        response = http.get(f"/task/{job_id}")
        assert response.status_code == 200 or job_id == "..%2f"
        if response.status_code == 200:
            assert response.json()["status"] == "not_found"
            assert response.json()["result"] is None


def test_asking_for_a_task_never_waits_for_it(http: httpx.Client) -> None:
    started = http.post("/retry", follow_redirects=False)
    job_id = started.headers["Location"].rpartition("/")[2]
    seen = set()

    def look() -> bool:
        response = http.get(f"/task/{job_id}")
        assert response.elapsed.total_seconds() < 0.5
        seen.add(str(response.json()["status"]))
        return "complete" in seen

    until(look, "the task that fails twice is complete")
    assert seen == {"in_progress", "deferred", "complete"} or seen == WORDS - {"not_found"}
    assert http.get(f"/task/{job_id}").json()["result"].startswith("The weather service answered at the third call")


def test_a_batch_is_streamed_from_what_it_is_to_its_end(http: httpx.Client) -> None:
    location = http.post("/task", json={"count": 20}).headers["Location"]
    batch = location.partition("=")[2]
    statuses: dict[str, list[str]] = {}
    last: dict[str, Any] = {}
    with http.stream("GET", f"/batches/{batch}/events") as response:
        assert response.headers["Content-Type"].startswith("text/event-stream")
        for line in response.iter_lines():
            if line.startswith("data:"):
                last = json.loads(line[5:])
                for row in last["rows"]:
                    statuses.setdefault(row["job_id"], []).append(row["status"])
    assert last["ended"] is True
    assert (last["done"], last["total"]) == (20, 20)
    assert last["summary"] == "20 of 20 complete"
    assert len(statuses) == 20
    order = ["queued", "in_progress", "complete"]
    for seen in statuses.values():
        assert seen[-1] == "complete"
        assert sorted(seen, key=order.index) == seen
    # Ten run at once, so the twentieth was seen waiting.
    assert statuses[f"{batch}-020"][0] == "queued"
    with http.stream("GET", f"/batches/{batch}/events") as response:
        assert len([line for line in response.iter_lines() if line.startswith("data:")]) == 1


@pytest.mark.parametrize("batch", ["x", "0" * 26 + "-0", "0" * 26 + "-101", "0" * 26 + "-1%0a", "0" * 25 + "-1"])
def test_a_batch_that_cannot_be_is_not_found(http: httpx.Client, batch: str) -> None:
    assert http.get(f"/batches/{batch}/events").status_code == 404
    assert http.get(f"/?batch={batch}").status_code == 404


def test_a_batch_whose_jobs_are_gone_ends_at_once(http: httpx.Client) -> None:
    with http.stream("GET", f"/batches/{'0' * 26}-3/events") as response:
        [data] = [json.loads(line[5:]) for line in response.iter_lines() if line.startswith("data:")]
    assert data["ended"] is True
    assert data["summary"] == "0 of 3 complete · 3 not found"


def test_any_job_is_described_as_in_the_safir_guide(http: httpx.Client) -> None:
    job_id = http.post("/jobs?a=20&b=22").raise_for_status().json()["job_id"]
    done = complete(http, job_id)
    assert done == {
        "id": job_id,
        "status": "complete",
        "name": "add",
        "args": [],
        "kwargs": {"a": 20, "b": 22},
        "result": 42,
    }


@pytest.mark.parametrize("query", ["", "a=1", "a=1&b=x", "a=1&b=", f"a=1&b={10**13}", "a=1.5&b=2"])
def test_numbers_that_are_none_are_refused(http: httpx.Client, query: str) -> None:
    assert http.post(f"/jobs?{query}").status_code == 422


def test_a_job_that_is_not_there_is_a_problem_for_programs_and_a_page_for_people(http: httpx.Client) -> None:
    response = http.get("/jobs/nobody")
    assert response.status_code == 404
    assert response.headers["Content-Type"] == "application/problem+json"
    assert response.json()["title"] == "Not Found"
    assert "nobody" in response.json()["detail"]
    page = http.get("/jobs/<script>alert(1)</script>", headers={"Accept": "text/html,*/*"})
    assert page.status_code == 404
    assert page.headers["Content-Type"].startswith("text/html")
    assert "<script>" not in page.text


def test_a_picture_is_taken_and_worked_on(http: httpx.Client, tmp_path: Path) -> None:
    response = upload(http, pictures.photograph(tmp_path / "photo.jpg", orientation=6))
    assert response.status_code == 202
    job_id = response.json()["job_id"]
    assert http.get(response.headers["Location"]).status_code == 200
    done = complete(http, job_id)
    assert done["name"] == "work_on_image"
    assert done["kwargs"]["name"] == "photo.jpg"
    report = done["result"]
    assert (report["width"], report["height"], report["format"]) == (900, 600, "JPEG")
    kinds = {"jpg": "image/jpeg", "png": "image/png", "webp": "image/webp"}
    for version in report["versions"]:
        file = http.get(f"/images/{job_id}/files/{version['file']}")
        assert file.status_code == 200
        assert file.headers["Content-Type"] == kinds[version["file"].rpartition(".")[2]]
        assert file.headers["X-Content-Type-Options"] == "nosniff"
        assert len(file.content) == version["bytes"]
        assert pictures.SECRET_PLACE.encode() not in file.content


def test_a_browser_that_sends_the_form_is_led_to_the_page(http: httpx.Client, tmp_path: Path) -> None:
    response = upload(http, pictures.cmyk(tmp_path / "print.jpg"), accept="text/html,application/xhtml+xml")
    assert response.status_code == 303
    page = http.get(response.headers["Location"])
    assert page.status_code == 200
    assert "print.jpg" in page.text


@pytest.mark.parametrize("accept", ["application/json", "text/html"])
@pytest.mark.parametrize(
    ("kind", "status", "words"),
    [
        ("text", 415, "looks like a text"),
        ("empty", 415, "The file is empty"),
        ("bomb", 422, "limit is 50 megapixels|the limit of 50 megapixels"),
        ("large", 413, "larger than the limit of 10 MB"),
        ("none", 422, "Choose a picture first"),
    ],
)
def test_what_is_no_usable_picture_is_refused_in_a_sentence_and_starts_no_job(
    http: httpx.Client, demo: DemoServer, tmp_path: Path, kind: str, status: int, words: str, accept: str
) -> None:
    file = tmp_path / "photo.jpg"
    if kind == "text":
        pictures.text_named_jpg(file)
    elif kind == "bomb":
        pictures.bomb(file)
    else:
        file.write_bytes(b"\xff\xd8\xff" * (MAX_UPLOAD // 3 + 1) if kind == "large" else b"")
    before = sorted((demo.folder / "uploads").iterdir())
    if kind == "none":
        form = b'--x\r\nContent-Disposition: form-data; name="file"; filename=""\r\n\r\n\r\n--x--\r\n'
        headers = {"Content-Type": "multipart/form-data; boundary=x", "Accept": accept}
        response = http.post("/upload-image/", content=form, headers=headers)
    else:
        response = upload(http, file, accept=accept)
    assert response.status_code == status
    if accept == "text/html":
        assert 'id="upload"' in response.text, "the form is there to try again"
        assert re.search(words, response.text)
    else:
        assert response.headers["Content-Type"] == "application/problem+json"
        assert re.search(words, response.json()["detail"])
    assert sorted((demo.folder / "uploads").iterdir()) == before
    await_idle(demo)


def test_a_picture_that_proves_cut_off_makes_its_job_fail_in_a_sentence(
    http: httpx.Client, demo: DemoServer, tmp_path: Path
) -> None:
    response = upload(http, pictures.truncated(tmp_path / "half.jpg"))
    assert response.status_code == 202
    done = complete(http, response.json()["job_id"])
    assert "The picture is cut off" in done["result"]
    page = http.get(f"/images/{response.json()['job_id']}")
    assert "The picture is cut off: its file ends before the picture does." in page.text
    assert "Traceback" not in page.text
    await_idle(demo)


def test_an_upload_without_end_is_cut_off(http: httpx.Client, demo: DemoServer) -> None:
    sent = 0

    def endless() -> Any:
        nonlocal sent
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n'
        while sent < 1_000_000_000:
            sent += 1_000_000
            yield b"x" * 1_000_000

    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    try:
        response = http.post("/upload-image/", content=endless(), headers=headers)
        assert response.status_code == 413
    except httpx.WriteError:
        pass  # the server hung up while this was being sent, which is its right
    assert sent < 20 * MAX_UPLOAD
    assert http.get("/").status_code == 200
    assert all(path.stat().st_size <= MAX_UPLOAD for path in (demo.folder / "uploads").iterdir())


def test_a_sender_who_leaves_in_the_middle_leaves_nothing(http: httpx.Client, demo: DemoServer) -> None:
    before = sorted((demo.folder / "uploads").iterdir())

    def leave() -> Any:
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.jpg"\r\n\r\n' + b"x" * 100_000
        raise InterruptedError

    with pytest.raises(InterruptedError):
        http.post("/upload-image/", content=leave(), headers={"Content-Type": "multipart/form-data; boundary=x"})
    assert http.get("/images").status_code == 200
    assert sorted((demo.folder / "uploads").iterdir()) == before


@pytest.mark.parametrize(
    "path",
    [
        "/images/x/files/..%2f..%2fjobs.db",
        "/images/..%2f..%2f/files/jobs.db",
        "/images/../../jobs.db",
        "/images/x/files/size-160.jpg",
        "/images/%2e%2e/files/size-160.jpg",
        "/static/..%2f..%2fapp.py",
        "/static/%2e%2e/app.py",
        "/static/../app.py",
        "/images/x/files/size-160.jpg%00.png",
    ],
)
def test_no_path_leads_out_of_the_folders(demo: DemoServer, path: str) -> None:
    # As it stands: a client of HTTP would tidy the dots away.
    with httpx.Client(base_url=demo.url) as client:
        request = client.build_request("GET", "/")
        request.url = request.url.copy_with(raw_path=path.encode())
        response = client.send(request)
    assert response.status_code == 404
    assert b"import" not in response.content
    assert b"SQLite" not in response.content


def test_every_kind_of_response_has_the_security_headers(http: httpx.Client, tmp_path: Path) -> None:
    job_id = http.post("/jobs?a=1&b=2").json()["job_id"]
    batch = http.post("/task", json={"count": 1}).headers["Location"].partition("=")[2]
    responses = [
        *(http.get(path) for path in ("/", f"/?batch={batch}", "/images", "/retry", "/stream", "/openapi.json")),
        *(http.get(path) for path in ("/static/demo.css", "/static/tasks.js", "/static/favicon.svg", "/static/none")),
        *(
            http.get(path)
            for path in (f"/jobs/{job_id}", f"/api/jobs/{job_id}", "/jobs/none", "/api/jobs/none", "/none")
        ),
        *(http.get(path) for path in (f"/batches/{batch}/events", "/images/none", "/retry/none", "/stream/none")),
        http.post("/task", json={"count": 0}),
        http.post("/task", content=b"x" * 100_000),
        http.post("/upload-image/"),
        http.post("/retry", headers={"Origin": "http://evil.test"}),
        http.put("/task"),
        http.delete("/"),
        http.options("/"),
        upload(http, pictures.text_named_jpg(tmp_path / "notes.jpg")),
    ]
    for response in responses:
        assert {name: response.headers.get(name) for name in HEADERS} == HEADERS, response.request.url
        assert "Cache-Control" in response.headers, response.request.url


def test_no_page_loads_anything_from_elsewhere_or_has_a_script_inside(http: httpx.Client) -> None:
    for path in ("/", "/images", "/retry", "/stream", "/none"):
        text = http.get(path, headers={"Accept": "text/html"}).text
        without_commands = text.partition("<pre")[0] + text.partition("</pre>")[2]
        assert "//" not in re.sub(r"<!doctype[^>]*>", "", without_commands)
        assert not re.search(r"<script(?![^>]*\bsrc=)|\sstyle=|<style|\son[a-z]+=", text)


def test_every_changing_route_refuses_another_sites_page(http: httpx.Client) -> None:
    description = http.get("/openapi.json").json()
    described = [(method, path) for path, methods in description["paths"].items() for method in methods]
    changing = [(method, path) for method, path in described if method not in ("get", "head", "options")]
    changing += [("post", "/"), ("post", "/retry"), ("post", "/stream")]
    assert len(changing) >= 7
    for method, path in changing:
        url = re.sub(r"{[a-z_]+}", "x", path)
        for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "http://evil.test"}, {"Origin": "null"}):
            assert http.request(method, url, headers=headers).status_code == 403, (method, url)
