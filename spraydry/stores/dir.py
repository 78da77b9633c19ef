"""A store in a folder: each value a file, nested in folders as the file `layout` in it says. Layout: FORMAT.md §8."""

from __future__ import annotations

import builtins
import errno
import fcntl
import heapq
import os
import re
import secrets
import shutil
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice

from spraydry.errors import (
    CorruptData,
    FormatTooNew,
    NotARepository,
    StoreError,
    StoreFull,
    StoreNotFound,
    StoreReadOnly,
    StoreUnavailable,
    ValueNotFound,
)
from spraydry.parallel import ordered_map
from spraydry.stores.base import Stat, Store, Stored, check_key, check_namespace, check_range, is_key
from spraydry.stores.shared import listing
from spraydry.stores.shared.files import open_file, open_folder, read_part, translated, write_new
from spraydry.stores.shared.nesting import LEVELS, is_nest, letters, nested

MAX_VALUE_BYTES = 1 << 30
_LAYOUT = """spraydry dir 1
# How deeply values lie in folders made of the front of their names, two letters a level: at most 3 levels, none for
# a namespace that is not named here. This may be changed while the store is used: what was written before is found.
frames 1
"""
_LAYOUT_BYTES = 1 << 16
_FIRST = re.compile(r"spraydry dir ([1-9][0-9]{0,5})")
_TEMPORARY = ".layout-"
# What file systems and desktops put into folders by themselves.
_FOREIGN = {"lost+found", ".DS_Store", ".Trashes", ".fseventsd", ".Spotlight-V100", "System Volume Information"}

_SYNC_THREADS = 8
_PUT_TOGETHER = 64
_DELETE_TOGETHER = 1000
_LIST_TOGETHER = 1 << 16  # names of one folder that are held at a time
_LOCK_TIMEOUT_S = 60
_STALE_S = 24 * 3600

Nest = tuple[str, ...]  # the folders from the store's to a value's


@dataclass(frozen=True)
class Layout:
    """What `layout` says: depths of nesting; and by its permissions, those of what is made."""

    depths: dict[str, int] = field(default_factory=dict)
    file_mode: int = 0o600
    folder_mode: int = 0o700
    seen: tuple[int, ...] = ()

    def depths_of(self, namespace: str) -> list[int]:
        """Where to look for values, first of all where they are written."""
        wanted = self.depths.get(namespace.rstrip("~"), 0)
        return [wanted, *(depth for depth in range(LEVELS + 1) if depth != wanted)]

    def nests(self, namespace: str, name: str) -> list[Nest]:
        """The folders a value may lie in, first of all that in which it is written."""
        return list(dict.fromkeys((namespace, *nested(name, depth)) for depth in self.depths_of(namespace)))


@dataclass(frozen=True)
class _Root:
    """The store's folder, open for one operation, with the layout it had when that began."""

    fd: int
    layout: Layout

    @contextmanager
    def folder(self, nest: Nest) -> Iterator[int]:
        """A descriptor of a folder. Raises FileNotFoundError where there is none."""
        found = open_folder(self.fd, nest)
        try:
            yield found
        finally:
            os.close(found)

    def make(self, nest: Nest, touched: set[Nest]) -> None:
        """Make a folder and those above it; the folders in which one was made are added to `touched`."""
        for level, part in enumerate(nest):
            with self.folder(nest[:level]) as above, suppress(FileExistsError):
                os.mkdir(part, self.layout.folder_mode, dir_fd=above)
                os.chmod(part, self.layout.folder_mode, dir_fd=above)  # whatever the umask is
                touched.add(nest[:level])

    def holds(self, nest: Nest, name: str) -> bool:
        """Whether something of that name lies in a folder."""
        try:
            with self.folder(nest) as folder:
                os.stat(name, dir_fd=folder, follow_symlinks=False)
                return True
        except FileNotFoundError:
            return False

    def unlink(self, nest: Nest, name: str, touched: set[Nest]) -> bool:
        """Remove a file, if there is one, and the folders it leaves empty but for that of the namespace."""
        try:
            with self.folder(nest) as folder:
                os.unlink(name, dir_fd=folder)
        except FileNotFoundError:
            return False
        touched.add(nest)
        with suppress(OSError):  # they are not empty
            for level in range(len(nest) - 1, 0, -1):
                with self.folder(nest[:level]) as above:
                    os.rmdir(nest[level], dir_fd=above)
                touched.discard(nest[: level + 1])
                touched.add(nest[:level])
        return True

    def sync(self, touched: set[Nest]) -> None:
        """Make durable which names are in these folders."""
        for nest in touched:
            with self.folder(nest) as folder:
                os.fsync(folder)
        touched.clear()


class DirStore(Store):
    """Values as files of a folder. Blocks; threads and processes may share it, and it may be carried over a fork.

    Whoever gives names takes the lock of the file `lock`, until they are durable: so that a value has one place though
    the layout changes, and nobody acts on a name that a power cut takes back.
    """

    def __init__(self, path: str, read_only: bool) -> None:
        self.path = path
        self.read_only = read_only or not os.access(path, os.W_OK)
        self._naming = threading.Lock()
        self._layout: Layout | None = None
        self._closed = False
        with self._root():
            pass

    # -- reading

    def get(self, namespace: str, name: str, start: int = 0, length: int | None = None) -> bytes:
        check_key(namespace, name)
        check_range(start, length)
        with self._root() as root:
            file = self._open(root, namespace, name)
            try:
                size = os.fstat(file).st_size
                start = max(start + size, 0) if start < 0 else start
                length = max(size - start, 0) if length is None else min(length, max(size - start, 0))
                if length > MAX_VALUE_BYTES:
                    raise CorruptData(f"{self.path}: {namespace}/{name} has {size} bytes, more than any value")
                return read_part(file, start, length)
            finally:
                os.close(file)

    def info(self, namespace: str, name: str) -> Stored | None:
        check_key(namespace, name)
        with self._root() as root:
            try:
                file = self._open(root, namespace, name)
            except ValueNotFound:
                return None
            try:
                return Stored(name, os.fstat(file).st_size)
            finally:
                os.close(file)

    def _open(self, root: _Root, namespace: str, name: str) -> int:
        nests = root.layout.nests(namespace, name)
        for nest in (*nests, *nests):  # twice: it may have gone from one that comes later to one that came before
            try:
                with root.folder(nest) as folder:
                    file = open_file(folder, name)
            except FileNotFoundError:
                continue
            except OSError as error:
                if error.errno == errno.ELOOP:
                    continue
                raise
            if stat.S_ISREG(os.fstat(file).st_mode):
                return file
            os.close(file)
        raise ValueNotFound(f"{namespace}/{name} is not in the store")

    def list(self, namespace: str, after: str = "") -> Iterator[Stored]:
        check_namespace(namespace)
        last = ""
        with self._root() as root:
            for name, size in _values(root, (namespace,), "", after):
                if name != last:  # else it lies at two depths
                    last = name
                    found = self.info(namespace, name) if size is None else Stored(name, size)
                    if found is not None:
                        yield found

    def stat(self) -> Stat:
        count = held = 0
        with self._root() as root:
            room = os.fstatvfs(root.fd)
            for namespace in _namespaces(root):
                for stored in self.list(namespace):
                    count, held = count + 1, held + stored.size
        return Stat(count, held, room.f_bavail * room.f_frsize)

    # -- writing

    def put_many(self, namespace: str, values: Iterable[tuple[str, bytes]]) -> None:
        with self._root(writing=True) as root, self._staged() as stage:

            def write(value: tuple[str, bytes]) -> tuple[str, str]:
                check_key(namespace, value[0])
                return stage(root, value[1]), value[0]

            written = ordered_map(write, values, _SYNC_THREADS)
            while together := [*islice(written, _PUT_TOGETHER)]:
                self._name(namespace, together)

    def _name(self, namespace: str, written: builtins.list[tuple[str, str]]) -> None:
        """Give temporary files their names, in place of what has these."""
        with self._locked() as root, root.folder(("tmp",)) as tmp:
            touched: set[Nest] = set()
            for temporary, name in written:
                nest = root.layout.nests(namespace, name)[0]
                root.make(nest, touched)
                with root.folder(nest) as folder:
                    os.replace(temporary, name, src_dir_fd=tmp, dst_dir_fd=folder)
                touched.add(nest)
            root.sync(touched)
            for _, name in written:
                for nest in root.layout.nests(namespace, name)[1:]:
                    root.unlink(nest, name, touched)
            root.sync(touched)

    def create(self, namespace: str, name: str, value: bytes) -> bool:
        check_key(namespace, name)
        with self._root(writing=True) as before, self._staged() as stage:
            temporary = stage(before, value)
            with self._locked() as root:
                nests = root.layout.nests(namespace, name)
                if any(root.holds(nest, name) for nest in nests):
                    return False
                touched = {nests[0]}
                root.make(nests[0], touched)
                with root.folder(("tmp",)) as tmp, root.folder(nests[0]) as folder:
                    won = _link(tmp, temporary, folder, name)
                root.sync(touched)
                return won

    def move(self, namespace: str, name: str, to_namespace: str, to: str) -> None:
        check_key(namespace, name)
        check_key(to_namespace, to)
        with self._locked() as root:
            there = [nest for nest in root.layout.nests(namespace, name) if root.holds(nest, name)]
            if not there:
                raise ValueNotFound(f"{namespace}/{name} is not in the store")
            if (namespace, name) == (to_namespace, to):
                return
            target, *others = root.layout.nests(to_namespace, to)
            touched: set[Nest] = set()
            for nest in there[1:]:
                root.unlink(nest, name, touched)
            root.make(target, touched)
            with root.folder(there[0]) as source, root.folder(target) as folder:
                os.rename(name, to, src_dir_fd=source, dst_dir_fd=folder)
            root.sync(touched | {target})
            touched = {there[0]}
            for nest in others:
                root.unlink(nest, to, touched)
            root.sync(touched)

    def delete(self, namespace: str, names: Iterable[str]) -> None:
        self._writable()
        left = iter(names)
        while together := [*islice(left, _DELETE_TOGETHER)]:
            for name in together:
                check_key(namespace, name)
            with self._locked() as root:
                touched: set[Nest] = set()
                for name in together:
                    # Last where it is looked for first: a crash must not bring back an older value.
                    for nest in reversed(root.layout.nests(namespace, name)):
                        root.unlink(nest, name, touched)
                root.sync(touched)

    def destroy(self) -> None:
        with self._locked() as root:
            for folder in (*_namespaces(root), "tmp"):
                with suppress(FileNotFoundError):
                    shutil.rmtree(folder, dir_fd=root.fd)
            for file in (listing.NAME, "lock", "layout"):  # what makes it a store goes last
                with suppress(FileNotFoundError):
                    os.unlink(file, dir_fd=root.fd)
            with suppress(OSError):  # it holds other things, or a file system is mounted there
                os.rmdir(self.path)
        self.close()

    def flush(self) -> None:
        """Replace the listing, and remove temporary files that a crash left a day ago. On a full disk the old listing
        stays: nothing but web servers reads it."""
        if self.read_only:
            return
        try:
            with self._locked() as root, self._staged() as stage:
                depths = {namespace: (*root.layout.depths_of(namespace),) for namespace in (*listing.LISTED, "frames")}
                temporary = stage(root, listing.listing_of(self, depths))
                with root.folder(("tmp",)) as tmp:
                    _sweep(tmp, os.stat(temporary, dir_fd=tmp).st_mtime - _STALE_S)
                    os.replace(temporary, listing.NAME, src_dir_fd=tmp, dst_dir_fd=root.fd)
                os.fsync(root.fd)
        except StoreFull:
            pass

    def close(self) -> None:
        self._closed = True

    def location(self) -> str | None:
        return self.path

    # -- the folder

    @contextmanager
    def _root(self, *, writing: bool = False) -> Iterator[_Root]:
        """The folder, opened anew for each operation: an unmounted disk is noticed, and nothing keeps it busy."""
        if writing:
            self._writable()
        elif self._closed:
            raise StoreError(f"{self.path} was closed")
        with translated(self.path, writing=writing):
            fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self._layout = _read_layout(fd, self.path, self._layout)
                yield _Root(fd, self._layout)
            finally:
                os.close(fd)

    def _writable(self) -> None:
        if self._closed:
            raise StoreError(f"{self.path} was closed")
        if self.read_only:
            raise StoreReadOnly(f"{self.path} cannot be written (opened for reading, permissions, a read-only medium)")

    @contextmanager
    def _locked(self) -> Iterator[_Root]:
        """The folder, to nobody else's naming."""
        self._writable()
        with self._naming, translated(self.path, writing=True):
            with self._root(writing=True) as before:
                lock = os.open("lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=before.fd)
            try:
                _wait_for(lock, self.path)
                with self._root(writing=True) as root:
                    yield root
            finally:
                os.close(lock)

    @contextmanager
    def _staged(self) -> Iterator[Callable[[_Root, bytes], str]]:
        """A function that writes a value to a temporary file; those that got no name are removed at the end."""
        made: builtins.list[str] = []

        def stage(root: _Root, value: bytes) -> str:
            if memoryview(value).nbytes > MAX_VALUE_BYTES:
                raise StoreError(f"a value of {memoryview(value).nbytes} bytes is more than {self.path} takes")
            name = f"{os.getpid()}-{secrets.token_hex(8)}"
            root.make(("tmp",), set())
            with translated(self.path, writing=True), root.folder(("tmp",)) as tmp:
                write_new(tmp, name, value, root.layout.file_mode)
            made.append(name)
            return name

        try:
            yield stage
        finally:
            with suppress(OSError, StoreError), self._root() as root, root.folder(("tmp",)) as tmp:
                for name in made:
                    with suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=tmp)


def open_store(rest: str, *, scheme: str, create: bool, read_only: bool) -> DirStore:
    """The store in the folder at path `rest`."""
    path = os.path.realpath(rest)
    with translated(path, writing=create):
        try:
            found = set(os.listdir(path))
        except FileNotFoundError:
            if not create:
                raise StoreNotFound(f"there is no repository at {rest}") from None
            os.makedirs(path, 0o700, exist_ok=True)
            found = set()
        except NotADirectoryError:
            raise NotARepository(f"{rest} is not a spraydry repository: it is not a folder") from None
        if "layout" not in found:
            if [name for name in found - _FOREIGN if not name.startswith(_TEMPORARY)]:
                raise NotARepository(f"{rest} is not a spraydry repository, and not empty")
            if not create:
                raise StoreNotFound(f"there is no repository at {rest}: the folder is empty; is its disk mounted?")
            _initialise(path)
    return DirStore(path, read_only)


def _initialise(path: str) -> None:
    temporary = f"{_TEMPORARY}{secrets.token_hex(8)}"
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        write_new(folder, temporary, _LAYOUT.encode(), 0o600)
        try:
            _link(folder, temporary, folder, "layout")  # else another process was faster
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=folder)
        os.fsync(folder)
    finally:
        os.close(folder)


def _link(source: int, temporary: str, folder: int, name: str) -> bool:
    """Give a temporary file a name nothing has; False if something has it."""
    try:
        os.link(temporary, name, src_dir_fd=source, dst_dir_fd=folder, follow_symlinks=False)
    except FileExistsError:
        # A network file system may have done it and lost the answer.
        return os.stat(temporary, dir_fd=source).st_nlink > 1
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK):
            raise
        # There are no links here (FAT): the lock alone keeps others away.
        os.rename(temporary, name, src_dir_fd=source, dst_dir_fd=folder)
    return True


def _wait_for(lock: int, path: str) -> None:
    deadline = time.monotonic() + _LOCK_TIMEOUT_S
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() > deadline:
                raise StoreUnavailable(f"{path} is locked by another process; try again when it has finished") from None
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
                raise
            return  # no locks here: link(2) still gives a name once, while nobody changes the layout
        time.sleep(0.002)


def _read_layout(folder: int, path: str, known: Layout | None) -> Layout:
    """What the layout says now. Half of one, as an editor may leave for a moment, does not replace one that is known."""
    found = os.stat("layout", dir_fd=folder, follow_symlinks=False)
    seen = (found.st_ino, found.st_size, found.st_mtime_ns, found.st_mode)
    if known is not None and known.seen == seen:
        return known
    file = open_file(folder, "layout")
    try:
        text = read_part(file, 0, _LAYOUT_BYTES)
    finally:
        os.close(file)
    try:
        return Layout(_depths(text, path), 0o600 | found.st_mode & 0o044, 0o700 | _search(found.st_mode), seen)
    except StoreError:
        if known is None:
            raise
        return known


def _search(mode: int) -> int:
    """The permissions to read and enter a folder for those who may read a file of that mode."""
    return mode & 0o044 | (mode & 0o044) >> 2


def _depths(text: bytes, path: str) -> dict[str, int]:
    head, *lines = text.decode("utf-8", "replace").splitlines() or [""]
    first = _FIRST.fullmatch(head.strip())
    if first is None:
        raise NotARepository(f"{path} is not a spraydry repository: its file layout is something else")
    if first[1] != "1":
        raise FormatTooNew(f"{path} was written by a newer spraydry: install a current one")
    depths = {}
    for number, line in enumerate(lines, 2):
        words = line.partition("#")[0].split()
        if words:
            if len(words) != 2 or not is_key(words[0], "_") or words[1] not in [str(n) for n in range(LEVELS + 1)]:
                raise StoreError(f"{path}/layout, line {number}: not a namespace and its depth (0 to {LEVELS})")
            depths[words[0]] = int(words[1])
    return depths


def _namespaces(root: _Root) -> builtins.list[str]:
    return sorted(name for name in os.listdir(root.fd) if is_key(name, "_"))


def _values(root: _Root, nest: Nest, front: str, after: str) -> Iterator[tuple[str, int | None]]:
    """Names behind `after` and sizes of the files in a folder and its nests, in order, whatever their depths; no size
    where it went meanwhile, perhaps to another depth. All names here begin with `front`."""
    try:
        with root.folder(nest) as folder:
            nests = sorted(letters(name) for name in _folders(folder) if is_key("frames", front + letters(name)))
            nests = [pair for pair in nests if front + pair >= after[: len(front) + 2]]
            deeper = (found for pair in nests for found in _values(root, (*nest, pair + "="), front + pair, after))
            yield from heapq.merge(_files(folder, front, after), deeper, key=lambda found: found[0])
    except FileNotFoundError:
        return


def _folders(folder: int) -> Iterator[str]:
    with os.scandir(folder) as entries:
        yield from (entry.name for entry in entries if is_nest(entry.name) and entry.is_dir(follow_symlinks=False))


def _files(folder: int, front: str, after: str) -> Iterator[tuple[str, int | None]]:
    while True:
        with os.scandir(folder) as entries:
            names = heapq.nsmallest(
                _LIST_TOGETHER,
                (
                    entry.name
                    for entry in entries
                    if entry.name > after
                    and entry.name.startswith(front)
                    and is_key("frames", entry.name)
                    and entry.is_file(follow_symlinks=False)
                ),
            )
        for name in names:
            try:
                yield name, os.stat(name, dir_fd=folder, follow_symlinks=False).st_size
            except FileNotFoundError:
                yield name, None
        if len(names) < _LIST_TOGETHER:
            return
        after = names[-1]


def _sweep(tmp: int, before: float) -> None:
    """Remove temporary files that are older: nobody writes to them any more."""
    with os.scandir(tmp) as entries:
        old = [entry.name for entry in entries if entry.stat(follow_symlinks=False).st_mtime < before]
    for name in old:
        with suppress(OSError):
            os.unlink(name, dir_fd=tmp)
