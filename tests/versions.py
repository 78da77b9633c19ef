"""Versions made by hand for tests: any entries, also such as no file system would give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from spraydry.format.digest import digest
from spraydry.format.entry import DIRECTORY, FILE, SYMLINK, Content, Entry, Runs
from spraydry.format.links import Group, encode_links
from spraydry.format.manifest import encode_manifest
from spraydry.format.tree_builder import TreeBuilder
from spraydry.format.version import VersionRecord
from spraydry.repository.repository import Repository
from spraydry.repository.versions import Version
from spraydry.repository.writer import Writer


def make_version(
    repository: Repository, root: str, tree: Mapping[bytes, Any], name: str | None = None, **fields: Any
) -> Version:
    """Commit a version of a tree: names to bytes (a file), str (a symlink), mapping (a directory) or Entry."""
    with Writer(repository, threads=1) as writer:
        made = Maker(writer)
        entry = made.entry(b"", tree)
        for key, value in fields.items():
            entry = _replaced(entry, **{key: value})
        links = encode_links(sorted(made.groups.values(), key=lambda group: group.group), made.emit)
        written = writer.finish()
    with repository.batch():
        _, record = repository.log.append(
            lambda previous, now_ns: VersionRecord(
                format=1,
                previous=previous,
                made_ns=now_ns,
                made_by="test",
                root=root,
                name=name or repository.log.next_name(root),
                entry=entry,
                links=links,
                spec="fixed:size=64K",
                users=((0, "root"),),
                groups=(),
                incomplete=False,
                new_bytes=written.plain_bytes,
                stored_bytes=written.stored_bytes,
            )
        )
        repository.remember_head()
    assert isinstance(record, VersionRecord)
    return repository.log.find(root, record.name)


class Maker:
    """Builds entries into a writer."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer
        self.groups: dict[bytes, Group] = {}

    def emit(self, name: bytes, plain: bytes) -> None:
        self._writer.add(name, plain, "tree")

    def entry(self, name: bytes, value: Any, path: bytes = b"") -> Entry:
        if isinstance(value, Entry):
            entry = _replaced(value, name=name)
            if entry.group is not None:
                known = self.groups.get(entry.group) or Group(entry.group, 0, path)
                self.groups[entry.group] = Group(entry.group, known.count + 1, known.first)
            return entry
        if isinstance(value, bytes):
            return plain_entry(name, FILE, self.content(value), len(value))
        if isinstance(value, str):
            return plain_entry(name, SYMLINK, value.encode(), len(value.encode()), mode=0o777)
        builder = TreeBuilder(self.emit)
        for child in sorted(value):
            builder.add(self.entry(child, value[child], path + b"/" + child if path else child))
        return plain_entry(name, DIRECTORY, builder.finish(), 0, mode=0o755)

    def content(self, plain: bytes, piece: int = 65536) -> Content:
        """Bytes as one chunk, or as a manifest of pieces in which zeros are holes."""
        if not plain:
            return None
        parts = [plain[at : at + piece] for at in range(0, len(plain), piece)]
        for part in parts:
            if part.count(0) < len(part):
                self._writer.add(digest(part), part, "other")
        if len(parts) == 1:
            self._writer.add(digest(plain), plain, "other")
            return digest(plain)
        runs: list[tuple[int, bytes | None]] = []
        for part in parts:
            hole = part.count(0) == len(part)
            if hole and runs and runs[-1][1] is None:
                runs[-1] = (runs[-1][0] + len(part), None)
            else:
                runs.append((len(part), None if hole else digest(part)))
        pages = encode_manifest(runs)
        for page, encoded in pages:
            self.emit(page, encoded)
        return Runs(digest(plain), pages[-1][0], sum(length for length, chunk in runs if chunk))


def plain_entry(name: bytes, kind: int, content: Content, size: int, mode: int = 0o644, **fields: Any) -> Entry:
    """An entry of an ordinary owner and time."""
    return _replaced(Entry(name, kind, mode, 0, 0, 1_700_000_000, 123_456_789, size, content, (), None), **fields)


def _replaced(entry: Entry, **fields: Any) -> Entry:
    changed: Entry = msgspec.structs.replace(entry, **fields)
    return changed
