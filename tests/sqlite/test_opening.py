"""Opening a store's file: created for its owner alone, and refused with the way out where it cannot be used."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from oncue.engines.sqlite import SQLiteEngine, files
from oncue.engines.sqlite.files import file_system_of
from oncue.errors import EngineUnavailable, EngineUnusable
from oncue.testing.conformance.steps import drain, put_one
from oncue.testing.invariants import check_file, check_invariants
from tests.requirements import require
from tests.sqlite.locking import locked

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parent.parent.parent


def engine_of(path: Path, options: str = "") -> SQLiteEngine:
    return SQLiteEngine(f"sqlite:///{path}{options}")


async def refusal(path: Path, options: str = "") -> EngineUnusable:
    """Return how a file is refused; what is there must stay as it is."""
    before = (
        {file: file.read_bytes() for file in path.parent.glob("*") if file.is_file()} if path.parent.is_dir() else {}
    )
    with pytest.raises(EngineUnusable, match=str(path)) as caught:
        await engine_of(path, options).open()
    for file, content in before.items():
        assert file.read_bytes() == content, f"{file} was changed"
    return caught.value


# --- creating


async def test_all_files_of_a_store_are_made_for_their_owner_alone(path: Path) -> None:
    previous = os.umask(0)
    try:
        async with engine_of(path) as engine:
            await put_one(engine)
            modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    finally:
        os.umask(previous)
    left = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert {"jobs.db", "jobs.db-wal", "jobs.db-shm"} <= modes.keys()
    assert set((modes | left).values()) == {0o600}


async def test_the_mode_that_somebody_gave_a_file_is_kept(store: Path) -> None:
    store.chmod(0o660)
    async with engine_of(store) as engine:
        await put_one(engine)
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in store.parent.glob("jobs.db*")}
    assert {modes[name] for name in ("jobs.db", "jobs.db-wal", "jobs.db-shm")} == {0o660}


async def test_an_empty_file_becomes_a_store(path: Path) -> None:
    path.touch()
    async with engine_of(path) as engine:
        await put_one(engine)
        await check_invariants(engine)


async def test_a_closed_store_is_one_file_with_a_short_log(store: Path) -> None:
    assert [file.name for file in store.parent.glob("*-wal") if file.stat().st_size] == []
    check_file(store)


async def test_a_copy_made_by_vacuum_is_a_store_with_a_log(store: Path) -> None:
    # VACUUM INTO keeps what is in a file, but not that it is in WAL mode.
    with contextlib.closing(sqlite3.connect(store)) as conn:
        conn.execute("VACUUM INTO ?", (str(store.with_name("copy.db")),))
    copy = store.with_name("copy.db")
    async with engine_of(copy) as engine, engine_of(copy) as other:
        assert await drain(engine) == ["a", "b", "c"]
        await put_one(other)
        assert copy.with_name("copy.db-wal").exists()
        await check_invariants(engine)


_CREATE = """
import asyncio, sys
from oncue.engines.sqlite import SQLiteEngine
from oncue.job import NewJob

async def main(path, name):
    sys.stdin.readline()
    async with SQLiteEngine(f"sqlite:///{path}") as engine:
        await engine.enqueue([NewJob(name, "task")])

for path in sys.argv[2:]:
    asyncio.run(main(path, sys.argv[1]))
    print("made", flush=True)
"""


@pytest.mark.multiprocess
def test_two_processes_may_create_one_file_at_the_same_moment(tmp_path: Path) -> None:
    paths = [tmp_path / f"{number}.db" for number in range(20)]
    makers = [
        subprocess.Popen(
            [sys.executable, "-c", _CREATE, name, *map(str, paths)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for name in ("one", "two", "three")
    ]
    try:
        for path in paths:
            for maker in makers:
                assert maker.stdin is not None
                maker.stdin.write("go\n")
            for maker in makers:
                assert maker.stdin is not None
                maker.stdin.flush()
            for maker in makers:
                assert maker.stdout is not None
                said = maker.stdout.readline()
                if said != "made\n":
                    raise AssertionError(maker.communicate()[1][-1500:])
            check_file(path)
            with contextlib.closing(sqlite3.connect(path)) as conn:
                assert {id for (id,) in conn.execute("SELECT id FROM jobs")} == {"one", "two", "three"}
    finally:
        for maker in makers:
            maker.kill()
            maker.communicate()


def locks_on(path: Path) -> list[str]:
    """Return the locks that this process has on a file, as the system lists them."""
    found = path.stat()
    place = f"{os.major(found.st_dev):02x}:{os.minor(found.st_dev):02x}:{found.st_ino}"
    lines = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return sorted(" ".join(fields[1:]) for fields in lines if fields[4:6] == [str(os.getpid()), place])


async def test_looking_at_a_file_that_is_open_gives_none_of_its_locks_back(path: Path) -> None:
    # A process that closes any handle of a file loses all locks it has on it, those of other threads too.
    async with engine_of(path):
        held = locks_on(path)
        assert held
        files._check_place(path)
        assert locks_on(path) == held


# --- refusing


async def test_a_missing_folder_is_named_with_what_to_type(tmp_path: Path) -> None:
    error = await refusal(tmp_path / "none" / "jobs.db")
    assert "mkdir -p" in str(error)
    assert not (tmp_path / "none").exists()


async def test_a_folder_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "jobs.db").mkdir()
    assert "not a regular file" in str(await refusal(tmp_path / "jobs.db"))


async def test_a_device_and_a_pipe_are_no_stores(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "jobs.db")
    assert "not a regular file" in str(await refusal(tmp_path / "jobs.db"))
    with pytest.raises(EngineUnusable, match="not a regular file"):
        await SQLiteEngine("sqlite:////dev/null").open()


async def test_a_symbolic_link_is_not_followed(store: Path) -> None:
    link = store.with_name("link.db")
    link.symlink_to(store)
    assert str(store.resolve()) in str(await refusal(link))


async def test_a_dangling_symbolic_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "jobs.db").symlink_to(tmp_path / "elsewhere.db")
    await refusal(tmp_path / "jobs.db")
    assert not (tmp_path / "elsewhere.db").exists()


async def test_a_file_of_another_application_is_left_alone(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as conn:
        conn.execute("CREATE TABLE accounts (id)")
        conn.commit()
    assert "another application" in str(await refusal(path))


async def test_a_file_of_a_newer_schema_is_left_alone(store: Path) -> None:
    with contextlib.closing(sqlite3.connect(store)) as conn:
        conn.execute(f"PRAGMA user_version = {files.SCHEMA_VERSION + 1}")
        conn.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    error = str(await refusal(store))
    assert f"version {files.SCHEMA_VERSION + 1}" in error
    assert "upgrade" in error


@pytest.mark.parametrize(
    "content",
    [b"garbage!" * 4096, b"SQLite format 3\x00" + b"\xff" * 8192, b"x"],
    ids=["no header", "no pages", "tiny"],
)
async def test_a_file_that_is_no_database_is_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert "damaged or no SQLite database" in str(await refusal(path))


async def test_a_damaged_header_is_refused(store: Path) -> None:
    content = bytearray(store.read_bytes())
    content[:100] = os.urandom(100)
    store.write_bytes(content)
    await refusal(store)


async def test_damage_in_the_middle_is_an_error_that_names_the_file(store: Path) -> None:
    content = bytearray(store.read_bytes())
    page = 4096
    for number in range(2, len(content) // page):
        content[number * page : (number + 1) * page] = b"garbage!" * (page // 8)
    store.write_bytes(content)
    engine = engine_of(store)
    with pytest.raises(EngineUnusable, match=r"jobs\.db is damaged"):
        async with engine:
            await engine.get(["a"])
    await engine.close()


def as_nobody(store: Path) -> subprocess.CompletedProcess[str]:
    """Open a store as a user who is not root, who may do everything."""
    program = (
        "import asyncio, concurrent.futures.thread, os, sys; from oncue.engines.sqlite import SQLiteEngine; "
        "os.setgid(65534); os.setuid(65534); "
        "asyncio.run(SQLiteEngine(f'sqlite:///{sys.argv[1]}').open())"
    )
    return subprocess.run(
        [sys.executable, "-c", program, str(store)], cwd=ROOT, capture_output=True, text=True, timeout=60
    )


@pytest.fixture
def reachable(tmp_path: Path) -> Path:
    """Return a folder that everybody may look into."""
    require("root", os.geteuid() == 0, "run as root: a test steps down to a user who may not write")
    folder = tmp_path / "open"
    folder.mkdir()
    for place in (folder, *folder.parents):
        if place.stat().st_uid == 0 and place != Path("/") and "pytest" in str(place):
            place.chmod(0o755)
    return folder


def test_a_file_that_may_not_be_written_is_refused(reachable: Path, store: Path) -> None:
    shutil.copy(store, reachable / "jobs.db")
    (reachable / "jobs.db").chmod(0o644)
    reachable.chmod(0o777)
    run = as_nobody(reachable / "jobs.db")
    assert "EngineUnusable" in run.stderr
    assert f"{reachable}/jobs.db: this user may not write it (mode -rw-r--r--)" in run.stderr
    check_file(reachable / "jobs.db")


def test_a_file_in_a_folder_that_may_not_be_written_is_refused(reachable: Path, store: Path) -> None:
    shutil.copy(store, reachable / "jobs.db")
    (reachable / "jobs.db").chmod(0o666)
    run = as_nobody(reachable / "jobs.db")
    assert "EngineUnusable" in run.stderr, run.stderr
    assert str(reachable) in run.stderr.splitlines()[-1]
    assert "folder" in run.stderr.splitlines()[-1]
    check_file(reachable / "jobs.db")


def test_a_new_file_in_a_folder_that_may_not_be_written_is_refused(reachable: Path) -> None:
    run = as_nobody(reachable / "jobs.db")
    assert "EngineUnusable" in run.stderr
    assert f"cannot create {reachable}/jobs.db: Permission denied" in run.stderr


async def test_a_read_only_disk_is_refused(store: Path, tmp_path: Path) -> None:
    mount = tmp_path / "disk"
    mount.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "tmpfs", mount], capture_output=True, text=True, check=False)
    require("mount", mounted.returncode == 0, f"run as root in a place where disks can be mounted: {mounted.stderr}")
    try:
        shutil.copy(store, mount / "jobs.db")
        subprocess.run(["mount", "-o", "remount,ro", mount], check=True)
        await refusal(mount / "jobs.db")
        await refusal(mount / "new.db")
    finally:
        subprocess.run(["umount", mount], check=True)


async def test_an_old_sqlite_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 34, 1))
    with pytest.raises(EngineUnusable, match="too old"):
        await engine_of(path).open()
    assert not path.exists()


MOUNTS = """\
22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 0:25 / /srv rw,relatime shared:2 - nfs4 files:/srv rw,vers=4.2
31 30 8:2 / /srv/fast rw,relatime - xfs /dev/sdb1 rw
32 22 0:30 / /mnt/my\\040share rw - cifs //files/share rw
33 22 0:31 / /mnt/over rw - ext4 /dev/sdc1 rw
34 33 0:32 / /mnt/over rw - fuse.sshfs me@there: rw
35 22 0:33 broken line without the rest
"""


@pytest.mark.parametrize(
    ("folder", "kind"),
    [
        ("/", "ext4"),
        ("/var/lib", "ext4"),
        ("/srv", "nfs4"),
        ("/srv/jobs", "nfs4"),
        ("/srvx", "ext4"),
        ("/srv/fast/jobs", "xfs"),
        ("/mnt/my share/x", "cifs"),
        ("/mnt/over", "fuse.sshfs"),
    ],
)
def test_the_file_system_of_a_folder_is_that_of_the_last_and_longest_mount(folder: str, kind: str) -> None:
    assert file_system_of(Path(folder), MOUNTS) == kind


def test_where_the_system_does_not_tell_the_file_system_it_is_unknown() -> None:
    assert file_system_of(Path("/srv"), "") == ""


@pytest.mark.parametrize("kind", ["nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "fuse.sshfs"])
async def test_a_network_file_system_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    monkeypatch.setattr(files, "file_system_of", lambda folder: kind)
    error = await refusal(path)
    assert kind in str(error)
    assert "redis://" in str(error)
    assert not path.exists()


async def test_a_file_that_another_program_holds_is_unavailable_in_time(store: Path) -> None:
    with locked(store, before="PRAGMA locking_mode = EXCLUSIVE"):
        began = time.monotonic()
        with pytest.raises(EngineUnavailable, match=r"jobs\.db is locked"):
            await engine_of(store, "?timeout=0.5").open()
        assert 0.5 < time.monotonic() - began < 2
    async with engine_of(store) as engine:
        assert await drain(engine) == ["a", "b", "c"]


async def test_a_store_that_another_program_writes_to_can_be_opened_and_read_meanwhile(store: Path) -> None:
    with locked(store):
        began = time.monotonic()
        async with engine_of(store) as engine:
            assert [found and found.id for found in await engine.get(["a", "b"])] == ["a", "b"]
            assert time.monotonic() - began < 1


async def test_a_file_that_is_gone_under_an_open_engine_is_an_error_and_not_a_new_store(store: Path) -> None:
    async with engine_of(store, "?timeout=1") as engine:
        await put_one(engine, "before")
        for file in store.parent.glob("jobs.db*"):
            file.unlink()
        with pytest.raises(EngineUnusable, match=r"jobs\.db"):
            await put_one(engine, "after")
    assert not store.exists()


async def test_a_file_that_was_replaced_under_an_open_engine_is_an_error(store: Path, tmp_path: Path) -> None:
    backup = tmp_path / "backup.db"
    shutil.copy(store, backup)
    async with engine_of(store, "?timeout=1") as engine:
        await put_one(engine, "before")
        for file in store.parent.glob("jobs.db*"):
            file.unlink()
        shutil.copy(backup, store)
        with pytest.raises(EngineUnusable, match=r"jobs\.db"):
            await put_one(engine, "after")
    async with engine_of(store) as engine:
        assert await drain(engine) == ["a", "b", "c"]
