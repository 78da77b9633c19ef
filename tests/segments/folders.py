"""Segments of a known content, and their files as bytes."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from spraydry.errors import CorruptData
from spraydry.segments.segments import Segments

Files = dict[str, bytes]


def files_of(folder: Path) -> Files:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "reserve"}


def put_back(folder: Path, files: Files) -> None:
    for path in folder.iterdir():
        if path.name not in files and path.name != "reserve":
            path.unlink()
    for name, content in files.items():
        (folder / name).write_bytes(content)


def key(name: object) -> bytes:
    return b"frames\0" + str(name).encode()


def fill(folder: Path, *, sealed: bool) -> dict[bytes, bytes]:
    """Some values in `folder`, with some replaced, moved and deleted; what is there then. With `sealed` they lie in
    four sealed segments, whose indexes are merged, and an open one; else in one open segment."""
    segments = Segments(str(folder), create=True, max_file_size=420 if sealed else None)
    for number in range(8):
        segments.put((key(number), b"value %d " % number * (number + 1)))
    segments.put((key(1), b"new"), (key(8), b""))
    segments.move(key(2), key("moved"))
    segments.delete([key(3), key(5)])
    segments.put((key("last"), bytes(range(50))))
    segments.close()
    names = {path.suffix for path in folder.iterdir()}
    assert (".merged" in names) == sealed
    return read_all(folder)[0]


def read_all(folder: Path, *, read_only: bool = True) -> tuple[dict[bytes, bytes], set[bytes]]:
    """The values that are there, and the keys of those that are damaged."""
    segments = Segments(str(folder), read_only=read_only)
    values: dict[bytes, bytes] = {}
    damaged = set()
    try:
        for name in [name for name, _ in segments.rows(b"")]:
            try:
                value = segments.get(name)
            except CorruptData as error:
                assert "\n" not in str(error)
                damaged.add(name)
            else:
                assert value is not None
                values[name] = value
        lengths = [row.length for _, row in segments.rows(b"")]
        assert segments.totals() == (len(lengths), sum(lengths))
        for name in (key(3), key(5), key(2)):
            assert segments.find(name) is None or name in values, "deleted, but found and not listed"
    finally:
        segments.close()
    return values, damaged


def descriptors(folder: Path) -> int:
    """How many files in `folder` this process has open."""
    found = 0
    for descriptor in os.listdir("/proc/self/fd"):
        with suppress(FileNotFoundError):  # it was closed meanwhile
            found += os.readlink(f"/proc/self/fd/{descriptor}").startswith(str(folder))
    return found
