"""Tar streams: in any order, of any kind, cut short, and from people who mean harm."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from spraydry.actions.ingest import Ingested, ingest_tar
from spraydry.errors import CorruptData, UsageError
from spraydry.format.entry import BLOCK, CHARACTER, FIFO, Runs
from spraydry.repository.repository import Repository
from tests.ingest.trees import (
    command,
    differences,
    entry_at,
    fill,
    names_in,
    needs,
    read_back,
    taken,
    version_of,
)

Member = tuple[str, Any]


def stream(*members: Member, format: int = tarfile.PAX_FORMAT) -> bytes:
    """A tar stream of (name, bytes, or a dictionary of what its TarInfo should say)."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as archive:
        for name, what in members:
            info = tarfile.TarInfo(name)
            plain = what if isinstance(what, bytes) else b""
            for key, value in {"size": len(plain)}.items() if isinstance(what, bytes) else what.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(plain))
    return out.getvalue()


def put(repository: Repository, plain: bytes, **options: Any) -> Ingested:
    return ingest_tar(repository, io.BytesIO(plain), root=options.pop("root", "r"), **options)


@needs("tar")
@pytest.mark.parametrize(
    "options", [(), ("-z",), ("--format=gnu",), ("--sparse", "--format=gnu"), ("--sparse", "--format=pax")]
)
def test_the_same_tree_as_from_the_file_system(
    repository: Repository, tmp_path: Path, rng: random.Random, options: tuple[str, ...]
) -> None:
    source = tmp_path / "s"
    fill(source, rng, 60)
    (source / ("long" * 60)).mkdir()
    (source / ("long" * 60) / ("name" * 60)).write_bytes(b"x")
    (source / "link").symlink_to("nowhere")
    os.link(source / "d1/f00001.py", source / "z-hardlink")
    os.mkfifo(source / "fifo")
    (source / "empty").mkdir()
    (source / "large").write_bytes(rng.randbytes(9 << 20) + bytes(1 << 20) + b"end")
    with open(source / "sparse", "wb") as file:
        file.seek(3 << 20)
        file.write(b"data")
        file.truncate(5 << 20)
    for path in [*source.rglob("*"), source]:
        os.utime(path, (1_700_000_000, 1_700_000_000), follow_symlinks=False)
    first = taken(repository, source)
    packed = subprocess.run(["tar", "-c", *options, "-C", source, "."], capture_output=True, check=True).stdout
    result = put(repository, packed, root="tar")
    assert result.problems == []
    assert version_of(result).record.entry == version_of(first).record.entry
    assert version_of(result).record.links == version_of(first).record.links
    assert result.stored_bytes == 0


@needs("tar")
def test_attributes_in_pax_headers(repository: Repository, tmp_path: Path) -> None:
    source = tmp_path / "s"
    source.mkdir()
    (source / "f").write_bytes(b"x")
    os.setxattr(source / "f", "user.x", b"\x01\x02=\n\xff")
    os.utime(source / "f", ns=(-1_500_000_001, -1_500_000_001))
    packed = subprocess.run(
        ["tar", "-c", "--format=pax", "--xattrs", "-C", source, "f"], capture_output=True, check=True
    ).stdout
    result = put(repository, packed)
    entry = entry_at(repository, result, "f")
    assert (entry.mtime_s, entry.mtime_ns) == divmod(-1_500_000_001, 10**9)
    assert entry.xattrs == ((b"user.x", b"\x01\x02=\n\xff"),)


def test_the_order_says_nothing(repository: Repository, rng: random.Random) -> None:
    members: list[Member] = [(f"d{number % 3}/e{number % 2}/f{number}", b"%d" % number) for number in range(40)]
    members += [(f"d{number}", {"type": tarfile.DIRTYPE, "mode": 0o700, "mtime": 5}) for number in range(3)]
    members += [
        (f"d{number}/e{other}", {"type": tarfile.DIRTYPE, "mode": 0o750, "mtime": 7})
        for number in range(3)
        for other in range(2)
    ]
    entries = set()
    for _ in range(4):
        rng.shuffle(members)
        entries.add(version_of(put(repository, stream(*members))).record.entry)
    assert len(entries) == 1
    assert repository.log.head[0] == 1


def test_kinds(repository: Repository) -> None:
    result = put(
        repository,
        stream(
            ("fifo", {"type": tarfile.FIFOTYPE}),
            ("char", {"type": tarfile.CHRTYPE, "devmajor": 1, "devminor": 3}),
            ("block", {"type": tarfile.BLKTYPE, "devmajor": 8, "devminor": 1}),
            ("a/b/c", b"deep"),
            ("a/b/hard", {"type": tarfile.LNKTYPE, "linkname": "a/b/c"}),
            ("owned", {"uid": 1000, "gid": 2**31, "mode": 0o4755}),
        ),
    )
    kinds = {name: entry_at(repository, result, name).kind for name in ("fifo", "char", "block")}
    assert kinds == {"fifo": FIFO, "char": CHARACTER, "block": BLOCK}
    assert entry_at(repository, result, "a/b/hard").group == entry_at(repository, result, "a/b/c").group is not None
    assert read_back(repository, result, "a/b/hard") == b"deep"
    owned = entry_at(repository, result, "owned")
    assert (owned.uid, owned.gid, owned.mode) == (1000, 2**31, 0o4755)


def test_later_members_replace_earlier_ones(repository: Repository) -> None:
    result = put(
        repository,
        stream(
            ("f", b"old"),
            ("hard", {"type": tarfile.LNKTYPE, "linkname": "f"}),
            ("f", b"new"),
            ("d", {"type": tarfile.DIRTYPE}),
            ("d/x", b"x"),
            ("d", {"type": tarfile.DIRTYPE, "mode": 0o700}),
        ),
    )
    assert result.problems == []
    assert (read_back(repository, result, "f"), read_back(repository, result, "hard")) == (b"new", b"old")
    assert entry_at(repository, result, "f").group is None
    assert entry_at(repository, result, "d").mode == 0o700 and read_back(repository, result, "d/x") == b"x"


def test_an_unchanged_stream_makes_no_version(repository: Repository) -> None:
    plain = stream(("a", b"a"), ("b/c", b"c"))
    assert put(repository, plain).new
    again = put(repository, gzip.compress(plain))
    assert not again.new and again.stored_bytes == 0
    assert put(repository, plain, name="tagged").named
    before = repository.log.head
    assert put(repository, stream(("z", b"z")), dry_run=True).new
    assert repository.log.head == before


# -- cut short, damaged


def test_cut_short_anywhere(repository: Repository, rng: random.Random) -> None:
    """Never a version of what is not all there: whether the cut is in a file, in a header or between two."""
    plain = stream(("a", rng.randbytes(700)), ("b" * 200, b"long"), ("c", rng.randbytes(2000)), ("d", b"last"))
    end = len(plain.rstrip(b"\0")) // 512 * 512 + 512
    for cut in [*range(0, end, 512), *range(1, end, 97), end]:
        with pytest.raises((CorruptData, UsageError)) as caught:
            put(repository, plain[:cut])
        if cut >= 1024:
            assert isinstance(caught.value, CorruptData), cut
        assert repository.roots() == [], cut
    packed = gzip.compress(plain)
    for cut in range(0, len(packed), 131):
        with pytest.raises((CorruptData, UsageError)):
            put(repository, packed[:cut])
    assert put(repository, plain[: end + 512]).files == 4


@pytest.mark.parametrize("packed_by", [gzip.compress, bz2.compress, lzma.compress])
def test_a_flipped_bit_in_a_compressed_stream(
    repository: Repository, rng: random.Random, packed_by: Callable[[bytes], bytes]
) -> None:
    """Some decode to other bytes without an error: only the checksum at the end tells."""
    packed = packed_by(stream(("a", rng.randbytes(3000)), ("b", b"text " * 500)))
    for at in range(20, len(packed) - 20, 61):
        damaged = bytearray(packed)
        damaged[at] ^= 1 << at % 8
        with pytest.raises((CorruptData, UsageError)):
            put(repository, bytes(damaged))
    assert repository.roots() == []


def test_damaged_headers(repository: Repository, rng: random.Random) -> None:
    plain = stream(("a", b"a"), ("b", b"b"), ("c", b"c"))
    for at in (1024 + 10, 2048 + 150, 2048):
        damaged = bytearray(plain)
        damaged[at] ^= 0x10
        with pytest.raises(CorruptData):
            put(repository, bytes(damaged))
    assert repository.roots() == []


def test_what_the_command_line_says(tmp_path: Path) -> None:
    repo = tmp_path / "r.sqlite"
    plain = stream(("a", b"a" * 5000), ("b", b"b"))
    done = command("--repo", repo, "ingest", "-", "--root", "r", input=plain[:3000])
    assert done.returncode == 6 and b"cut short" in done.stderr and done.stderr.count(b"\n") == 1
    assert command("--repo", repo, "ingest", "-", "--root", "r", input=b"no tar" * 1000).returncode == 2
    assert command("--repo", repo, "ingest", "-", "--root", "r", input=b"").returncode == 2
    assert command("--repo", repo, "ingest", "-", "--root", "r", input=plain).returncode == 0


# -- hostile


def _pax(**headers: str) -> dict[str, Any]:
    return {"pax_headers": headers}


@pytest.mark.parametrize(
    ("member", "kept"),
    [
        (("../x", b"x"), None),
        (("a/../../x", b"x"), None),
        (("n" * 256, b"x"), None),
        (("/abs/x", b"x"), "abs/x"),
        (("./x", b"x"), "x"),
        (("x", {"type": tarfile.LNKTYPE, "linkname": "gone"}), None),
        (("x", {"type": tarfile.LNKTYPE, "linkname": "../../etc/passwd"}), None),
        (("x", {"type": tarfile.LNKTYPE, "linkname": "dir"}), None),
        (("x", {"type": tarfile.LNKTYPE, "linkname": "x"}), None),
        ((".", {"type": tarfile.LNKTYPE, "linkname": "good"}), None),
        ((".", b"a file as the root"), None),
        (("", b"x"), None),
        (("good/below", b"x"), None),
        (("x", {"type": tarfile.SYMTYPE, "linkname": ""}), None),
        (("x", {"type": tarfile.SYMTYPE, "linkname": "y" * 5000}), None),
        (("x", {"type": tarfile.SYMTYPE, "linkname": "../../../etc"}), "x"),
        (("x", {"type": b"Z"}), None),
        (("x", _pax(mtime="1e30")), None),
        (("x", _pax(mtime="-1e30")), None),
        (("x", _pax(mtime="nan")), "x"),
        (("new/x", _pax(mtime="1e20")), None),
        (("x", _pax(mtime="1e999999")), None),
        (("x", {"type": tarfile.DIRTYPE, "pax_headers": {"mtime": "1e25"}}), None),
        (("x", {"type": tarfile.DIRTYPE, "pax_headers": {"SCHILY.xattr.": "no name"}}), None),
        (("x", {"pax_headers": {"SCHILY.xattr." + "n" * 300: "v"}}), None),
        (("x", {"pax_headers": {"SCHILY.xattr.user.large": "v" * 70_000}}), None),
        (("x", {"uid": 2**32 - 1, "gid": 2**40}), "x"),
        (("x", {"mtime": -5}), "x"),
    ],
)
def test_hostile_members(repository: Repository, member: Member, kept: str | None) -> None:
    """Said and left out, or kept as something harmless; the rest is there either way."""
    plain = stream(
        ("dir", {"type": tarfile.DIRTYPE}), ("good", b"good"), member, ("after", b"after"), format=tarfile.PAX_FORMAT
    )
    result = put(repository, plain)
    assert {"dir", "good", "after"} <= names_in(repository, result)
    assert read_back(repository, result, "good") == b"good"
    for found in repository.walk(str(result.version)):
        assert b".." not in found.path.split(b"/")
    if kept is None:
        assert len(result.problems) == 1, result.problems
        assert names_in(repository, result) == {"dir", "good", "after"}
        assert version_of(result).record.incomplete
    else:
        assert kept in names_in(repository, result)


def test_a_member_that_claims_to_be_endless(repository: Repository) -> None:
    plain = bytearray(stream(("f", b"x")))
    info = tarfile.TarInfo("f")
    info.size = 1 << 62
    plain[:512] = info.tobuf(tarfile.GNU_FORMAT)[-512:]
    with pytest.raises(CorruptData):
        put(repository, bytes(plain))


@pytest.mark.parametrize(
    "headers",
    [
        {"size": "-5"},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "-1", "GNU.sparse.name": "y"},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9" * 20, "GNU.sparse.name": "../y"},
    ],
)
def test_headers_whose_numbers_cannot_be(repository: Repository, headers: dict[str, str]) -> None:
    member = ("x", {"type": tarfile.REGTYPE, "pax_headers": headers})
    for members in ([member], [("before", b"x"), member]):
        with pytest.raises((CorruptData, UsageError), match="header that cannot be"):
            put(repository, stream(*members, format=tarfile.PAX_FORMAT))
    assert repository.roots() == []


def test_holes(repository: Repository) -> None:
    result = put(repository, stream(("f", bytes(3 << 20) + b"x")))
    content = entry_at(repository, result, "f").content
    assert isinstance(content, Runs) and content.filled == 1
    assert read_back(repository, result, "f") == bytes(3 << 20) + b"x"


def test_round_trip_against_the_directory(repository: Repository, tmp_path: Path, rng: random.Random) -> None:
    source = tmp_path / "s"
    fill(source, rng, 30)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        archive.add(source, ".")
    for path in [*source.rglob("*"), source]:  # Python's tar has times as floats
        seconds = round(path.stat().st_mtime, 6)
        os.utime(path, (seconds, seconds))
    result = put(repository, out.getvalue())
    wrong = [line for line in differences(repository, version_of(result), source) if "mtime_ns" not in line]
    assert wrong == []
