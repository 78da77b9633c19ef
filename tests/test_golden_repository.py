"""Repositories written by earlier builds: each stays readable, and everything in it stays what it was.

`golden/repository-N.sqlite` was written by the build that closed the N-th stage, with `golden/repository-N.json` saying
what is in it: each root and version, each path with its attributes and digest; from 4 on also `repository-N.dir.tgz`
and `repository-N.segment.tgz`, on a store of that kind; from 6 on two hoards, that in the folder with as many puts as
fill a log pack. To add them, run this file as a program with the number (`python -m tests.test_golden_repository N`).
"""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
import tarfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

import spraydry
from spraydry import Hoard
from spraydry.actions.hoard import checkpoint
from spraydry.actions.verify import verify
from spraydry.format.entry import FILE
from spraydry.repository.packs import SLOTS
from spraydry.repository.repository import Repository

GOLDEN = Path(__file__).parent / "golden"
REPOSITORIES = sorted(path for path in GOLDEN.glob("repository-*") if path.suffix != ".json")


def contents(repository: Repository) -> dict[str, Any]:
    """Everything a repository shows, as JSON holds it."""
    shown: dict[str, Any] = {}
    for root in repository.roots():
        for version in repository.versions(root):
            entries = {}
            for found in repository.walk(str(version)):
                entry = found.entry
                digest = None
                if entry.kind == FILE:
                    with repository.open_file(found) as file:
                        digest = spraydry_digest(file.read())
                entries[os.fsdecode(found.path)] = [
                    entry.kind,
                    entry.mode,
                    entry.uid,
                    entry.gid,
                    entry.mtime_s,
                    entry.mtime_ns,
                    entry.size,
                    found.number,
                    digest,
                    entry.group.hex() if entry.group else None,
                    [[name.hex(), value.hex()] for name, value in entry.xattrs if isinstance(entry.xattrs, tuple)],
                ]
            shown[str(version)] = {"spec": version.record.spec, "entries": entries}
    if held := hoards_of(repository):
        shown["hoards"] = held
    return json.loads(json.dumps(shown))  # type: ignore[no-any-return]


def hoards_of(repository: Repository) -> dict[str, Any]:
    """What hoards hold, and what keys named before, but for those that were put more often than is told."""
    shown: dict[str, Any] = {}
    for name in repository.log.hoards.names():
        hoard = Hoard(name, repository=repository)
        held = {kept.key: [kept.size, spraydry_digest(hoard.open(kept).read())] for kept in hoard.list()}
        assert len(hoard) == len(held)
        before = {
            key: [event.entry and [event.entry.size, bytes(event.entry.file_digest or b"").hex()] for event in events]
            for key in ("a/text.txt", "gone", "empty")
            if len(events := list(hoard.history(key)))
        }
        shown[name] = {"held": held, "before": before}
    return shown


def spraydry_digest(plain: bytes) -> str:
    from blake3 import blake3

    return blake3(plain).hexdigest()


def placed(golden: Path, folder: Path) -> str:
    """The URL of a copy."""
    if golden.suffix == ".sqlite":
        shutil.copyfile(golden, folder / "copy.sqlite")
        return f"sqlite:{folder}/copy.sqlite"
    shutil.unpack_archive(golden, folder / "copy", "gztar")
    return f"{scheme_of(golden)}:{folder}/copy"


def scheme_of(golden: Path) -> str:
    return golden.name.split(".")[1]


@pytest.mark.parametrize("golden", REPOSITORIES, ids=lambda path: path.name)
def test_an_earlier_repository_reads_as_it_was(golden: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    url = placed(golden, tmp_path)
    expected = json.loads(golden.with_name(golden.name.partition(".")[0] + ".json").read_text())
    with spraydry.open(url) as repository:
        assert contents(repository) == expected
        assert verify(repository).sound
    if golden.suffix == ".sqlite":
        os.chmod(tmp_path / "copy.sqlite", 0o400)
    with spraydry.open(url, read_only=True) as repository:
        assert contents(repository) == expected


def test_there_are_some() -> None:
    assert {scheme_of(golden) for golden in REPOSITORIES} == {"sqlite", "dir", "segment"}


def put_some(repository: Repository, times: int) -> None:
    """Two hoards with what was overwritten and deleted, before a checkpoint and behind it; at least so many slots."""
    first, second = (Hoard(name, repository=repository) for name in ("first", "second"))
    for hoard in (first, second):
        hoard["a/text.txt"] = b"overwritten\n" * 9
        hoard.put_many([("gone", b"deleted"), ("empty", b""), ("ü/🌍", hoard.name.encode()), ("a b", b"kept")])
        hoard["a/text.txt"] = b"as it is\n" * 99
    first["several chunks"] = bytes(range(256)) * 2000
    del first["gone"]
    checkpoint(repository, "first")
    with first.transaction() as change:
        change.put(b"together", "one")
        change.put(b"with this", "other")
        change.delete("a b")
    first["empty"] = b"no more"
    with suppress(KeyError):
        del second["no such key"]
    del second["gone"]
    while repository.log.head[0] < times:  # nothing new to store: all this takes is in the log
        second["again and again"] = b"kept"
    second.clear()
    second["a/text.txt"] = b"after all was deleted"


def stamp(*paths: Path) -> None:
    for path in paths:
        os.utime(path, ns=(0, 10**18))


def make(number: int) -> None:
    """Write the golden repositories of this build, one on each kind of store, of the same tree."""
    import tempfile

    from spraydry.actions.collect import gc
    from spraydry.actions.compose.compose import compose
    from spraydry.actions.forget import forget
    from spraydry.actions.ingest import ingest
    from spraydry.actions.recompress import recompress
    from spraydry.actions.remove import remove
    from spraydry.actions.rollback import rollback
    from spraydry.actions.tag import tag

    rng = random.Random(number)
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "tree")
        (source / "docs" / "deep").mkdir(parents=True)
        (source / "empty").mkdir()
        (source / "docs" / "a.py").write_text("import os\n" * 400)
        (source / "docs" / "b.json").write_text('{"a": [1, 2, 3]}\n' * 300)
        (source / "docs" / "deep" / "random").write_bytes(rng.randbytes(40_000))
        (source / "nothing").write_bytes(b"")
        (source / os.fsdecode(b"name \xff\n")).write_bytes(b"x")
        with open(source / "holes", "wb") as file:
            file.truncate(1 << 20)
            file.seek(1 << 19)
            file.write(b"in between")
        os.link(source / "docs" / "a.py", source / "linked.py")
        os.symlink("docs/a.py", source / "symlink")
        os.mkfifo(source / "fifo")
        os.setxattr(source / "nothing", "user.note", b"\0\1\2")
        os.chmod(source / "nothing", 0o4751)
        for place, path in enumerate([*source.rglob("*"), source]):
            os.utime(path, ns=(0, (place - 3) * 10**18 + 123456789), follow_symlinks=False)
        later = source / "docs" / "c.py"
        shown = []
        for scheme in ("sqlite", "dir", "segment"):
            store = Path(folder, f"copy.{scheme}")
            stamp(later.parent)
            with spraydry.open(f"{scheme}:{store}", create=True) as repository:
                ingest(repository, [source], root="tree")
                later.write_text("import sys\n" * 300)
                stamp(later, later.parent)
                ingest(repository, [source], root="tree", name="second")
                ingest(repository, [source], root="tree", name="second-again")
                ingest(repository, [source / "docs"], root="part", chunker="fixed:size=16K", level=9)
                later.unlink()
                stamp(later.parent)
                ingest(repository, [source], root="tree", name="gone")
                remove(repository, ["tree@gone"])
                recompress(repository, level=12)
                compose(repository, "mixed", "tree + part@v1 -> more - docs/deep")
                compose(repository, "mixed", "tree -> one + tree -> two")
                tag(repository, "tree@v1", "kept")
                forget(repository, "mixed:more/b.json", prune=True)
                gc(repository, grace_ns=0, below=1)
                rollback(repository, "tree@kept")
                remove(repository, ["mixed@v2"])
                put_some(repository, SLOTS + 10 if scheme == "dir" else 50)
                assert scheme != "dir" or len([*repository.store.list("hoards")]) == 1  # the log pack
                gc(repository)  # what it condemns stays for the grace time
                shown.append(contents(repository))
            if scheme == "sqlite":
                shutil.copyfile(store, GOLDEN / f"repository-{number}.sqlite")
            else:
                with tarfile.open(GOLDEN / f"repository-{number}.{scheme}.tgz", "w:gz") as archive:
                    archive.add(store, ".")
    (GOLDEN / f"repository-{number}.json").write_text(json.dumps(shown[0], indent=1) + "\n")
    assert shown[0] == shown[1] == shown[2]


if __name__ == "__main__":
    make(int(sys.argv[1]))
