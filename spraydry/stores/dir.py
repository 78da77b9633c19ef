"""A store in a folder: each value a file, nested in folders as the file `layout` in it says. Layout: FORMAT.md §8."""

from __future__ import annotations

import builtins
import errno
import fcntl
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import chain, groupby, islice
from operator import itemgetter

from spraydry.errors import (
    CorruptData,
    NotARepository,
    StoreError,
    StoreFull,
    StoreNotFound,
    StoreReadOnly,
    StoreUnavailable,
    UsageError,
    ValueNotFound,
)
from spraydry.parallel import ordered_map
from spraydry.stores.base import Stat, Store, Stored, Traits, check_key, check_namespace, check_range, is_key
from spraydry.stores.shared import layout, listing
from spraydry.stores.shared.files import read_part, sync_folder, translated, write_new
from spraydry.stores.shared.folder import Folder, walk
from spraydry.stores.shared.layout import Layout, Nest, read_layout

MAX_VALUE_BYTES = 1 << 30
_TEMPORARY = ".layout-"
# What file systems and desktops put into folders by themselves.
_FOREIGN = {"lost+found", ".DS_Store", ".Trashes", ".fseventsd", ".Spotlight-V100", "System Volume Information"}

_SYNC_THREADS = 8
_PUT_TOGETHER = 64
_DELETE_TOGETHER = 1000
_LOCK_TIMEOUT_S = 60
_STALE_S = 24 * 3600


class DirStore(Store):
    """Values as files of a folder. Blocks; threads and processes may share it, and it may be carried over a fork.

    Whoever gives names takes the lock of the file `lock`, until they are durable: so that a value has one place though
    the layout changes, and nobody acts on a name that a power cut takes back.
    """

    traits = Traits(lists_all=True)

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
            file = self._find(root, namespace, name)
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
            file = root.find(namespace, name)
            if file is None:
                return None
            try:
                return Stored(name, os.fstat(file).st_size)
            finally:
                os.close(file)

    def _find(self, root: Folder, namespace: str, name: str) -> int:
        file = root.find(namespace, name)
        if file is None:
            raise ValueNotFound(f"{namespace}/{name} is not in the store")
        return file

    def list(self, namespace: str, after: str = "") -> Iterator[Stored]:
        check_namespace(namespace)
        with self._root() as root:
            for name, several in groupby(walk(root, (namespace,), "", after), key=itemgetter(0)):
                (_, size), *others = several
                # Of a value at several depths, that which is read counts.
                found = self.info(namespace, name) if size is None or others else Stored(name, size)
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
        left = iter(values)
        with self._root(writing=True) as root, self._staged() as stage:

            def write(value: tuple[str, bytes]) -> tuple[str, str]:
                check_key(namespace, value[0])
                return stage(root, value[1]), value[0]

            # In threads, because a disk makes many files durable in the time of one.
            while together := [*islice(left, _SYNC_THREADS)]:
                more = chain(together, islice(left, _PUT_TOGETHER - len(together)))
                written = [write(together[0])] if len(together) == 1 else [*ordered_map(write, more, _SYNC_THREADS)]
                self._name(namespace, written)

    def _name(self, namespace: str, written: builtins.list[tuple[str, str]]) -> None:
        """Give temporary files their names, in place of what has these."""
        with self._locked() as root, root.open(("tmp",)) as tmp:
            touched: set[Nest] = set()
            for temporary, name in written:
                nest = root.layout.nests(namespace, name)[0]
                root.make(nest, touched)
                with root.open(nest) as folder:
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
                with root.open(("tmp",)) as tmp, root.open(nests[0]) as folder:
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
            for nest in there[1:]:  # durably, before the newer one goes: an older one must not come back
                root.unlink(nest, name, touched)
            root.sync(touched)
            root.make(target, touched)
            with root.open(there[0]) as source, root.open(target) as folder:
                os.rename(name, to, src_dir_fd=source, dst_dir_fd=folder)
            touched.add(target)
            root.sync(touched)
            root.left(there[0], touched)
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
                # Last, and later, where it is looked for first: a crash must not bring back an older value.
                for name in together:
                    for nest in root.layout.nests(namespace, name)[1:]:
                        root.unlink(nest, name, touched)
                root.sync(touched)
                for name in together:
                    root.unlink(root.layout.nests(namespace, name)[0], name, touched)
                root.sync(touched)

    def destroy(self) -> None:
        with self._locked() as root:
            for folder in (*_namespaces(root), "tmp"):
                with suppress(FileNotFoundError):
                    shutil.rmtree(folder, dir_fd=root.fd)
            for file in (listing.NAME, "lock", layout.NAME):  # what makes it a store goes last
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

                def write(value: bytes) -> None:
                    temporary = stage(root, value)
                    with root.open(("tmp",)) as tmp:
                        _sweep(tmp, os.stat(temporary, dir_fd=tmp).st_mtime - _STALE_S)
                        os.replace(temporary, listing.NAME, src_dir_fd=tmp, dst_dir_fd=root.fd)
                    sync_folder(root.fd)

                depths = {namespace: (*root.layout.depths_of(namespace),) for namespace in (*listing.LISTED, "frames")}
                listing.write_listing(self, write, depths)
        except StoreFull:
            pass

    def close(self) -> None:
        self._closed = True

    def location(self) -> str | None:
        return self.path

    # -- the folder

    @contextmanager
    def _root(self, *, writing: bool = False) -> Iterator[Folder]:
        """The folder, opened anew for each operation: an unmounted disk is noticed, and nothing keeps it busy."""
        if writing:
            self._writable()
        elif self._closed:
            raise StoreError(f"{self.path} was closed")
        with translated(self.path, writing=writing), _opened(self.path) as fd:
            self._layout = found = read_layout(fd, self.path, self._layout)
            yield Folder(fd, found)

    def _writable(self) -> None:
        if self._closed:
            raise StoreError(f"{self.path} was closed")
        if self.read_only:
            raise StoreReadOnly(f"{self.path} cannot be written (opened for reading, permissions, a read-only medium)")

    @contextmanager
    def _locked(self) -> Iterator[Folder]:
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
    def _staged(self) -> Iterator[Callable[[Folder, bytes], str]]:
        """A function that writes a value to a temporary file; those that got no name are removed at the end."""
        made: builtins.list[str] = []

        def stage(root: Folder, value: bytes) -> str:
            if memoryview(value).nbytes > MAX_VALUE_BYTES:
                raise StoreError(f"a value of {memoryview(value).nbytes} bytes is more than {self.path} takes")
            name = f"{os.getpid()}-{secrets.token_hex(8)}"
            root.make(("tmp",), set())
            with translated(self.path, writing=True), root.open(("tmp",)) as tmp:
                write_new(tmp, name, value, root.layout.file_mode)
            made.append(name)
            return name

        try:
            yield stage
        finally:
            with suppress(OSError, StoreError), self._root() as root, root.open(("tmp",)) as tmp:
                for name in made:
                    with suppress(FileNotFoundError):
                        os.unlink(name, dir_fd=tmp)


def open_store(rest: str, *, scheme: str, create: bool, read_only: bool) -> DirStore:
    """The store in the folder at path `rest`."""
    if not rest:
        raise UsageError(f"{scheme}: needs the path of a folder: {scheme}:PATH")
    path = os.path.realpath(rest)
    with translated(path, writing=create):
        try:
            found = set(os.listdir(path))
        except FileNotFoundError:
            if not create:
                raise StoreNotFound(f"there is no repository at {rest}") from None
            _make(path)
            found = set()
        except NotADirectoryError:
            raise NotARepository(f"{rest} is not a spraydry repository: it is not a folder") from None
        if layout.NAME not in found:
            if [name for name in found - _FOREIGN if not name.startswith(_TEMPORARY)]:
                if not os.path.lexists(os.path.join(path, layout.NAME)):  # else another process made it this moment
                    raise NotARepository(f"{rest} is not a spraydry repository, and not empty")
            elif not create:
                raise StoreNotFound(f"there is no repository at {rest}: the folder is empty; is its disk mounted?")
            else:
                _initialise(path)
    return DirStore(path, read_only)


def _make(path: str) -> None:
    """Make a folder and those above it, durably."""
    above = os.path.dirname(path)
    if not os.path.isdir(above):
        _make(above)
    with suppress(FileExistsError):  # another process was faster
        os.mkdir(path, 0o700)
    with _opened(above) as folder:
        sync_folder(folder)


@contextmanager
def _opened(path: str) -> Iterator[int]:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield folder
    finally:
        os.close(folder)


def _initialise(path: str) -> None:
    temporary = f"{_TEMPORARY}{secrets.token_hex(8)}"
    with _opened(path) as folder:
        write_new(folder, temporary, layout.FIRST.encode(), 0o600)
        try:
            _link(folder, temporary, folder, layout.NAME)  # False: another process was faster
        finally:
            with suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=folder)
        sync_folder(folder)


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


def _namespaces(root: Folder) -> builtins.list[str]:
    return sorted(name for name in os.listdir(root.fd) if is_key(name, "_"))


def _sweep(tmp: int, before: float) -> None:
    """Remove temporary files that are older: nobody writes to them any more."""
    for name in os.listdir(tmp):
        with suppress(OSError):  # it just got its name
            if os.stat(name, dir_fd=tmp, follow_symlinks=False).st_mtime < before:
                os.unlink(name, dir_fd=tmp)
