"""Folders as archives, from a real server."""

from __future__ import annotations

import http.client
import io
import os
import random
import shutil
import stat
import subprocess
import tarfile
import tracemalloc
import zipfile
from pathlib import Path
from typing import IO, Any, cast

import pytest

from spraydry.actions.export import write_zip
from spraydry.errors import SprayDryError
from spraydry.format.digest import digest
from spraydry.repository.repository import Repository
from tests.versions import make_version
from tests.web.serving import serving
from tests.web.test_files import LARGE, ODD, TREE, ask


def committed(folder: Path, tree: dict[bytes, Any] = TREE) -> str:
    url = str(folder / "repository.sqlite")
    with Repository.open(url, create=True) as repository:
        make_version(repository, "photos", tree, "one")
    return url


def test_tar(tmp_path: Path) -> None:
    with serving(tmp_path, SPRAYDRY_REPO=committed(tmp_path)) as server:
        got = ask(server, "/photos@one/?archive=tar")
        assert got.headers["Content-Disposition"] == 'attachment; filename="photos-one.tar"'
        with tarfile.open(fileobj=io.BytesIO(got.body)) as archive:
            names = {member.name: member for member in archive}
            assert archive.extractfile(names["large.bin"]).read() == LARGE  # type: ignore[union-attr]
            assert names["link"].linkname == "folder"
            assert f"folder/{os.fsdecode(ODD)}" in names
        assert ask(server, "/photos@one/?archive=tar", If_None_Match=got.headers["ETag"]).status == 304
        assert ask(server, "/photos@one/?archive=tar", "HEAD").headers["Content-Type"] == "application/x-tar"
        assert ask(server, "/photos@one/?archive=rar").status == 400


def test_zip(tmp_path: Path) -> None:
    with serving(tmp_path, SPRAYDRY_REPO=committed(tmp_path)) as server:
        for path, prefix in (("/photos@one/?archive=zip", "folder/"), ("/photos@one/folder/?archive=zip", "")):
            got = ask(server, path)
            assert got.status == 200
            with zipfile.ZipFile(io.BytesIO(got.body)) as archive:
                assert archive.testzip() is None
                assert archive.read(prefix + "b.json") == b"{}"
                assert archive.read(prefix + "deep/c") == b"c"
                up = archive.getinfo(prefix + "up")
                assert (stat.S_ISLNK(up.external_attr >> 16), archive.read(up)) == (True, b"../a.txt")
                if prefix:
                    assert archive.read("large.bin") == LARGE
                    assert archive.read("holes.img") == TREE[b"holes.img"]
                    assert archive.getinfo("a.txt").date_time == (2023, 11, 14, 22, 13, 20)
                    assert not {"pipe", "null"} & set(archive.namelist())


@pytest.mark.skipif(shutil.which("unzip") is None, reason="needs unzip")
def test_unzip_takes_it(tmp_path: Path) -> None:
    url = committed(tmp_path)
    with Repository.open(url) as repository, (tmp_path / "made.zip").open("wb") as file:
        write_zip(repository, repository.resolve("photos@one"), file)
    subprocess.run(["unzip", "-q", tmp_path / "made.zip", "-d", tmp_path / "out"], check=True)
    assert (tmp_path / "out" / "large.bin").read_bytes() == LARGE
    assert os.readlink(tmp_path / "out" / "link") == "folder"
    assert (tmp_path / "out" / "folder").stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "out" / "a.txt").stat().st_mode & 0o777 == 0o644


def test_zip_of_many_files_takes_little_memory(tmp_path: Path) -> None:
    """Ten times the entries, the same memory, within what the pages of the tree take."""
    peaks = []
    for count in (2_000, 20_000):
        folder = tmp_path / str(count)
        folder.mkdir()
        url = committed(folder, {b"%06d" % number: b"" for number in range(count)})
        with Repository.open(url) as repository:
            found = repository.resolve("photos@one")
            tracemalloc.start()
            done = write_zip(repository, found, cast(IO[bytes], Counting()))
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
            assert done.files == count
    assert peaks[1] < peaks[0] + (11 << 20)  # with all members in memory it is 15 MB more


class Counting:
    def write(self, plain: bytes) -> int:
        return len(plain)


def test_what_cannot_be_read_cuts_an_archive_short(tmp_path: Path) -> None:
    rng = random.Random(7)
    files: dict[bytes, Any] = {b"%03d.bin" % number: rng.randbytes(65536) for number in range(100)}
    url = committed(tmp_path, files)
    with Repository.open(url) as repository:
        last = repository.catalog.chunks.locate(digest(files[b"090.bin"]))[0].frame
        repository.store.delete("frames", [last.hex()])
        with pytest.raises(SprayDryError):
            write_zip(repository, repository.resolve("photos@one"), cast(IO[bytes], Counting()))
    with serving(tmp_path, SPRAYDRY_REPO=url) as server:
        for kind in ("tar", "zip"):
            with pytest.raises(http.client.IncompleteRead):
                ask(server, f"/photos@one/?archive={kind}")
        assert ask(server, "/photos@one/090.bin").status >= 500
        assert ask(server, "/photos@one/000.bin").body == files[b"000.bin"]
