"""Handing off: to the real nginx in front, out of a folder of bounded size."""

from __future__ import annotations

import grp
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from spraydry.errors import CorruptData, UsageError
from spraydry.format.digest import digest
from spraydry.format.entry import FILE
from spraydry.repository.repository import Repository
from spraydry.web.plain import folder as folders
from spraydry.web.plain import handoff_of
from spraydry.web.plain.folder import PlainFolder
from tests.servers import server_or_skip
from tests.versions import make_version, plain_entry
from tests.web.impatient import patient
from tests.web.serving import Running
from tests.web.test_files import Got, ask

MIB = 1 << 20
FILES = {b"%d.bin" % number: random.Random(number).randbytes(MIB) for number in range(6)}
TREE: dict[bytes, Any] = {
    **FILES,
    b"page.html": b"<p>" * 100_000,
    b"small": b"s",
    b"folder": {b"a b\xff.txt": b"odd " * 100_000},
}


def committed(folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    url = str(folder / "repository.sqlite")
    with Repository.open(url, create=True) as repository:
        make_version(repository, "photos", TREE, "one")
    return url


@contextmanager
def in_front(folder: Path, plain: Path, *options: str, user: str = "root") -> Iterator[tuple[Running, Running]]:
    """spraydry, and nginx before it."""
    url = committed(folder)
    plain.mkdir(exist_ok=True)
    with patient(folder, "--accel", "nginx", "--plain", f"{plain}:64M", *options, SPRAYDRY_REPO=url) as behind:
        arguments = ["--before", behind.url, str(plain)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("NGINX_USER", user)
            with server_or_skip("nginx", folder / "nginx", *arguments) as nginx:
                yield behind, Running(nginx.process, nginx.url.rstrip("/"), folder / "nginx" / "error.log")


def test_nginx_sends_files(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    with in_front(tmp_path, plain) as (behind, nginx):
        whole = FILES[b"0.bin"]
        direct = ask(behind, "/photos@one/0.bin")
        assert direct.body == whole and list(plain.glob("??/*")) == []
        name = digest(whole).hex()
        for _ in range(2):
            got = ask(nginx, "/photos@one/0.bin")
            assert (got.status, got.body) == (200, whole)
            for header in ("ETag", "Last-Modified", "Content-Type", "Cache-Control", "Content-Security-Policy"):
                assert got.headers[header] == direct.headers[header], header
            assert got.headers["X-Content-Type-Options"] == "nosniff"
            assert [file.name for file in plain.glob("??/*")] == [name]
        # That it is nginx who sends it: what lies in the folder is what comes.
        (plain / name[:2] / name).write_bytes(b"x" * MIB)
        assert ask(nginx, "/photos@one/0.bin").body == b"x" * MIB


def test_conditions_and_ranges_through_nginx(tmp_path: Path) -> None:
    with in_front(tmp_path, tmp_path / "plain") as (_, nginx):
        whole, path = FILES[b"1.bin"], "/photos@one/1.bin"
        etag = ask(nginx, path).headers["ETag"]
        assert etag == f'"{digest(whole).hex()}"'
        assert ask(nginx, path, If_None_Match=etag).status == 304
        got = ask(nginx, path, Range="bytes=1000-1999")
        assert (got.status, got.body, got.headers["Content-Range"]) == (206, whole[1000:2000], f"bytes 1000-1999/{MIB}")
        assert ask(nginx, path, Range="bytes=5-9", If_Range=etag).body == whole[5:10]
        assert ask(nginx, path, Range="bytes=5-9", If_Range='"other"').body == whole
        assert ask(nginx, path, Range=f"bytes={MIB}-").status == 416
        assert ask(nginx, path, "HEAD").headers["Content-Length"] == str(MIB)
        assert ask(nginx, "/photos@one/small").body == b"s"
        assert ask(nginx, "/photos@one/folder/a%20b%FF.txt").body == TREE[b"folder"][b"a b\xff.txt"]
        got = ask(nginx, "/photos@one/page.html?download")
        assert got.headers["Content-Disposition"] == 'attachment; filename="page.html"'
        assert got.headers["Content-Security-Policy"].startswith("sandbox")


def test_nothing_but_what_the_server_says_comes_out_of_the_folder(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    with in_front(tmp_path, plain) as (behind, nginx):
        ask(nginx, "/photos@one/2.bin")
        name = digest(FILES[b"2.bin"]).hex()
        (tmp_path / "secret").write_text("secret")
        for path in (
            f"/.plain/{name[:2]}/{name}",
            "/.plain/../secret",
            "/.plain/%2e%2e/secret",
            f"/photos@one/../.plain/{name[:2]}/{name}",
            "/photos@one/..%2f..%2fsecret",
            "/.plain/.size",
        ):
            got = ask(nginx, path)
            assert got.status in (400, 404) and b"secret" not in got.body.replace(path.encode(), b""), path
        # Who comes past nginx gets bytes, no empty answer.
        assert ask(behind, "/photos@one/2.bin").body == FILES[b"2.bin"]


def test_rights_come_first(tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.json"
    made = subprocess.run(
        [
            sys.executable,
            "-c",
            "from spraydry.cli import main; main()",
            *["token", "add", "reader", "--rights", "read", "--tokens"],
            str(tokens),
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    token = made.stdout.split()[-1]
    with in_front(tmp_path, tmp_path / "plain", "--tokens", str(tokens)) as (_, nginx):
        path = "/photos@one/3.bin"
        assert ask(nginx, path).status == 401
        assert not list((tmp_path / "plain").glob("??/*"))
        assert ask(nginx, path, Authorization=f"Bearer {token}").body == FILES[b"3.bin"]
        assert ask(nginx, path).status == 401
        subprocess.run(
            [
                sys.executable,
                "-c",
                "from spraydry.cli import main; main()",
                *["token", "revoke", "reader", "--tokens"],
                str(tokens),
            ],
            check=True,
        )
        deadline = time.monotonic() + 300
        while ask(nginx, path, Authorization=f"Bearer {token}").status != 401:
            assert time.monotonic() < deadline
            time.sleep(0.1)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be two users")
def test_another_user_can_read_as_far_as_the_folder_allows(tmp_path: Path) -> None:
    plain = Path(tempfile.mkdtemp(prefix="spraydry-plain-"))
    try:
        group = grp.getgrnam("www-data").gr_gid
        os.chown(plain, -1, group)
        plain.chmod(0o750)
        with in_front(tmp_path, plain, user="www-data") as (_, nginx):
            assert ask(nginx, "/photos@one/0.bin").body == FILES[b"0.bin"]
            (file,) = plain.glob("??/*")
            assert (file.stat().st_mode & 0o777, file.stat().st_gid) == (0o640, group)
            assert file.parent.stat().st_mode & 0o777 == 0o750
            file.write_bytes(b"y" * MIB)
            assert ask(nginx, "/photos@one/0.bin").body == b"y" * MIB
            file.chmod(0o600)  # nginx cannot read it: the server is asked for the bytes
            assert ask(nginx, "/photos@one/0.bin").body == FILES[b"0.bin"]
    finally:
        shutil.rmtree(plain)


def brought(folder: PlainFolder, repository: Repository, *names: bytes) -> list[bool]:
    done = []
    for name in names:
        entry = repository.resolve(f"photos@one:{name.decode()}").entry
        assert entry.file_digest is not None
        done.append(folder.bring(repository, entry.file_digest.hex(), entry, threading.Event()))
    return done


def held(plain: Path) -> set[bytes]:
    by_digest = {digest(plain).hex(): name for name, plain in FILES.items()}
    return {by_digest[file.name] for file in plain.glob("??/*")}


def age(plain: Path, name: bytes, seconds: int) -> None:
    hexed = digest(FILES[name]).hex()
    then = time.time() - seconds
    os.utime(plain / hexed[:2] / hexed, (then, then))


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was used within 500 seconds was used just now, however slow the machine is."""
    monkeypatch.setattr(folders, "_JUST_USED_S", 500.0)


def test_what_was_not_used_for_longest_goes(tmp_path: Path, slow: None) -> None:
    plain = tmp_path / "plain"
    with Repository.open(committed(tmp_path)) as repository:
        folder = PlainFolder(str(plain), 4 * MIB)
        assert brought(folder, repository, b"0.bin", b"1.bin", b"2.bin", b"3.bin") == [True] * 4
        # All were used just now: whoever was told of them is about to open them.
        assert brought(folder, repository, b"4.bin") == [False]
        for number, name in enumerate((b"2.bin", b"0.bin", b"3.bin", b"1.bin")):
            age(plain, name, 1000 - number)
        name = digest(FILES[b"2.bin"]).hex()
        assert folder.use(name, MIB) and not folder.use(name, MIB + 1)
        brought(folder, repository, b"2.bin")
        with open(plain / digest(FILES[b"0.bin"]).hex()[:2] / digest(FILES[b"0.bin"]).hex(), "rb") as sent:
            other = PlainFolder(str(plain), 4 * MIB)  # another process, or the same one after a restart
            assert brought(other, repository, b"4.bin") == [True]
            assert held(plain) == {b"2.bin", b"1.bin", b"4.bin"}
            assert sent.read() == FILES[b"0.bin"]
        assert sum(file.stat().st_size for file in plain.glob("??/*")) <= 4 * MIB


def test_what_a_crash_left_goes(tmp_path: Path, slow: None) -> None:
    plain = tmp_path / "plain"
    with Repository.open(committed(tmp_path)) as repository:
        folder = PlainFolder(str(plain), 2 * MIB)
        (plain / ".new-left").write_bytes(bytes(2 * MIB))
        (plain / ".size").write_text("not a number")
        assert brought(folder, repository, b"0.bin", b"1.bin") == [True, True]
        assert not list(plain.glob(".new-*"))
        (plain / ".size").write_text("99999999999")
        age(plain, b"0.bin", 1000)
        assert brought(folder, repository, b"2.bin") == [True]
        assert held(plain) == {b"1.bin", b"2.bin"}


def test_what_is_not_right_gets_no_name(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    with Repository.open(committed(tmp_path)) as repository:
        folder = PlainFolder(str(plain), 4 * MIB)
        right = repository.resolve("photos@one:0.bin").entry
        content = right.content
        lying = plain_entry(b"0.bin", FILE, type(content)(bytes(32), content.manifest, content.filled), MIB)  # type: ignore
        with pytest.raises(CorruptData):
            folder.bring(repository, bytes(32).hex(), lying, threading.Event())
        assert not list(plain.rglob("*.bin")) and not list(plain.glob("??/*")) and not list(plain.glob(".new-*"))
        assert brought(folder, repository, b"0.bin", b"1.bin", b"2.bin", b"3.bin") == [True] * 4


# Brings files, and stands still before it calls something of `os` for the so manieth time.
BRINGS = """
import os, sys, time
from spraydry.repository.repository import Repository
from spraydry.web.plain.folder import PlainFolder
from tests.web.test_plain import FILES, MIB, brought
url, plain, name, left = *sys.argv[1:4], int(sys.argv[4])
call = getattr(os, name)
def stopping(*arguments):
    global left
    left -= 1
    if not left:
        print("here", flush=True)
        time.sleep(1000)
    return call(*arguments)
setattr(os, name, stopping)
with Repository.open(url, read_only=True) as repository:
    brought(PlainFolder(plain, 64 * MIB), repository, *FILES)
"""


def test_killed_while_it_is_written(tmp_path: Path) -> None:
    """Whatever moment it is killed at, nothing wrong has a name, and what is left half goes."""
    plain = tmp_path / "plain"
    url = committed(tmp_path)
    by_digest = {digest(content).hex(): content for content in FILES.values()}
    for call, left, named in (("posix_fallocate", 1, 0), ("pwrite", 8, 0), ("fsync", 2, 1), ("rename", 3, 2)):
        program = [sys.executable, "-c", BRINGS, url, str(plain), call, str(left)]
        with subprocess.Popen(program, stdout=subprocess.PIPE, cwd=Path(__file__).parents[2]) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"here\n"
            process.kill()
        assert len(list(plain.glob(".new-*"))) == 1, "what the one before left is gone"
        assert len(list(plain.glob("??/*"))) == named
        for file in plain.glob("??/*"):
            assert file.read_bytes() == by_digest[file.name]
    with Repository.open(url) as repository:
        for name in held(plain):
            age(plain, name, 1000)
        assert brought(PlainFolder(str(plain), 2 * MIB), repository, b"5.bin") == [True]
    assert not list(plain.glob(".new-*"))
    assert sum(file.stat().st_size for file in plain.glob("??/*")) <= 2 * MIB


def test_what_cannot_be_meant(tmp_path: Path) -> None:
    for accel, plain in (("nginx", ""), ("", "/srv/plain:1G"), ("nginx", "s3://bucket/x"), ("nginx", "/srv/plain")):
        with pytest.raises(UsageError):
            handoff_of(accel, plain)
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    with pytest.raises(UsageError):
        PlainFolder(str(tmp_path / "open"), 1 << 30)
    assert handoff_of("", "") is None


def test_a_file_that_has_no_room_is_sent_from_here(tmp_path: Path) -> None:
    url = committed(tmp_path)
    plain = tmp_path / "plain"
    with patient(tmp_path, "--accel", "nginx", "--plain", f"{plain}:1M", SPRAYDRY_REPO=url) as running:
        got: Got = ask(running, "/photos@one/0.bin", X_Sendfile_Type="X-Accel-Redirect")
        assert got.body == FILES[b"0.bin"] and "X-Accel-Redirect" not in got.headers
        got = ask(running, "/photos@one/page.html", X_Sendfile_Type="X-Accel-Redirect")
        assert got.headers["X-Accel-Redirect"].startswith("/.plain/") and got.body == b""
