"""The Python API: what `spraydry.open` gives."""

from __future__ import annotations

import io
import os
import random
import subprocess
import sys

import pytest

import spraydry
from spraydry.actions.put import put_stream
from spraydry.errors import (
    PathNotFound,
    RootNotFound,
    StoreNotFound,
    StoreReadOnly,
    UsageError,
    VersionExists,
    VersionNotFound,
)
from spraydry.repository.repository import Repository
from tests.versions import make_version

LARGE = random.Random(5).randbytes(300_000) + bytes(200_000) + b"end"


def test_opens_what_is_there_only(repository_path: str) -> None:
    with pytest.raises(StoreNotFound, match="ingest"):
        spraydry.open(repository_path)
    spraydry.open(repository_path, create=True).close()
    with spraydry.open(repository_path) as repository:
        assert repository.roots() == []


def test_default_place(monkeypatch: pytest.MonkeyPatch) -> None:
    assert spraydry.default_url() == os.path.join(os.environ["XDG_DATA_HOME"], "spraydry", "repository.sqlite")
    monkeypatch.setenv("SPRAYDRY_REPO", "/elsewhere")
    assert spraydry.default_url() == "/elsewhere"


def test_roots_versions_and_walk(repository: Repository) -> None:
    make_version(repository, "a", {b"f": b"one", b"d": {b"g": b"two"}})
    make_version(repository, "a", {b"f": b"three"})
    make_version(repository, "b", {})
    assert repository.roots() == ["a", "b"]
    assert [str(version) for version in repository.versions("a")] == ["a@v1", "a@v2"]
    assert [found.path for found in repository.walk("a@v1")] == [b"", b"d", b"d/g", b"f"]
    assert [found.number for found in repository.walk("a@v1")] == [0, 1, 2, 3]
    assert [found.path for found in repository.walk("a@v1:d")] == [b"d", b"d/g"]
    assert repository.resolve("a@latest:f").entry.size == 5
    for address, error in (
        ("c", RootNotFound),
        ("a@v9", VersionNotFound),
        ("a:nothing", PathNotFound),
        ("a:f/x", PathNotFound),
        ("", UsageError),
        ("a@", UsageError),
        ("a:../b", UsageError),
    ):
        with pytest.raises(error):
            repository.resolve(address)


def test_walk_is_deeper_than_the_stack(repository: Repository) -> None:
    tree: dict[bytes, object] = {}
    for _ in range(2000):
        tree = {b"d": tree}
    # Building such a tree by hand is recursive, too.
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    try:
        make_version(repository, "deep", tree)
    finally:
        sys.setrecursionlimit(limit)
    assert sum(1 for _ in repository.walk("deep")) == 2001


@pytest.mark.parametrize("plain", [b"", b"x", LARGE, bytes(200_000)], ids=["empty", "short", "large", "hole"])
def test_stream_reads_and_seeks(repository: Repository, plain: bytes) -> None:
    make_version(repository, "a", {b"f": plain})
    with repository.open_file("a:f") as stream:
        assert stream.read() == plain
        assert stream.read() == b""
        rng = random.Random(1)
        for _ in range(200):
            at, length = rng.randint(0, len(plain) + 5), rng.randint(0, 70_000)
            assert stream.seek(at) == at
            assert stream.read(length) == plain[at : at + length]
        assert stream.seek(-1, io.SEEK_END) == len(plain) - 1 if plain else True
        assert stream.seekable() and stream.readable() and not stream.writable()


def test_stream_of_what_is_no_file(repository: Repository) -> None:
    make_version(repository, "a", {b"d": {}, b"s": "d"})
    for address in ("a", "a:d", "a:s"):
        with pytest.raises(UsageError, match="not a regular file"):
            repository.open_file(address)


def test_put_makes_a_root_and_directories(repository: Repository) -> None:
    version = spraydry.put(repository, "r", "x/y/z.bin", io.BytesIO(LARGE))
    assert str(version) == "r@v1"
    with repository.open_file("r:x/y/z.bin") as stream:
        assert stream.read() == LARGE
    assert repository.resolve("r:x/y/z.bin").entry.mode == 0o644


def test_put_changes_one_file(repository: Repository) -> None:
    tree = {name: name for name in (b"a", b"c", b"e")}
    make_version(repository, "r", {**tree, b"d": {b"f": b"old", b"g": b"stays"}})
    for path, plain in (("d/f", b"new"), ("b", b"between"), ("z", b"last"), ("0", b"")):
        put_stream(repository, "r", path, io.BytesIO(plain), mtime_ns=-1)
    held = {found.path: repository.open_file(found).read() for found in repository.walk("r") if found.entry.kind == 1}
    assert held == {**tree, b"d/f": b"new", b"d/g": b"stays", b"b": b"between", b"z": b"last", b"0": b""}
    assert (repository.resolve("r:z").entry.mtime_s, repository.resolve("r:z").entry.mtime_ns) == (-1, 999_999_999)
    assert [version.name for version in repository.versions("r")] == ["v1", "v2", "v3", "v4", "v5"]


def test_put_of_the_same_is_no_version(repository: Repository) -> None:
    first = put_stream(repository, "r", "f", io.BytesIO(b"same"), mtime_ns=5)
    assert put_stream(repository, "r", "f", io.BytesIO(b"same"), mtime_ns=5) == first
    named = put_stream(repository, "r", "f", io.BytesIO(b"same"), mtime_ns=5, name="mine")
    assert (named.name, named.made_in) == ("mine", first.made_in)


def test_put_refuses(repository: Repository) -> None:
    make_version(repository, "r", {b"d": {}, b"f": b"file"}, name="used")
    for path in ("", "/", "d", "f/below", "..", "x" * 256, "d/../f"):
        with pytest.raises(UsageError):
            spraydry.put(repository, "r", path, io.BytesIO(b"x"))
    with pytest.raises(UsageError):
        spraydry.put(repository, "-r", "f", io.BytesIO(b"x"))
    with pytest.raises(VersionExists):
        spraydry.put(repository, "r", "f", io.BytesIO(b"x"), name="used")
    assert len(repository.versions("r")) == 1


def test_put_into_what_is_read_only(repository: Repository, repository_path: str) -> None:
    make_version(repository, "r", {})
    with spraydry.open(repository_path, read_only=True) as reader, pytest.raises(StoreReadOnly):
        spraydry.put(reader, "r", "f", io.BytesIO(b"x"))


def test_put_keeps_what_another_committed_meanwhile(repository: Repository, repository_path: str) -> None:
    spraydry.put(repository, "r", "first", io.BytesIO(b"1"))

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell() == 0:
                with spraydry.open(repository_path) as other:
                    spraydry.put(other, "r", "second", io.BytesIO(b"2"))
            return super().read(size)

    spraydry.put(repository, "r", "third", Slow(b"3"))
    assert [found.path for found in repository.walk("r")] == [b"", b"first", b"second", b"third"]


def test_works_without_the_mount_s_libraries(repository_path: str) -> None:
    """Only the mount needs pyfuse3 and trio; the API imports neither, nor what draws on terminals."""
    code = (
        "import sys, io\n"
        "for name in ('pyfuse3', 'trio', 'rich', 'cyclopts'): sys.modules[name] = None\n"
        "import spraydry\n"
        "with spraydry.open(sys.argv[1], create=True) as r:\n"
        "    spraydry.put(r, 'a', 'f', io.BytesIO(b'plain'))\n"
        "    print(r.open_file('a:f').read().decode())\n"
    )
    done = subprocess.run([sys.executable, "-c", code, repository_path], capture_output=True, text=True, check=True)
    assert done.stdout == "plain\n"
