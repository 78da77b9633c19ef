"""Putting one file from a stream: a new version of a root that differs from the newest in that file alone."""

from __future__ import annotations

import os
import time
from typing import BinaryIO

from spraydry.actions.commit import Proposal, commit
from spraydry.actions.compose.surgery import Surgery, folder_like
from spraydry.actions.ingest.build import Built
from spraydry.actions.ingest.proposal import names_of
from spraydry.actions.ingest.segments import store_stream
from spraydry.errors import CorruptData, StoreUnavailable, UsageError
from spraydry.format.chunker import DEFAULT_SPEC, parse_spec
from spraydry.format.classes import TREE, class_of
from spraydry.format.entry import DIRECTORY, FILE, Entry, check_name
from spraydry.format.frame import DEFAULT_LEVEL
from spraydry.format.version import check_new_name
from spraydry.repository.repository import Repository
from spraydry.repository.runs import merge_runs
from spraydry.repository.versions import Version
from spraydry.repository.writer import Writer

_TRIES = 5


def put_stream(
    repository: Repository,
    root: str,
    path: str | bytes,
    stream: BinaryIO,
    *,
    name: str | None = None,
    mode: int = 0o644,
    mtime_ns: int | None = None,
    level: int = DEFAULT_LEVEL,
) -> Version:
    """Store what `stream` gives until its end as the file at `path` of a root, and commit that as a version.

    The rest is as in the root's newest version; directories on the way are made, and a root that is not there yet.
    `mtime_ns` is the file's time (default: now), its owner who runs this; `name` is the version's. A file that is there
    is replaced. Raises UsageError where a directory or a hard-linked file is in the way, VersionExists, StoreError.
    """
    check_new_name(root, "root")
    if name is not None:
        check_new_name(name, "version")
        repository.log.check_unused(root, name)
    parts = [part for part in os.fsencode(path).split(b"/") if part]
    try:
        for part in parts or [b""]:
            check_name(part)
    except CorruptData as error:
        raise UsageError(f"{os.fsdecode(path)!r} cannot name a file: {error}") from None
    now = time.time_ns() if mtime_ns is None else mtime_ns
    began_at = repository.log.head[0]
    newest = repository.log.newest(root)
    spec = newest.record.spec if newest else DEFAULT_SPEC
    with Writer(repository, level) as writer:
        size, content = store_stream(writer, stream.read, parse_spec(spec), class_of(parts[-1]))
        entry = Entry(
            parts[-1], FILE, mode & 0o7777, os.geteuid(), os.getegid(), *divmod(now, 10**9), size, content, (), None
        )
        for _ in range(_TRIES):
            repository.log.read()
            newest = repository.log.newest(root)
            built = _built(repository, writer, newest, entry, parts[:-1])
            written = writer.finish()

            def check(base: Version | None = newest) -> None:
                if repository.log.newest(root) != base:
                    raise _Overtaken  # what another writer committed must not be undone

            record = newest.record if newest else None
            users, groups = names_of([entry.uid], [entry.gid])
            proposal = Proposal(
                root,
                name,
                built.entry,
                built.links,
                spec,
                tuple(sorted({**dict(record.users if record else ()), **dict(users)}.items())),
                tuple(sorted({**dict(record.groups if record else ()), **dict(groups)}.items())),
                "put",
                record.incomplete if record else False,
                written.plain_bytes,
                written.stored_bytes,
            )
            try:
                committed = commit(repository, proposal, began_at, check)
            except _Overtaken:
                continue
            merge_runs(repository)
            repository.store.flush()
            return committed.version
    raise StoreUnavailable(f"others committed to {root!r} {_TRIES} times meanwhile; try again")


class _Overtaken(Exception):
    pass


def _built(
    repository: Repository, writer: Writer, newest: Version | None, entry: Entry, directories: list[bytes]
) -> Built:
    """The tree of the newest version with the entry in the directory at `directories`."""
    surgery = Surgery(repository.page, lambda page, plain: writer.add(page, plain, TREE))
    root = newest.record.entry if newest else folder_like(entry, b"")
    directory: Entry | None = root
    for depth, name in enumerate([*directories, entry.name]):
        if directory is not None and directory.kind != DIRECTORY:
            raise UsageError(f"{os.fsdecode(b'/'.join(directories[:depth]))!r} is not a directory")
        directory = None if directory is None else surgery.child(directory, name)
    old, path = directory, b"/".join([*directories, entry.name])
    if old is not None and (old.kind == DIRECTORY or old.group is not None):
        what = "a directory" if old.kind == DIRECTORY else "hard-linked"
        raise UsageError(f"{os.fsdecode(path)!r} is {what}: it cannot be replaced")
    return Built(surgery.put(root, path, entry), newest.record.links if newest else None)
