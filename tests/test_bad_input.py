"""Bad input: one clear line, the documented exit code, nothing lost; damaged bytes are told, never served."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import struct
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

import spraydry
from spraydry import cli
from spraydry.errors import SprayDryError
from spraydry.format import frame as frames
from spraydry.format.digest import digest
from spraydry.repository.repository import Repository
from spraydry.stores.database import database, schema
from tests.ingest.trees import NOBODY, needs_root
from tests.versions import make_version

LARGE = random.Random(1).randbytes(70_000)
Run = Callable[..., "tuple[int, str, str]"]


@pytest.fixture
def spray(capsys: pytest.CaptureFixture[str], repository_path: str) -> Run:
    """Run a command line on the test's repository: exit code, output, errors."""

    def run(*arguments: str, repo: str | None = repository_path) -> tuple[int, str, str]:
        code = cli.run([*arguments, *(["--repo", repo] if repo else [])])
        return code, *capsys.readouterr()

    return run


@pytest.fixture
def filled(repository_path: str) -> str:
    with Repository.open(repository_path, create=True) as repository:
        make_version(repository, "photos", {b"2024": {b"a.jpg": b"picture"}, b"notes.txt": b"text"})
        make_version(repository, "photos", {b"2024": {b"a.jpg": b"picture"}})
        make_version(repository, "papers", {b"f": b"f"})
    return repository_path


def failed(done: tuple[int, str, str], code: int, *said: str) -> None:
    """One line on standard error, and nothing else."""
    assert done[0] == code, done
    assert done[1] == "" and done[2].startswith("spraydry: ") and done[2].count("\n") == 1, done
    for text in said:
        assert text in done[2], done


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("photo", "there is photos"),
        ("nothing", "there is papers, photos"),
        ("photos@v3", "v2"),
        ("photos:2042", "2024"),
        ("photos@v1:note.txt", "notes.txt"),
        ("photos:2024/a.jpg/x", "not a directory"),
    ],
)
@pytest.mark.parametrize("verb", ["ls", "cat", "stat", "restore"])
def test_names_that_are_not_there(filled: str, spray: Run, verb: str, address: str, said: str, tmp_path: Path) -> None:
    more = [str(tmp_path / "out")] if verb == "restore" else []
    failed(spray(verb, address, *more), 4, said)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("address", ["", "@v1", "photos@", ":x", "photos:../etc"])
def test_addresses_that_are_none(filled: str, spray: Run, address: str) -> None:
    failed(spray("ls", address), 2)


def test_a_path_where_a_root_belongs(filled: str, spray: Run) -> None:
    failed(spray("ls", "photos/2024/a.jpg"), 2, "photos:2024/a.jpg")
    failed(spray("stat", "photos@v1/2024"), 2, "photos@v1:2024")
    assert spray("ls", "photos:nothing")[2] == "spraydry: photos@v2 holds no 'nothing'\n"


def test_rm(filled: str, spray: Run) -> None:
    failed(spray("rm", "photos"), 2, "photos@VERSION", "--keep-last", "--all")
    failed(spray("rm", "photos:2024"), 2)
    failed(spray("rm"), 2)
    failed(spray("rm", "photos@v1", "photos@v9"), 4, "v9")  # all or none
    failed(spray("undelete", "photos@v1"), 4, "was not removed")
    failed(spray("undelete", "photos@v7"), 4, "v7")
    assert spray("log", "photos")[1].count("photos@") == 2


@pytest.mark.parametrize("repo", ["missing.sqlite", "no/such/folder/r.sqlite"])
def test_no_repository(spray: Run, tmp_path: Path, repo: str) -> None:
    for verb in ("ls", "log", "info", "verify"):
        failed(spray(verb, repo=str(tmp_path / repo)), 4, "spraydry ingest")
    assert os.listdir(tmp_path) == []


def test_unknown_scheme(spray: Run) -> None:
    failed(spray("ls", repo="gopher://there/r"), 2, "gopher", "sqlite")


@pytest.mark.parametrize(
    "held", [b"", b"not a repository" * 100, b"SQLite format 3\0" + bytes(100)], ids=["empty", "text", "head"]
)
def test_not_a_repository(spray: Run, tmp_path: Path, held: bytes) -> None:
    path = tmp_path / "file"
    path.write_bytes(held)
    for verb in ("ls", "info", "verify"):
        failed(spray(verb, repo=str(path)), 6, "not a spraydry repository")
    assert path.read_bytes() == held


def test_another_program_s_database(spray: Run, tmp_path: Path) -> None:
    path = tmp_path / "other.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE t(a)")
    connection.close()
    before = path.read_bytes()
    failed(spray("ls", repo=str(path)), 6, "not a spraydry repository")
    failed(spray("ls", repo=str(tmp_path)), 6, "not a file")
    assert path.read_bytes() == before


def test_newer_format(filled: str, spray: Run) -> None:
    with open(filled, "r+b") as file:
        file.seek(60)  # SQLite's user_version, the format number
        file.write(struct.pack(">I", schema.FORMAT + 1))
    for verb in ("ls", "info"):
        failed(spray(verb), 9, "newer spraydry")


def test_truncated(filled: str, spray: Run, tmp_path: Path) -> None:
    whole = Path(filled).read_bytes()
    for size in (1, 50, 100, 5000, len(whole) // 2, len(whole) - 8192, len(whole) - 1):
        Path(filled).write_bytes(whole[:size])
        code, out, err = spray("restore", "photos", str(tmp_path / f"out{size}"))
        assert code in (6, 7), (size, code, out, err)
        assert "Traceback" not in err and "unexpected" not in err


def test_locked(filled: str, spray: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_MS", 20)
    with Repository.open(filled) as holder, holder.batch():
        failed(spray("rm", "photos@v1"), 7, "locked", "try again")
        assert spray("ls", "photos@v1")[0] == 0  # readers are not kept out
    assert spray("rm", "photos@v1")[0] == 0


def test_store_full(filled: str, spray: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    import apsw

    class Full:
        def __init__(self, connection: apsw.Connection) -> None:
            self._connection = connection

        def __getattr__(self, name: str) -> object:
            return getattr(self._connection, name)

        def execute(self, sql: str, *values: object) -> object:
            if sql.startswith("INSERT"):
                raise apsw.FullError("database or disk is full")
            return self._connection.execute(sql, *values)

    connect = database.Database._connect
    monkeypatch.setattr(database.Database, "_connect", lambda self, flags: Full(connect(self, flags)))
    failed(spray("rm", "photos@v1"), 8, "no room")
    monkeypatch.undo()
    assert "photos@v1" in spray("log")[1]


def as_user(uid: int, arguments: list[str]) -> tuple[int, str, str]:
    """Run a command line in a child of another user; what it imports was imported before."""
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads, which hold no lock here
        if (child := os.fork()) == 0:
            try:
                os.dup2(out.fileno(), 1)
                os.dup2(err.fileno(), 2)
                sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
                os.setgroups([])
                os.setgid(uid)
                os.setuid(uid)
                code = cli.run(arguments)
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
            except BaseException:
                traceback.print_exc()
                os._exit(99)
        _, status = os.waitpid(child, 0)
        for file in (out, err):
            file.seek(0)
        return os.waitstatus_to_exitcode(status), out.read().decode(), err.read().decode()


@needs_root
def test_unprivileged_reader(filled: str, spray: Run) -> None:
    """Someone who may only read the file, in a folder closed to writing, can do all but write."""
    looks = (["ls", "photos"], ["cat", "photos:2024/a.jpg"], ["log"], ["info"], ["stat", "photos"], ["verify"])
    for verb in looks:
        assert spray(*verb)[0] == 0
    spray("rm", "--dry-run", "photos@v1")
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "r.sqlite")
        shutil.copy(filled, path)
        os.chmod(path, 0o444)
        os.chmod(folder, 0o555)
        for verb in looks:
            code, _, err = as_user(NOBODY, [*verb, "--repo", path])
            assert (code, err) == (0, ""), verb
        assert as_user(NOBODY, ["cat", "photos:2024/a.jpg", "--repo", path])[1] == "picture"
        failed(as_user(NOBODY, ["rm", "photos@v1", "--repo", path]), 7, "cannot be written")
        os.chmod(path, 0o600)
        code, out, err = as_user(NOBODY, ["ls", "--repo", path])
        assert code == 7 and err.count("\n") == 1 and not out
        assert sorted(os.listdir(folder)) == ["r.sqlite"]
        os.chmod(folder, 0o700)  # whether it is there cannot be seen then
        for verb in (["ls"], ["ingest", "/etc/hostname"], ["ingest", "--dry-run", "/etc/hostname"]):
            failed(as_user(NOBODY, [*verb, "--repo", path]), 7, path, "no permission")
        failed(as_user(NOBODY, ["put", path, "h/k", "--repo", "memory:"]), 1, path, "Permission denied")


@pytest.mark.parametrize("size", ["12Q", "", "-1", "1e99", "K", "64 furlongs", "nan", "inf"])
def test_sizes_that_are_none(spray: Run, tmp_path: Path, size: str, repository_path: str) -> None:
    failed(spray("ingest", str(tmp_path), f"--memory={size}"), 2)
    assert not os.path.exists(repository_path)


def test_where_the_root_is_an_argument_no_option_is_told(filled: str, spray: Run) -> None:
    for done in (spray("compose", "my web", "photos"), spray("split", "photos:2024", "my web")):
        failed(done, 2, "'my web' cannot name a root")
        assert "--root" not in done[2]


@pytest.mark.parametrize("grace", ["7", "-1", "-1d", "x", "", "d", "nan", "inf", "1e99w"])
def test_lengths_of_time_that_are_none(filled: str, spray: Run, grace: str) -> None:
    failed(spray("gc", f"--grace={grace}"), 2, "is no length of time: write one such as 12h or 7d")


@pytest.mark.parametrize("name", ["-x", ".x", "a b", "a/b", "latest", "x" * 300, "ü", "a\x1b[31m", ""])
def test_names_that_do_not_fit(spray: Run, tmp_path: Path, name: str, repository_path: str) -> None:
    (tmp_path / "source").mkdir()
    for option in ("--root", "--as"):
        done = spray("ingest", str(tmp_path / "source"), f"{option}={name}")
        failed(done, 2)
        assert "\x1b" not in done[2] and ("up to 200 letters" in done[2] or name.startswith("-"))


# -- damaged bytes anywhere


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, bytes]:
    """A small repository with everything in it that is ever read, raw and compressed frames among it."""
    path = str(tmp_path_factory.mktemp("small") / "r.sqlite")
    with Repository.open(path, create=True) as repository:
        make_version(
            repository,
            "s",
            {
                b"a.txt": b"hello world\n" * 300,
                b"large": LARGE + bytes(131_072) + b"x" * 5,
                b"none": b"",
                b"sub": {b"b.py": b"import os\n" * 50, b"link": "a.txt"},
            },
        )
        repository.store.flush()
    return path, Path(path).read_bytes()


def everything(path: str) -> list[object]:
    """All that a version says and holds, as a reader sees it."""
    found: list[object] = []
    with spraydry.open(path, read_only=True) as repository:
        for one in repository.walk("s"):
            found.append((one.path, one.number, one.entry))
            if one.entry.kind == 1:
                with repository.open_file(one) as stream:
                    found.append(stream.read())
    return found


def flips(small: tuple[str, bytes], path: str, places: Iterable[int]) -> dict[str, int]:
    """Flip one bit at each place in turn and read everything: how often that was detected, the same, or wrong."""
    whole = small[1]
    good = everything(small[0])
    outcomes = {"same": 0, "detected": 0, "wrong": 0}
    fd = os.open(path, os.O_CREAT | os.O_RDWR)
    try:
        os.write(fd, whole)
        for at in places:
            os.pwrite(fd, bytes([whole[at] ^ 1 << at % 8]), at)
            try:
                outcomes["same" if everything(path) == good else "wrong"] += 1
            except SprayDryError:
                outcomes["detected"] += 1
            os.pwrite(fd, whole[at : at + 1], at)
        assert everything(path) == good
    finally:
        os.close(fd)
    return outcomes


def test_flipped_bits_are_detected_or_harmless(small: tuple[str, bytes], tmp_path: Path) -> None:
    outcomes = flips(small, str(tmp_path / "r.sqlite"), range(3, len(small[1]), 211))
    assert outcomes["wrong"] == 0 and outcomes["detected"] > 300 and outcomes["same"] > 300


@pytest.mark.slow
def test_every_flipped_byte_is_detected_or_harmless(small: tuple[str, bytes], tmp_path: Path) -> None:
    outcomes = flips(small, str(tmp_path / "r.sqlite"), range(len(small[1])))
    assert outcomes["wrong"] == 0 and outcomes["detected"] > 70_000


def test_without_the_digest_check_flipped_bits_get_through(
    small: tuple[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the two tests before would miss: a reader that believes its index."""

    def believing(self: Repository, name: bytes) -> memoryview:
        for place in self.catalog.chunks.locate(name):
            _, plain = frames.decode(self.store.get("frames", place.frame.hex()), self.dictionary)
            return memoryview(plain)[place.offset : place.offset + place.length]
        raise AssertionError("the index does not know a chunk")

    monkeypatch.setattr(Repository, "read_chunk", believing)
    places = [at for at in (small[1].find(LARGE[part : part + 16]) for part in range(0, 65_000, 1009)) if at > 0]
    outcomes = flips(small, str(tmp_path / "r.sqlite"), places)
    assert outcomes["wrong"] == len(places) > 40


def test_damage_seen_through_the_command_line(small: tuple[str, bytes], tmp_path: Path, spray: Run) -> None:
    """Restore leaves out what is damaged, cat stops before it, verify names it; the exit code is 6."""
    path = str(tmp_path / "r.sqlite")
    at = small[1].find(LARGE[50_000:50_016])
    Path(path).write_bytes(small[1][:at] + bytes([small[1][at] ^ 1]) + small[1][at + 1 :])
    code, _, err = spray("restore", "s", str(tmp_path / "out"), repo=path)
    assert code == 6 and "large" in err and "unexpected" not in err
    assert not (tmp_path / "out/large").exists() and (tmp_path / "out/sub/b.py").read_bytes() == b"import os\n" * 50
    code, _, err = spray("cat", "s:large", repo=path)
    assert code == 6 and "chunk" in err and "frame" in err
    code, out, err = spray("verify", repo=path)
    assert code == 6 and "s@v1:large" in err and "there is damage" in out


def test_frames_that_lie_about_their_chunks(repository: Repository) -> None:
    """A sound frame under another's name, with the index as it was: the bytes are not those of the chunk."""
    make_version(repository, "r", {b"f": b"right" * 100})
    name = digest(b"right" * 100)
    frame = repository.catalog.chunks.locate(name)[0].frame.hex()
    repository.store.put("frames", frame, frames.encode([b"wrong" * 100], "other", salt=bytes(16)).stored)
    with Repository.open(repository.url) as again, pytest.raises(SprayDryError, match=frame):
        again.open_file("r:f").read()
