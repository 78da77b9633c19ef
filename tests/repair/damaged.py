"""For tests of repair: a source with everything in it, repositories of it with many small frames, and damage."""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

import pytest

from spraydry.actions.ingest import ingest
from spraydry.errors import SprayDryError
from spraydry.format.entry import FILE, Entry, Runs, Subtree
from spraydry.repository.repository import Repository
from spraydry.repository.stream import spans

Contents = dict[bytes, object]


def small_frames(monkeypatch: pytest.MonkeyPatch) -> None:
    """A few files take as many frames as a large tree."""
    monkeypatch.setattr(sys.modules["spraydry.actions.ingest.ingest"], "FRAME_TARGET_BYTES", 600)
    monkeypatch.setattr("spraydry.repository.writer.PART_TARGET_BYTES", 600)


def fill(source: Path, seed: int = 1) -> Path:
    """Folders three deep, a large one, files of one chunk and of many, hardlinks, attributes too large to inline."""
    rng = random.Random(seed)
    for place in ("a", "a/b", "a/b/c", "many", "links"):
        (source / place).mkdir(parents=True)
        for number in range(4):
            (source / place / f"f{number}").write_bytes(rng.randbytes(rng.randrange(200, 1500)))
    (source / "large").write_bytes(rng.randbytes(900_000))
    for number in range(900):
        (source / "many" / f"file-{number:04}-{'x' * 40}").write_bytes(b"%d" % number)
    for number in range(3):
        os.link(source / "a" / "b" / f"f{number}", source / "links" / f"to-{number}")
    os.link(source / "links" / "f0", source / "links" / "zz")
    os.setxattr(source / "a" / "f1", "user.note", rng.randbytes(6000))
    still(source)
    return source


def still(source: Path) -> None:
    """Give everything one time, so that the same pages come out in each run."""
    for path in [*source.rglob("*"), source]:
        os.utime(path, ns=(0, 10**18))


def contents(repository: Repository, address: str) -> tuple[Contents, list[bytes]]:
    """What a version shows: its paths with kind, attributes and bytes, and the paths that cannot be read."""
    found: Contents = {}
    unread: list[bytes] = []
    stack = [(b"", repository.resolve(address).entry)]
    while stack:
        path, entry = stack.pop()
        try:
            plain = None
            if entry.kind == FILE:
                with repository.open_file(f"{address}:{os.fsdecode(path)}") as stream:
                    plain = stream.read()
            xattrs = bytes(repository.read_chunk(entry.xattrs)) if isinstance(entry.xattrs, bytes) else entry.xattrs
            found[path] = (entry.kind, entry.mode, entry.mtime_s, entry.size if plain else 0, plain, xattrs)
            if isinstance(entry.content, Subtree):
                below = [one for one, _ in repository.tree(entry.content).entries()]
                stack += [(path + b"/" + one.name if path else one.name, one) for one in below]
        except SprayDryError:
            found.pop(path, None)
            unread.append(path)
    return found, unread


def entry_of(repository: Repository, address: str) -> Entry:
    return repository.resolve(address).entry


def chunk_of(repository: Repository, what: str) -> bytes:
    """A chunk of the version `source@v1` of some kind."""
    record = repository.log.find("source", "v1").record
    if what == "content":
        return _first_span(repository, "source@v1:a/b/f3")
    if what == "linked content":
        return _first_span(repository, "source@v1:a/b/f0")
    if what == "part":
        return [s.chunk for s in spans(entry_of(repository, "source@v1:large"), repository.read_chunk) if s.chunk][3]
    if what == "manifest":
        runs = entry_of(repository, "source@v1:large").content
        assert isinstance(runs, Runs)
        return runs.manifest
    if what == "tree page":
        below = entry_of(repository, "source@v1:a/b").content
        assert isinstance(below, Subtree)
        return below.digest
    if what == "leaf of many":
        many = entry_of(repository, "source@v1:many").content
        assert isinstance(many, Subtree)
        _, *leaves = repository.tree(many).pages()
        return leaves[0]
    if what == "attributes":
        xattrs = entry_of(repository, "source@v1:a/f1").xattrs
        assert isinstance(xattrs, bytes)
        return xattrs
    assert what == "links" and record.links is not None
    return record.links


def _first_span(repository: Repository, address: str) -> bytes:
    name = next(spans(entry_of(repository, address), repository.read_chunk)).chunk
    assert name is not None
    return name


KINDS = ("content", "linked content", "part", "manifest", "tree page", "leaf of many", "attributes", "links")


def frames_of(repository: Repository, chunk: bytes) -> list[str]:
    return [place.frame.hex() for place in repository.catalog.chunks.locate(chunk)]


def damage(repository: Repository, frame: str, how: str) -> None:
    """Damage a frame in the store, as a disk does."""
    if how == "gone":
        repository.store.delete("frames", [frame])
        return
    stored = bytearray(repository.store.get("frames", frame))
    if how == "flipped":
        stored[len(stored) // 2] ^= 4
    repository.store.put("frames", frame, bytes(stored[:-9] if how == "cut" else stored))


def make(url: str, source: Path) -> None:
    with Repository.open(url, create=True) as repository:
        ingest(repository, [str(source)], root="source")
