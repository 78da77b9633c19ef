"""`spraydry tar`: the stream that `ingest -` and GNU tar take back as the same tree."""

from __future__ import annotations

import io
import os
import random
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from spraydry.actions.ingest import ingest_tar
from spraydry.repository.repository import Repository
from tests.ingest.trees import command, needs, needs_root, taken, version_of
from tests.versions import make_version, plain_entry

SPRAYDRY = f"{sys.executable} -c 'from spraydry.cli import main; main()'"


@pytest.fixture
def awkward(tmp_path: Path, rng: random.Random) -> Path:
    """One of every thing a tar stream can hold that is hard to hold."""
    top = tmp_path / "awkward"
    top.mkdir(mode=0o750)
    raw = os.fsencode(top) + b"/"
    for number, name in enumerate(
        [
            b"new\nline",
            b"\xff\xfe",
            "é".encode(),
            "e\u0301".encode(),
            b"-rf",
            b" lead",
            b"a" * 255,
            b"back\\slash",
            b"..x",
        ]
    ):
        Path(os.fsdecode(raw + name)).write_bytes(b"%d" % number)
    deep = top.joinpath(*["d" * 100] * 12)
    deep.mkdir(parents=True)
    (deep / "leaf").write_text("leaf")
    (top / "large").write_bytes(rng.randbytes(700_000))
    with open(top / "sparse", "wb") as file:
        file.seek(3_000_000)
        file.write(b"middle")
        file.truncate(6_000_000)
    with open(top / "hole", "wb") as file:
        file.truncate(2_000_000)
    os.link(top / "large", top / "also-large")
    os.symlink("large", top / "link")
    os.link(top / "link", top / "link-again", follow_symlinks=False)
    os.symlink(b"\xff" * 300, top / "long-link")
    os.mkfifo(top / "fifo")
    (top / "empty").mkdir()
    (top / "x").write_text("x")
    os.setxattr(top / "x", "user.any", bytes(range(256)))
    os.setxattr(top / "x", "user.empty", b"")
    os.setxattr(top / "empty", "user.dir", b"=\n")
    os.chmod(top / "x", 0o4755)
    for name, ns in (("a" * 255, -1_234_567_891), ("new\nline", 2**32 * 10**9 + 5), ("..x", 1), ("empty", 999_999_999)):
        os.utime(top / name, ns=(ns, ns))
    os.utime(top / "link", ns=(0, 1_700_000_000_123_456_789), follow_symlinks=False)
    if os.geteuid() == 0:
        os.mknod(top / "null", 0o020666, os.makedev(1, 3))
        os.mknod(top / "disk", 0o060600, os.makedev(259, 0xFFFFF))
        os.chown(top / "large", 65536, 2**31)
        os.setxattr(top / "x", "trusted.t", b"1")
        acl = bytes.fromhex("0200000001000700ffffffff02000700e803000004000500ffffffff10000700ffffffff20000500ffffffff")
        os.setxattr(top / "..x", "system.posix_acl_access", acl)
        os.setxattr(top / "empty", "system.posix_acl_default", acl)
    return top


def test_a_stream_into_ingest_gives_the_same_tree(repository: Repository, repository_path: str, awkward: Path) -> None:
    first = version_of(taken(repository, awkward)).record
    piped = f"set -o pipefail; {SPRAYDRY} tar r | {SPRAYDRY} ingest - --root again"
    environment = {**os.environ, "SPRAYDRY_REPO": repository_path}
    subprocess.run(["bash", "-c", piped], env=environment, check=True, capture_output=True)
    repository.refresh()
    again = repository.log.find("again").record
    assert again.entry == first.entry
    assert again.links == first.links
    assert (again.incomplete, again.users, again.groups) == (False, first.users, first.groups)


@needs("tar", "rsync")
@needs_root
@pytest.mark.parametrize("options", [["--xattrs", "--xattrs-include=*"], ["--acls", "--xattrs", "--xattrs-include=*"]])
def test_gnu_tar_unpacks_the_same_tree(
    repository: Repository, awkward: Path, tmp_path: Path, options: list[str]
) -> None:
    taken(repository, awkward)
    out = tmp_path / "out"
    out.mkdir()
    done = command("tar", "r", "--repo", repository.url)
    assert (done.returncode, done.stderr) == (0, b"")
    subprocess.run(["tar", "-xp", *options, "-C", out], input=done.stdout, check=True, capture_output=True)
    same = ["rsync", "-rlptgoDHXAnci", "--delete", "--modify-window=-1", f"{awkward}/", f"{out}/"]
    assert subprocess.run(same, capture_output=True, check=True).stdout == b""
    for name in ("sparse", "hole"):
        assert (out / name).stat().st_blocks < 1000, "its holes were written as zeros"


@needs("tar")
@needs_root
@pytest.mark.parametrize("options", [["--acls"], ["--acls", "--xattrs"]])
def test_acls_that_gnu_tar_wrote(repository: Repository, awkward: Path, options: list[str]) -> None:
    first = version_of(taken(repository, awkward)).record.entry
    packed = subprocess.run(
        ["tar", "-c", "--format=posix", *options, "-C", awkward, "."], capture_output=True, check=True
    ).stdout
    done = command("ingest", "-", "--root", "again", "--repo", repository.url, input=packed)
    assert (done.returncode, done.stderr) == (0, b"")
    repository.refresh()
    for name in ("..x", "empty", "x"):
        acls = [
            [pair for pair in repository.resolve(f"{root}:{name}").entry.xattrs if b"posix_acl" in bytes(pair[0])]
            for root in ("r", "again")
        ]
        assert acls[0] == acls[1] and bool(acls[0]) == (name != "x")
    assert first.mode == repository.resolve("again").entry.mode


def test_an_acl_of_nobody_here(repository: Repository) -> None:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        info = tarfile.TarInfo("f")
        info.pax_headers = {"SCHILY.acl.access": "user::rwx\nuser:no-such-user:rwx\ngroup::r-x\nother::r-x\n"}
        archive.addfile(info)
    done = ingest_tar(repository, io.BytesIO(out.getvalue()), root="r")
    assert done.problems == [(b"f", "its ACL names user 'no-such-user', whom nobody knows here; it was left out")]
    assert repository.resolve("r:f").entry.xattrs == ()


def test_of_a_folder_a_file_and_what_is_left_out(repository: Repository, repository_path: str) -> None:
    make_version(repository, "r", {b"d": {b"e": b"2", b"s": plain_entry(b"", 5, None, 0)}, b"f": b"1"})
    for address, names, said in (
        ("r:d", "./\ne\n", b"spraydry: left out: d/s: tar has no sockets\n"),
        ("r:f", "f\n", b""),
        ("r@v1", "./\nd/\nd/e\nf\n", b"spraydry: left out: d/s: tar has no sockets\n"),
    ):
        done = command("tar", address, "--repo", repository_path)
        assert (done.returncode, done.stderr) == (0, said)
        listed = subprocess.run(["tar", "-t"], input=done.stdout, capture_output=True, check=True)
        assert listed.stdout.decode() == names


def test_a_reader_that_goes_away(repository: Repository, repository_path: str, rng: random.Random) -> None:
    make_version(repository, "r", {b"f%d" % number: rng.randbytes(100_000) for number in range(30)})
    script = f"{SPRAYDRY} tar r --repo {repository_path} | head -c 1000 > /dev/null; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", script], capture_output=True, check=True)
    assert (done.stdout, done.stderr) == (b"141\n", b"")


def test_damage_cuts_the_stream_short(repository: Repository, repository_path: str, rng: random.Random) -> None:
    """No reader may take what is left for the whole."""
    make_version(repository, "r", {b"a": b"1", b"b": rng.randbytes(300_000), b"c": b"3"})
    frame = next(stored.name for stored in repository.store.list("frames") if stored.size > 300_000)
    damaged = bytearray(repository.store.get("frames", frame))
    damaged[-7] ^= 4
    repository.store.put("frames", frame, bytes(damaged))
    done = command("tar", "r", "--repo", repository_path)
    assert done.returncode == 6 and done.stderr.count(b"\n") == 1
    taken_back = command("ingest", "-", "--root", "again", "--repo", repository_path, input=done.stdout)
    assert taken_back.returncode == 6 and b"cut short" in taken_back.stderr
