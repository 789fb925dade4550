"""The HTML side of the demo. Each page works without JavaScript too; with it, it is live."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from fastapi import APIRouter, HTTPException, Request, Response
from starlette.responses import HTMLResponse, RedirectResponse

from oncue.demo.batches import MOST, Batch
from oncue.demo.decoding import FORMAT_NAMES, MAX_PIXELS
from oncue.demo.desk import AttemptView, Desk
from oncue.demo.images import Version
from oncue.demo.templating import render
from oncue.demo.uploads import MAX_UPLOAD
from oncue.errors import JobNotFound
from oncue.job import JobInfo

__all__ = ["routes", "upload_page"]

MOST_DIGITS: Final = 1000
GROUPS: Final = (("Sizes", "size"), ("Moving", "animation"), ("Other formats", "format"), ("Filters", "filter"))


@dataclass(frozen=True)
class JobView:
    """What the pages of one job show of it."""

    id: str
    status: str
    ended: bool
    error: str | None = None
    result: Any = None
    attempts: tuple[AttemptView, ...] = ()
    digits: int = 0
    groups: tuple[str, ...] = ()

    @property
    def events(self) -> str:
        """Where what happens to the job is streamed."""
        return f"/api/jobs/{self.id}/events"


def routes(desk: Desk) -> APIRouter:
    """Return the pages."""
    router = APIRouter(default_response_class=HTMLResponse, include_in_schema=False)

    @router.get("/")
    async def tasks_page(request: Request, batch: str | None = None) -> Response:
        if batch is None:
            return _tasks_page(request)
        try:
            snapshot = await desk.snapshot(Batch.parse(batch))
        except LookupError as error:
            raise HTTPException(404, f"There is no such batch: {error}.") from None
        return _tasks_page(request, batch=snapshot, count=snapshot.total)

    @router.post("/")
    async def start_tasks(request: Request) -> Response:
        count = await _number(request, "count", 1, MOST)
        if count is None:
            return _tasks_page(request, problem=f"Choose a number of tasks from 1 to {MOST}.", status=422)
        return RedirectResponse(f"/?batch={(await desk.start_batch(count)).id}", 303)

    @router.get("/images")
    async def images_page() -> Response:
        return upload_page()

    @router.get("/images/{job_id}")
    async def image_page(job_id: str) -> Response:
        info = await _found(desk, job_id, "work_on_image")
        report = await desk.report(info)
        return _page(
            "image.html",
            here="/images",
            job=_view(info, error=await desk.complaint(info)),
            name=desk.arguments(info)[1].get("name", "A picture"),
            progress=desk.progress(info),
            report=report,
            files=f"/images/{job_id}/files/",
            main=_main(report.versions) if report else None,
            groups=_grouped(report.versions) if report else (),
        )

    @router.get("/retry")
    async def retry_page() -> Response:
        return _page("retry.html", here="/retry", job=None)

    @router.post("/retry")
    async def start_retry() -> Response:
        job = await desk.tasks.fail_twice.enqueue()
        return RedirectResponse(f"/retry/{job.id}", 303)

    @router.get("/retry/{job_id}")
    async def retry_job_page(job_id: str) -> Response:
        info = await _found(desk, job_id, "fail_twice")
        attempts = tuple(await desk.attempts(info))
        job = _view(info, attempts=attempts, result=desk.result(info), error=await desk.complaint(info))
        return _page("retry.html", here="/retry", job=job)

    @router.get("/stream")
    async def stream_page() -> Response:
        return _page("stream.html", here="/stream", job=None, problem=None, **_DIGITS)

    @router.post("/stream")
    async def start_stream(request: Request) -> Response:
        digits = await _number(request, "digits", 10, MOST_DIGITS)
        if digits is None:
            problem = f"Choose a number of digits from 10 to {MOST_DIGITS}."
            return _page("stream.html", here="/stream", job=None, problem=problem, status=422, **_DIGITS)
        job = await desk.tasks.stream_pi.enqueue(digits)
        return RedirectResponse(f"/stream/{job.id}", 303)

    @router.get("/stream/{job_id}")
    async def stream_job_page(job_id: str) -> Response:
        info = await _found(desk, job_id, "stream_pi")
        digits = desk.arguments(info)[1].get("digits", 10)
        # An attempt that was lost with its server has left its digits, and the next one begins anew.
        groups = {item["at"]: item["digits"] for item in await desk.streamed(job_id)}
        in_order = tuple(groups[at] for at in sorted(groups))
        job = _view(info, digits=digits, groups=in_order, error=await desk.complaint(info))
        return _page("stream.html", here="/stream", job=job, problem=None, limit=MOST_DIGITS, digits=digits)

    return router


_DIGITS: Final = {"limit": MOST_DIGITS, "digits": 500}


def upload_page(*, problem: str | None = None, status: int = 200) -> Response:
    """Return the page with the form for pictures, and what was wrong with the last one."""
    return _page(
        "images.html",
        here="/images",
        status=status,
        problem=problem,
        limit=MAX_UPLOAD,
        formats=FORMAT_NAMES,
        pixels=MAX_PIXELS,
    )


def _tasks_page(request: Request, *, batch: Any = None, count: int = MOST, status: int = 200, **more: Any) -> Response:
    values = {"problem": None, **more}
    return _page(
        "tasks.html", here="/", status=status, batch=batch, count=count, limit=MOST, origin=request.base_url, **values
    )


def _page(template: str, *, status: int = 200, **values: Any) -> Response:
    return HTMLResponse(render(template, **values), status)


async def _found(desk: Desk, job_id: str, task: str) -> JobInfo:
    try:
        return await desk.find(job_id, task=task)
    except JobNotFound:
        raise HTTPException(
            404, "There is no such job here, or it ended so long ago that it was cleaned away."
        ) from None


def _view(info: JobInfo, **more: Any) -> JobView:
    return JobView(info.id, info.state.value, info.state.final, **more)


async def _number(request: Request, field: str, least: int, most: int) -> int | None:
    """Return a whole number from a form, or None if it is none in these bounds."""
    form: Mapping[str, Any] = await request.form(max_files=0, max_fields=10)
    text = form.get(field)
    if not isinstance(text, str) or not text.strip().isdecimal() or len(text) > 9:
        return None
    number = int(text)
    return number if least <= number <= most else None


def _main(versions: list[Version]) -> Version:
    """Return the version to show large: the largest up to 800 pixels."""
    sizes = [version for version in versions if version.kind == "size"]
    return max((one for one in sizes if max(one.width, one.height) <= 800), key=lambda one: one.width, default=sizes[0])


def _grouped(versions: list[Version]) -> list[tuple[str, list[Version]]]:
    groups = [(title, [version for version in versions if version.kind == kind]) for title, kind in GROUPS]
    return [(title, found) for title, found in groups if found]
