"""No room is left where a repository lies, or it may not be written: one line, all is read, and then it goes on."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psycopg
import pytest

from tests.faults.conftest import NewMachine
from tests.faults.machines import check_whole
from tests.servers import Server, server_or_skip

pytestmark = pytest.mark.root
DISK_BYTES, BALLAST_BYTES, LARGE_BYTES = 56 << 20, 40 << 20, 18 << 20
ROOM_BYTES = 4 << 20  # below a quota


class Place(NamedTuple):
    """A URL, what makes room there, what switches between read-only (True) and not, and what a client needs."""

    url: str
    make_room: Callable[[], None]
    switch: Callable[[bool], None]
    settings: dict[str, str] = {}  # noqa: RUF012 (never changed)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system, of which a file takes half."""
    image, point = tmp_path / "image", tmp_path / "disk"
    point.mkdir()
    with image.open("wb") as file:
        file.truncate(DISK_BYTES)
    made = subprocess.run(["mkfs.ext4", "-q", "-F", "-m", "0", image], capture_output=True, check=False)
    mounted = subprocess.run(["mount", "-o", "loop", image, point], capture_output=True, check=False)
    if made.returncode or mounted.returncode:
        pytest.skip("NOT TESTED: full disks, as this machine does not let root mount a file system from a file")
    (point / "ballast").write_bytes(bytes(BALLAST_BYTES))
    yield point
    subprocess.run(["umount", "-l", point], check=True)


@contextmanager
def tablespace(running: Server, disk: Path) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """All new tables of the server lie on the disk."""
    folder = disk / "tables"
    folder.mkdir()
    status = (running.folder / "server" / "data").stat()
    os.chown(folder, status.st_uid, status.st_gid)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PGPASSFILE", running.environment["PGPASSFILE"])
        administrator = psycopg.connect(running.url, autocommit=True)
    with administrator:
        administrator.execute(f"CREATE TABLESPACE small LOCATION '{folder}'".encode())
        administrator.execute("ALTER ROLE spraydry SET default_tablespace = small")
        try:
            yield administrator
        finally:
            administrator.execute("ALTER ROLE spraydry RESET ALL")
            administrator.execute("DROP SCHEMA IF EXISTS full_disk CASCADE")
            administrator.execute("DROP TABLESPACE small")


@pytest.fixture
def place(backend: str, disk: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Place]:
    """On the disk, or in a bucket with a quota."""

    def room() -> None:
        (disk / "ballast").unlink()

    def switch(read_only: bool) -> None:
        subprocess.run(["mount", "-o", "remount,ro" if read_only else "remount,rw", disk], check=True)

    if backend == "postgresql":
        running: Server = request.getfixturevalue("postgresql")
        with tablespace(running, disk) as administrator:

            def revoke(read_only: bool) -> None:
                value = "on" if read_only else "off"
                administrator.execute(f"ALTER ROLE spraydry SET default_transaction_read_only = {value}".encode())

            yield Place(f"{running.url}?schema=full_disk", room, revoke)
    elif backend == "sftp":
        # A server of its own: what is mounted later it may not see.
        with server_or_skip("sshd", tmp_path / "sshd") as serving:
            url = serving.url.removesuffix(f"{serving.folder}/files") + f"{disk}/store"
            yield Place(url, room, switch, serving.environment)
    elif backend == "s3":
        running = request.getfixturevalue("ceph")
        # Other tests may have left something under the same user.
        used = json.loads(administer(running, "user", "stats", "--uid=spraydry", "--sync-stats"))["stats"][
            "size_actual"
        ]
        limit = used + ROOM_BYTES
        administer(running, "quota", "set", "--uid=spraydry", "--quota-scope=user", f"--max-size={limit}")
        administer(running, "quota", "enable", "--uid=spraydry", "--quota-scope=user")

        def unlimited() -> None:
            administer(running, "quota", "disable", "--uid=spraydry", "--quota-scope=user")

        def lock(read_only: bool) -> None:
            administer(running, "user", "modify", "--uid=spraydry", f"--op-mask={'read' if read_only else '*'}")

        try:
            yield Place(f"{running.url}/full", unlimited, lock)
        finally:
            unlimited()
    else:
        yield Place(f"{backend}:{disk}/store", room, switch)


def administer(ceph: Server, *arguments: str) -> bytes:
    """Run radosgw-admin as the server's own gateway runs; what it prints."""
    for child in Path(f"/proc/{ceph.process.pid}/task/{ceph.process.pid}/children").read_text().split():
        program = Path(os.readlink(f"/proc/{child}/exe"))
        if program.name == "radosgw":
            lines = Path(f"/proc/{child}/environ").read_bytes().split(b"\0")
            environment = dict(line.split(b"=", 1) for line in lines if b"=" in line)
            command = [program.with_name("radosgw-admin"), "-c", ceph.folder / "ceph/ceph.conf", *arguments]
            return subprocess.run(command, env=environment, check=True, capture_output=True).stdout
    raise AssertionError("there is no gateway")


def test_a_disk_that_is_full_and_one_that_is_read_only(
    new_machine: NewMachine, place: Place, tmp_path: Path, rng: random.Random
) -> None:
    source, before = tmp_path / "source", tmp_path / "before"
    source.mkdir()
    (source / "first").write_bytes(rng.randbytes(300_000))
    here = new_machine(place.url, **place.settings)
    here.run("ingest", source)
    shutil.copytree(source, before)
    for number in range(LARGE_BYTES >> 20):
        (source / f"{number}").write_bytes(rng.randbytes(1 << 20))
    for _ in range(2):
        told = here.run("ingest", source, code=8)
        assert "free some space" in told or "QuotaExceeded" in told
    check_whole(new_machine(place.url, **place.settings), {"source@v1": before})
    place.make_room()
    here.run("ingest", source)
    versions = {"source@v1": before, "source@v2": shutil.copytree(source, tmp_path / "second")}
    (source / "more").write_bytes(b"more")
    place.switch(True)
    try:
        told = here.run("ingest", source, code=7)
        assert re.search("read-only|must not be written|cannot be written", told), told
        here.run("restore", "source", tmp_path / "restored")
        check_whole(new_machine(place.url, **place.settings), versions)
    finally:
        place.switch(False)
    here.run("ingest", source)
    check_whole(new_machine(place.url, **place.settings), versions | {"source@v3": source})
