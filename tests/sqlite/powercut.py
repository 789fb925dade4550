"""Plays power cuts: from a record of what a program wrote, makes the files as a disk may hold them after a cut.

`powercut.c` makes the record. What was written to a file before its last sync is on the disk. Of what came after, the
disk has written some sectors and not others, in any order: so each sector of each write is there or not.

Run as a module it is the program that is recorded: clients and a worker on one store, which note what was answered in
a file that is recorded with it.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

__all__ = ["Disk", "Record", "build_recorder", "play", "record", "records"]

HERE = Path(__file__).parent
SECTOR = 512
HEAD = struct.Struct("=IIQQ")


class Record(NamedTuple):
    """One thing that a program did to a file."""

    operation: str
    file: str
    offset: int
    data: bytes


def build_recorder(folder: Path) -> Path:
    """Compile the recorder; return the library to preload."""
    library = folder / "powercut.so"
    subprocess.run(
        ["cc", "-shared", "-fPIC", "-O1", "-Wall", "-o", library, HERE / "powercut.c", "-ldl", "-lpthread"], check=True
    )
    return library


def record(library: Path, folder: Path, synchronous: str, jobs: int) -> list[Record]:
    """Run the program under the recorder until so many jobs were accepted; return what it did."""
    trace = folder / "trace"
    subprocess.run(
        [sys.executable, "-m", __name__, str(folder / "jobs.db"), synchronous, str(jobs)],
        cwd=HERE.parent.parent,
        env=os.environ
        | {"LD_PRELOAD": str(library), "POWERCUT_TRACE": str(trace), "POWERCUT_PREFIX": str(folder / "jobs.db")},
        check=True,
        timeout=120,
    )
    return list(records(trace))


def records(trace: Path) -> Iterator[Record]:
    """Read a trace."""
    names: dict[int, str] = {}
    with trace.open("rb") as file:
        while head := file.read(HEAD.size):
            operation, index, offset, length = HEAD.unpack(head)
            data = file.read(length)
            if chr(operation) == "O":
                names[index] = data.decode()
            yield Record(chr(operation), names[index], offset, data)


@dataclass
class Disk:
    """One file on a disk.

    Attributes:
        content: what is surely there.
        pending: what was done since the last sync.
    """

    content: bytearray = field(default_factory=bytearray)
    pending: list[Record] = field(default_factory=list)

    def do(self, record: Record) -> None:
        if record.operation == "S":
            for one in self.pending:
                _apply(self.content, one)
            self.pending.clear()
        elif record.operation in "WT":
            self.pending.append(record)

    def after_cut(self, chance: random.Random) -> bytes:
        """Return what may be there when the power comes back."""
        content = bytearray(self.content)
        likely = chance.choice([0.0, 0.5, 0.9, 1.0])
        for one in self.pending:
            if one.operation == "T":
                if chance.random() < likely:
                    _apply(content, one)
                continue
            for start in range(0, len(one.data), SECTOR):
                if chance.random() < likely:
                    piece = one.data[start : start + SECTOR]
                    _apply(content, one._replace(offset=one.offset + start, data=piece))
        return bytes(content)


def _apply(content: bytearray, record: Record) -> None:
    if record.operation == "T":
        content[record.offset :] = b"\0" * max(record.offset - len(content), 0)
        return
    if record.offset > len(content):
        content.extend(b"\0" * (record.offset - len(content)))
    content[record.offset : record.offset + len(record.data)] = record.data


def play(done: list[Record], cuts: list[int], chance: random.Random) -> Iterator[tuple[dict[str, bytes], bytes]]:
    """For each cut, in order, yield the files that the disk may hold and the notes that had been written."""
    disks: dict[str, Disk] = {}
    notes = bytearray()
    position = 0
    for cut in sorted(cuts):
        for one in done[position:cut]:
            if one.file.endswith(".notes"):
                notes += one.data if one.operation == "W" else b""
            elif one.operation == "U":
                disks.pop(one.file, None)  # SQLite syncs the folder at once
            else:
                disks.setdefault(one.file, Disk()).do(one)
        position = cut
        yield {name: disk.after_cut(chance) for name, disk in disks.items()}, bytes(notes)


async def _load(path: str, synchronous: str, jobs: int) -> None:
    from oncue.engines.sqlite import SQLiteEngine, checkpoint
    from oncue.job import NewJob, Outcome, new_id

    checkpoint._LOG_LIMIT = 256 * 1024  # type: ignore[misc]  # so that the log is often copied back
    chance = random.Random(5)
    notes = os.open(f"{path}.notes", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    accepted = 0

    def note(*fields: str) -> None:
        os.write(notes, (json.dumps(fields) + "\n").encode())

    async def enqueue(engine: SQLiteEngine) -> None:
        nonlocal accepted
        while accepted < jobs:
            new = [NewJob(new_id(), "task", payload=os.urandom(chance.randrange(2000))) for _ in range(3)]
            await engine.enqueue(new)
            accepted += len(new)
            note("enqueued", *[job.id for job in new])

    async def work(engine: SQLiteEngine) -> None:
        while True:
            claim = await engine.claim(["default"], limit=4, worker_id="w", lease=timedelta(minutes=1))
            outcomes = [(job.lease, Outcome.completed(job.payload)) for job in claim.jobs]
            if outcomes and all(await engine.finish(outcomes)):
                note("finished", *[job.id for job in claim.jobs])
            await asyncio.sleep(0.001)

    engine = SQLiteEngine(f"sqlite:///{path}?synchronous={synchronous}")
    await engine.open()
    working = asyncio.create_task(work(engine))
    await asyncio.gather(*[enqueue(engine) for _ in range(4)])
    working.cancel()
    os._exit(0)  # no tidy end: the last cut is here


if __name__ == "__main__":
    asyncio.run(_load(sys.argv[1], sys.argv[2], int(sys.argv[3])))
