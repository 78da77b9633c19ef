"""Reading the files of an ingest: open, read, cut, hash, in threads; what comes out is entries and chunks."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from spraydry.actions.ingest.attributes import entry_of, outsized, read_xattrs
from spraydry.actions.ingest.nodes import Work
from spraydry.actions.ingest.segments import WINDOW_BYTES, ZERO_WINDOW, ContentBuilder, Segmenter
from spraydry.format.chunker import HOLE_BLOCK_BYTES, Chunker
from spraydry.format.classes import TREE
from spraydry.format.digest import Buffer, Hasher, digest, hasher
from spraydry.format.entry import Content, encode_entry

LARGE_BYTES = 8 << 20  # files above are read in windows
SMALL_BYTES = 256 << 10  # files up to here go into batches of their own
BATCH_FILES = 128
BATCH_BYTES = 1 << 20
_TRIES = 3
_MAX_DIRECT_PATH = 4000
_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC

CHANGED = "it changed while it was read; what was read last is kept"


class Chunk(NamedTuple):
    """A chunk to be stored."""

    frame_class: str
    name: bytes
    plain: Buffer


class Read(NamedTuple):
    """What became of a file: its encoded entry (None: it could not be read), size, chunks, and what there is to say.

    Not `same`: another inode was at its path by then, so what was scanned must not stand for what was read.
    """

    work: Work
    entry: bytes | None
    size: int
    chunks: Sequence[Chunk]
    problem: str | None
    same: bool = True


class Cut(NamedTuple):
    """A file's content, its chunks (name, offset, length) and what else is to be stored for it."""

    content: Content
    pieces: list[tuple[bytes, int, int]]
    pages: list[Chunk]


class ReadInto(NamedTuple):
    """A file that was read into memory of the caller's, just as it was scanned."""

    entry: bytes
    size: int
    pieces: list[tuple[bytes, int, int]]
    pages: list[Chunk]


@dataclass
class Stream:
    """One try to read a large file in windows; its state belongs to the thread that draws and takes them."""

    work: Work
    status: os.stat_result
    hash: Hasher = field(default_factory=lambda: hasher(large=True))
    pages: list[Chunk] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.content = ContentBuilder(lambda name, plain: self.pages.append(Chunk(TREE, name, plain)))


class Window(NamedTuple):
    """Runs of a large file: (length, plain bytes or None for a hole). `end` comes with the last ones: None while more
    follow, else whether the file stayed the same."""

    stream: Stream
    runs: Sequence[tuple[int, Buffer | None]]
    end: bool | None
    problem: str | None = None


class Hashed(NamedTuple):
    """A window whose chunks are named."""

    window: Window
    runs: Sequence[tuple[int, bytes | None]]
    chunks: Sequence[Chunk]


class Reader:
    """Reads files below open source directories. Threads may share it.

    A path is opened relative to its source; that it leads to the inode that was scanned is checked after opening, so a
    directory swapped for a symlink meanwhile leads nowhere: then it is walked component by component.
    """

    def __init__(self, sources: Sequence[int], chunker: Chunker) -> None:
        self._sources = sources
        self._chunker = chunker
        self._whole_bytes = min(chunker.min_bytes, HOLE_BLOCK_BYTES - 1)  # files up to here are one chunk, no hole

    def tasks(self, works: Iterable[Work]) -> Iterator[list[Work] | Window]:
        """The works as batches for `run`; large files as windows, which are read here, in the caller's thread."""
        small, larger = _Batch(), _Batch()
        for work in works:
            if work.size > LARGE_BYTES:
                yield from self._windows(work)
                continue
            batch = small if work.size <= SMALL_BYTES else larger
            if batch.is_full_for(work):
                yield batch.take()
            batch.add(work)
        for batch in (small, larger):
            if batch.works:
                yield batch.take()

    def run(self, task: list[Work] | Window) -> list[Read] | Hashed:
        """What a thread does with a task."""
        return self._hash(task) if isinstance(task, Window) else [self.read(work) for work in task]

    def _open(self, work: Work) -> tuple[int, os.stat_result]:
        path = work.directory + work.name
        fd = -1
        if len(path) < _MAX_DIRECT_PATH:
            try:
                fd = os.open(path, _FLAGS, dir_fd=self._sources[work.source])
                status = os.fstat(fd)
                if status.st_ino == work.inode and status.st_dev == work.device:
                    return fd, status
            except OSError:
                pass  # walking gives the error that counts
            if fd >= 0:
                os.close(fd)
        fd = self._walk(work)
        try:
            return fd, os.fstat(fd)
        except OSError:
            os.close(fd)
            raise

    def _walk(self, work: Work) -> int:
        fd = os.dup(self._sources[work.source])
        for part in work.directory.split(b"/")[:-1]:
            try:
                below = os.open(part, _FLAGS | os.O_DIRECTORY, dir_fd=fd)
            finally:
                os.close(fd)
            fd = below
        try:
            return os.open(work.name, _FLAGS, dir_fd=fd)
        finally:
            os.close(fd)

    def read(self, work: Work) -> Read:
        """Read a file that is not large, whatever becomes of it meanwhile."""
        try:
            fd, before = self._open(work)
        except OSError as error:
            return Read(work, None, 0, (), error.strerror or str(error))
        try:
            for _ in range(_TRIES):
                if not stat.S_ISREG(before.st_mode):
                    return Read(work, None, 0, (), "it is no longer a regular file")
                plain = _read_whole(fd, before.st_size)
                after = os.fstat(fd)
                if len(plain) == after.st_size and _unchanged(before, after):
                    return self._file(work, fd, after, plain, None)
                before = after
            return self._file(work, fd, after, plain, CHANGED)
        except OSError as error:
            return Read(work, None, 0, (), error.strerror or str(error))
        finally:
            os.close(fd)

    def read_into(self, work: Work, space: memoryview) -> ReadInto | None:
        """Read a file into `space`; None where it does not fit with a byte to spare, is not just as it was scanned, or
        cannot be read: then `read` says what there is to say."""
        try:
            fd, before = self._open(work)
        except OSError:
            return None
        try:
            size = before.st_size
            if not stat.S_ISREG(before.st_mode) or size >= len(space):
                return None
            if size and os.preadv(fd, [space[: size + 1]], 0) != size:
                return None
            after = os.fstat(fd)
            if not _unchanged(before, after) or (after.st_ino, after.st_dev) != (work.inode, work.device):
                return None
            content, pieces, pages = self._cut(space[:size])
            return ReadInto(_entry(work, fd, after, size, content, pages), size, pieces, pages)
        except OSError:
            return None
        finally:
            os.close(fd)

    def _cut(self, plain: Buffer) -> Cut:
        if 0 < len(plain) <= self._whole_bytes:  # nine of ten files of a source tree: 5 us less for each
            name = digest(plain)
            return Cut(name, [(name, 0, len(plain))], [])
        pieces: list[tuple[bytes, int, int]] = []
        pages: list[Chunk] = []
        content = ContentBuilder(lambda name, page: pages.append(Chunk(TREE, name, page)))
        at = 0
        for length, part in Segmenter(self._chunker).feed(plain, True) if len(plain) else ():
            part_name = None if part is None else digest(part)
            content.add(length, part_name)
            if part_name is not None:
                pieces.append((part_name, at, length))
            at += length
        return Cut(content.finish(lambda: digest(plain)), pieces, pages)

    def _file(self, work: Work, fd: int, status: os.stat_result, plain: bytes, problem: str | None) -> Read:
        content, pieces, pages = self._cut(plain)
        entry = _entry(work, fd, status, len(plain), content, pages)
        view = memoryview(plain)
        chunks = [Chunk(work.frame_class, name, view[at : at + length]) for name, at, length in pieces]
        same = (status.st_ino, status.st_dev) == (work.inode, work.device)
        return Read(work, entry, len(plain), chunks + pages, problem, same)

    # -- large files

    def _windows(self, work: Work) -> Iterator[Window]:
        try:
            fd, _ = self._open(work)
        except OSError as error:
            yield Window(Stream(work, os.stat_result((0,) * 10)), (), False, error.strerror or str(error))
            return
        buffer = bytearray(WINDOW_BYTES)
        try:
            for attempt in range(_TRIES):
                status = os.fstat(fd)
                stream = Stream(work, status)
                if hasattr(os, "posix_fadvise"):
                    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_SEQUENTIAL)
                segmenter = Segmenter(self._chunker)
                at = 0
                block = _read_at(fd, at, buffer)
                while True:
                    stream.hash.update(block)
                    at += len(block)
                    following = _read_at(fd, at, buffer)
                    if not following or at > status.st_size:  # it may grow as fast as it is read
                        break
                    yield Window(stream, segmenter.feed(block, False), None)
                    block = following
                after = os.fstat(fd)
                same = at == after.st_size and _unchanged(status, after)
                stream.status = after
                if same or attempt == _TRIES - 1:
                    yield Window(stream, segmenter.feed(block, True), same, None if same else CHANGED)
                    return
        except OSError as error:
            yield Window(Stream(work, os.stat_result((0,) * 10)), (), False, error.strerror or str(error))
        finally:
            os.close(fd)

    def _hash(self, window: Window) -> Hashed:
        runs: list[tuple[int, bytes | None]] = []
        chunks: list[Chunk] = []
        for length, part in window.runs:
            name = None if part is None else digest(part)
            runs.append((length, name))
            if part is not None and name is not None:
                chunks.append(Chunk(window.stream.work.frame_class, name, part))
        return Hashed(window, runs, chunks)

    def finish(self, window: Window) -> Read:
        """The entry of a large file, once its last window was taken."""
        stream, work = window.stream, window.stream.work
        if stream.status.st_mode == 0:
            return Read(work, None, 0, (), window.problem)
        try:
            fd, _ = self._open(work)
        except OSError as error:
            return Read(work, None, 0, (), error.strerror or str(error))
        try:
            content = stream.content.finish(stream.hash.digest)
            entry = _entry(work, fd, stream.status, stream.content.length, content, stream.pages)
            same = (stream.status.st_ino, stream.status.st_dev) == (work.inode, work.device)
            return Read(work, entry, stream.content.length, stream.pages, window.problem, same)
        except OSError as error:
            return Read(work, None, 0, (), error.strerror or str(error))
        finally:
            os.close(fd)


class _Batch:
    """Works to be read by one thread or process at once."""

    def __init__(self) -> None:
        self.works: list[Work] = []
        self._bytes = 0

    def is_full_for(self, work: Work) -> bool:
        return bool(self.works) and (
            len(self.works) >= BATCH_FILES
            or self._bytes + work.size > BATCH_BYTES
            or work.frame_class != self.works[-1].frame_class
        )

    def add(self, work: Work) -> None:
        self.works.append(work)
        self._bytes += work.size

    def take(self) -> list[Work]:
        taken, self.works, self._bytes = self.works, [], 0
        return taken


def _entry(work: Work, fd: int, status: os.stat_result, size: int, content: Content, pages: list[Chunk]) -> bytes:
    """The encoded entry of an open file; attributes too large for it are added to `pages`."""
    xattrs = read_xattrs(fd)
    kept: bytes | None = None
    if (plain := outsized(xattrs)) is not None:
        kept = digest(plain)
        pages.append(Chunk(TREE, kept, plain))
    return encode_entry(entry_of(work.name, status, size, content, xattrs if kept is None else kept))


def _unchanged(before: os.stat_result, after: os.stat_result) -> bool:
    return (
        before.st_mtime_ns == after.st_mtime_ns
        and before.st_ctime_ns == after.st_ctime_ns
        and before.st_size == after.st_size
    )


def _read_whole(fd: int, size: int) -> bytes:
    """All bytes of a file from its start; one byte more than `size` is asked for, to notice that it grew."""
    plain = os.pread(fd, size + 1, 0) if size else b""
    if len(plain) == size:
        return plain
    parts = [plain]
    at = len(plain)
    while part := os.pread(fd, WINDOW_BYTES, at):
        parts.append(part)
        at += len(part)
        if at > 2 * LARGE_BYTES + size:
            break  # it grows as it is read
    return b"".join(parts)


def _read_at(fd: int, at: int, buffer: bytearray) -> bytes:
    """The window at `at`, whole unless the file ends in it, through a buffer that is used again.

    A window of zeros is the same bytes each time: a long hole then costs no memory to be made and cleared.
    """
    view = memoryview(buffer)
    held = 0
    while held < len(buffer):
        count = os.preadv(fd, [view[held:]], at + held)
        if not count:
            break
        held += count
    if held == WINDOW_BYTES and not buffer[0] and not buffer[-1] and buffer == ZERO_WINDOW:
        return ZERO_WINDOW
    return bytes(view[:held])
