"""Exports: a tar stream that gives the same tree when it is taken in again, images that the kernel mounts."""

from __future__ import annotations

import io
import os
import random
import shutil
import subprocess
import tarfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from spraydry.actions.export import new_file, write_erofs, write_squashfs, write_tar
from spraydry.actions.export.squashfs import _UntilEnd
from spraydry.actions.ingest import ingest_tar
from spraydry.cli import run
from spraydry.errors import ChunkCorrupt, StoreError, StoreFull, UsageError
from spraydry.format.erofs_layout import BLOCK_BYTES
from spraydry.repository.repository import Repository
from tests.ingest.trees import fill, needs_root, taken, version_of
from tests.versions import make_version, plain_entry


@pytest.fixture
def source(tmp_path: Path, rng: random.Random) -> Path:
    """Some of everything that tar has."""
    top = tmp_path / "source"
    fill(top, rng, 80)
    (top / "deep" / ("n" * 200) / ("m" * 200)).mkdir(parents=True)
    (top / "deep" / ("n" * 200) / ("m" * 200) / "file").write_text("far down")
    os.utime(top / "deep", ns=(0, -1_234_567_891))
    os.setxattr(top / "deep", "user.bytes", bytes(range(256)))
    with open(top / "sparse", "wb") as file:
        file.seek(5_000_000)
        file.write(b"end")
    (top / os.fsdecode(b"\xff\xfe")).write_bytes(rng.randbytes(600_000))
    return top


def test_a_tar_stream_taken_in_again_is_the_same_tree(repository: Repository, source: Path) -> None:
    first = version_of(taken(repository, source))
    out = io.BytesIO()
    done = write_tar(repository, repository.resolve("r"), out)
    assert done.left_out == [] and done.written_bytes == len(out.getvalue())
    again = ingest_tar(repository, io.BytesIO(out.getvalue()), root="again")
    assert again.problems == []
    assert version_of(again).record.entry.content == first.record.entry.content
    assert version_of(again).record.links == first.record.links


@pytest.mark.skipif(shutil.which("tar") is None, reason="NOT TESTED: needs tar")
def test_gnu_tar_reads_it(repository: Repository, source: Path, tmp_path: Path) -> None:
    taken(repository, source)
    with new_file(str(tmp_path / "out.tar"), False) as path, open(path, "wb") as file:
        write_tar(repository, repository.resolve("r"), file)
    (tmp_path / "out").mkdir()
    subprocess.run(
        ["tar", "--xattrs", "--xattrs-include=user.*", "-xpf", tmp_path / "out.tar", "-C", tmp_path / "out"], check=True
    )
    same = ["rsync", "-rlpgoDHXnci", "--delete", "--times", "--modify-window=-1", f"{source}/", f"{tmp_path}/out/"]
    assert subprocess.run(same, capture_output=True, check=True).stdout == b""


def names_in(plain: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(plain)) as archive:
        return archive.getnames()


def test_of_a_file_a_part_and_what_tar_has_not(repository: Repository) -> None:
    socket = plain_entry(b"", 5, None, 0)
    make_version(repository, "r", {b"d": {b"e": b"2", b"s": socket}, b"f": b"1"})
    out = io.BytesIO()
    assert write_tar(repository, repository.resolve("r:f"), out).entries == 1
    assert names_in(out.getvalue()) == ["f"]
    out = io.BytesIO()
    assert write_tar(repository, repository.resolve("r:d"), out).left_out == [(b"d/s", "tar has no sockets")]
    assert names_in(out.getvalue()) == [".", "e"]


@pytest.fixture
def point(tmp_path: Path) -> Iterator[Path]:
    """Where an image is mounted, taken down at the end."""
    made = tmp_path / "mnt"
    made.mkdir()
    yield made
    subprocess.run(["umount", made], capture_output=True, check=False)


@needs_root
@pytest.mark.parametrize("kind", ["erofs", "squashfs"])
def test_the_kernel_mounts_images(repository: Repository, source: Path, tmp_path: Path, point: Path, kind: str) -> None:
    if (
        subprocess.run(["losetup", "-f"], capture_output=True).returncode
        or kind not in Path("/proc/filesystems").read_text()
    ):
        pytest.skip(f"NOT TESTED: this kernel has no loop device, or no {kind}")
    taken(repository, source)
    image = tmp_path / "image"
    with new_file(str(image), False) as path:
        write = write_erofs if kind == "erofs" else write_squashfs
        write(repository, repository.resolve("r"), path)
    if kind == "erofs":
        subprocess.run(["fsck.erofs", image], check=True)
    subprocess.run(["mount", "-t", kind, "-o", "loop,ro", image, point], check=True)
    # squashfs has times in seconds from 1970 to 2106, and no ACLs
    options = "-rlptgoDHXAnci" if kind == "erofs" else "-rlpgoDHnci"
    window = ["--modify-window=-1"] if kind == "erofs" else []
    same = ["rsync", options, "--delete", *window, f"{source}/", f"{point}/"]
    assert subprocess.run(same, capture_output=True, check=True).stdout == b""
    with open(point / "sparse", "rb") as file:
        assert file.read() == bytes(5_000_000) + b"end"


def test_equal_contents_are_in_an_image_once(repository: Repository, tmp_path: Path, rng: random.Random) -> None:
    plain = rng.randbytes(1_000_000)
    make_version(repository, "r", {b"%d" % number: plain for number in range(8)})
    path = tmp_path / "image"
    path.touch()
    done = write_erofs(repository, repository.resolve("r"), str(path))
    assert done.written_bytes == path.stat().st_size < 1_000_000 + 5 * BLOCK_BYTES


def test_nothing_is_left_of_a_failed_export(
    repository: Repository, tmp_path: Path, rng: random.Random, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_version(repository, "r", {b"a": rng.randbytes(300_000)})
    frame = next(stored.name for stored in repository.store.list("frames") if stored.size > 300_000)
    damaged = bytearray(repository.store.get("frames", frame))
    damaged[-7] ^= 4
    repository.store.put("frames", frame, bytes(damaged))
    found = repository.resolve("r")
    folder = tmp_path / "out"
    folder.mkdir()
    for write in (write_erofs, write_squashfs):
        with pytest.raises(ChunkCorrupt), new_file(str(folder / "x"), False) as path:
            write(repository, found, path)
        assert list(folder.iterdir()) == []
    monkeypatch.setenv("PATH", str(folder))
    with pytest.raises(StoreError, match="apt install squashfs-tools"):
        write_squashfs(repository, found, str(folder / "y"))
    (folder / "there").write_text("precious")
    with pytest.raises(UsageError, match="--overwrite"), new_file(str(folder / "there"), False):
        pass
    with pytest.raises(StoreFull), new_file(str(folder / "there"), True):
        raise OSError(28, "No space left on device")
    assert (folder / "there").read_text() == "precious"


def test_the_command(
    repository: Repository, repository_path: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    make_version(repository, "r", {b"a": b"1", b"d": {b"e": b"2"}})
    repo = ["--repo", repository_path]
    for kind in ("tar", "erofs", "squashfs"):
        assert run([*repo, "export", "r", str(tmp_path / kind), "--format", kind]) == 0
        assert "4 entries" in capfd.readouterr().out
        assert (tmp_path / kind).stat().st_size > 0
    for ending, magic, at in (
        (".zip", b"PK", 0),
        (".erofs", b"\xe2\xe1\xf5\xe0", 1024),
        (".sqfs", b"hsqs", 0),
        (".ZIP", b"PK", 0),
        (".x", b"ustar", 257),
    ):
        assert run([*repo, "export", "r", str(tmp_path / f"named{ending}")]) == 0
        assert (tmp_path / f"named{ending}").read_bytes()[at:].startswith(magic)
    assert run([*repo, "export", "r", "-"]) == 2
    assert "spraydry tar r" in capfd.readouterr().err
    assert run([*repo, "export", "r", str(tmp_path / "tar")]) == 2
    assert "--overwrite" in capfd.readouterr().err
    assert run([*repo, "export", "r:a", str(tmp_path / "x"), "--format", "erofs"]) == 10
    for ending, told in (
        (".tar.gz", f"spraydry tar r | gzip > {tmp_path}/named.tar.gz"),
        (".TZST", f"spraydry tar r | zstd > {tmp_path}/named.TZST"),
        (".img", "--format erofs or --format squashfs"),
    ):
        assert run([*repo, "export", "r", str(tmp_path / f"named{ending}")]) == 2
        assert told in capfd.readouterr().err
        assert not (tmp_path / f"named{ending}").exists()
    assert run([*repo, "export", "r", str(tmp_path / "levelled.tar"), "--level", "9"]) == 2
    assert "for a squashfs" in capfd.readouterr().err


def test_a_program_that_has_read_enough() -> None:
    """mksquashfs may have ended before what fills up the last record of the archive is written."""
    with subprocess.Popen(["head", "-c", "3000"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, bufsize=0) as head:
        assert head.stdin is not None
        out = _UntilEnd(head.stdin)
        assert out.write(bytes(3000)) == 3000
        head.wait()
        assert out.write(bytes(512)) == 512
        assert out.write(bytes(9000)) == 9000
        with pytest.raises(BrokenPipeError):
            out.write(bytes(9000))
