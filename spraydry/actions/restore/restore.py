"""The restore itself: contents first, everything private; then, bottom-up, the attributes of directories."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from spraydry.actions.progress import Done, Report, unheard
from spraydry.actions.restore.ahead import fetched
from spraydry.actions.restore.attributes import Attributes
from spraydry.actions.restore.files import fetch, write
from spraydry.actions.restore.place import Place, open_target
from spraydry.actions.restore.steps import Step, steps
from spraydry.errors import ChunkNotFound, CorruptData, RestoreError, SprayDryError, StoreFull, StoreReadOnly
from spraydry.format.entry import BLOCK, CHARACTER, DIRECTORY, FIFO, FILE, SYMLINK, Content, Entry
from spraydry.repository.address import Found
from spraydry.repository.ahead import read_ahead
from spraydry.repository.repository import Repository
from spraydry.repository.stream import Part

T = TypeVar("T")

MAX_PROBLEMS = 1000  # told one by one; of more only the number is kept
_CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PRIVATE = 0o700
_NODE = {FIFO: stat.S_IFIFO, CHARACTER: stat.S_IFCHR, BLOCK: stat.S_IFBLK}


@dataclass(frozen=True)
class Problem:
    """Something that is not there as the version has it: its path in the version, why, and whether stored bytes are
    damaged (then nothing is there under that name, never wrong bytes)."""

    path: bytes
    reason: str
    damaged: bool


@dataclass
class Restored:
    """What a restore did. `notes` counts what could not be kept for want of privilege."""

    files: int = 0
    directories: int = 0
    others: int = 0
    bytes: int = 0
    replaced: int = 0
    notes: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)
    problem_count: int = 0
    damaged: bool = False


def restore(
    repository: Repository, found: Found, directory: str, *, overwrite: bool = False, report: Report = unheard
) -> Restored:
    """Put what was found into `directory`, made if missing: a directory's contents (and its own attributes, onto
    `directory`), or anything else under its name.

    With `overwrite` the directory may hold something: directories are gone into, anything else in the way is removed
    first, the rest stays. A file whose bytes are damaged is left out and reported, the others are restored. Raises
    UsageError for a directory that is not empty, StoreFull when no room is left, OSError where nothing can be put.
    """
    if not os.path.lexists(directory):
        os.makedirs(directory)
    top = open_target(directory, overwrite)
    try:
        place = Place(top)
        try:
            run = _Restore(repository, found, place, overwrite, report)
            run.contents()
            run.directories()
            run.result.notes = dict(run.attributes.notes)
            return run.result
        finally:
            place.close()
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFull(
                f"no room is left in {directory}: what is there is whole; free some space, then run it again"
                " with --overwrite"
            ) from None
        if error.errno == errno.EROFS:
            raise StoreReadOnly(f"{directory} cannot be written: a read-only file system") from None
        raise
    finally:
        os.close(top)


class _Restore:
    """One run; its methods are called by one thread."""

    def __init__(self, repository: Repository, found: Found, place: Place, overwrite: bool, report: Report) -> None:
        self.repository = repository
        self.base = found
        self.place = place
        self.overwrite = overwrite
        self.report = report
        self.result = Restored()
        self.attributes = Attributes(repository.read_chunk)
        self._totals = found.entry.totals
        # The first entry of each hardlink group: its path from the top, and what all its entries must agree in.
        self._groups: dict[bytes, tuple[bytes, tuple[int, int, Content]]] = {}
        self._failed: set[bytes] = set()  # directories that could not be entered
        self._own = _files_of(repository)

    # -- the walk

    def contents(self) -> None:
        """Everything but the attributes of directories, which are private (0700) until `directories` has run."""
        base = self.base
        if base.entry.kind != DIRECTORY:
            name = base.path.rpartition(b"/")[2] or base.entry.name or os.fsencode(base.version.root)
            step = self._fetch(Step("entry", base))
            self._guarded(step, name)
            return
        self._make_private()
        skipping = 0
        for step in fetched(self.repository, steps(self.repository, self.base), self._fetch):
            name = step.found.entry.name
            if step.kind == "leave":
                if step.error is not None:
                    self._problem(step.found.path, step.error)
                if skipping:
                    skipping -= 1
                elif step.found is not base:
                    os.close(self.place.leave())
            elif skipping:
                skipping += step.kind == "enter"
            elif step.kind == "enter":
                if not self._enter(step.found, name):
                    self._failed.add(step.found.path)
                    skipping = 1
            else:
                self._guarded(step, name)

    def _fetch(self, step: Step) -> Step:
        """Runs in threads."""
        entry = step.found.entry
        if step.kind != "entry" or entry.group in self._groups:
            return step
        try:
            return step._replace(parts=fetch(entry, self.repository.read_chunk))
        except SprayDryError as error:
            return step._replace(error=error)

    def _relative(self, path: bytes) -> bytes:
        return path[len(self.base.path) + 1 :] if self.base.path else path

    def _problem(self, path: bytes, error: Exception) -> None:
        damaged = isinstance(error, CorruptData | ChunkNotFound)
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        self.result.problem_count += 1
        self.result.damaged |= damaged
        if len(self.result.problems) < MAX_PROBLEMS:
            self.result.problems.append(Problem(path, reason, damaged))

    def _guarded(self, step: Step, name: bytes) -> None:
        """Put down one entry; what goes wrong with it alone is a problem, not the end."""
        found, done = step.found, self.result
        try:
            if step.error is not None:
                raise step.error
            self._put(found.entry, name, self._relative(found.path) or name, step.parts)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO):
                raise
            self._problem(found.path, error)
        except (CorruptData, ChunkNotFound, RestoreError) as error:
            self._problem(found.path, error)
        else:
            if found.entry.kind == FILE:
                done.files += 1
            else:
                done.others += 1
        self._tell()

    def _tell(self) -> None:
        done = self.result
        self.report(Done("restoring", done.files, done.bytes, self._totals.files, self._totals.size))

    # -- one entry

    def _enter(self, found: Found, name: bytes) -> bool:
        try:
            try:
                os.mkdir(name, _PRIVATE, dir_fd=self.place.fd)
            except FileExistsError:
                if not self.overwrite:
                    raise
                if not stat.S_ISDIR(os.stat(name, dir_fd=self.place.fd, follow_symlinks=False).st_mode):
                    self._clear(name)
                    os.mkdir(name, _PRIVATE, dir_fd=self.place.fd)
            self.place.enter(name)
        except (OSError, RestoreError) as error:
            if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS):
                raise
            self._problem(found.path, error)
            return False
        self._make_private()
        self.result.directories += 1
        return True

    def _make_private(self) -> None:
        try:
            os.chmod(self.place.fd, _PRIVATE)
        except PermissionError:
            pass  # another's directory that was there before: what can be done in it will be done

    def _put(self, entry: Entry, name: bytes, path: bytes, parts: list[Part] | None) -> None:
        if entry.group is None:
            self._make(entry, name, parts)
            return
        sample = (entry.kind, entry.size, entry.content)
        known = self._groups.get(entry.group)
        if known is None:
            self._make(entry, name, parts)
            self._groups[entry.group] = (path, sample)
            return
        first, expected = known
        if sample != expected:
            raise CorruptData("it differs from the entry it is a hardlink of")
        folder, _, first_name = first.rpartition(b"/")
        fd = self.place.reach(folder)
        try:
            self._create(
                name,
                lambda: os.link(first_name, name, src_dir_fd=fd, dst_dir_fd=self.place.fd, follow_symlinks=False),
            )
        finally:
            os.close(fd)
        if entry.kind == FILE:
            self.result.bytes += entry.size

    def _make(self, entry: Entry, name: bytes, parts: list[Part] | None) -> None:
        at = self.place.fd
        if entry.kind == FILE:
            fd = self._create(name, lambda: os.open(name, _CREATE, 0o600, dir_fd=at))
            before = self.result.bytes
            try:
                try:
                    write(fd, entry, read_ahead(self.repository, entry) if parts is None else parts, self._wrote)
                    self.attributes.apply(entry, fd)
                finally:
                    os.close(fd)
            except BaseException as error:
                whole = self.result.bytes - before == entry.size
                if not (whole and isinstance(error, OSError | RestoreError)):
                    os.unlink(name, dir_fd=at)  # no part of a file passes for the whole
                    self.result.bytes = before
                raise
            return
        if entry.kind == SYMLINK:
            target = entry.content
            assert isinstance(target, bytes)
            self._create(name, lambda: os.symlink(target, name, dir_fd=at))
        else:
            device = (
                os.makedev(entry.content >> 32, entry.content & 0xFFFFFFFF) if isinstance(entry.content, int) else 0
            )
            kind = _NODE.get(entry.kind, stat.S_IFSOCK)
            self._create(name, lambda: os.mknod(name, 0o600 | kind, device, dir_fd=at))
        self.attributes.apply_to_name(entry, name, at)

    def _wrote(self, count: int) -> None:
        self.result.bytes += count
        self._tell()

    def _create(self, name: bytes, make: Callable[[], T]) -> T:
        """Make something new under a name, after removing what is in the way where that is allowed."""
        try:
            return make()
        except FileExistsError:
            if not self.overwrite:
                raise
            self._clear(name)
            return make()

    def _clear(self, name: bytes) -> None:
        status = os.stat(name, dir_fd=self.place.fd, follow_symlinks=False)
        if (status.st_dev, status.st_ino) in self._own:
            raise RestoreError("the repository itself lies there; restore somewhere else")
        if stat.S_ISDIR(status.st_mode):
            try:
                os.rmdir(name, dir_fd=self.place.fd)
            except OSError:
                raise RestoreError("a directory that is not empty is in its place; remove it first") from None
        else:
            os.unlink(name, dir_fd=self.place.fd)
        self.result.replaced += 1

    # -- at the end

    def directories(self) -> None:
        """The attributes of directories, those below before those above: until then all could be written into."""
        if self.base.entry.kind != DIRECTORY:
            return
        skipping = 0
        for step in steps(self.repository, self.base):
            if step.kind == "enter":
                if skipping or step.found.path in self._failed or not self._enter_again(step.found):
                    skipping += 1
            elif step.kind == "leave" and skipping:
                skipping -= 1
            elif step.kind == "leave":
                fd = os.dup(self.place.fd) if step.found is self.base else self.place.leave()
                try:
                    self.attributes.apply(step.found.entry, fd)
                except (OSError, RestoreError, CorruptData, ChunkNotFound) as error:
                    self._problem(step.found.path, error)
                finally:
                    os.close(fd)

    def _enter_again(self, found: Found) -> bool:
        try:
            self.place.enter(found.entry.name)
        except OSError as error:
            self._problem(found.path, error)
            return False
        return True


def _files_of(repository: Repository) -> set[tuple[int, int]]:
    """The (device, inode) of the repository's own files."""
    found = set()
    for location in repository.store.locations():
        for ending in ("", "-wal", "-shm"):
            try:
                status = os.stat(location + ending)
            except OSError:
                continue
            found.add((status.st_dev, status.st_ino))
    return found
