"""The sqlite store passes the conformance suite, and stands what can happen to a file."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import apsw
import pytest

from spraydry.errors import (
    CorruptData,
    FormatTooNew,
    NotARepository,
    SprayDryError,
    StoreError,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
)
from spraydry.stores.base import open_store
from spraydry.stores.database import files
from spraydry.stores.database.database import Database
from spraydry.stores.sqlite import SqliteStore
from tests.segments.folders import descriptors
from tests.store_contract import Place, StoreContract

root_only = pytest.mark.skipif(os.geteuid() != 0, reason="NOT TESTED: needs root to mount file systems")


class TestSqlite(StoreContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        return Place(str(tmp_path / "store.sqlite"), atomic_batches=True)


class TestSqliteOnNetworkFileSystems(StoreContract):
    """Without a write-ahead log, as where shared memory cannot be had."""

    @pytest.fixture
    def place(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
        monkeypatch.setattr(files, "_file_system", lambda path: "nfs4")
        return Place(str(tmp_path / "store.sqlite"), atomic_batches=True)

    def test_journal_mode(self, place: Place) -> None:
        store = place.open(create=True)
        store.put("frames", "a", b"x")
        assert os.listdir(os.path.dirname(place.url)) in (["store.sqlite"], ["store.sqlite", "store.sqlite-journal"])
        store.close()


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "store.sqlite")


@pytest.fixture
def filled(path: str) -> str:
    """A closed store with some values."""
    store = open_store(path, create=True)
    rng = random.Random(1)
    store.put_many("frames", [(f"{number:04d}", rng.randbytes(3000)) for number in range(50)])
    store.put("config", "config", b"x")
    store.close()
    return path


def open_and_read(path: str, *, read_only: bool = False) -> dict[str, bytes]:
    store = open_store(path, read_only=read_only)
    try:
        return {stored.name: store.get("frames", stored.name) for stored in store.list("frames")}
    finally:
        store.close()


# -- the file


def test_the_file_is_private_and_says_what_it_is(path: str) -> None:
    store = open_store(path, create=True)
    store.put("frames", "a", b"x")
    assert {os.stat(path + ending).st_mode & 0o777 for ending in ("", "-wal", "-shm")} == {0o600}
    store.close()
    assert os.listdir(os.path.dirname(path)) == ["store.sqlite"]
    with apsw.Connection(path, flags=apsw.SQLITE_OPEN_READONLY) as raw:
        pragmas = {
            name: next(raw.execute(f"PRAGMA {name}"))[0]
            for name in ("application_id", "user_version", "page_size", "auto_vacuum", "journal_mode", "encoding")
        }
        assert next(raw.execute("SELECT sql FROM sqlite_schema WHERE name = 'value'"))
    raw.close()
    assert pragmas == {
        "application_id": 0x53447279,
        "user_version": 1,
        "page_size": 8192,
        "auto_vacuum": 2,
        "journal_mode": "wal",
        "encoding": "UTF-8",
    }


def test_commits_are_durable(path: str) -> None:
    database = Database(path, "CREATE TABLE x(y);", create=True)
    with database.transaction() as connection:
        assert next(connection.execute("PRAGMA synchronous"))[0] == 2
    database.close()


def test_folders_are_made(tmp_path: Path) -> None:
    open_store(str(tmp_path / "a" / "b" / "store"), create=True).close()
    assert (tmp_path / "a" / "b").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", [b"caf\xe9", b"a b", b"100%25", b"q?mode=memory", b"x#y", b"file:x", "ü☃".encode()])
def test_names_of_any_bytes(tmp_path: Path, name: bytes) -> None:
    path = os.path.join(str(tmp_path), os.fsdecode(name))
    store = open_store(path, create=True)
    store.put("frames", "a", b"x")
    store.close()
    assert os.listdir(os.fsencode(tmp_path)) == [name]
    assert open_and_read(path) == {"a": b"x"}


def test_a_symlink_is_followed(filled: str, tmp_path: Path) -> None:
    link = tmp_path / "elsewhere" / "link"
    link.parent.mkdir()
    link.symlink_to(filled)
    store = open_store(str(link))
    store.put("frames", "a", b"x")
    assert os.listdir(link.parent) == ["link"]
    assert store.location() == os.path.realpath(filled)
    store.close()


def test_racing_to_make_it(path: str) -> None:
    """Of processes that make the same repository at once none fails."""
    code = (
        "import sys; from spraydry.stores.base import open_store; sys.stdin.readline();"
        "s = open_store(sys.argv[1], create=True); s.put('frames', sys.argv[2], b'x'); s.close()"
    )
    racers = [
        subprocess.Popen([sys.executable, "-c", code, path, str(number)], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
        for number in range(6)
    ]
    for racer in racers:
        assert racer.stdin
        racer.stdin.write(b"\n")
        racer.stdin.flush()
    assert [racer.communicate(timeout=300)[1].decode() for racer in racers] == [""] * 6
    assert len(open_and_read(path)) == 6


def test_racing_threads_make_it(path: str) -> None:
    for attempt in range(10):
        ready = threading.Barrier(8)

        def make(_: int, place: str = f"{path}{attempt}", ready: threading.Barrier = ready) -> None:
            ready.wait()
            open_store(place, create=True).close()

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(make, range(8)))


def test_connections_do_not_pile_up(filled: str) -> None:
    """Threads come and go in a mount for months."""
    store = open_store(filled)
    for _ in range(40):
        thread = threading.Thread(target=lambda: store.get("frames", "0001"))
        thread.start()
        thread.join()
    assert isinstance(store, SqliteStore)
    assert len(store.database._readers) <= 2
    assert descriptors(Path(filled).resolve()) <= 8
    store.close()


# -- two processes

WRITER = """
import itertools, random, select, sys
from spraydry.stores.base import open_store
store = open_store(sys.argv[1], create=True)
rng = random.Random(1)
for turn in itertools.count():
    with store.batch():
        byte = b"%d" % (turn % 10)
        store.put_many("frames", [(name, byte * rng.randrange(1, 30000)) for name in ("a", "b", "c")])
        store.put("index", "turn", byte)
    if turn == 0:
        print("ready", flush=True)
    if turn % 50 == 49:
        store.flush()
        if turn >= 199 and select.select([sys.stdin], [], [], 0)[0]:  # a byte that says that it was read often enough
            break
store.close()
"""


def test_reading_while_another_process_writes(path: str) -> None:
    writer = subprocess.Popen([sys.executable, "-c", WRITER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert writer.stdin and writer.stdout
    assert writer.stdout.readline() == b"ready\n"
    reader = open_store(path, read_only=True)
    reads = 0
    while writer.poll() is None:
        for name in ("a", "b", "c"):
            value = reader.get("frames", name)
            assert value == value[:1] * len(value)
        assert [stored.name for stored in reader.list("frames")] == ["a", "b", "c"]
        reads += 1
        if reads == 6:
            writer.stdin.close()
    assert writer.wait() == 0 and reads > 5
    assert reader.get("index", "turn") == b"9"
    reader.close()
    writer.stdout.close()


def test_a_locked_file_is_unavailable(filled: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("spraydry.stores.database.database.BUSY_TIMEOUT_MS", 50)
    other = apsw.Connection(filled)
    other.execute("BEGIN IMMEDIATE")
    store = open_store(filled)
    assert store.get("frames", "0001")
    with pytest.raises(StoreUnavailable) as caught:
        store.put("frames", "a", b"x")
    assert caught.value.retryable and filled in str(caught.value) and "\n" not in str(caught.value)
    store.flush()  # quietly does nothing
    other.execute("ROLLBACK")
    store.put("frames", "a", b"x")
    store.close()
    other.execute("PRAGMA locking_mode = EXCLUSIVE")
    other.execute("BEGIN IMMEDIATE")
    other.execute("DELETE FROM value WHERE name = 'a'")
    with pytest.raises(StoreUnavailable):
        open_store(filled)
    other.execute("ROLLBACK")
    other.close()


def test_an_interrupt_behind_begin_does_not_block_the_store(filled: str) -> None:
    store = open_store(filled)
    assert isinstance(store, SqliteStore) and store.database._writer
    store.database._writer.execute("BEGIN IMMEDIATE")  # as a signal's exception would leave it
    store.put("frames", "a", b"x")
    assert store.get("frames", "a") == b"x"
    store.close()


def test_memory_errors_of_a_caller_are_not_damage(filled: str) -> None:
    store = open_store(filled)
    with pytest.raises(MemoryError), store.batch():
        raise MemoryError
    store.close()


# -- room and rights


@pytest.fixture
def mounts(tmp_path: Path) -> Iterator[list[str]]:
    """Mount points to take down at the end."""
    made: list[str] = []
    yield made
    for point in reversed(made):
        subprocess.run(["umount", "-l", point], check=True)


@root_only
@pytest.mark.root
def test_a_full_disk(tmp_path: Path, mounts: list[str]) -> None:
    point = str(tmp_path / "small")
    os.mkdir(point)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", point], capture_output=True).returncode:
        pytest.skip("NOT TESTED: this machine does not let root mount a tmpfs")
    mounts.append(point)
    store = open_store(point + "/store", create=True)
    kept = []
    with pytest.raises(StoreFull) as caught:
        for number in range(1000):
            store.put("frames", f"{number:04d}", random.randbytes(50_000))
            kept.append(f"{number:04d}")
    assert caught.value.exit_code == 8 and "\n" not in str(caught.value)
    assert len(kept) > 5
    assert [stored.name for stored in store.list("frames")] == kept
    with pytest.raises(StoreFull), store.batch():
        store.put("frames", "batch", b"x")
        store.put("frames", "large", random.randbytes(3 << 20))
    assert store.info("frames", "batch") is None
    store.close()
    assert list(open_and_read(point + "/store", read_only=True)) == kept
    subprocess.run(["dd", "if=/dev/zero", f"of={point}/rest", "bs=4096"], stderr=subprocess.DEVNULL)
    with pytest.raises(StoreFull):
        open_store(point + "/new", create=True)


@root_only
@pytest.mark.root
def test_read_only_media(filled: str, tmp_path: Path, mounts: list[str]) -> None:
    before = open_and_read(filled)
    point = str(tmp_path / "medium")
    os.mkdir(point)
    if subprocess.run(["mount", "--bind", str(tmp_path), point], capture_output=True).returncode:
        pytest.skip("NOT TESTED: this machine does not let root bind-mount")
    mounts.append(point)
    subprocess.run(["mount", "-o", "remount,bind,ro", point], check=True)
    path = point + "/store.sqlite"
    for read_only in (False, True):
        store = open_store(path, read_only=read_only)
        assert store.read_only
        with pytest.raises(StoreReadOnly):
            store.put("frames", "a", b"x")
        store.flush()
        store.close()
        assert open_and_read(path, read_only=read_only) == before
    with pytest.raises(StoreReadOnly):
        open_store(point + "/new", create=True)


READER = """
import os, sys
import spraydry.stores.sqlite
from spraydry.errors import StoreReadOnly
from spraydry.stores.base import open_store
open_store("memory:", create=True)  # so that nothing is imported without rights
os.setgid(65534), os.setuid(65534)
for read_only in (False, True):
    store = open_store(sys.argv[1], read_only=read_only)
    assert store.read_only
    print(len(list(store.list("frames"))), len(store.get("frames", "0001")))
    try:
        store.put("frames", "a", b"x")
    except StoreReadOnly:
        print("read-only")
    store.close()
"""


@root_only
@pytest.mark.root
@pytest.mark.parametrize("open_by_owner", [False, True])
def test_a_reader_without_rights(filled: str, open_by_owner: bool) -> None:
    """Who may read the file but write neither it nor its folder, whether or not the owner has it open."""
    for folder in Path(filled).parents:
        if folder.stat().st_mode & 5 != 5:
            folder.chmod(0o755)
    os.chmod(filled, 0o644)
    owner = open_store(filled) if open_by_owner else None
    if owner is not None:
        owner.put("frames", "0001", b"x" * 3000)
    got = subprocess.run([sys.executable, "-c", READER, filled], capture_output=True, text=True)
    if owner is not None:
        owner.close()
    assert (got.stdout, got.stderr) == ("50 3000\nread-only\n" * 2, "")


# -- what is not a store


def test_things_that_are_no_store(tmp_path: Path, filled: str) -> None:
    cases: dict[str, bytes] = {
        "empty": b"",
        "garbage": random.Random(1).randbytes(20_000),
        "text": b"hello\n",
        "zeros": bytes(20_000),
        "magic": b"SQLite format 3\0" + bytes(9000),
    }
    for name, content in cases.items():
        place = tmp_path / name
        place.write_bytes(content)
        for read_only in (False, True):
            with pytest.raises((NotARepository, CorruptData)) as caught:
                open_store(str(place), read_only=read_only)
            assert "\n" not in str(caught.value) and caught.value.exit_code == 6
        assert place.read_bytes() == content, f"{name} was written to"
    for place in (tmp_path, Path("/dev/null"), Path("/proc/self/mem")):
        with pytest.raises(SprayDryError):
            open_store(str(place))
    with pytest.raises(StoreError):
        open_store(str(tmp_path / "garbage" / "below"), create=True)
    foreign = apsw.Connection(str(tmp_path / "foreign"))
    foreign.execute("CREATE TABLE mine(x)")
    foreign.close()
    for create in (False, True):
        with pytest.raises(NotARepository):
            open_store(str(tmp_path / "foreign"), create=create)


def test_an_empty_file_becomes_one_only_on_request(tmp_path: Path) -> None:
    """It is what a crash right after making the file leaves."""
    place = tmp_path / "empty"
    place.touch()
    with pytest.raises(NotARepository):
        open_store(str(place))
    store = open_store(str(place), create=True)
    store.put("frames", "a", b"x")
    store.close()


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TRIGGER t AFTER INSERT ON value BEGIN DELETE FROM value; END",
        "CREATE VIEW v AS SELECT * FROM value",
        "CREATE INDEX i ON value(name)",
        "DROP TABLE value; CREATE VIEW value AS SELECT 1 AS id, 'frames' AS namespace, 'a' AS name, x'00' AS value",
        "DROP TABLE value",
        "DROP TABLE value; CREATE TABLE value(id, namespace, name, value)",
        "ALTER TABLE value ADD COLUMN more TEXT",
        "PRAGMA user_version = 0",
    ],
)
def test_other_schemas_are_refused(filled: str, statement: str) -> None:
    raw = apsw.Connection(filled)
    raw.execute(statement)
    raw.close()
    for read_only in (False, True):
        with pytest.raises(CorruptData) as caught:
            open_store(filled, read_only=read_only)
        assert "\n" not in str(caught.value)


def test_newer_and_foreign_formats(filled: str) -> None:
    raw = apsw.Connection(filled)
    raw.execute("PRAGMA user_version = 2")
    for read_only in (False, True):
        with pytest.raises(FormatTooNew):
            open_store(filled, read_only=read_only)
    raw.execute("PRAGMA user_version = 1; PRAGMA application_id = 1")
    with pytest.raises(NotARepository):
        open_store(filled)
    raw.close()


def test_truncated_files(filled: str) -> None:
    before = open_and_read(filled)
    whole = Path(filled).read_bytes()
    rng = random.Random(2)
    for length in [1, 15, 16, 99, 100, 512, 8191, 8192, *(rng.randrange(len(whole)) for _ in range(40))]:
        Path(filled).write_bytes(whole[:length])
        try:
            found = open_and_read(filled)
        except SprayDryError:
            continue
        assert all(before[name] == value for name, value in found.items())


def test_damaged_files_raise_nothing_else(filled: str) -> None:
    """SQLite notices damage of its structure; that of values is found by whoever knows their digest."""
    whole = Path(filled).read_bytes()
    rng = random.Random(3)
    noticed = 0
    for _ in range(150):
        changed = bytearray(whole)
        for _ in range(rng.choice((1, 1, 20))):
            at = rng.choice((rng.randrange(len(whole)), rng.randrange(200), 8192 * rng.randrange(len(whole) // 8192)))
            changed[at] ^= 1 << rng.randrange(8)
        Path(filled).write_bytes(changed)
        for ending in ("-wal", "-shm", "-journal"):
            Path(filled + ending).unlink(missing_ok=True)
        try:
            store = open_store(filled)
            try:
                list(store.list("frames"))
                store.get("frames", "0007")
                store.info("config", "config")
                store.put("frames", "a", b"x")
                store.delete("frames", ["0003"])
                store.flush()
            finally:
                store.close()
        except SprayDryError as error:
            noticed += 1
            assert "\n" not in str(error)
    assert noticed > 20


# -- where a write-ahead log cannot work


def test_file_systems_are_told_apart() -> None:
    lines = [
        "/dev/sda1 / ext4 rw 0 0\n",
        "server:/x /mnt nfs4 rw 0 0\n",
        "tmpfs /mnt/local tmpfs rw 0 0\n",
        "server:/y /mnt/my\\040share nfs rw 0 0\n",
        "sshfs /mnt/local/far fuse.sshfs rw 0 0\n",
        "ext /mnt/local/far ext4 rw 0 0\n",
    ]
    for path, kind in (
        ("/home/x", "ext4"),
        ("/mnt/x", "nfs4"),
        ("/mntx", "ext4"),
        ("/mnt/local/x", "tmpfs"),
        ("/mnt/my share/x", "nfs"),
        ("/mnt/local/far/x", "ext4"),
    ):
        assert files._type_in(lines, path) == kind
    assert files._file_system("/") != ""


@pytest.mark.parametrize(
    ("kind", "mode"),
    [
        ("ext4", "wal"),
        ("nfs", "truncate"),
        ("fuse.sshfs", "truncate"),
        ("fuse.whatever", "truncate"),
        ("fuseblk", "wal"),
        ("", "wal"),
    ],
)
def test_journal_modes(path: str, kind: str, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_file_system", lambda _: kind)
    database = Database(path, "CREATE TABLE x(y);", create=True)
    with database.transaction() as connection:
        assert next(connection.execute("PRAGMA journal_mode"))[0] == mode
    database.close()


def test_a_file_that_moved_changes_its_journal_mode(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "_file_system", lambda _: "ext4")
    open_store(path, create=True).close()
    monkeypatch.setattr(files, "_file_system", lambda _: "nfs")
    store = open_store(path)
    store.put("frames", "a", b"x")
    assert not os.path.exists(path + "-wal")
    store.close()


# -- copies


def test_copies(filled: str, tmp_path: Path) -> None:
    before = open_and_read(filled)
    shutil.copy(filled, tmp_path / "copy")
    assert open_and_read(str(tmp_path / "copy")) == before
    raw = apsw.Connection(filled)
    raw.execute("VACUUM INTO ?", (str(tmp_path / "vacuumed"),))
    raw.close()
    assert open_and_read(str(tmp_path / "vacuumed")) == before
    store = open_store(str(tmp_path / "vacuumed"))
    store.put("frames", "a", b"x")
    store.close()


def test_settling_leaves_a_file_that_can_be_copied(filled: str, tmp_path: Path) -> None:
    store = open_store(filled)
    store.put("frames", "a", b"x")
    store.flush()
    shutil.copy(filled, tmp_path / "copy")
    assert open_and_read(str(tmp_path / "copy"))["a"] == b"x"
    store.delete("frames", [stored.name for stored in store.list("frames")])
    store.flush()
    assert os.path.getsize(filled) < 80_000  # what was freed is given back
    store.close()
