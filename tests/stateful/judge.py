"""Reads a history and says what in it was promised not to happen. It knows nothing of how a store works."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from oncue.job import JobInfo, NewJob, State
from tests.stateful.clients import Event, Stage


def judge(stage: Stage, infos: Sequence[JobInfo]) -> None:
    """Raise `AssertionError` if a promise was broken."""
    wrong = [*of_all(stage, infos), *of_pauses(stage.events, stage.jobs)]
    ended = {info.id: info for info in infos}
    for job_id, info in ended.items():
        events = [event for event in stage.events if event.job == job_id]
        wrong += [f"{job_id}: {what}" for what in of_job(events, info)]
        wrong += [f"{job_id}: {what}" for what in of_parents(stage, job_id)]
    story = "\n".join(str(tuple(event)) for event in stage.events)
    assert not wrong, "\n".join([*wrong, "the history was:", story])


def of_all(stage: Stage, infos: Sequence[JobInfo]) -> Iterator[str]:
    """What was accepted is there once and has ended; nothing else is there."""
    accepted = {event.job for event in stage.events if event.kind == "accepted"}
    if sorted(info.id for info in infos) != sorted(accepted):
        yield f"accepted were {sorted(accepted)}, there are {sorted(info.id for info in infos)}"
    yield from (f"{info.id} never ended" for info in infos if not info.state.final)


def of_job(events: Sequence[Event], info: JobInfo) -> Iterator[str]:
    """The promises about one job; `events` are its own."""
    granted = sorted({(event.token, event.step) for event in events if event.kind == "granted"})
    first_granted: dict[int, int] = {}
    for token, step in granted:
        first_granted.setdefault(token, step)
    steps = list(first_granted.values())
    if steps != sorted(steps):
        yield "tokens do not grow"
    begun = [event.token for event in events if event.kind == "begun"]
    if len(set(begun)) != len(begun):
        yield "the code of one attempt was started twice"
    for (token, start), (_, next_start) in pairwise(first_granted.items()):
        if not any(event.step <= next_start for event in endings(events, token, start)):
            yield f"attempt {token} was neither finished nor taken back when the next was granted"
    yield from of_outcome(events, info, begun)
    yield from of_cancels(events, info, steps)
    yield from of_crashes(events, info)


def endings(events: Sequence[Event], token: int, start: int) -> Iterator[Event]:
    """Give what may have ended an attempt."""
    for event in events:
        stored = event.kind == "stored" and event.token == token
        if stored or (event.kind == "rescued" and event.step >= start):
            yield event


def of_outcome(events: Sequence[Event], info: JobInfo, begun: Sequence[int]) -> Iterator[str]:
    """A completed job was completed by the last attempt that was granted, and its code really ran."""
    last = max((event.token for event in events if event.kind == "granted"), default=0)
    completing = [e for e in events if e.kind == "stored" and e.detail == "completed" and e.token == last]
    if info.state is State.COMPLETED and not completing:
        yield "completed, but not by the last attempt"
    if info.state is State.COMPLETED and last not in begun:
        yield "completed, but its code never ran"


def of_cancels(events: Sequence[Event], info: JobInfo, starts: Sequence[int]) -> Iterator[str]:
    """After an answered cancel nothing starts, and the job ends cancelled, unless somebody runs it again."""
    for event in events:
        if event.kind != "cancel" or event.detail not in ("cancelled", "requested"):
            continue
        again = min((e.step for e in events if e.kind == "retried" and e.step >= event.step), default=None)
        if any(start > event.step and (again is None or start < again) for start in starts):
            yield f"started after its cancel was answered {event.detail} in step {event.step}"
        if again is None and info.state is not State.CANCELLED:
            yield f"ended {info.state.value} though its cancel was answered {event.detail} in step {event.step}"


def of_crashes(events: Sequence[Event], info: JobInfo) -> Iterator[str]:
    """Every attempt that was taken back is counted, and none beyond the limit."""
    again = max((event.step for event in events if event.kind == "retried"), default=-1)
    sure = sum(event.kind == "rescued" and event.step > again for event in events)
    perhaps = sum(event.kind == "rescued" for event in events)
    if not sure <= info.crashes <= perhaps:
        yield f"{info.crashes} crashes are counted, {sure} to {perhaps} happened"
    if info.crashes > info.max_crashes:
        yield f"{info.crashes} crashes, {info.max_crashes} are allowed"


def of_parents(stage: Stage, job_id: str) -> Iterator[str]:
    """A job that waits for others is not started before each of them can have ended."""
    starts = [event.step for event in stage.events if (event.kind, event.job) == ("granted", job_id)]
    if not starts or any((event.kind, event.job) == ("retried", job_id) for event in stage.events):
        return
    before = [event for event in stage.events if event.step <= starts[0]]
    accepted = {event.job for event in before if event.kind == "accepted"}
    unique = [stage.jobs[job].unique for job in accepted]
    replacing = any(one is not None and one.on_conflict == "replace" for one in unique)  # and so ending others
    for parent in accepted.intersection(stage.jobs[job_id].after):
        # Whatever it waited for itself may have cancelled it.
        line = {parent, *ancestors(stage, parent)}
        if line <= accepted and not any(event.job in line and may_end(event) for event in before) and not replacing:
            yield f"started in step {starts[0]}, before {parent} had ended"


def ancestors(stage: Stage, job_id: str) -> Iterator[str]:
    """Give all that a job was enqueued to run after."""
    for parent in stage.jobs[job_id].after:
        yield parent
        yield from ancestors(stage, parent)


def may_end(event: Event) -> bool:
    """Whether a job may have ended by this."""
    match event.kind:
        case "stored" | "rescued":
            return True
        case "cancel":
            return event.detail != "requested"
    return False


def of_pauses(events: Sequence[Event], jobs: dict[str, NewJob]) -> Iterator[str]:
    """No job of a queue is granted after its pause was answered and before its resume was asked for."""
    granted = {(event.job, event.token): event for event in reversed(events) if event.kind == "granted"}
    for event in events:
        if event.kind == "paused":
            resumed = min(e.step for e in events if e.kind == "resumed" and e.job == event.job and e.step >= event.step)
            for start in granted.values():
                if start.detail == event.job and event.step < start.step < resumed:
                    yield f"{start.job} was granted in step {start.step}, but {event.job} was paused"
