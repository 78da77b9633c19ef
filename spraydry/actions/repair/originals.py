"""The files something was ingested from, searched for what is lost: cut as they were then, compared by digest alone."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

from spraydry.actions.ingest.attributes import outsized, read_xattrs
from spraydry.actions.ingest.segments import WINDOW_BYTES, ContentBuilder, Segmenter
from spraydry.actions.progress import Done, Report
from spraydry.actions.repair.cures import Cured
from spraydry.errors import UsageError
from spraydry.format.chunker import Chunker, parse_spec
from spraydry.format.digest import digest

_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def check_folders(folders: Iterable[str]) -> None:
    """Raises UsageError for what is no folder."""
    for folder in folders:
        if not os.path.isdir(folder):
            raise UsageError(f"{folder!r} is no folder: --source names the one with the original files")


def originals(
    folder: str | bytes, specs: Sequence[str], wanted: Callable[[], Collection[bytes]], report: Report
) -> Iterator[Cured]:
    """Those of the `wanted` chunks, pages of manifests and extended attributes that a file below `folder` gives when it
    is cut as one of the `specs` says. Whatever cannot be read is passed over."""
    chunkers = [parse_spec(spec) for spec in specs]
    files = size = 0
    for path in _files(os.fsencode(folder)):
        if not wanted():
            return
        try:
            fd = os.open(path, _FLAGS)
        except OSError:
            continue
        try:
            status = os.fstat(fd)
            if stat.S_ISREG(status.st_mode):
                yield from _attributes(fd, wanted())
                for chunker in chunkers:
                    yield from _cut(fd, chunker, wanted())
                files, size = files + 1, size + status.st_size
                report(Done("searching the originals", files, size))
        except OSError:
            continue
        finally:
            os.close(fd)


def _files(top: bytes) -> Iterator[bytes]:
    """What may be files below a folder; symlinks are not followed."""
    stack = [top]
    while stack:
        folder = stack.pop()
        try:
            with os.scandir(folder) as entries:
                below = sorted(entries, key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in below:
            try:
                if entry.is_dir(follow_symlinks=False):
                    stack.append(entry.path)
                elif entry.is_file(follow_symlinks=False):
                    yield entry.path
            except OSError:
                continue


def _attributes(fd: int, wanted: Collection[bytes]) -> Iterator[Cured]:
    plain = outsized(read_xattrs(fd))
    if plain is not None and (name := digest(plain)) in wanted:
        yield Cured(name, plain, "the original files")


def _cut(fd: int, chunker: Chunker, wanted: Collection[bytes]) -> Iterator[Cured]:
    """The wanted chunks of one file, and the pages of its manifest."""
    pages: list[Cured] = []

    def page(name: bytes, plain: bytes) -> None:
        if name in wanted:
            pages.append(Cured(name, plain, "the original files"))

    segmenter, content = Segmenter(chunker), ContentBuilder(page)
    at = 0
    block = _window(fd, at)
    while block:
        at += len(block)
        following = _window(fd, at)
        for length, part in segmenter.feed(block, not following):
            name = None if part is None else digest(part)
            content.add(length, name)
            if part is not None and name is not None and name in wanted:
                yield Cured(name, bytes(part), "the original files")
        yield from pages
        pages.clear()
        block = following
    content.finish(lambda: bytes(32))  # what the file's digest is plays no part in the pages
    yield from pages


def _window(fd: int, at: int) -> bytes:
    """The window at `at`, whole unless the file ends in it."""
    parts, held = [], 0
    while held < WINDOW_BYTES and (part := os.pread(fd, WINDOW_BYTES - held, at + held)):
        parts.append(part)
        held += len(part)
    return b"".join(parts)
