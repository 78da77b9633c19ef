"""What the tests of ingest share: making awkward trees, and comparing a version with a source, field by field."""

from __future__ import annotations

import contextlib
import os
import random
import stat
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
from blake3 import blake3

from spraydry.actions.ingest import Ingested, ingest
from spraydry.format.entry import (
    BLOCK,
    CHARACTER,
    DIRECTORY,
    FIFO,
    FILE,
    SOCKET,
    SYMLINK,
    Entry,
    Subtree,
    Xattrs,
    decode_xattrs,
)
from spraydry.repository.repository import Repository
from spraydry.repository.stream import open_entry, parts
from spraydry.repository.versions import Version

KINDS = {
    stat.S_IFREG: FILE,
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFLNK: SYMLINK,
    stat.S_IFIFO: FIFO,
    stat.S_IFSOCK: SOCKET,
    stat.S_IFCHR: CHARACTER,
    stat.S_IFBLK: BLOCK,
}
NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="NEEDS ROOT: not tested here")


def taken(repository: Repository, *sources: Path | bytes, **options: object) -> Ingested:
    """Ingest, as root `r` unless another is named, and expect no problems."""
    options.setdefault("root", "r")
    result = ingest(repository, [os.fsencode(source) for source in sources], **options)  # type: ignore[arg-type]
    assert result.problems == []
    return result


def version_of(result: Ingested) -> Version:
    assert result.version is not None
    return result.version


def age() -> None:
    """Wait until what was written by now counts as older than an ingest that starts next."""
    time.sleep(0.13)


def plain_xattrs(repository: Repository, entry: Entry) -> Xattrs:
    """The attributes of an entry, wherever they are."""
    return (
        decode_xattrs(bytes(repository.read_chunk(entry.xattrs))) if isinstance(entry.xattrs, bytes) else entry.xattrs
    )


def xattrs_at(fd: int, name: bytes) -> Xattrs:
    """The attributes of a name in an open directory, not following a symlink."""
    path = b"/proc/self/fd/%d/%s" % (fd, name)
    names = os.listxattr(path, follow_symlinks=False)
    return tuple(sorted((os.fsencode(key), os.getxattr(path, key, follow_symlinks=False)) for key in names))


def differences(repository: Repository, version: Version, source: Path | bytes, contents: bool = True) -> list[str]:
    """What differs between a version and the directory it came from, a line each; walks by descriptors."""
    found: list[str] = []
    groups: dict[bytes, tuple[int, int]] = {}
    inodes: dict[tuple[int, int], list[Entry]] = {}
    top = os.open(source, os.O_RDONLY | os.O_DIRECTORY)
    stack = [(version.record.entry, top, b"")]
    try:
        _attributes(repository, version.record.entry, os.fstat(top), b"", found)
        while stack:
            directory, fd, path = stack.pop()
            try:
                assert isinstance(directory.content, Subtree)
                entries = {entry.name: entry for entry, _ in repository.tree(directory.content).entries()}
                names = set(map(os.fsencode, os.listdir(fd)))
                found += [f"{path + b'/' + name!r} is missing" for name in sorted(names - set(entries))]
                found += [f"{path + b'/' + name!r} is too much" for name in sorted(set(entries) - names)]
                for name in sorted(names & set(entries)):
                    entry, status = entries[name], os.lstat(name, dir_fd=fd)
                    place = path + b"/" + name
                    _attributes(repository, entry, status, place, found)
                    if plain_xattrs(repository, entry) != xattrs_at(fd, name):
                        found.append(f"{place!r}: xattrs {plain_xattrs(repository, entry)} != {xattrs_at(fd, name)}")
                    if entry.kind == SYMLINK and entry.content != os.readlink(name, dir_fd=fd):
                        found.append(f"{place!r}: target {entry.content!r}")
                    if entry.kind == FILE and contents:
                        _content(repository, entry, fd, place, found)
                    if entry.kind == DIRECTORY:
                        below = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=fd)
                        stack.append((entry, below, place))
                    elif status.st_nlink > 1:
                        inode = (status.st_dev, status.st_ino)
                        inodes.setdefault(inode, []).append(entry)
                        if entry.group is not None and groups.setdefault(entry.group, inode) != inode:
                            found.append(f"{place!r}: in the group of another inode")
                    elif entry.group is not None:
                        found.append(f"{place!r}: in a group, though it is alone")
            finally:
                os.close(fd)
    finally:
        for _, fd, _ in stack:
            os.close(fd)
    links = repository.links(version.record.links)
    for inode, members in inodes.items():
        group = members[0].group
        if len(members) > 1 and (group is None or any(member.group != group for member in members)):
            found.append(f"inode {inode}: its names are in different groups")
        elif group is not None and links.find(group).count != len(members):
            found.append(f"inode {inode}: the links list counts {links.find(group).count} names")
    return found


def _attributes(repository: Repository, entry: Entry, status: os.stat_result, path: bytes, found: list[str]) -> None:
    seconds, nanoseconds = divmod(status.st_mtime_ns, 10**9)
    size = {FILE: status.st_size, SYMLINK: status.st_size}.get(entry.kind, 0)
    wanted = {
        "kind": KINDS[stat.S_IFMT(status.st_mode)],
        "mode": stat.S_IMODE(status.st_mode),
        "uid": status.st_uid,
        "gid": status.st_gid,
        "mtime_s": seconds,
        "mtime_ns": nanoseconds,
        "size": size,
    }
    if entry.kind in (CHARACTER, BLOCK):
        wanted["content"] = os.major(status.st_rdev) << 32 | os.minor(status.st_rdev)
    found += [
        f"{path!r}: {name} is {getattr(entry, name)}, not {value}"
        for name, value in wanted.items()
        if getattr(entry, name) != value
    ]


def _content(repository: Repository, entry: Entry, fd: int, path: bytes, found: list[str]) -> None:
    whole = blake3()
    here = os.open(entry.name, os.O_RDONLY | os.O_NOFOLLOW, dir_fd=fd)
    with open(here, "rb") as file, open_entry(entry, partial(parts, entry, repository.read_chunk)) as stream:
        at = 0
        while True:
            wanted, got = file.read(1 << 20), stream.read(1 << 20)
            if wanted != got:
                found.append(f"{path!r}: differs in the MiB at {at}")
                return
            if not wanted:
                break
            whole.update(wanted)
            at += len(wanted)
    if entry.file_digest != whole.digest():
        found.append(f"{path!r}: its digest is not that of its bytes")


def held_by_this_process(repository: Repository) -> Counter[object]:
    """Its threads, children and descriptors, but for those of the repository's own files: how many readers a
    repository has open depends on how many threads read at the same moment. To be subtracted: what there is besides
    belongs to other tests, and may go away meanwhile."""
    found: Counter[object] = Counter(threading.enumerate())
    for task in os.listdir("/proc/self/task"):
        with contextlib.suppress(OSError), open(f"/proc/self/task/{task}/children", encoding="ascii") as file:
            found.update(f"child {pid}" for pid in file.read().split())
    for descriptor in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):  # that of the listing itself
            link = os.readlink(f"/proc/self/fd/{descriptor}")
            if not link.startswith(repository.url):
                found[link] += 1
    return found


def entry_at(repository: Repository, version: Version | Ingested, path: str) -> Entry:
    """The entry at a path of a version."""
    version = version_of(version) if isinstance(version, Ingested) else version
    return repository.resolve(f"{version}:{path}").entry


def names_in(repository: Repository, version: Version | Ingested) -> set[str]:
    """All paths of a version."""
    version = version_of(version) if isinstance(version, Ingested) else version
    return {os.fsdecode(found.path) for found in repository.walk(str(version)) if found.path}


def read_back(repository: Repository, version: Version | Ingested, path: str) -> bytes:
    """The bytes of a file of a version."""
    entry = entry_at(repository, version, path)
    with open_entry(entry, partial(parts, entry, repository.read_chunk)) as stream:
        return stream.read()


def fill(folder: Path, rng: random.Random, files: int, size: int = 3000) -> None:
    """Put compressible files of around `size` bytes into a few directories."""
    for number in range(files):
        place = folder / f"d{number % 7}" / f"f{number:05d}.{('txt', 'py', 'bin', 'json')[number % 4]}"
        place.parent.mkdir(parents=True, exist_ok=True)
        length = rng.randrange(2 * size)
        place.write_bytes(rng.randbytes(length // 4) + b"a line that comes again\n" * (length // 32))


@contextlib.contextmanager
def as_nobody() -> Iterator[None]:
    """Inside, file permissions hold for this thread as for an unprivileged user (where it is root)."""
    if os.geteuid() != 0:
        yield
        return
    os.setegid(NOBODY)
    os.seteuid(NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)


def command(*arguments: str | bytes | Path, **options: object) -> subprocess.CompletedProcess[bytes]:
    """Run the command line in a process of its own, in which progress is not told, however long it takes."""
    code = (
        "from spraydry.commands import progress; progress._LINE_EVERY_S = 3600.0; from spraydry.cli import main; main()"
    )
    return subprocess.run(
        [sys.executable, "-c", code, *map(os.fsencode, arguments)],
        capture_output=True,
        timeout=600,
        check=False,
        **options,  # type: ignore[call-overload]
    )


def have(*programs: str) -> list[str]:
    """Those of `programs` that are not installed."""
    import shutil

    return [
        program for program in programs if shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin") is None
    ]


def needs(*programs: str) -> pytest.MarkDecorator:
    missing = have(*programs)
    return pytest.mark.skipif(bool(missing), reason=f"NOT INSTALLED, so not tested here: {', '.join(missing)}")


def run(arguments: Sequence[str | bytes | Path]) -> None:
    subprocess.run(list(arguments), check=True, capture_output=True)
